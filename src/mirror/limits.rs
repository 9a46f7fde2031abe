//! How much there may be: threads, descriptors, memory, and what is held of each.
#![forbid(unsafe_code)]

use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Upper limit of threads; also of requests in flight.
pub(super) const MOST_THREADS: usize = 64;
/// How often the number of threads is thought over.
pub(super) const TICK: Duration = Duration::from_millis(10);
/// Lists of entries that may wait at once.
pub(super) const ENTRY_LISTS: usize = 256;

/// Bytes of one read: what read-ahead fetches at once by default. Each thread has its own buffer.
pub(super) const BUFFER: usize = 128 * 1024;
/// Size in bytes from which a file is copied by several threads.
pub(super) const LARGE: u64 = 8 * 1024 * 1024;
/// Most files that a thread opens to read ahead; each is a descriptor.
pub(super) const FILES: usize = 16;

/// Bytes one getdents64(2) call may fill.
pub(super) const LISTING: usize = 32 * 1024;
/// Bytes it may fill where so many names are held already that a directory is read in small portions.
pub(super) const SMALL_LISTING: usize = 512;

/// Descriptors of which all threads have enough.
const MOST_DESCRIPTORS: u64 = 4096;
/// Descriptors left to the rest of the process.
const DESCRIPTORS_ASIDE: u64 = 16;
/// Descriptors one thread may have open at once: two pairs of directories, a pair of files, one for
/// metadata, and some for the way to a directory found again.
const DESCRIPTORS_PER_THREAD: usize = 10;

/// Bytes of address space that one thread takes: its stack, its buffers and what it works on.
const BYTES_PER_THREAD: u64 = 1536 * 1024;
/// Bytes of address space that the C library sets aside for the heap of a thread (mallopt(3)).
const HEAP: u64 = 64 * 1024 * 1024;
/// Bytes left to the rest of the process.
const BYTES_ASIDE: u64 = 8 * 1024 * 1024;

/// How many of each the limits of descriptors and memory allow.
pub(super) struct RunLimits {
    pub threads: usize,
    /// Held open, two descriptors each.
    pub directories: usize,
    /// Files that one thread may open to read ahead.
    pub ahead: usize,
}

impl RunLimits {
    /// Shares the limit of descriptors (RLIMIT_NOFILE) out. A quarter is for directories; where the rest
    /// is too little for many threads that read ahead, there are threads that do not.
    pub fn share(jobs: Option<usize>) -> Self {
        let limit = getrlimit(Resource::Nofile);
        let free = limit.current.unwrap_or(MOST_DESCRIPTORS).min(MOST_DESCRIPTORS);
        let free = free.saturating_sub(DESCRIPTORS_ASIDE) as usize;
        let wanted = jobs.unwrap_or(MOST_THREADS).min(threads_in_memory()).clamp(1, MOST_THREADS);
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

/// How many threads there is memory for under the limits of address space and data (RLIMIT_AS and
/// RLIMIT_DATA). An allocation that fails would end the process.
fn threads_in_memory() -> usize {
    let free = |resource| {
        let limit = getrlimit(resource).current?;
        Some(limit.saturating_sub(address_space()).saturating_sub(BYTES_ASIDE))
    };
    let threads = |free: u64, each| usize::try_from(free / each).unwrap_or(MOST_THREADS);
    let addresses = free(Resource::As).map_or(MOST_THREADS, |free| {
        // Where there is no room for a heap of its own, a thread shares one.
        threads(free, HEAP + BYTES_PER_THREAD).max(threads(free, BYTES_PER_THREAD).min(4))
    });
    let data = free(Resource::Data).map_or(MOST_THREADS, |free| threads(free, BYTES_PER_THREAD));
    addresses.min(data)
}

/// Bytes of this process's address space (proc_pid_statm(5)); more than its data is. Where that is not
/// known, as much as the program has at its start.
fn address_space() -> u64 {
    const AT_START: u64 = 8 * 1024 * 1024;
    const PAGE: u64 = 4096;
    let read = || {
        let file = rustix::fs::open("/proc/self/statm", OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut text = [0; 128];
        let length = rustix::io::pread(file, &mut text, 0).ok()?;
        let first = text[..length].split(|byte| *byte == b' ').next()?;
        std::str::from_utf8(first).ok()?.parse::<u64>().ok()
    };
    read().map_or(AT_START, |pages| pages.saturating_mul(PAGE))
}

/// A buffer of `size` zeros, if there is memory for it.
pub(super) fn buffer(size: usize) -> Option<Vec<u8>> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(size).ok()?;
    buffer.resize(size, 0);
    Some(buffer)
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
