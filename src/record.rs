//! A tree's memory of a runtime that has started over it.
//!
//! A restore overwrites and deletes, which is right over a tree in which no runtime has ever run and a
//! loss everywhere else. So each tree carries the time of the first start since it was last restored in
//! full: as an extended attribute of its top directory, and where the file system keeps none (NFS, vfat, tmpfs
//! before Linux 6.6), as a small file in it. The time is that of the tree's own file system, so that it
//! can be compared with the times of last change (ctime) of what is in the tree.
//!
//! A boot leaves its record twice: pending while it holds the lock of its restore, and once more just before
//! its runtime starts, so that what the boot itself changes between the two counts as nobody's work. A pending
//! record that another boot finds keeps its time: the runtime may have started all the same.
//!
//! The tree's user may remove or forge a record. That costs nobody but this user: the worst is what
//! would happen without one. What is no time is read as one before every change, which protects everything.
#![forbid(unsafe_code)]

use std::ffi::CStr;

use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::error::{Error, Result};
use crate::fs::xattr::XattrTarget;
use crate::fs::{Dir, FileTime, Kind, patiently};

/// The attribute that holds the record. It is never mirrored: a snapshot's own is of another life.
pub const ATTRIBUTE: &CStr = c"user.molecule.started";
/// The file that holds the record where the file system keeps no attributes.
pub const FILE: &CStr = c".molecule-started";
/// Longest record that is read, in bytes.
const LIMIT: usize = 64;

/// The record of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartRecord {
    /// An entry with a time of last change before this one was there before the runtime.
    pub since: FileTime,
    /// The boot that left it had not come to its runtime yet.
    pub pending: bool,
}

/// The record of `tree`; `None` if it has none.
///
/// # Errors
///
/// When the lookup fails for another reason than its absence.
pub fn look(tree: &Dir) -> Result<Option<StartRecord>> {
    if let Some(value) = patiently(|| attribute(tree))? {
        return Ok(Some(parse(&value)));
    }
    let stat = patiently(|| tree.stat_entry(FILE))?;
    match stat.map(|stat| stat.kind) {
        None => Ok(None),
        Some(Kind::File) => match patiently(|| tree.read_file(FILE, LIMIT)) {
            Ok(text) => Ok(Some(parse(&text.unwrap_or_default()))),
            // Too large to be one, or no file any more: somebody is at it.
            Err(error) if error.errno().is_none() => Ok(Some(UNREADABLE)),
            Err(error) => Err(error),
        },
        Some(_) => Ok(Some(UNREADABLE)),
    }
}

/// Leaves a pending record with a tree that has none: from here on no restore takes anything away there. One
/// that is pending already is another boot's and becomes final.
///
/// # Errors
///
/// Those of [`look`], and when no record can be left (EROFS where nothing at all can be written).
pub fn announce(tree: &Dir) -> Result<()> {
    leave(tree, || put_present(tree, true))
}

/// Leaves the time `since` with a tree that has no record, where a runtime may have started then. One that is
/// pending becomes final.
///
/// # Errors
///
/// As [`announce`].
pub fn lived(tree: &Dir, since: FileTime) -> Result<()> {
    leave(tree, || put(tree, StartRecord { since, pending: false }).map(drop))
}

fn leave(tree: &Dir, new: impl FnOnce() -> Result<()>) -> Result<()> {
    match look(tree)? {
        None => new(),
        Some(StartRecord { since, pending: true }) => {
            put(tree, StartRecord { since, pending: false }).map(drop)
        }
        Some(_) => Ok(()),
    }
}

/// Puts the present time in place of a pending record, or of nothing. A record of an earlier start stays.
///
/// # Errors
///
/// As [`announce`].
pub fn start(tree: &Dir) -> Result<()> {
    match look(tree)? {
        None | Some(StartRecord { pending: true, .. }) => renew(tree),
        Some(_) => Ok(()),
    }
}

/// Puts the present time in place of any record: the tree has just been restored in full.
///
/// # Errors
///
/// When no record can be left.
pub fn renew(tree: &Dir) -> Result<()> {
    put_present(tree, false)
}

/// A time before every change.
pub const ALWAYS: FileTime = (i64::MIN, 0);
/// The reading of a record that is no time of the past. Later work would seem older than a time to come.
const UNREADABLE: StartRecord = StartRecord { since: ALWAYS, pending: true };

fn put_present(tree: &Dir, pending: bool) -> Result<()> {
    // The first write shows the time on the clock of this file system.
    let since = put(tree, StartRecord { since: ALWAYS, pending: true })?;
    put(tree, StartRecord { since, pending }).map(drop)
}

