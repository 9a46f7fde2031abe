//! Files with more than one name. Somebody who can write a tree may have linked a file into it that
//! belongs to root and has its other names elsewhere (link(2) allows it where
//! `fs.protected_hardlinks` is 0, and for files that user may read and write): to give that away
//! would hand over the file outside. So a file of another owner with several names is given only
//! when all of them are in the tree, as in a restored tree with hard links.
//!
//! One walk counts the names, a second gives the files of which it has counted all. Nobody who renames
//! meanwhile can fool the count: a name is a directory inode and a component, so a directory that moves
//! counts once; and every link, unlink and rename sets the file's time of last change, so names that
//! were seen with the same such time exist together, if that time was over when the first was seen. A
//! time that has not come yet when the file is given says as much: no change since has set it.
//!
//! The count is bounded: a file with a name that was not counted is not given.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::hash::{BuildHasher as _, RandomState};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use rustix::time::ClockId;

use super::bounds::now;
use crate::fs::{FileTime, InodeId, Stat};
use crate::lock::lock;

/// Files that are counted, at most: 22 MB.
pub(super) const FILES: usize = 400_000;
/// Names of them that are counted, at most: 9 MB.
const NAMES: usize = 900_000;

/// The files that were seen, with their names.
pub(super) struct LinkCounts {
    counts: Mutex<Counts>,
    /// Names are kept as numbers that nobody can foresee. Two that come out the same count once.
    hasher: RandomState,
    clock_passed: AtomicBool,
}

#[derive(Default)]
struct Counts {
    files: HashMap<InodeId, LinkedFile>,
    names: HashSet<u64>,
    /// Some names had no place here.
    overflowed: bool,
    /// Names of files that have no place here.
    uncounted: u64,
}

struct LinkedFile {
    ctime: (i64, u32),
    links: u32,
    names: u32,
    time: ChangeTime,
    done: NameState,
}

/// Where a time of last change lay when a name was seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ChangeTime {
    Past,
    Future,
    /// Within the walk, or not always the same.
    Meanwhile,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum NameState {
    Nothing,
    Given,
    Refused,
}

/// The decision about a name in the second walk.
pub(super) enum LinkVerdict {
    /// Give it; `first` if the file was given by no other name yet.
    Give { first: bool },
    /// Leave it, and say why: it is the first name of the file.
    Refuse(String),
    /// Leave it.
    Leave,
}

impl LinkCounts {
    pub(super) fn new() -> Self {
        Self {
            counts: Mutex::default(),
            hasher: RandomState::new(),
            clock_passed: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        lock(&self.counts)
    }

    /// Returns once a change of any file sets a time later than `begin`: at most one step of the clock,
    /// once for a tree.
    pub(super) fn wait_past(&self, begin: FileTime) {
        if self.clock_passed.load(Ordering::Acquire) {
            return;
        }
        for _ in 0..20 {
            if now(ClockId::RealtimeCoarse) > begin {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.clock_passed.store(true, Ordering::Release);
    }

    /// Counts entry `name` of `directory`, seen as `stat` after [`LinkCounts::wait_past`] of `begin`.
    pub(super) fn count(&self, stat: &Stat, directory: InodeId, name: &CStr, begin: FileTime) {
        let id = stat.id();
        let number = self.hasher.hash_one((id, directory, name));
        let time = match stat.ctime {
            ctime if ctime <= begin => ChangeTime::Past,
            ctime if ctime > now(ClockId::Realtime) => ChangeTime::Future,
            _ => ChangeTime::Meanwhile,
        };
        let mut counts = self.lock();
        if counts.files.len() >= FILES && !counts.files.contains_key(&id) {
            counts.overflowed = true;
            return;
        }
        let file = counts.files.entry(id).or_insert(LinkedFile {
            ctime: stat.ctime,
            links: stat.nlink,
            names: 0,
            time,
            done: NameState::Nothing,
        });
        if (file.ctime, file.links, file.time) != (stat.ctime, stat.nlink, time) {
            file.time = ChangeTime::Meanwhile;
        }
        if counts.names.len() >= NAMES {
            counts.overflowed = true;
        } else if counts.names.insert(number)
            && let Some(file) = counts.files.get_mut(&id)
        {
            file.names += 1;
        }
    }

    /// Whether there is anything to do in a second walk.
    pub(super) fn is_needed(&self) -> bool {
        let counts = self.lock();
        counts.overflowed || !counts.files.is_empty()
    }

    /// Judges the file open as `handle`, seen as `stat` now.
    pub(super) fn judge(&self, handle: &OwnedFd, stat: &Stat) -> LinkVerdict {
        let mut counts = self.lock();
        let overflowed = counts.overflowed;
        let Some(file) = counts.files.get_mut(&stat.id()) else {
            // Without an overflow it has come since.
            counts.uncounted += 1;
            return LinkVerdict::Leave;
        };
        let changed = file.time == ChangeTime::Meanwhile
            || (file.ctime, file.links) != (stat.ctime, stat.nlink)
            || (file.time == ChangeTime::Future && stat.ctime <= now(ClockId::Realtime));
        let (links, here) = (file.links, file.names);
        let reason = if changed {
            "it has several names, and they change".into()
        } else if here < links && overflowed {
            format!("it has {links} names, and the tree has too many such names to look for them")
        } else if here < links {
            format!("it has {links} names, and only {here} of them in this tree")
        } else if file.time == ChangeTime::Future && !has_this_clock(handle) {
            "it has several names and a time of last change in the future".into()
        } else {
            return LinkVerdict::Give { first: file.done != NameState::Given };
        };
        match std::mem::replace(&mut file.done, NameState::Refused) {
            NameState::Nothing => LinkVerdict::Refuse(reason),
            // On overlayfs without an inode index the first change parts the names.
            NameState::Given => {
                file.done = NameState::Given;
                LinkVerdict::Leave
            }
            NameState::Refused => LinkVerdict::Leave,
        }
    }

    /// Notes that the file was given by one of its names.
    pub(super) fn note_given(&self, stat: &Stat) {
        if let Some(file) = self.lock().files.get_mut(&stat.id()) {
            file.done = NameState::Given;
        }
    }

    /// How many names had to be left uncounted: there are more than [`FILES`] such files, or new ones.
    pub(super) fn uncounted(&self) -> u64 {
        self.lock().uncounted
    }
}

/// Whether this kernel's clock sets the times of the file: on file systems of its own.
fn has_this_clock(handle: &OwnedFd) -> bool {
    const EXT: u64 = 0xef53;
    const XFS: u64 = 0x5846_5342;
    const BTRFS: u64 = 0x9123_683e;
    const TMPFS: u64 = 0x0102_1994;
    const OVERLAY: u64 = 0x794c_7630;
    rustix::fs::fstatfs(handle)
        .is_ok_and(|stat| [EXT, XFS, BTRFS, TMPFS, OVERLAY].contains(&stat.f_type.cast_unsigned()))
}
