//! When a walk has to end although the tree has not: somebody who moves what was seen to where it will
//! be seen again, or makes new entries all the time, could otherwise keep it going for ever.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

use crate::fs::Stat;

/// Seconds and nanoseconds since 1970.
pub(super) type Time = (i64, u32);

/// Entries that may change during a walk before that is set against those that do not.
const CHANGES: u64 = 10_000;
/// How many times more may change than do not.
const FACTOR: u64 = 4;
/// Entries of any tree. Only a file system that is made up as it is read has more.
const ENTRIES: u64 = 1 << 27;

/// Every rename sets the time of last change of what is renamed, so something that is seen twice has
/// changed since the walk began, and what has not changed is finite. (An inode that was given by this
/// walk has changed as well: where a mount shows it a second time it counts as one that did.)
pub(super) struct Bounds {
    /// When the walk began.
    begin: Time,
    same: AtomicU64,
    changed: AtomicU64,
}

/// What one thread has seen since it last told.
#[derive(Default)]
pub(super) struct Seen {
    same: u64,
    changed: u64,
}

impl Bounds {
    pub(super) fn start() -> Self {
        Self { begin: now(ClockId::Realtime), same: AtomicU64::new(0), changed: AtomicU64::new(0) }
    }

    pub(super) fn begin(&self) -> Time {
        self.begin
    }

    /// Notes an entry. A time that has not come yet is no change of these minutes.
    pub(super) fn note(&self, seen: &mut Seen, stat: &Stat) {
        match stat.ctime > self.begin && stat.ctime <= now(ClockId::Realtime) {
            true => seen.changed += 1,
            false => seen.same += 1,
        }
    }

    /// Adds up; false if the walk has to end.
    pub(super) fn allow(&self, seen: &mut Seen) -> bool {
        let seen = std::mem::take(seen);
        let same = self.same.fetch_add(seen.same, Ordering::Relaxed) + seen.same;
        let changed = self.changed.fetch_add(seen.changed, Ordering::Relaxed) + seen.changed;
        changed <= CHANGES + FACTOR * same && same + changed <= ENTRIES
    }
}

/// What `clock` says. File systems stamp inodes by CLOCK_REALTIME_COARSE, which lags behind
/// CLOCK_REALTIME by up to 10 ms, and some of them (since Linux 6.13) by the latter.
pub(super) fn now(clock: ClockId) -> Time {
    let now = clock_gettime(clock);
    (now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or(0))
}
