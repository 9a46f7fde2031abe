//! One directory or entry: what is known of it, and whether and how it is given.
#![forbid(unsafe_code)]

use std::ffi::{CStr, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::bounds::SeenCount;
use super::give::{Mode, Privileges, Tally, change};
use super::links::LinkVerdict;
use super::shared::{SharedWalk, WalkPass, WalkPlan};
use crate::error::Error;
use crate::fs::descent::DescentWay;
use crate::fs::xattr::{CAPABILITY, XattrReach, XattrTarget};
use crate::fs::{Kind, Stat, at};

/// The state of a thread that does not depend on its place in the tree.
pub(super) struct EntryHands<'a> {
    pub(super) shared: &'a SharedWalk<'a>,
    pub(super) number: usize,
    pub(super) reach: XattrReach,
    pub(super) tally: Tally,
    pub(super) seen: SeenCount,
    /// Path of the start of the way.
    pub(super) base: PathBuf,
}

impl<'a> EntryHands<'a> {
    /// Of thread `number`, for entries below `base`.
    pub(super) fn new(
        shared: &'a SharedWalk<'a>,
        number: usize,
        reach: XattrReach,
        base: &Path,
    ) -> Self {
        let (tally, seen) = (Tally::default(), SeenCount::default());
        Self { shared, number, reach, tally, seen, base: base.to_owned() }
    }
}

