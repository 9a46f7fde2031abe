//! Removing trees of the destination, with a bounded number of descriptors at any depth. A mount below a
//! name that is removed is left alone with what is in it.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;

use super::access::widen;
use super::announce;
use super::counters::add;
use super::engine::Engine;
use super::fault::Fault;
use super::inode::{InodeId, id_of};
use super::itemize::Change;
use super::limits::{LISTING, SMALL_LISTING};
use super::tree::{DirNode, OpenDir, join};
use crate::fs::{Kind, Stat, at};

/// Directories held open along the path into a tree that is removed.
const OPEN_LEVELS: usize = 8;
/// How many times more a directory is read that is not found empty: somebody may fill it all the time.
pub(super) const AGAIN: usize = 20;
/// Names of subdirectories that wait in all levels before each level reads its own in small portions.
const MANY_WAITING: usize = 8 * 1024;

/// Why a directory is removed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RemovalPurpose {
    /// The source has none of its name.
    Surplus,
    /// The source has something else of its name.
    Room,
}

/// Removes one surplus name with everything below it; false if it stays, which has been said.
pub(super) fn remove_surplus(
    engine: &Engine<'_>,
    node: &DirNode,
    dir: &OwnedFd,
    name: &CStr,
) -> bool {
    let (operation, errno) = match at::stat(dir, name) {
        Ok(stat) if stat.kind == Kind::Dir => {
            return remove_tree(engine, node, dir, name, &stat, RemovalPurpose::Surplus);
        }
        Ok(stat) => {
            announce::change(engine, node, name, Change::Delete(stat.kind));
            match if engine.dry_run() { Ok(()) } else { at::unlink(dir, name) } {
                Ok(()) => {
                    add(&engine.counters.deleted, 1);
                    return true;
                }
                Err(errno) => ("remove", errno),
            }
        }
        Err(Errno::NOENT) => return true,
        Err(errno) => ("stat", errno),
    };
    announce::removal(engine, node.path_of(name), Fault::Removal { operation, errno });
    false
}