/// Writes a record; returns the time at which it was written.
fn put(tree: &Dir, record: StartRecord) -> Result<FileTime> {
    let text = text(record);
    match XattrTarget::fd(tree).set(ATTRIBUTE, text.as_bytes()) {
        Ok(()) => Ok(tree.stat()?.ctime),
        Err(errno @ Errno::ROFS) => Err(Error::os("leave a record with", tree.path(), errno)),
        Err(_) => {
            let owner = tree.stat()?;
            tree.replace_file(FILE, text.as_bytes(), 0o644, Some((owner.uid, owner.gid)))?;
            Ok(tree.stat_entry(FILE)?.map_or(ALWAYS, |stat| stat.ctime))
        }
    }
}

fn attribute(tree: &Dir) -> Result<Option<Vec<u8>>> {
    match XattrTarget::fd(tree).get(ATTRIBUTE) {
        Ok(value) => Ok(value),
        // Larger than any attribute should be.
        Err(Errno::RANGE | Errno::TOOBIG) => Ok(Some(Vec::new())),
        Err(errno) => {
            Err(Error::os("look for a record of an earlier start at", tree.path(), errno))
        }
    }
}

fn text(StartRecord { since: (seconds, nanoseconds), pending }: StartRecord) -> String {
    let word = if pending { PENDING } else { "" };
    format!("{seconds}.{nanoseconds:09}{word}\n")
}

/// Behind the time of a pending record.
const PENDING: &str = " pending";

fn parse(bytes: &[u8]) -> StartRecord {
    let record = || {
        let text = std::str::from_utf8(bytes).ok()?.trim_end();
        let (time, pending) = match text.strip_suffix(PENDING) {
            Some(time) => (time, true),
            None => (text, false),
        };
        let (seconds, nanoseconds) = time.split_once('.')?;
        let nanoseconds: u32 = nanoseconds.parse().ok().filter(|&n| n < 1_000_000_000)?;
        let since = (seconds.parse().ok()?, nanoseconds);
        let now = clock_gettime(ClockId::Realtime);
        (since <= (now.tv_sec, now.tv_nsec as u32)).then_some(StartRecord { since, pending })
    };
    record().unwrap_or(UNREADABLE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_record_comes_back(
            seconds in i64::MIN..1_700_000_000,
            nanoseconds in 0_u32..1_000_000_000,
            pending: bool,
        ) {
            let record = StartRecord { since: (seconds, nanoseconds), pending };
            prop_assert_eq!(parse(text(record).as_bytes()), record);
        }
    }

    #[test]
    fn what_is_no_time_of_the_past_protects_everything() {
        for odd in
            [&b""[..], b"soon", b"5", b"5.", b"5.1000000000", b"\xff.1", b"1.2.3", b"9999999999.0"]
        {
            assert_eq!(parse(odd), UNREADABLE, "{odd:?}");
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "tests lay out trees by path")]
    fn a_record_holds_the_time_of_its_file_system() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Dir::open_operator_path(directory.path()).unwrap();
        let make = |name: &str| {
            std::fs::write(directory.path().join(name), "").unwrap();
            tree.stat_entry(&std::ffi::CString::new(name).unwrap()).unwrap().unwrap().ctime
        };
        let record = || look(&tree).unwrap().unwrap();
        let before = make("before");
        assert_eq!(look(&tree).unwrap(), None);
        announce(&tree).unwrap();
        let announced = record();
        assert!(announced.pending && before <= announced.since, "{announced:?}");
        start(&tree).unwrap();
        let started = record();
        let after = make("after");
        assert!(!started.pending, "{started:?}");
        assert!(announced.since <= started.since && started.since <= after, "{started:?}");
        make(".molecule-started");
        start(&tree).unwrap();
        assert_eq!(record(), started, "the first start counts, and the attribute");
        renew(&tree).unwrap();
        assert!(record().since > started.since);
    }

    #[test]
    fn what_another_boot_left_becomes_final() {
        for leave in [announce as fn(&Dir) -> Result<()>, |tree| lived(tree, (5, 7))] {
            let directory = tempfile::tempdir().unwrap();
            let tree = Dir::open_operator_path(directory.path()).unwrap();
            announce(&tree).unwrap();
            let announced = look(&tree).unwrap().unwrap();
            leave(&tree).unwrap();
            start(&tree).unwrap();
            let last = StartRecord { pending: false, ..announced };
            assert_eq!(look(&tree).unwrap(), Some(last));
            put(&tree, StartRecord { since: (9_999_999_999, 0), pending: false }).unwrap();
            leave(&tree).unwrap();
            let last = StartRecord { since: ALWAYS, pending: false };
            assert_eq!(look(&tree).unwrap(), Some(last));
        }
    }

    #[test]
    fn a_tree_without_a_record_has_lived_since_then() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Dir::open_operator_path(directory.path()).unwrap();
        lived(&tree, (5, 7)).unwrap();
        start(&tree).unwrap();
        assert_eq!(look(&tree).unwrap(), Some(StartRecord { since: (5, 7), pending: false }));
    }
}