impl EntryHands<'_> {
    /// Counts a failure of the first walk; the second meets the same.
    pub(super) fn failed(&mut self, error: impl FnOnce(&Path) -> Error) {
        if self.shared.pass == WalkPass::Look {
            self.tally.failed += 1;
            self.shared.walk.warn(|| error(&self.base));
        }
    }

    /// The directory itself.
    pub(super) fn give_directory(
        &mut self,
        way: DescentWay<'_>,
        name: &CStr,
        fd: &OwnedFd,
        stat: &Stat,
    ) {
        self.shared.bounds.note(&mut self.seen, way.id(), name, stat);
        if self.shared.pass != WalkPass::Look {
            return;
        }
        self.tally.examined += 1;
        let WalkPlan { owner, mode, .. } = self.shared.walk.plan;
        if !owner.owns(stat) {
            let path = || join(way, &self.base, name);
            match change(fd, path, owner, mode) {
                Ok(()) => self.tally.changed += 1,
                Err(error) => self.failed(|_| error),
            }
        }
    }

    /// Entry `name` could not be opened as a directory: it is none (a link or a file at the top of the
    /// walk, or put there since its parent was listed), or it may not be read. Gives the entry itself.
    pub(super) fn not_opened(&mut self, way: DescentWay<'_>, name: &CStr, errno: Errno) {
        let stat = match at::stat(way.fd(), name) {
            Err(Errno::NOENT) => return,
            Ok(stat) => stat,
            Err(errno) => {
                return self.failed(|base| Error::os("stat", join(way, base, name), errno));
            }
        };
        match stat.kind {
            Kind::Dir => {
                self.failed(|base| Error::os("open directory", join(way, base, name), errno));
                if self.shared.pass == WalkPass::Look {
                    self.tally.examined += 1;
                    if !self.shared.walk.plan.owner.owns(&stat) {
                        self.change(way, name);
                    }
                }
            }
            Kind::Symlink => {
                self.failed(|base| {
                    let path = join(way, base, name);
                    Error::on("open directory", path, "it is a symbolic link, not followed")
                        .hint("put a real directory or file there")
                });
                self.entry(way, name);
            }
            _ => {
                self.entry(way, name);
            }
        }
    }

    /// Gives entry `name`, unless it is a directory. Its type, as far as it is known.
    pub(super) fn entry(&mut self, way: DescentWay<'_>, name: &CStr) -> Option<Kind> {
        let stat = match at::stat(way.fd(), name) {
            Ok(stat) if stat.kind == Kind::Dir => return Some(Kind::Dir),
            Ok(stat) => stat,
            Err(Errno::NOENT) => return None,
            Err(errno) => {
                self.failed(|base| Error::os("stat", join(way, base, name), errno));
                if self.shared.pass == WalkPass::Look {
                    self.tally.examined += 1;
                }
                return None;
            }
        };
        self.shared.bounds.note(&mut self.seen, way.id(), name, &stat);
        let WalkPlan { owner, privileges, .. } = self.shared.walk.plan;
        let shared_file = stat.nlink > 1 && stat.uid != owner.uid;
        match self.shared.pass {
            WalkPass::Look => {
                self.tally.examined += 1;
                let leave = privileges == Privileges::Leave;
                if shared_file {
                    self.count_link(way, name);
                } else if !owner.owns(&stat) || (!leave && self.privileged(way, name, &stat)) {
                    self.change(way, name);
                }
            }
            WalkPass::GiveLinks if shared_file => self.give_link(way, name),
            WalkPass::GiveLinks => {}
        }
        Some(stat.kind)
    }

    /// Whether chown(2) would take something from the file: set-user-ID, set-group-ID with
    /// group-execute, file capabilities. If the answer is an error, true: `chown -R` asks no file.
    fn privileged(&mut self, way: DescentWay<'_>, name: &CStr, stat: &Stat) -> bool {
        const SET_USER_ID: u32 = 0o4000;
        const SET_GROUP_ID_AND_EXECUTE: u32 = 0o2010;
        stat.kind == Kind::File
            && (stat.mode & SET_USER_ID != 0
                || stat.mode & SET_GROUP_ID_AND_EXECUTE == SET_GROUP_ID_AND_EXECUTE
                || self.has_capabilities(way, name).unwrap_or_else(|errno| {
                    self.shared.walk.warn_unclear(|| {
                        Error::os("look for capabilities of", join(way, &self.base, name), errno)
                    });
                    true
                }))
    }

    /// Whether regular file `name` has file capabilities. A file system without the attribute has none, nor
    /// has a file that just went.
    fn has_capabilities(&self, way: DescentWay<'_>, name: &CStr) -> Result<bool, Errno> {
        let found = match self.reach.entry(name).has(CAPABILITY) {
            // No /proc here. The file is opened then, which works but costs more.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => at::open_read(way.fd(), name)
                .and_then(|file| XattrTarget::fd(&file).has(CAPABILITY)),
            other => other,
        };
        match found {
            // Gone, or something else by now.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
            other => other,
        }
    }

    /// Opens entry `name`, which was seen to need a change, and changes what is there now.
    fn change(&mut self, way: DescentWay<'_>, name: &CStr) {
        let WalkPlan { owner, mode, .. } = self.shared.walk.plan;
        let Some((handle, stat)) = self.open(way, name) else { return };
        if stat.kind != Kind::Dir && stat.nlink > 1 && stat.uid != owner.uid {
            return self.count_link(way, name);
        }
        match change(handle, || join(way, &self.base, name), owner, mode) {
            Ok(()) => self.tally.changed += 1,
            Err(error) => self.failed(|_| error),
        }
    }

    /// A handle of entry `name`, and what it shows. None if it is gone, or after a warning.
    fn open(&mut self, way: DescentWay<'_>, name: &CStr) -> Option<(OwnedFd, Stat)> {
        let open = || {
            let handle = at::open_handle(way.fd(), name).map_err(|errno| ("open", errno))?;
            let stat = at::stat_fd(&handle).map_err(|errno| ("stat", errno))?;
            Ok((handle, stat))
        };
        match open() {
            Ok(found) => Some(found),
            // Removed or renamed meanwhile.
            Err((_, Errno::NOENT)) => None,
            Err((operation, errno)) => {
                self.failed(|base| Error::os(operation, join(way, base, name), errno));
                None
            }
        }
    }

    /// Counts entry `name`, one of several of its file, for the second walk.
    fn count_link(&mut self, way: DescentWay<'_>, name: &CStr) {
        let (links, begin) = (&self.shared.walk.links, self.shared.bounds.begin());
        links.wait_past(begin);
        let look = || {
            let directory = match way.id() {
                Some(id) => id,
                None => at::stat_fd(way.fd()).map(|stat| stat.id())?,
            };
            Ok((directory, at::stat(way.fd(), name)?))
        };
        match look() {
            Ok((directory, stat)) => links.count(&stat, directory, name, begin),
            Err(Errno::NOENT) => {}
            Err(errno) => self.failed(|base| Error::os("stat", join(way, base, name), errno)),
        }
    }

    /// Gives entry `name`, one of several of its file, if the first walk has counted all of them.
    fn give_link(&mut self, way: DescentWay<'_>, name: &CStr) {
        let WalkPlan { owner, mode, .. } = self.shared.walk.plan;
        let Some((handle, stat)) = self.open(way, name) else { return };
        if stat.kind == Kind::Dir || stat.uid == owner.uid {
            return;
        }
        let (links, path) = (&self.shared.walk.links, || join(way, &self.base, name));
        let failure = match links.judge(&handle, &stat) {
            LinkVerdict::Leave => return,
            LinkVerdict::Give { first: false } if mode == Mode::DryRun => return,
            LinkVerdict::Give { first } => match change(&handle, path, owner, mode) {
                Ok(()) => {
                    links.note_given(&stat);
                    self.tally.changed += u64::from(first);
                    return;
                }
                Err(error) => error,
            },
            LinkVerdict::Refuse(reason) => Error::on("change owner of", path(), reason)
                .hint("give it by hand if it is meant to be the user's"),
        };
        self.tally.failed += 1;
        self.shared.walk.warn(|| failure);
    }
}

/// The path of entry `name`, for messages.
pub(super) fn join(way: DescentWay<'_>, base: &Path, name: &CStr) -> PathBuf {
    way.path(base).join(OsStr::from_bytes(name.to_bytes()))
}
