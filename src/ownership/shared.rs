//! The state that the threads of a walk share.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tracing::warn;

use super::bounds::WalkBounds;
use super::give::{Mode, Owner, Privileges};
use super::links::LinkCounts;
use crate::error::{Error, escape, shorten};
use crate::heartbeat::Heartbeat;
use crate::queue::WorkQueue;

/// Directories handed from thread to thread at a time, each with its parent held open.
const WAITING: usize = 8;
/// Warnings printed per tree; the rest is only counted, so that a read-only file system does not
/// fill the log.
const WARNINGS: u64 = 100;

/// The task of a walk.
#[derive(Clone, Copy)]
pub(super) struct WalkPlan<'a> {
    pub(super) owner: Owner,
    pub(super) privileges: Privileges,
    pub(super) mode: Mode,
    pub(super) heart: &'a Heartbeat,
}

/// Which of the two walks it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WalkPass {
    /// Gives everything but files with several names, which are counted.
    Look,
    /// Gives those of which all names were counted, and nothing else.
    GiveLinks,
}

/// A directory entry to be walked. Its parent is held open.
pub(super) struct SubTree {
    pub(super) dir: Arc<OwnedFd>,
    /// Of the parent, for messages.
    pub(super) path: PathBuf,
    pub(super) name: CString,
}

/// One piece of work.
pub(super) enum WalkTask {
    /// The rest of the tree that the calling thread has left.
    Rest,
    /// A directory that another thread hands over.
    Tree(SubTree),
}

/// The state that both walks of a tree share.
pub(super) struct TreeWalk<'a> {
    pub(super) plan: WalkPlan<'a>,
    top: PathBuf,
    pub(super) links: LinkCounts,
    warnings: AtomicU64,
    unclear: AtomicBool,
}

impl<'a> TreeWalk<'a> {
    /// Of the tree at `top`.
    pub(super) fn new(plan: WalkPlan<'a>, top: PathBuf) -> Self {
        Self {
            plan,
            top,
            links: LinkCounts::new(),
            warnings: AtomicU64::new(0),
            unclear: AtomicBool::new(false),
        }
    }

    /// The path of the top of the tree.
    pub(super) fn top(&self) -> PathBuf {
        self.top.clone()
    }

    /// The same as it is shown in messages.
    pub(super) fn shown(&self) -> String {
        escape(shorten(&self.top).as_ref()).to_string()
    }

    /// Warns, up to the limit.
    pub(super) fn warn(&self, error: impl FnOnce() -> Error) {
        if self.warnings.fetch_add(1, Ordering::Relaxed) < WARNINGS {
            warn!("{}", error());
        }
    }

    /// Warnings beyond the limit.
    pub(super) fn unsaid(&self) -> u64 {
        self.warnings.load(Ordering::Relaxed).saturating_sub(WARNINGS)
    }

    /// Warns once, for the first file whose capabilities cannot be read, of what happens to all such files.
    pub(super) fn warn_unclear(&self, error: impl FnOnce() -> Error) {
        if !self.unclear.swap(true, Ordering::Relaxed) {
            let all = format!("such files below {} lose any that they have", self.shown());
            warn!("{}", error().hint(all));
        }
    }
}

/// The state that the threads of one walk share.
pub(super) struct SharedWalk<'a> {
    pub(super) walk: &'a TreeWalk<'a>,
    pub(super) pass: WalkPass,
    pub(super) bounds: WalkBounds,
    pub(super) queue: WorkQueue<WalkTask>,
    /// There are threads that take from the queue.
    threads: AtomicBool,
    /// Directories that were not looked at, at least.
    left: AtomicU64,
    stopped: AtomicBool,
}

impl<'a> SharedWalk<'a> {
    pub(super) fn new(walk: &'a TreeWalk<'a>, pass: WalkPass) -> Self {
        Self {
            walk,
            pass,
            bounds: WalkBounds::start(),
            queue: WorkQueue::bounded(WAITING),
            threads: AtomicBool::new(false),
            left: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    /// Notes that there are threads that take from the queue.
    pub(super) fn set_threads(&self) {
        self.threads.store(true, Ordering::Relaxed);
    }

    /// Whether another thread would take a directory, or soon will.
    pub(super) fn wants_more(&self) -> bool {
        self.threads.load(Ordering::Relaxed) && self.queue.has_room()
    }

    /// Ends the walk.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether the walk is not to go on.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Notes directories that are not looked at.
    pub(super) fn leave_out(&self, count: u64) {
        self.left.fetch_add(count, Ordering::Relaxed);
    }

    /// How many these are, at least.
    pub(super) fn left_out(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }
}
