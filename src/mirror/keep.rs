//! Entries that stay as they are when a tree is restored over which a runtime has run already.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::Mutex;

use crate::fs::{Kind, Stat};
use crate::lock::lock;

/// Bytes of the paths that are kept for the report.
const LISTED_BYTES: usize = 512 * 1024;

/// The rule for somebody's newer work at the destination. Where that differs from the source it is left,
/// whatever the source has. A directory never gives way to something else, nor something else to a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// An entry that was changed at or after this time (ctime of statx(2): seconds, nanoseconds).
    ChangedSince((i64, u32)),
    /// An entry with a later modification time than the source's, for want of such a time.
    NewerThanSource,
    /// An entry with this modification time or a later one, where the time of last change shows too little.
    ModifiedSince((i64, u32)),
}

impl Keep {
    /// Whether `there`, which stands where the source has `source`, stays if the two differ.
    pub(super) fn holds(self, source: &Stat, there: &Stat) -> bool {
        let directory = (source.kind == Kind::Dir) != (there.kind == Kind::Dir);
        directory
            || match self {
                Self::ChangedSince(time) => there.ctime >= time,
                Self::NewerThanSource => there.mtime > source.mtime,
                Self::ModifiedSince(time) => there.mtime >= time,
            }
    }
}

/// The paths that were kept, as many as there is room for.
#[derive(Debug, Default)]
pub(super) struct KeptPaths(Mutex<(usize, Vec<PathBuf>)>);

impl KeptPaths {
    pub fn list(&self, path: PathBuf) {
        let mut kept = lock(&self.0);
        let bytes = kept.0 + path.as_os_str().len();
        if bytes <= LISTED_BYTES {
            kept.0 = bytes;
            kept.1.push(path);
        }
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        lock(&self.0).1.clone()
    }
}

/// Adds the paths of another pass, as many as there is room for.
pub(super) fn join_paths(paths: &mut Vec<PathBuf>, more: &[PathBuf]) {
    let mut bytes: usize = paths.iter().map(|path| path.as_os_str().len()).sum();
    for path in more {
        bytes += path.as_os_str().len();
        if bytes > LISTED_BYTES {
            return;
        }
        paths.push(path.clone());
    }
}
