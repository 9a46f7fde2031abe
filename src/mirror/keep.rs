//! What stays as it is when a tree is restored over which a runtime has run already.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use super::Engine;
use super::report::{Side, tell};
use super::tree::Node;
use crate::error::{escape, shorten};
use crate::fs::{Kind, Stat};

/// Bytes of the paths that are kept for the report.
const LISTED_BYTES: usize = 512 * 1024;

/// What at the destination counts as somebody's newer work. Where it differs from the source it is left,
/// whatever the source has. A directory never gives way to something else, nor something else to a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// What was changed at or after this time (ctime of statx(2): seconds, nanoseconds).
    ChangedSince((i64, u32)),
    /// What has a later modification time than the source's, for want of such a time.
    NewerThanSource,
    /// What has this modification time or a later one, where the time of last change tells too little.
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
pub(super) struct Kept(Mutex<(usize, Vec<PathBuf>)>);

impl Kept {
    fn list(&self, path: PathBuf) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = kept.0 + path.as_os_str().len();
        if bytes <= LISTED_BYTES {
            kept.0 = bytes;
            kept.1.push(path);
        }
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }
}

/// Adds the paths of another pass, as many as there is room for.
pub(super) fn join(paths: &mut Vec<PathBuf>, more: &[PathBuf]) {
    let mut bytes: usize = paths.iter().map(|path| path.as_os_str().len()).sum();
    for path in more {
        bytes += path.as_os_str().len();
        if bytes > LISTED_BYTES {
            return;
        }
        paths.push(path.clone());
    }
}

impl Engine<'_> {
    /// Whether `there` stays if it differs from `source`.
    pub(super) fn protects(&self, source: &Stat, there: &Stat) -> bool {
        self.options.keep.is_some_and(|keep| keep.holds(source, there))
    }

    /// Notes that `name` in `node` stays as it is although the source has something else.
    pub(super) fn keep(&self, node: &Node, name: &CStr) {
        let number = self.counters.kept.fetch_add(1, Ordering::Relaxed);
        let (path, shown) = self.paths(node, name, Side::Destination);
        tell(number, "entries that stay", || {
            let shown = shorten(&shown);
            tracing::info!("{} stays: it is newer than the snapshot", escape(shown.as_ref()));
        });
        self.counters.kept_paths.list(shorten(&path).into_owned());
    }
}
