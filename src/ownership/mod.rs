//! Giving trees to a user: owner and group are changed only where they differ.
//!
//! The trees belong to a user who may rename, link and replace entries while they are walked. So
//! nothing is reached by a path of more than one component, no link is followed, and an entry that
//! needs a change is opened first (`O_PATH`), judged by what that handle shows, and changed through
//! the same handle. Files with more than one name are given last, see [`links`].
//!
//! Mounts below a tree are entered, as `chown -R` does: volumes are mounted below the workspace.
//!
//! Failures are warnings (`tracing`), counted in the [`Tally`]; the walk goes on.
#![forbid(unsafe_code)]

pub mod acl;
mod bounds;
mod capability;
mod links;
mod walk;
mod worker;

use std::ffi::CStr;
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::io::Errno;
use tracing::{info, warn};

use crate::error::{Error, Result, escape, shorten};
use crate::fs::{Dir, Stat, at};
use crate::heartbeat::Heartbeat;

/// Who entries are given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What becomes of the privileges of regular files that have the right owner already: set-user-ID,
/// set-group-ID with group-execute, file capabilities. A change of the owner takes them in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privileges {
    /// Taken, as `chown -R` does: nothing below carries any afterwards. To ask every file for
    /// capabilities costs nearly as much as the look at its owner.
    Take,
    /// Left: an entry of the right owner is not changed.
    Leave,
}

/// What to do where something differs.
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

/// What was seen and done.
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

/// Gives entry `name` of `parent` and everything below it. A link is given itself and not followed.
/// An absent entry is nothing to do. `heart` beats with every directory and knows where the threads are.
pub fn give_tree(
    parent: &Dir,
    name: &CStr,
    owner: Owner,
    privileges: Privileges,
    mode: Mode,
    heart: &Heartbeat,
) -> Tally {
    walk::run(parent, name, walk::Plan { owner, privileges, mode, heart })
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
    fn owns(self, stat: &Stat) -> bool {
        stat.uid == self.uid && stat.gid == self.gid
    }
}

/// Changes what `handle` refers to, found at `path`, which is for messages. This is done also for a file that has the right
/// owner already: chown(2) takes set-id bits and capabilities away.
fn change(handle: impl AsFd, path: impl Fn() -> PathBuf, owner: Owner, mode: Mode) -> Result<()> {
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
