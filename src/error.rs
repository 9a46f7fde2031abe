//! The one error type of the library, and how text that an untrusted party chose is shown.
//!
//! Every message is one line: what was attempted, on what, what the kernel said, what to do.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Result of every library call that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed operation on a named object.
#[derive(Debug, Clone)]
pub struct Error {
    operation: Cow<'static, str>,
    path: Option<PathBuf>,
    reason: Reason,
    hint: Option<Cow<'static, str>>,
}

#[derive(Debug, Clone)]
enum Reason {
    Errno(Errno),
    Text(Cow<'static, str>),
}

impl Error {
    /// A system call failed on `path`; `operation` is a verb ("open", "change owner of").
    pub fn os(
        operation: impl Into<Cow<'static, str>>,
        path: impl Into<PathBuf>,
        errno: Errno,
    ) -> Self {
        Self {
            operation: operation.into(),
            path: Some(path.into()),
            reason: Reason::Errno(errno),
            hint: None,
        }
    }

    /// A failure the kernel has no number for, on `path`.
    pub fn on(
        operation: impl Into<Cow<'static, str>>,
        path: impl Into<PathBuf>,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            operation: operation.into(),
            path: Some(path.into()),
            reason: Reason::Text(reason.into()),
            hint: None,
        }
    }

    /// A failure that is about no file at all.
    pub fn plain(
        operation: impl Into<Cow<'static, str>>,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            operation: operation.into(),
            path: None,
            reason: Reason::Text(reason.into()),
            hint: None,
        }
    }

    /// A system call failed that is about no file at all.
    pub fn failed(operation: impl Into<Cow<'static, str>>, errno: Errno) -> Self {
        Self { operation: operation.into(), path: None, reason: Reason::Errno(errno), hint: None }
    }

    /// Adds what the reader can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The kernel's error number, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self.reason {
            Reason::Errno(errno) => Some(errno),
            Reason::Text(_) => None,
        }
    }

    /// The kernel's words, or ours, without operation and object; on one line.
    pub fn reason(&self) -> String {
        match &self.reason {
            Reason::Errno(errno) => describe(*errno),
            Reason::Text(text) => escape(text.as_ref()).to_string(),
        }
    }

    /// The object the operation was about.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.operation)?;
        if let Some(path) = &self.path {
            write!(f, " {}", escape(shorten(path).as_ref()))?;
        }
        write!(f, ": {}", self.reason())?;
        match &self.hint {
            Some(hint) => write!(f, "; {}", escape(hint.as_ref())),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// The kernel's words for `errno`, without the "(os error N)" that the standard library adds.
pub fn describe(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// The number in an error of the standard library, whose own words for some numbers say nothing
/// ("uncategorized error"). EIO where it has none: no system call failed, but less was done than asked.
pub fn os_errno(error: &std::io::Error) -> Errno {
    match error.kind() {
        std::io::ErrorKind::OutOfMemory => Errno::NOMEM,
        _ => Errno::from_io_error(error).unwrap_or(Errno::IO),
    }
}

/// The number that nix has an enumeration of its own for.
pub fn errno_of(errno: nix::Error) -> Errno {
    Errno::from_raw_os_error(errno as i32)
}

/// Shows bytes of unknown origin on one line: control and format characters ([`is_interpreted`]),
/// backslashes and bytes that are not UTF-8 become `\n`, `\\`, `\x1b`, `\u{202e}` and the like;
/// everything else stands as it is.
pub fn escape<T: AsRef<OsStr> + ?Sized>(text: &T) -> Escaped<'_> {
    Escaped(text.as_ref().as_bytes())
}

/// Whether a terminal or an editor may act on `c` instead of showing it: general categories Cc
/// (control), Cf (format), Zl and Zp (line and paragraph separator) of Unicode 17, and what the
/// standard reserves for more of that kind (Default_Ignorable_Code_Point, unassigned; the whole tag
/// plane).
pub fn is_interpreted(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Longest path that is shown whole, in bytes.
pub const LONGEST_SHOWN: usize = 1280;
/// Bytes shown of each end of a longer one.
pub const SHOWN_END: usize = 256;

/// A path for a message: of one that is too long for a line, both ends and how much is left out. The
/// depth of a tree is its owner's to choose, and so would be the size of a log.
pub fn shorten(path: &Path) -> Cow<'_, Path> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() <= LONGEST_SHOWN {
        return path.into();
    }
    let (start, end) = (&bytes[..SHOWN_END], &bytes[bytes.len() - SHOWN_END..]);
    let shown = [start, left_out(bytes.len() - 2 * SHOWN_END).as_bytes(), end].concat();
    PathBuf::from(OsString::from_vec(shown)).into()
}

/// The replacement for `count` bytes of a path.
pub fn left_out(count: usize) -> String {
    format!("[... {count} bytes ...]")
}

/// See [`escape`].
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\n' => f.write_str("\\n")?,
                    '\t' => f.write_str("\\t")?,
                    '\r' => f.write_str("\\r")?,
                    '\\' => f.write_str("\\\\")?,
                    c if c.is_control() => {
                        let mut bytes = [0; 4];
                        for byte in c.encode_utf8(&mut bytes).bytes() {
                            write!(f, "\\x{byte:02x}")?;
                        }
                    }
                    c if is_interpreted(c) => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                    c => f.write_char(c)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_keeps_one_line_and_ordinary_text() {
        let name = OsStr::from_bytes(b"a\nb\\n\x1b[31m\xff caf\xc3\xa9");
        assert_eq!(escape(name).to_string(), "a\\nb\\\\n\\x1b[31m\\xff café");
        assert_eq!(escape("\u{9b}1m\u{202e}").to_string(), "\\xc2\\x9b1m\\u{202e}");
    }

    #[test]
    fn escape_leaves_nothing_that_a_terminal_interprets() {
        let marks = "\u{7f}\u{85}\u{ad}\u{61c}\u{180e}\u{200b}\u{200d}\u{200e}\u{200f}\u{2028}\
            \u{2029}\u{202a}\u{2060}\u{2066}\u{2069}\u{feff}\u{fff9}\u{e0001}\u{e0041}\u{e01ef}";
        for mark in marks.chars() {
            let shown = escape(mark.encode_utf8(&mut [0; 4])).to_string();
            assert!(shown.is_ascii() && shown.starts_with('\\'), "{mark:?}: {shown}");
        }
        let ordinary = " ~\u{a0}\u{ae}éß中日本語עبशี\u{e0b0}😀\u{fe0f}\u{fffc}\u{fffd}";
        assert_eq!(escape(ordinary).to_string(), ordinary);
    }

    #[test]
    fn a_long_path_keeps_both_ends() {
        let path = format!("/start/{}/end", "x".repeat(2000));
        let shown = shorten(Path::new(&path)).into_owned();
        let text = shown.to_str().unwrap_or_default();
        assert!(text.starts_with("/start/x") && text.ends_with("x/end"), "{text}");
        assert!(text.contains("x[... 1499 bytes ...]x"), "{text}");
        assert_eq!(text.len(), 2 * SHOWN_END + "[... 1499 bytes ...]".len());
        let short = Path::new("/start/end");
        assert_eq!(shorten(short), short);
    }

    #[test]
    fn error_says_what_on_what_why_and_what_to_do() {
        let error = Error::os("open", "/configs/a\nb", Errno::ACCESS).hint("run it as root");
        assert_eq!(error.to_string(), "open /configs/a\\nb: Permission denied; run it as root");
    }
}
