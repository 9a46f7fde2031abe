//! A tree's memory of a runtime that has started over it.
//!
//! A restore overwrites and deletes, which is right over a tree in which no runtime has ever run and a
//! loss everywhere else. So each tree carries the time of the first start since it was last restored in
//! full: as an extended attribute of its top directory, and where the file system keeps none (NFS, vfat, tmpfs
//! before Linux 6.6), as a small file in it. The time is that of the tree's own file system, so that it
//! can be compared with the times of last change (ctime) of what is in the tree.
//!
//! The tree's user may remove or forge a record. That costs nobody but this user: the worst is what
//! would happen without one. What is no time is read as one before every change, which protects everything.

use std::ffi::CStr;

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::fs::xattr::Target;
use crate::fs::{Dir, Kind, patiently};

/// The attribute that holds the record. It is never mirrored: a snapshot's own is of another life.
pub const ATTRIBUTE: &CStr = c"user.molecule.started";
/// The file that holds the record where the file system keeps no attributes.
pub const FILE: &CStr = c".molecule-started";
/// Longest record that is read, in bytes.
const LIMIT: usize = 64;

/// Seconds since 1970 and nanoseconds, as statx(2) gives them.
pub type Time = (i64, u32);

/// The record of `tree`; `None` if it has none.
///
/// # Errors
///
/// When it cannot be told whether there is one.
pub fn look(tree: &Dir) -> Result<Option<Time>> {
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

/// Leaves [`PENDING`] with a tree that has no record: from here on no restore takes anything away there.
///
/// # Errors
///
/// Those of [`look`], and when no record can be left (EROFS where nothing at all can be written).
pub fn announce(tree: &Dir) -> Result<()> {
    match look(tree)? {
        Some(_) => Ok(()),
        None => put(tree, PENDING).map(drop),
    }
}

/// Puts the present time in place of [`PENDING`], or of nothing. A record of an earlier start stays.
///
/// # Errors
///
/// As [`announce`].
pub fn start(tree: &Dir) -> Result<()> {
    match look(tree)? {
        None | Some(PENDING) => renew(tree),
        Some(_) => Ok(()),
    }
}

/// Puts the present time in place of any record: the tree has just been restored in full.
///
/// # Errors
///
/// When no record can be left.
pub fn renew(tree: &Dir) -> Result<()> {
    // The first write shows the time on the clock of this file system.
    let now = put(tree, PENDING)?;
    put(tree, now).map(drop)
}

/// The record of a boot that has not come to its runtime yet. It is before every change.
pub const PENDING: Time = (0, 0);
/// What a record that is no time is read as.
const UNREADABLE: Time = (i64::MIN, 0);

/// Writes a record; returns the time at which it was written.
fn put(tree: &Dir, time: Time) -> Result<Time> {
    match Target::fd(tree).set(ATTRIBUTE, text(time).as_bytes()) {
        Ok(()) => Ok(tree.stat()?.ctime),
        Err(errno @ Errno::ROFS) => Err(Error::os("leave a record with", tree.path(), errno)),
        Err(_) => {
            let owner = tree.stat()?;
            tree.replace_file(FILE, text(time).as_bytes(), 0o644, Some((owner.uid, owner.gid)))?;
            Ok(tree.stat_entry(FILE)?.map_or(PENDING, |stat| stat.ctime))
        }
    }
}

fn attribute(tree: &Dir) -> Result<Option<Vec<u8>>> {
    match Target::fd(tree).get(ATTRIBUTE) {
        Ok(value) => Ok(value),
        // Larger than any attribute should be.
        Err(Errno::RANGE | Errno::TOOBIG) => Ok(Some(Vec::new())),
        Err(errno) => {
            Err(Error::os("look for a record of an earlier start at", tree.path(), errno))
        }
    }
}

fn text((seconds, nanoseconds): Time) -> String {
    format!("{seconds}.{nanoseconds:09}\n")
}

fn parse(bytes: &[u8]) -> Time {
    let time = || {
        let (seconds, nanoseconds) = std::str::from_utf8(bytes).ok()?.trim_end().split_once('.')?;
        let nanoseconds: u32 = nanoseconds.parse().ok().filter(|&n| n < 1_000_000_000)?;
        Some((seconds.parse().ok()?, nanoseconds))
    };
    time().unwrap_or(UNREADABLE)
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
        fn a_time_comes_back(seconds in any::<i64>(), nanoseconds in 0_u32..1_000_000_000) {
            let time = (seconds, nanoseconds);
            prop_assert_eq!(parse(text(time).as_bytes()), time);
        }
    }

    #[test]
    fn what_is_no_time_protects_everything() {
        for odd in [&b""[..], b"soon", b"5", b"5.", b"5.1000000000", b"\xff.1", b"1.2.3"] {
            assert_eq!(parse(odd), UNREADABLE, "{odd:?}");
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "tests lay out trees by path")]
    fn a_record_holds_the_time_of_its_file_system() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Dir::open_operator_path(directory.path()).unwrap();
        std::fs::write(directory.path().join("before"), "").unwrap();
        let before = tree.stat_entry(c"before").unwrap().unwrap();
        assert_eq!(look(&tree).unwrap(), None);
        announce(&tree).unwrap();
        assert_eq!(look(&tree).unwrap(), Some(PENDING));
        start(&tree).unwrap();
        std::fs::write(directory.path().join("after"), "").unwrap();
        let after = tree.stat_entry(c"after").unwrap().unwrap();
        let time = look(&tree).unwrap().unwrap();
        assert!(before.ctime <= time && time <= after.ctime, "{time:?}");
        std::fs::write(directory.path().join(".molecule-started"), "junk").unwrap();
        start(&tree).unwrap();
        assert_eq!(look(&tree).unwrap(), Some(time), "the first start counts, and the attribute");
        renew(&tree).unwrap();
        assert!(look(&tree).unwrap() > Some(time));
    }
}
