//! Who entries are given to, and the one place where an owner is changed.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::io::Errno;
use tracing::{info, warn};

use crate::error::{Error, Result, escape, shorten};
use crate::fs::{Dir, Stat, at};

/// Who entries are given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// The treatment of privileges of regular files that have the right owner already: set-user-ID,
/// set-group-ID with group-execute, file capabilities. A change of the owner takes them in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privileges {
    /// Taken, as `chown -R` does: nothing below carries any afterwards. To ask every file for
    /// capabilities costs nearly as much as the look at its owner.
    Take,
    /// Left: an entry of the right owner is not changed.
    Leave,
}

/// The action where something differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Change it.
    Apply,
    /// The same after a restore that was cut off: directories that it was still making (mode 01700, root's)
    /// stay root's with what is in them, for there are half-written files under their final names.
    SpareUnfinished,
    /// Say so, one event per entry, and change nothing.
    DryRun,
}

/// Counts of the entries that were seen and changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Entries looked at.
    pub examined: u64,
    /// Entries changed, or in a dry run: that would be.
    pub changed: u64,
    /// Entries that could not be looked at or changed, or were refused.
    pub failed: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.examined += other.examined;
        self.changed += other.changed;
        self.failed += other.failed;
    }
}

/// Gives the open directory itself and nothing below it.
pub fn give_directory(dir: &Dir, owner: Owner, mode: Mode) -> Tally {
    let mut tally = Tally { examined: 1, ..Tally::default() };
    match change_directory(dir, owner, mode) {
        Ok(changed) => tally.changed += u64::from(changed),
        Err(error) => {
            tally.failed += 1;
            warn!("{error}");
        }
    }
    tally
}

/// True if the directory's owner was not right.
fn change_directory(dir: &Dir, owner: Owner, mode: Mode) -> Result<bool> {
    if owner.owns(&dir.stat()?) {
        return Ok(false);
    }
    change(dir, || dir.path().to_owned(), owner, mode)?;
    Ok(true)
}

impl Owner {
    /// Whether it owns what `stat` is of.
    pub(super) fn owns(self, stat: &Stat) -> bool {
        stat.uid == self.uid && stat.gid == self.gid
    }
}

/// Changes what `handle` refers to, found at `path`, which is for messages. This is done also for a file that has the right
/// owner already: chown(2) takes set-id bits and capabilities away.
pub(super) fn change(
    handle: impl AsFd,
    path: impl Fn() -> PathBuf,
    owner: Owner,
    mode: Mode,
) -> Result<()> {
    if mode == Mode::DryRun {
        let (path, Owner { uid, gid }) = (path(), owner);
        info!("would give {} to {uid}:{gid}", escape(shorten(&path).as_ref()));
        return Ok(());
    }
    at::chown_fd(handle, owner.uid, owner.gid).map_err(|errno| {
        let error = Error::os("change owner of", path(), errno);
        match errno {
            Errno::PERM => error.hint("it is immutable (see lsattr), or CAP_CHOWN is missing"),
            _ => error,
        }
    })
}
