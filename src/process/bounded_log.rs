//! A log file that never takes more than twice its limit: when it is full it becomes `NAME.1`, over
//! the one before, and a new one begins.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::fs::{Dir, Kind};

/// An open log file with a limit.
#[derive(Debug)]
pub struct BoundedLog {
    dir: Dir,
    name: CString,
    older: CString,
    limit: u64,
    length: u64,
    file: OwnedFd,
}

impl BoundedLog {
    /// Opens `name` in `dir`, empty and readable by its owner only; `limit` is in bytes. What is no
    /// regular file is refused, and a link is not followed.
    pub fn create(dir: Dir, name: &CStr, limit: u64) -> Result<Self> {
        let file = open(&dir, name)?;
        let mut older = name.to_bytes().to_vec();
        older.extend_from_slice(b".1");
        // A CStr has no inner NUL, so the default is never taken.
        let older = CString::new(older).unwrap_or_default();
        Ok(Self { dir, name: name.to_owned(), older, limit, length: 0, file })
    }

    /// The descriptors it cannot do without.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.dir.as_fd(), self.file.as_fd()]
    }

    /// Appends `bytes`. What cannot be written, on a full disk for instance, is lost.
    pub fn append(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(usize::try_from(self.limit).unwrap_or(usize::MAX).max(1)) {
            if self.length + chunk.len() as u64 > self.limit {
                self.rotate();
            }
            let mut rest = chunk;
            while !rest.is_empty() {
                match rustix::io::write(&self.file, rest) {
                    Ok(0) => break,
                    Ok(written) => {
                        self.length += written as u64;
                        rest = &rest[written..];
                    }
                    Err(Errno::INTR) => {}
                    Err(_) => break,
                }
            }
        }
    }

    fn rotate(&mut self) {
        let fresh =
            self.dir.rename(&self.name, &self.older).and_then(|()| open(&self.dir, &self.name));
        match fresh {
            Ok(file) => self.file = file,
            // Somebody took the name or the directory away: start over in the file that is open.
            Err(_) => {
                let _ = rustix::fs::ftruncate(&self.file, 0);
            }
        }
        self.length = 0;
    }
}

fn open(dir: &Dir, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY
        | OFlags::CREATE
        | OFlags::APPEND
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    let fail =
        |operation: &'static str| move |errno| -> Error { dir.entry_error(operation, name, errno) };
    let file = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))
        .map_err(fail("open for writing"))?;
    let stat = rustix::fs::fstat(&file).map_err(fail("stat"))?;
    let kind = Kind::from_mode(stat.st_mode);
    if kind != Kind::File {
        return Err(Error::on("write to", dir.join(name), format!("it is {}", kind.noun()))
            .hint("a regular file is needed there"));
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o600)).map_err(fail("change mode of"))?;
    rustix::fs::ftruncate(&file, 0).map_err(fail("truncate"))?;
    Ok(file)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests lay out trees by path")]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const NAME: &CStr = c"log";

    fn scratch() -> (tempfile::TempDir, Dir) {
        let directory = tempfile::tempdir().unwrap();
        let dir = Dir::open_operator_path(directory.path()).unwrap();
        (directory, dir)
    }

    #[test]
    fn the_newest_output_is_kept_within_twice_the_limit() {
        let (directory, dir) = scratch();
        let mut log = BoundedLog::create(dir, NAME, 100).unwrap();
        for number in 0..1000 {
            log.append(format!("line {number}\n").as_bytes());
        }
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        let (older, newer) = (read("log.1"), read("log"));
        assert!(older.len() <= 100 && newer.len() <= 100, "{older}{newer}");
        assert!((older + &newer).ends_with("line 997\nline 998\nline 999\n"));
        log.append(&[b'x'; 1000]);
        assert_eq!((read("log.1").len(), read("log").len()), (100, 100));
    }

    #[test]
    fn it_starts_empty_and_private() {
        let (directory, dir) = scratch();
        let path = directory.path().join("log");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        BoundedLog::create(dir, NAME, 100).unwrap().append(b"new");
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_blocking() {
        let (directory, dir) = scratch();
        let canary = directory.path().join("canary");
        std::fs::write(&canary, "canary").unwrap();
        std::os::unix::fs::symlink("canary", directory.path().join("log")).unwrap();
        let message = BoundedLog::create(dir.try_clone().unwrap(), NAME, 9).unwrap_err();
        assert_eq!(message.errno(), Some(Errno::LOOP), "{message}");
        assert_eq!(std::fs::read(&canary).unwrap(), b"canary");
        dir.remove_file(NAME).unwrap();
        dir.make_node(NAME, Kind::Fifo, 0o600, (0, 0)).unwrap();
        let message = BoundedLog::create(dir, NAME, 9).unwrap_err();
        assert_eq!(message.errno(), Some(Errno::NXIO), "{message}");
    }
}
