//! Whether what is copied comes from a disk, as opposed to the page cache.
//!
//! A processor with time to spare can have two reasons that look alike from outside: threads wait for
//! the source, or they wait for the journal of the destination. More threads end the first and only
//! take the processor from each other after the second. Measured hot, on 2 cores: runs that took one
//! for the other came to 9 to 25 threads in place of 4 and needed 2 to 4 % more time.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};

use nix::libc::{EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC};
use rustix::fs::{Mode, OFlags, fstatfs};

/// The share that a look keeps of all before it, so that the last tenths of a second decide.
const KEPT: f64 = 0.9;
/// Least share of what is done that comes from a disk where a disk is waited for. A hot run has read
/// less than a hundredth of it, inode tables of the destination.
const LEAST: f64 = 1.0 / 32.0;
/// Bytes that an entry counts beside its content, for its inode and its name: small enough that those
/// alone, 128 bytes and more from a disk, are above [`LEAST`].
const ENTRY: u64 = 1024;

/// Bytes that this process has had read from disks beside those that it has dealt with: entries dealt with and
/// bytes written. What is only read or removed counts nothing there, which makes a disk more likely.
#[derive(Debug)]
pub(super) struct DiskShare {
    /// `/proc/self/io` (proc_pid_io(5)), if it says anything of the source.
    counts: Option<OwnedFd>,
    before: Sum,
    /// Bytes of late, the older the less.
    fetched_lately: f64,
    done_lately: f64,
}

/// Bytes, each since a moment of its own.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    fetched: u64,
    done: u64,
}

impl DiskShare {
    /// For the source `src`. The kernel counts for whom it submits a request; ext4 and xfs do that in
    /// the thread that waits, others may have it done by a daemon or over a network.
    pub fn from(src: impl AsFd) -> Self {
        let kind = fstatfs(src).map_or(0, |fs| fs.f_type);
        let counts = match kind {
            EXT4_SUPER_MAGIC | XFS_SUPER_MAGIC => {
                rustix::fs::open("/proc/self/io", OFlags::CLOEXEC, Mode::empty()).ok()
            }
            _ => None,
        };
        let fetched = counts.as_ref().and_then(fetched).unwrap_or(0);
        Self { counts, ..Self::starting(fetched) }
    }

    fn starting(fetched: u64) -> Self {
        let before = Sum { fetched, done: 0 };
        Self { counts: None, before, fetched_lately: 0.0, done_lately: 0.0 }
    }

    /// Whether the threads may be waiting for a disk, now that so many `bytes` and `entries` are done
    /// in all. To be asked every few milliseconds; true where it cannot be known.
    pub fn is_fetching(&mut self, bytes: u64, entries: u64) -> bool {
        let Some(fetched) = self.counts.as_ref().and_then(fetched) else { return true };
        self.note(Sum { fetched, done: bytes + entries * ENTRY })
    }

    fn note(&mut self, now: Sum) -> bool {
        let more = |now: u64, before: u64| now.saturating_sub(before) as f64;
        self.fetched_lately = self.fetched_lately * KEPT + more(now.fetched, self.before.fetched);
        self.done_lately = self.done_lately * KEPT + more(now.done, self.before.done);
        self.before = now;
        self.fetched_lately > self.done_lately * LEAST
    }
}

/// Bytes read from disks for this process (`read_bytes`); `None` if the kernel does not count
/// (CONFIG_TASK_IO_ACCOUNTING).
fn fetched(counts: &OwnedFd) -> Option<u64> {
    let mut text = [0; 512];
    let length = rustix::io::pread(counts, &mut text, 0).ok()?;
    read_bytes(std::str::from_utf8(&text[..length]).ok()?)
}

fn read_bytes(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("read_bytes: "))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEBIBYTE: u64 = 1 << 20;

    fn new() -> DiskShare {
        DiskShare::starting(0)
    }

    /// The answer of the last of `looks` looks where each time so much more has been fetched and done.
    fn looks(fetching: &mut DiskShare, looks: usize, fetched: u64, done: u64) -> bool {
        let mut last = false;
        for _ in 0..looks {
            let before = fetching.before;
            let now = Sum { fetched: before.fetched + fetched, done: before.done + done };
            last = fetching.note(now);
        }
        last
    }

    #[test]
    fn a_hot_run_that_stands_still_is_not_fetching() {
        let mut fetching = new();
        assert!(!looks(&mut fetching, 30, 10_000, 3 * MEBIBYTE));
        // The journal takes its time.
        assert!(!looks(&mut fetching, 100, 0, 0));
    }

    #[test]
    fn a_first_answer_that_takes_its_time_is_waited_for() {
        let mut fetching = new();
        assert!(looks(&mut fetching, 1, 4096, 0));
        assert!(looks(&mut fetching, 500, 0, 0));
    }

    #[test]
    fn metadata_of_a_disk_is_fetched_too() {
        // A block of small inodes.
        assert!(looks(&mut new(), 10, 4096, 32 * ENTRY));
    }

    #[test]
    fn what_becomes_cold_is_noticed_soon() {
        let mut fetching = new();
        looks(&mut fetching, 200, 0, 5 * MEBIBYTE);
        assert!(looks(&mut fetching, 20, MEBIBYTE / 2, MEBIBYTE / 2));
    }

    #[test]
    fn what_becomes_hot_is_noticed_soon() {
        let mut fetching = new();
        looks(&mut fetching, 200, MEBIBYTE / 2, MEBIBYTE / 2);
        assert!(!looks(&mut fetching, 20, 0, 5 * MEBIBYTE));
    }

    #[test]
    fn what_is_not_counted_may_be_fetched() {
        let proc = rustix::fs::open("/proc", OFlags::CLOEXEC, Mode::empty()).unwrap();
        assert!(DiskShare::from(proc).is_fetching(100 * MEBIBYTE, 1000));
    }

    #[test]
    fn what_the_kernel_counts_is_found() {
        let text = "rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 6\n\
                    cancelled_write_bytes: 7\n";
        assert_eq!(read_bytes(text), Some(5));
        assert_eq!(read_bytes("rchar: 1\n"), None);
    }
}
