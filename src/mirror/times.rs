//! Whether a modification time is what the destination made of the source's.
//!
//! Not every file system keeps nanoseconds (ext2 to ext4 with inodes of 128 bytes keep seconds, FAT two
//! of them) or every year (the same until 2038, as xfs without bigtime). What is compared to the
//! nanosecond there is copied by every run and found to differ by every verification.
//!
//! How fine a file system is, an object says itself: its time of change is the kernel's own, cut to
//! what the file system keeps, and nobody can set it. No call is made for it.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::sync::Once;

use nix::libc::MSDOS_SUPER_MAGIC;
use rustix::fs::fstatfs;

use crate::fs::{FileTime, Stat};

/// Nanoseconds of a second.
const SECOND: u32 = 1_000_000_000;
/// Where file systems end, in seconds since 1970: signed and unsigned 32 bits, ext4, xfs with bigtime.
const LAST: [i64; 4] = [i32::MAX as i64, u32::MAX as i64, 15_032_385_535, 16_299_260_424];
/// Where they begin.
const FIRST: [i64; 2] = [i32::MIN as i64, 0];
/// FAT begins with 1980 and ends with 2107, in the time zone of its mount.
const FAT: [i64; 2] = [315_532_800, 4_354_819_198];
/// Seconds by which that can be off.
const ZONE: i64 = 15 * 3600;

/// Whether the modification time of `dst` is that of `src`, as far as the file system can keep it. `fd`
/// is an open file or directory there.
pub(super) fn same_time(src: &Stat, dst: &Stat, fd: impl AsFd) -> bool {
    static SAID: Once = Once::new();
    if src.mtime == dst.mtime {
        return true;
    }
    let same = is_kept(src.mtime, dst.mtime, dst.ctime, || is_fat(&fd));
    if same {
        // Once, for it is the same for thousands of files.
        SAID.call_once(|| {
            tracing::info!(
                "the destination keeps times less well than the source; compared by that"
            );
        });
    }
    same
}

/// Whether a file system makes `found` of `wanted` when it sets `changed` as a time of its own.
fn is_kept(
    wanted: FileTime,
    found: FileTime,
    changed: FileTime,
    is_fat: impl Fn() -> bool,
) -> bool {
    let step = step(found.1).min(step(changed.1));
    let cut = (wanted.0, wanted.1 - wanted.1 % step);
    if cut == found || found.1 == 0 && is_beyond(wanted.0, found.0, &LAST, &FIRST) {
        return true;
    }
    let two_seconds = (cut.0 & !1, 0) == found;
    let limits = FAT.map(|limit| if (limit - found.0).abs() < ZONE { found.0 } else { limit });
    let [first, last] = limits;
    // Only then is the file system asked.
    step == SECOND && (two_seconds || is_beyond(wanted.0, found.0, &[last], &[first])) && is_fat()
}

/// Whether `found` is the last or first second that some file system knows, and `wanted` is beyond.
fn is_beyond(wanted: i64, found: i64, last: &[i64], first: &[i64]) -> bool {
    wanted > found && last.contains(&found) || wanted < found && first.contains(&found)
}

/// The largest power of ten that `nanoseconds` is a multiple of.
fn step(nanoseconds: u32) -> u32 {
    let steps = (0..=9).map(|power| 10_u32.pow(power));
    steps.take_while(|step| nanoseconds.is_multiple_of(*step)).last().unwrap_or(1)
}

fn is_fat(fd: impl AsFd) -> bool {
    fstatfs(fd).is_ok_and(|fs| fs.f_type == MSDOS_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(wanted: FileTime, found: FileTime, changed: FileTime) -> bool {
        is_kept(wanted, found, changed, || false)
    }

    #[test]
    fn what_the_file_system_cuts_off_is_no_difference() {
        assert!(same((7, 123_456_789), (7, 0), (9, 0)), "whole seconds");
        assert!(same((7, 123_456_789), (7, 123_456_700), (9, 100)), "100 ns");
        assert!(same((-7, 123_456_789), (-7, 0), (9, 0)), "before 1970");
    }

    #[test]
    fn what_it_would_have_kept_is_one() {
        assert!(!same((7, 123_456_789), (7, 0), (9, 123)), "nanoseconds are kept there");
        assert!(!same((7, 123_456_789), (7, 123_000_000), (9, 100)));
        assert!(!same((7, 0), (6, 0), (9, 0)), "another second, and no FAT");
        assert!(!same((7, 1), (8, 0), (9, 0)));
    }

    #[test]
    fn the_last_and_the_first_time_stand_for_all_beyond() {
        let last = i64::from(i32::MAX);
        assert!(same((last + 5, 3), (last, 0), (9, 1)));
        assert!(same((-last - 7, 3), (-last - 1, 0), (9, 1)));
        assert!(!same((last - 5, 3), (last, 0), (9, 1)), "not beyond");
        assert!(!same((last + 5, 3), (last - 1, 0), (9, 1)), "not the last");
    }

    #[test]
    fn fat_keeps_even_seconds_from_1980_on() {
        let fat = |wanted, found, changed| is_kept(wanted, found, changed, || true);
        assert!(fat((400_000_001, 5), (400_000_000, 0), (500_000_000, 0)));
        assert!(!fat((400_000_002, 5), (400_000_000, 0), (500_000_000, 0)));
        assert!(fat((5, 5), (315_532_800 - 7200, 0), (500_000_000, 0)), "east of Greenwich");
        assert!(
            !same((5, 5), (315_532_800, 0), (500_000_000, 0)),
            "elsewhere 1980 is a time like any"
        );
        assert!(!same((400_000_001, 5), (400_000_000, 0), (500_000_000, 0)));
    }
}