/// Makes room where a directory stands in the place of something else. Without deletion only an
/// empty one gives way, and so after an error at the source.
pub(super) fn clear(
    engine: &Engine<'_>,
    node: &DirNode,
    dir: &OwnedFd,
    name: &CStr,
) -> Result<(), Errno> {
    let delete = engine.request.options.delete;
    match at::remove_dir(dir, name) {
        Err(Errno::NOTEMPTY | Errno::EXIST) if delete && engine.may_remove() => {
            let stat = at::stat(dir, name)?;
            remove_tree(engine, node, dir, name, &stat, RemovalPurpose::Room);
            // Gone, unless something in it could not be removed, which has been said.
            match at::stat(dir, name) {
                Err(Errno::NOENT) => Ok(()),
                _ => Err(Errno::NOTEMPTY),
            }
        }
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Says in a dry run what [`clear`] would remove from the directory `name`, which is `old`.
pub(super) fn foretell_clear(engine: &Engine<'_>, dir: &OpenDir, name: &CStr, old: Option<&Stat>) {
    let wanted = engine.dry_run() && engine.request.options.delete;
    let Some(old) = old.filter(|old| wanted && old.kind == Kind::Dir) else { return };
    if let Some(dst) = &dir.pair.dst
        && engine.may_remove()
    {
        remove_tree(engine, &dir.node, dst, name, old, RemovalPurpose::Room);
    }
}

/// Removes the directory `name` of `parent`; false if it stays, which has been said.
fn remove_tree(
    engine: &Engine<'_>,
    node: &DirNode,
    parent: &OwnedFd,
    name: &CStr,
    stat: &Stat,
    purpose: RemovalPurpose,
) -> bool {
    let (mount_id, base, levels) = (stat.mount_id, node.path(), Vec::new());
    let removal = TreeRemoval { engine, parent, mount_id, base, purpose, levels, waiting: 0 };
    removal.run(name)
}

/// A tree that is being removed.
struct TreeRemoval<'a> {
    engine: &'a Engine<'a>,
    /// The directory that it is an entry of.
    parent: &'a OwnedFd,
    mount_id: u64,
    /// Path of `parent`.
    base: PathBuf,
    purpose: RemovalPurpose,
    /// From the top of the tree down.
    levels: Vec<RemovalLevel>,
    /// Names of subdirectories that wait in all levels.
    waiting: usize,
}

/// One level of it.
struct RemovalLevel {
    name: CString,
    id: InodeId,
    dir: Option<OwnedFd>,
    /// Of those found so far.
    directories: Vec<CString>,
    /// Where to go on in it, set when `dir` is let go.
    position: u64,
    /// It has not been read to its end.
    more: bool,
    /// Something was removed since it was last read from its beginning.
    removed: bool,
    /// How many times it may yet be read from its beginning.
    again: usize,
    /// Something below stays, so this directory stays too.
    stays: bool,
}

impl RemovalLevel {
    /// Lets go of the descriptor.
    fn shut(&mut self) {
        if let Some(dir) = self.dir.take() {
            // From the beginning it is read as well.
            self.position = at::position(&dir).unwrap_or(0);
        }
    }

    /// Whether the level can be read once more: not every file system lists what it has left when some of
    /// a long list is removed meanwhile.
    fn read_again(&mut self) -> bool {
        let again = self.removed && self.again > 0;
        let Some(dir) = self.dir.as_ref().filter(|_| again) else { return false };
        (self.more, self.removed, self.again) = (true, false, self.again - 1);
        at::set_position(dir, 0).is_ok()
    }
}

impl TreeRemoval<'_> {
    /// Removes the directory `name` of the parent; false if it stays.
    fn run(mut self, name: &CStr) -> bool {
        let mut buffer = vec![MaybeUninit::uninit(); LISTING];
        let Some(top) = self.enter(self.parent.as_fd(), name) else { return false };
        self.levels.push(top);
        let mut stays = false;
        while let Some(mut level) = self.levels.pop() {
            if !self.engine.may_remove() {
                return false;
            }
            if let Some(next) = level.directories.pop() {
                self.waiting -= 1;
                self.levels.push(level);
                if !self.go_down(&next) {
                    return false;
                }
            } else if level.more {
                let many = self.waiting >= MANY_WAITING;
                let size = if many { SMALL_LISTING } else { LISTING };
                self.empty(&mut level, &mut buffer[..size]);
                self.waiting += level.directories.len();
                self.levels.push(level);
            } else {
                stays = level.stays;
                match self.leave(&level) {
                    Ok(()) => {}
                    Err(Errno::NOTEMPTY | Errno::EXIST) if level.read_again() => {
                        self.levels.push(level);
                    }
                    Err(errno) => {
                        self.fail(self.path(&level.name), "remove directory", errno);
                        match self.levels.last_mut() {
                            Some(above) if above.dir.is_some() => above.stays = true,
                            _ => return false,
                        }
                    }
                }
            }
        }
        !stays
    }

    /// Goes on in the directory `name` of the deepest level; false where that level is lost.
    fn go_down(&mut self, name: &CStr) -> bool {
        let Some(dir) = self.levels.last().and_then(|level| level.dir.as_ref()) else {
            return false;
        };
        match self.enter(dir.as_fd(), name) {
            Some(level) => self.levels.push(level),
            None => self.keep_deepest(),
        }
        if let Some(shut) = self.levels.len().checked_sub(1 + OPEN_LEVELS) {
            self.levels[shut].shut();
        }
        true
    }

    /// Notes that something in the deepest level stays.
    fn keep_deepest(&mut self) {
        if let Some(deepest) = self.levels.last_mut() {
            deepest.stays = true;
        }
    }

    /// Opens the directory `name` of the deepest level and returns the level to work on; an error has been
    /// said.
    fn enter(&self, dir: BorrowedFd<'_>, name: &CStr) -> Option<RemovalLevel> {
        widen(self.engine, dir, name);
        let opened = at::open_dir(dir, name)
            .and_then(|fd| at::stat_fd(&fd).map(|stat| (fd, stat)))
            .and_then(|(fd, stat)| match stat.mount_id == self.mount_id && !stat.mount_root {
                true => Ok((fd, stat)),
                false => Err(Errno::BUSY),
            });
        let (fd, stat) = match opened {
            Ok(opened) => opened,
            Err(Errno::BUSY) => {
                announce::removal(self.engine, self.path(name), Fault::MountedOver);
                return None;
            }
            Err(errno) => {
                self.fail(self.path(name), "open directory", errno);
                return None;
            }
        };
        Some(RemovalLevel {
            name: name.to_owned(),
            id: id_of(&stat),
            dir: Some(fd),
            directories: Vec::new(),
            position: 0,
            more: true,
            removed: false,
            again: AGAIN,
            stays: false,
        })
    }

    /// Reads the next portion of a level, removes everything in it that is no directory, and notes what is.
    fn empty(&self, level: &mut RemovalLevel, buffer: &mut [MaybeUninit<u8>]) {
        let engine = self.engine;
        let RemovalLevel { name, dir: Some(fd), directories, more, removed, stays, .. } = level
        else {
            return;
        };
        let path = || self.path(name);
        let listed = at::list_portion(&*fd, buffer, |name, _, _| {
            if !engine.may_remove() {
                return ControlFlow::Break(());
            }
            match at::stat(&*fd, name) {
                Ok(stat) if stat.kind == Kind::Dir => directories.push(name.to_owned()),
                Ok(stat) => {
                    let below = || join(&path(), name);
                    announce::change_at(engine, below, Change::Delete(stat.kind));
                    match if engine.dry_run() { Ok(()) } else { at::unlink(&*fd, name) } {
                        Ok(()) => {
                            *removed = true;
                            add(&engine.counters.deleted, 1);
                        }
                        Err(errno) => {
                            *stays = true;
                            self.fail(below(), "remove", errno);
                        }
                    }
                }
                Err(Errno::NOENT) => {}
                Err(errno) => {
                    *stays = true;
                    self.fail(path(), "stat an entry of", errno);
                }
            }
            ControlFlow::Continue(())
        });
        *more = listed.is_ok_and(|flow| flow.is_continue());
        if let Err(errno) = listed {
            *stays = true;
            self.fail(path(), "list", errno);
        }
    }

    /// Removes the emptied directory `done` from the level above it, whose descriptor is found again
    /// through ".." if it was let go; it must be the same directory as before.
    fn leave(&mut self, done: &RemovalLevel) -> Result<(), Errno> {
        let above = self.levels.last_mut();
        if let (Some(above), Some(dir)) = (above, &done.dir)
            && above.dir.is_none()
        {
            let found = at::open_dir(dir, c"..")?;
            if id_of(&at::stat_fd(&found)?) != above.id {
                return Err(Errno::STALE);
            }
            at::set_position(&found, above.position)?;
            above.dir = Some(found);
        }
        if done.stays {
            self.keep_deepest();
            return Ok(());
        }
        if !self.engine.dry_run() {
            let dir = self.levels.last().and_then(|above| above.dir.as_ref());
            at::remove_dir(dir.unwrap_or(self.parent), &done.name)?;
        }
        // What takes the place of the top is a change of its own.
        if self.purpose == RemovalPurpose::Surplus || !self.levels.is_empty() {
            let path = || self.path(&done.name);
            announce::change_at(self.engine, path, Change::Delete(Kind::Dir));
        }
        add(&self.engine.counters.deleted, 1);
        if let Some(above) = self.levels.last_mut() {
            above.removed = true;
        }
        Ok(())
    }

    /// The path of `name` in the deepest level.
    fn path(&self, name: &CStr) -> PathBuf {
        let mut path = self.base.clone();
        for level in &self.levels {
            path = join(&path, &level.name);
        }
        join(&path, name)
    }

    fn fail(&self, path: PathBuf, operation: &'static str, errno: Errno) {
        announce::removal(self.engine, path, Fault::Removal { operation, errno });
    }
}
