//! Bytes that nobody may see: they cannot be printed, and are wiped when they are no longer needed.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::fmt;

use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::fs::Dir;

/// Longest token or bearer, in bytes.
pub const LONGEST: usize = 4096;

/// Bytes that are wiped when they are dropped. Reserve what they need: a buffer that grows leaves a copy.
pub type WipedBytes = Zeroizing<Vec<u8>>;

/// A token or a bearer: visible ASCII characters, at least one and at most [`LONGEST`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(WipedBytes);

impl Secret {
    /// `None` if the bytes are no such text. A line feed in a token would be a line of the credential
    /// protocol or a header of a request.
    pub fn new(bytes: WipedBytes) -> Option<Self> {
        let length_fits = (1..=LONGEST).contains(&bytes.len());
        (length_fits && bytes.iter().all(u8::is_ascii_graphic)).then_some(Self(bytes))
    }

    /// The bytes, for the one place that has to have them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The content of the regular file `name` of `dir` without its white space; `None` if there is no such file.
///
/// # Errors
///
/// When the file cannot be read, is no regular file, or has more than twice [`LONGEST`] bytes.
pub fn read(dir: &Dir, name: &CStr) -> Result<Option<WipedBytes>> {
    let file = match dir.open_file(name) {
        Ok(file) => file,
        Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Zeroizing::new(vec![0; 2 * LONGEST]);
    let mut length = 0;
    loop {
        match rustix::io::read(&file, &mut bytes[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(dir.entry_error("read", name, errno)),
        }
        if length == bytes.len() {
            return Err(Error::on("read", dir.join(name), "it is too long for a token"));
        }
    }
    bytes.truncate(length);
    bytes.retain(|byte| !byte.is_ascii_whitespace());
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &[u8]) -> Option<Secret> {
        Secret::new(Zeroizing::new(text.to_vec()))
    }

    #[test]
    fn only_visible_ascii_is_a_secret_and_none_is_printed() {
        let short = secret(b"ghs_0123456789abcdefABCDEF").unwrap();
        assert_eq!(format!("{short:?}"), "Secret(..)");
        let long = format!("ghs_12345_{}.{}-_", "x".repeat(250), "Y".repeat(250));
        assert_eq!(secret(long.as_bytes()).unwrap().expose(), long.as_bytes());
        assert!(secret(&[b'x'; LONGEST]).is_some());
        for odd in [&b""[..], b"a b", b"a\nb", b"a\rb", b"a\0b", b"\xc3\xa9", &[b'x'; LONGEST + 1]]
        {
            assert_eq!(secret(odd), None);
        }
    }
}
