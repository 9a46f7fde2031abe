//! Whether a regular file carries file capabilities (capabilities(7)), asked for many files of a
//! tree: the cheapest way for each situation.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::io::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;

use crate::fs::at;
use crate::fs::xattr::own_working_directory;

const NAME: &CStr = c"security.capability";

/// How entries of a directory are named to the xattr calls, which know no directory descriptor
/// before Linux 6.13.
#[derive(Debug)]
pub(super) enum Lookup {
    /// The thread has a working directory of its own, which is the directory being walked.
    WorkingDirectory,
    /// `/proc/self/fd/N/NAME`, built in this buffer; N/ ends at the mark. Twice as expensive.
    Proc { path: Vec<u8>, mark: usize },
}

impl Lookup {
    /// For any thread.
    pub(super) fn shared() -> Self {
        Self::Proc { path: Vec::new(), mark: 0 }
    }

    /// For a thread that does nothing else: it stops sharing its working directory with the rest of
    /// the process, where the kernel (or a container's system call filter) lets it.
    pub(super) fn of_this_thread() -> Self {
        if own_working_directory() { Self::WorkingDirectory } else { Self::shared() }
    }

    /// Turns to the entries of `dir`.
    pub(super) fn enter(&mut self, dir: &OwnedFd) {
        if matches!(self, Self::WorkingDirectory) {
            match rustix::process::fchdir(dir) {
                Ok(()) => return,
                Err(_) => *self = Self::shared(),
            }
        }
        if let Self::Proc { path, mark } = self {
            path.clear();
            // Writing to a vector cannot fail.
            let _ = write!(path, "/proc/self/fd/{}/", dir.as_raw_fd());
            *mark = path.len();
        }
    }

    /// Whether regular file `name` of the entered directory `dir` has file capabilities. A file system
    /// without the attribute has none, nor has a file that just went.
    ///
    /// # Errors
    ///
    /// When it cannot be told.
    pub(super) fn has_capabilities(&mut self, dir: &OwnedFd, name: &CStr) -> Result<bool, Errno> {
        let found = match self {
            Self::WorkingDirectory => size(name),
            Self::Proc { path, mark } => {
                path.truncate(*mark);
                path.extend_from_slice(name.to_bytes_with_nul());
                match CStr::from_bytes_with_nul(path) {
                    Ok(path) => size(path),
                    Err(_) => Err(Errno::INVAL),
                }
            }
        };
        let found = match found {
            // No /proc here. The file is opened then, which works but costs more.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                at::open_read(dir, name).and_then(|file| {
                    at::again(|| rustix::fs::fgetxattr(&file, NAME, &mut [0_u8; 64][..]))
                })
            }
            other => other,
        };
        match found {
            Ok(_) | Err(Errno::RANGE) => Ok(true),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
            // Gone, or something else by now.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

fn size(path: &CStr) -> Result<usize, Errno> {
    at::again(|| rustix::fs::lgetxattr(path, NAME, &mut [0_u8; 0][..]))
}
