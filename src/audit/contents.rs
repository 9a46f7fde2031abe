//! The names that `ls` lists for one path, a screenful of them at most.
#![forbid(unsafe_code)]

use std::collections::BinaryHeap;
use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::UnclearFact;
use crate::error::escape;
use crate::fs::{Dir, at};

/// Most names that are kept. A user who can write to the directory decides how many there are.
pub const MOST_NAMES: usize = 200;
/// Most bytes of the kept names in their escaped form, each with the space after it.
pub const MOST_BYTES: usize = 4096;

/// Bytes per getdents64(2).
const BUFFER: usize = 32 * 1024;

/// The first names of a directory in bytewise order, and how many follow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirContents {
    /// At most [`MOST_NAMES`] names and [`MOST_BYTES`] bytes.
    pub names: Vec<CString>,
    /// Number of names that follow these.
    pub more: u64,
    /// Why there may be names that were not seen.
    pub failure: Option<Errno>,
}

impl DirContents {
    /// Names of entry `name` of `root` as `ls` lists them: the entries of a directory that do not
    /// start with a dot, or the path itself for anything else. A link to a directory counts as that
    /// directory (resolved with `root` as "/"); what is missing lists nothing.
    pub(super) fn of(root: &Dir, name: &CStr) -> Self {
        match open_through_links(root, name) {
            Ok(fd) => Self::of_directory(&fd),
            // The path is no directory, is a link that leads to none, or is missing.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => match at::stat(root, name) {
                Ok(_) => {
                    let path = CString::new([b"/", name.to_bytes()].concat());
                    Self { names: path.into_iter().collect(), ..Self::default() }
                }
                Err(Errno::NOENT | Errno::NOTDIR) => Self::default(),
                Err(errno) => Self { failure: Some(errno), ..Self::default() },
            },
            Err(errno) => Self { failure: Some(errno), ..Self::default() },
        }
    }

    fn of_directory(fd: &OwnedFd) -> Self {
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        let mut smallest = Smallest::default();
        let listed = at::list(fd, &mut buffer, |name, _, _| {
            if !name.to_bytes().starts_with(b".") {
                smallest.add(name);
            }
        });
        Self { failure: listed.err(), ..smallest.into_contents() }
    }

    /// The names, or an object with `error` and the `names` that were seen.
    pub(super) fn to_json(&self) -> Value {
        let names: Vec<_> = self.names.iter().map(|name| name.to_string_lossy()).collect();
        match self.failure {
            None => json!(names),
            Some(errno) => json!({ "error": UnclearFact::from(errno).reason(), "names": names }),
        }
    }
}

/// `a b ... and 3 more`, with a space after each name as in the reference's line. No listed name
/// starts with a dot, so none can pass for the last words.
impl fmt::Display for DirContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.names {
            write!(f, "{} ", escape(OsStr::from_bytes(name.to_bytes())))?;
        }
        if self.more > 0 {
            write!(f, "... and {} more", self.more)?;
        }
        match self.failure {
            // Lists nothing in the reference; the line before this one shows owner and mode.
            None | Some(Errno::ACCESS) => Ok(()),
            Some(errno) => {
                write!(f, "{}{}", if self.more > 0 { " " } else { "" }, UnclearFact::from(errno))
            }
        }
    }
}

/// The [`MOST_NAMES`] smallest names of those seen so far; the largest of them is on top.
#[derive(Default)]
struct Smallest {
    names: BinaryHeap<CString>,
    more: u64,
}

impl Smallest {
    fn add(&mut self, name: &CStr) {
        if self.names.len() < MOST_NAMES {
            return self.names.push(name.to_owned());
        }
        self.more += 1;
        if let Some(mut largest) = self.names.peek_mut()
            && name < largest.as_c_str()
        {
            *largest = name.to_owned();
        }
    }

    fn into_contents(self) -> DirContents {
        let mut names = self.names.into_sorted_vec();
        let mut bytes = 0;
        let fits = |name: &CString| {
            bytes += escape(OsStr::from_bytes(name.to_bytes())).to_string().len() + 1;
            bytes <= MOST_BYTES
        };
        let shown = names.iter().map(fits).take_while(|fits| *fits).count();
        let more = self.more + (names.len() - shown) as u64;
        names.truncate(shown);
        DirContents { names, more, failure: None }
    }
}

fn open_through_links(root: &Dir, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match at::again(|| rustix::fs::openat2(root, name, flags, Mode::empty(), resolve)) {
        // Before Linux 5.6, and under seccomp profiles older than that.
        Err(Errno::NOSYS | Errno::PERM) => at::open_dir(root, name),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(names: impl DoubleEndedIterator<Item = String>) -> DirContents {
        let mut smallest = Smallest::default();
        for name in names.rev() {
            smallest.add(&CString::new(name).unwrap_or_default());
        }
        smallest.into_contents()
    }

    #[test]
    fn the_smallest_names_are_kept_in_bytewise_order() {
        let all = contents((0..MOST_NAMES).map(|number| format!("{number:03}")));
        assert_eq!((all.names.len(), all.more), (MOST_NAMES, 0));
        let one_more = contents((0..=MOST_NAMES).map(|number| format!("{number:03}")));
        assert_eq!((&one_more.names, one_more.more), (&all.names, 1));
        assert!(one_more.to_string().starts_with("000 001 002 "), "{one_more}");
        assert!(one_more.to_string().ends_with(" 199 ... and 1 more"), "{one_more}");
    }

    #[test]
    fn the_escaped_form_decides_what_fits() {
        // 3 + 4 * 252 + 1 = 1012 bytes each.
        let wide = contents((0..6).map(|number| format!("{number:03}{}", "\u{1}".repeat(252))));
        assert_eq!((wide.names.len(), wide.more), (4, 2));
        let text = wide.to_string();
        assert!(text.ends_with("... and 2 more") && text.len() <= MOST_BYTES + 32, "{text}");
    }
}
