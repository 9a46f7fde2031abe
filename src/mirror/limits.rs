//! Descriptors: how many there may be, and who gets them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::ahead::FILES;
use super::pool::MOST_THREADS;

/// Descriptors of which all threads have enough.
const MOST_DESCRIPTORS: u64 = 4096;
/// Descriptors left to the rest of the process.
const DESCRIPTORS_ASIDE: u64 = 16;
/// Descriptors one thread may have open at once: two pairs of directories, a pair of files, one for
/// metadata, and some for the way to a directory found again.
const DESCRIPTORS_PER_THREAD: usize = 10;

/// How many of each the limit of descriptors allows.
pub(super) struct Limits {
    pub threads: usize,
    /// Held open, two descriptors each.
    pub directories: usize,
    /// Files that one thread may open to read ahead.
    pub ahead: usize,
}

impl Limits {
    /// Shares the limit of descriptors (RLIMIT_NOFILE) out. A quarter is for directories; where the rest
    /// is too little for many threads that read ahead, there are threads that do not.
    pub fn share(jobs: Option<usize>) -> Self {
        let limit = getrlimit(Resource::Nofile);
        let free = limit.current.unwrap_or(MOST_DESCRIPTORS).min(MOST_DESCRIPTORS);
        let free = free.saturating_sub(DESCRIPTORS_ASIDE) as usize;
        let wanted = jobs.unwrap_or(MOST_THREADS).clamp(1, MOST_THREADS);
        let reading = free * 3 / 4 / (DESCRIPTORS_PER_THREAD + FILES);
        let (threads, ahead) = if reading >= wanted.min(MOST_THREADS / 4) {
            (wanted.min(reading), FILES)
        } else {
            (wanted.min((free / DESCRIPTORS_PER_THREAD).max(1)), 0)
        };
        let left = free.saturating_sub(threads * (DESCRIPTORS_PER_THREAD + ahead));
        Self { threads, directories: (left / 2).clamp(2, 256), ahead }
    }
}

/// While it lives, the process may have [`MOST_DESCRIPTORS`], as far as its hard limit allows; the
/// usual soft limit of 1024 is for programs that use select(2).
pub(super) struct MoreDescriptors(Option<Rlimit>);

impl MoreDescriptors {
    pub fn allow() -> Self {
        let old = getrlimit(Resource::Nofile);
        let (Some(now), most) = (old.current, old.maximum.unwrap_or(MOST_DESCRIPTORS)) else {
            return Self(None);
        };
        let wanted = most.min(MOST_DESCRIPTORS);
        let raised = Rlimit { current: Some(wanted), maximum: old.maximum };
        let done = now < wanted && setrlimit(Resource::Nofile, raised).is_ok();
        Self(done.then_some(old))
    }
}

impl Drop for MoreDescriptors {
    fn drop(&mut self) {
        if let Some(old) = self.0.take() {
            let _ = setrlimit(Resource::Nofile, old);
        }
    }
}
