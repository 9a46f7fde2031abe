//! When a walk has to end although the tree has not: somebody who moves what was seen to where it will
//! be seen again, or makes new entries all the time, could otherwise keep it going for ever.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

use crate::fs::{FileTime, InodeId, Kind, Stat};

/// Entries that are looked at before any is counted, which small trees do not reach.
const UNCOUNTED: u64 = 4096;
/// Entries that may be new or come again, beside [`FACTOR`].
const AGAIN: u64 = 10_000;
/// How many times more entries may be new or come again than are old and come first. A mount can show
/// the same entries again.
const FACTOR: u64 = 4;
/// Entries of any tree. Only a file system that is made up as it is read has more.
const ENTRIES: u64 = 1 << 27;
/// Bits of the map of what was seen: 2 MiB.
const BITS: u32 = 24;

/// Counts what was there when the walk began and is seen for the first time, which is finite, and sets a
/// limit by it to all else. What was there: an inode's time of last change is set when it is made, and
/// when it is moved itself. The first time: by a map of one bit for each of what was seen, which two may
/// share, so that the first is too small in trees of many millions.
pub(super) struct WalkBounds {
    begin: FileTime,
    total: AtomicU64,
    first: AtomicU64,
    map: OnceLock<Vec<AtomicU64>>,
    hasher: RandomState,
}

/// Counts of one thread since it last added them up.
#[derive(Default)]
pub(super) struct SeenCount {
    total: u64,
    first: u64,
}

impl WalkBounds {
    pub(super) fn start() -> Self {
        Self {
            begin: now(ClockId::Realtime),
            total: AtomicU64::new(0),
            first: AtomicU64::new(0),
            map: OnceLock::new(),
            hasher: RandomState::new(),
        }
    }

    /// When the walk began.
    pub(super) fn begin(&self) -> FileTime {
        self.begin
    }

    /// Notes entry `name` of `directory` (not needed at the top). A time that has not come yet is no
    /// change of these minutes.
    pub(super) fn note(
        &self,
        seen: &mut SeenCount,
        directory: Option<InodeId>,
        name: &CStr,
        stat: &Stat,
    ) {
        seen.total += 1;
        let Some(map) = self.map.get() else { return };
        let one_name = stat.kind == Kind::Dir || stat.nlink == 1;
        let number = match one_name {
            true => self.hasher.hash_one(stat.id()),
            // Each of its names comes once.
            false => self.hasher.hash_one((directory, name)),
        };
        let (word, bit) = ((number >> 6) as usize % map.len(), 1 << (number & 63));
        let comes_again = map[word].fetch_or(bit, Ordering::Relaxed) & bit != 0;
        let is_new = stat.ctime > self.begin && stat.ctime <= now(ClockId::Realtime);
        seen.first += u64::from(!comes_again && !is_new);
    }

    /// Adds up; false if the walk has to end.
    pub(super) fn allow(&self, seen: &mut SeenCount) -> bool {
        let seen = std::mem::take(seen);
        let total = self.total.fetch_add(seen.total, Ordering::Relaxed) + seen.total;
        let first = self.first.fetch_add(seen.first, Ordering::Relaxed) + seen.first;
        if total > UNCOUNTED {
            let words = 1 << (BITS - 6);
            self.map
                .get_or_init(|| std::iter::repeat_with(AtomicU64::default).take(words).collect());
        }
        total <= ENTRIES && total <= AGAIN + first + FACTOR * first
    }
}

/// The time of `clock`. File systems stamp inodes by CLOCK_REALTIME_COARSE, which lags behind
/// CLOCK_REALTIME by up to 10 ms, and some of them (since Linux 6.13) by the latter.
pub(super) fn now(clock: ClockId) -> FileTime {
    let now = clock_gettime(clock);
    (now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(ino: u64, ctime: FileTime) -> Stat {
        let mut stat = crate::fs::at::stat(rustix::fs::CWD, c"/").unwrap();
        (stat.ino, stat.ctime) = (ino, ctime);
        stat
    }

    /// How many entries are allowed, each a directory with the inode number and time of `entry`.
    fn allowed(entry: impl Fn(u64, FileTime) -> (u64, FileTime)) -> u64 {
        let bounds = WalkBounds::start();
        let mut seen = SeenCount::default();
        for count in 0..400_000 {
            let (ino, ctime) = entry(count, bounds.begin());
            bounds.note(&mut seen, None, c"name", &stat(ino, ctime));
            if !bounds.allow(&mut seen) {
                return count;
            }
        }
        u64::MAX
    }

    #[test]
    fn what_was_there_is_seen_to_its_end() {
        assert_eq!(allowed(|count, begin| (count, begin)), u64::MAX);
        // Also where the clock was ahead, and where five mounts show the same.
        assert_eq!(allowed(|count, _| (count, (1 << 40, 0))), u64::MAX);
        assert_eq!(allowed(|count, begin| (count % 80_000, begin)), u64::MAX);
    }

    #[test]
    fn what_comes_again_or_is_new_is_not() {
        let again = allowed(|count, begin| (count % 1000, begin));
        assert!((AGAIN..AGAIN + UNCOUNTED + 6000).contains(&again), "{again}");
        let new = allowed(|count, begin| (count, (begin.0, begin.1 + 1)));
        assert!((AGAIN..AGAIN + UNCOUNTED + 2).contains(&new), "{new}");
    }
}
