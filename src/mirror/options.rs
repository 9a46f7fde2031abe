//! Options of a run, and its observer.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::path::Path;
use std::time::Duration;

use super::itemize::Change;
use super::keep::Keep;
use crate::fs::Dir;

/// The options of a run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Compare content where size and time agree.
    pub checksum: bool,
    /// Say what would change and touch nothing.
    pub dry_run: bool,
    /// Remove what the source does not have.
    pub delete: bool,
    /// Most threads; chosen by load when none.
    pub jobs: Option<usize>,
    /// Leave out what can make somebody more than they are: device nodes, and set-id bits and file
    /// capabilities of regular files.
    pub no_privileged: bool,
    /// Names in the top directories that are neither copied nor removed.
    pub except: &'static [&'static CStr],
    /// The entries that stay as they are; `None` to make everything as the source has it. With it, `delete` removes nothing.
    pub keep: Option<Keep>,
}

/// A look at a run in progress.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Objects taken up that are no directories.
    pub entries: u64,
    /// Bytes of file data written.
    pub bytes: u64,
    /// Objects listed but not dealt with.
    pub waiting: u64,
    /// Directories found but not listed.
    pub directories_waiting: u64,
    /// Grows with whatever is done: a run that stands still is one that waits for a file system.
    pub life: u64,
    /// Time since the start.
    pub elapsed: Duration,
}

/// Who watches a run. Called from many threads.
pub trait Observer: Sync {
    /// Whether [`Observer::change`] is to be called.
    fn wants_changes(&self) -> bool {
        false
    }
    /// One change; `path` is below the top of the trees, empty for the top.
    fn change(&self, _change: &Change, _path: &Path) {}
    /// Called every few milliseconds by the thread that waits, and by one that works if that one is late.
    fn progress(&self, _progress: &Progress) {}
    /// Whether the run shall end now.
    fn interrupted(&self) -> bool {
        false
    }
}

/// The arguments that all passes of one mirroring have in common.
#[derive(Clone, Copy)]
pub(super) struct MirrorRequest<'a> {
    pub src: &'a Dir,
    /// None in a dry run, for a tree that does not exist yet.
    pub dst: Option<&'a Dir>,
    pub options: &'a Options,
    pub observer: &'a dyn Observer,
}

impl MirrorRequest<'_> {
    /// Path of the destination, for messages.
    pub fn dst_path(&self) -> &Path {
        self.dst.map_or(Path::new(""), Dir::path)
    }
}
