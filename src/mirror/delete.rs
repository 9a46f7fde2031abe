//! Removing what the source does not have.
//!
//! Deletion comes last: only when the whole source has been read without an error is a name that is
//! not there known to be gone, and each is looked up once more before. After the first error at the
//! source no thread removes anything more. Trees are removed with a bounded number of descriptors at any depth,
//! and a mount below a surplus name is left alone with what is in it.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use rustix::io::Errno;

use super::itemize::Change;
use super::links::{Id, id};
use super::pool::Task;
use super::report::{Side, add};
use super::tree::{Node, join};
use super::{Engine, LISTING};
use crate::error::Error;
use crate::fs::{Kind, Stat, at};

/// Directories held open along the path into a tree that is removed.
const OPEN_LEVELS: usize = 8;

/// Names of one directory, back to back with their type, so that a million of them stay small.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<u8>);

impl Names {
    pub fn read(dir: impl AsFd) -> Result<Self, Errno> {
        let mut names = Self::default();
        let mut buffer = vec![MaybeUninit::uninit(); LISTING];
        at::list(dir, &mut buffer, |name, _, _| {
            names.0.extend_from_slice(name.to_bytes_with_nul());
        })?;
        Ok(names)
    }

    pub fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.0
            .split_inclusive(|&byte| byte == 0)
            .filter_map(|name| CStr::from_bytes_with_nul(name).ok())
    }
}

/// One level of a tree that is being removed.
struct Level {
    name: CString,
    id: Id,
    dir: Option<OwnedFd>,
    directories: Vec<CString>,
    /// Something below stays, so this directory stays too.
    stays: bool,
}

impl Engine<'_> {
    /// Remembers a directory whose names have to be compared after everything was copied.
    pub(super) fn note_surplus(&self, node: &Arc<Node>) {
        self.surplus.lock().unwrap_or_else(PoisonError::into_inner).push(node.clone());
    }

    /// Queues the deletions, unless the source could not be read in full.
    pub(super) fn queue_purges(&self) {
        let nodes =
            std::mem::take(&mut *self.surplus.lock().unwrap_or_else(PoisonError::into_inner));
        if nodes.is_empty() || self.stopped() {
            return;
        }
        if !self.may_remove() {
            return;
        }
        if self.counters.over_limit.load(Ordering::Relaxed) {
            self.counters.deletion_withheld.store(true, Ordering::Relaxed);
            tracing::warn!("nothing is deleted, because a file that is too large was not read");
            return;
        }
        if self.counters.did_not_fit.load(Ordering::Relaxed) {
            // It has not been read to its end, and reading the source again takes long.
            let any = nodes.iter().any(|node| self.is_surplus_in(node));
            self.counters.deletion_deferred.store(any, Ordering::Relaxed);
            return;
        }
        for node in nodes {
            node.expect(1);
            self.queue.push_beyond_limit(Task::Purge(node));
        }
    }

    /// Whether something that only the destination has may be removed now: a source that has answered
    /// with an error once may next say that a name is not there.
    fn may_remove(&self) -> bool {
        if !self.counters.source_errors.load(Ordering::Relaxed) {
            return !self.stopped();
        }
        if !self.counters.deletion_withheld.swap(true, Ordering::Relaxed) {
            let more = if self.counters.deleted.load(Ordering::Relaxed) > 0 { "more " } else { "" };
            tracing::warn!(
                "nothing {more}is deleted, because not everything at the source could be read"
            );
        }
        false
    }

    /// Whether `node`'s destination directory has a name that the source's is seen not to have.
    fn is_surplus_in(&self, node: &Arc<Node>) -> bool {
        let Some(pair) = self.open(node, c"") else { return false };
        let Some(names) = pair.dst.as_ref().and_then(|dst| Names::read(dst).ok()) else {
            return false;
        };
        names.iter().any(|name| {
            !self.is_excepted(node, name) && matches!(at::stat(&pair.src, name), Err(Errno::NOENT))
        })
    }

    /// Removes from the destination directory of `node` what the source directory has not.
    pub(super) fn purge(&self, node: &Arc<Node>) {
        let Some(pair) = self.open(node, c"") else { return };
        let Some(dst) = &pair.dst else { return };
        let names = match Names::read(dst) {
            Ok(names) => names,
            Err(errno) => return self.fail(node, c"", Side::Destination, "list", errno),
        };
        // Finished, with the permission bits of the source's.
        let mode = self.widen(dst, c".");
        for name in names.iter().filter(|name| !self.is_excepted(node, name)) {
            if !self.may_remove() {
                break;
            }
            match at::stat(&pair.src, name) {
                Ok(_) => {}
                Err(Errno::NOENT) => self.remove(node, dst, name),
                Err(errno) => self.fail(node, name, Side::Source, "stat", errno),
            }
        }
        if let Some(mode) = mode {
            self.narrow(node, dst, mode);
        }
        if !self.options.dry_run {
            self.settle_times(node, dst);
        }
    }

    /// Removes one surplus name with everything below it.
    fn remove(&self, node: &Arc<Node>, dir: &OwnedFd, name: &CStr) {
        match at::stat(dir, name) {
            Ok(stat) if stat.kind == Kind::Dir => self.remove_tree(node, dir, name, &stat),
            Ok(stat) => {
                self.change(node, name, || Change::Delete(stat.kind));
                if self.options.dry_run {
                    return add(&self.counters.deleted, 1);
                }
                match at::unlink(dir, name) {
                    Ok(()) => add(&self.counters.deleted, 1),
                    Err(errno) => self.fail_removal(join(&node.path(), name), "remove", errno),
                }
            }
            Err(Errno::NOENT) => {}
            Err(errno) => self.fail_removal(join(&node.path(), name), "stat", errno),
        }
    }

    /// Makes room where a directory stands in the place of something else. Without deletion only an
    /// empty one gives way, and so after an error at the source.
    pub(super) fn clear(&self, node: &Arc<Node>, dir: &OwnedFd, name: &CStr) -> Result<(), Errno> {
        match at::remove_dir(dir, name) {
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.options.delete && self.may_remove() => {
                let stat = at::stat(dir, name)?;
                self.remove_tree(node, dir, name, &stat);
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

    fn remove_tree(&self, node: &Arc<Node>, parent: &OwnedFd, name: &CStr, stat: &Stat) {
        let base = node.path();
        let mut levels: Vec<Level> = Vec::new();
        match self.enter(&base, &levels, parent.as_fd(), name, stat.mount_id) {
            Ok(level) => levels.push(level),
            Err(()) => return,
        }
        while let Some(depth) = levels.len().checked_sub(1) {
            if !self.may_remove() {
                return;
            }
            if let Some(next) = levels[depth].directories.pop() {
                let Some(dir) = &levels[depth].dir else { return };
                match self.enter(&base, &levels, dir.as_fd(), &next, stat.mount_id) {
                    Ok(level) => levels.push(level),
                    Err(()) => levels[depth].stays = true,
                }
                if levels.len() > OPEN_LEVELS {
                    let shut = levels.len() - 1 - OPEN_LEVELS;
                    levels[shut].dir = None;
                }
                continue;
            }
            let Some(done) = levels.pop() else { return };
            if let Err(errno) = self.leave(&base, &mut levels, parent, &done) {
                let path = self.removal_path(&base, &levels, &done.name);
                self.fail_removal(path, "remove directory", errno);
                match levels.last_mut() {
                    Some(above) if above.dir.is_some() => above.stays = true,
                    _ => return,
                }
            }
        }
    }

    /// Opens the directory `name`, removes everything in it that is no directory, and gives the
    /// level to work on. An error has been said.
    fn enter(
        &self,
        base: &Path,
        levels: &[Level],
        dir: BorrowedFd<'_>,
        name: &CStr,
        mount_id: u64,
    ) -> Result<Level, ()> {
        let path = || self.removal_path(base, levels, name);
        let fail = |operation, errno| self.fail_removal(path(), operation, errno);
        self.widen(dir, name);
        let opened = at::open_dir(dir, name)
            .and_then(|fd| at::stat_fd(&fd).map(|stat| (fd, stat)))
            .and_then(|(fd, stat)| match stat.mount_id == mount_id && !stat.mount_root {
                true => Names::read(&fd).map(|names| (fd, stat, names)),
                false => Err(Errno::BUSY),
            });
        let (fd, stat, names) = match opened {
            Ok(opened) => opened,
            Err(Errno::BUSY) => {
                let (path, shown) = self.show(path(), Side::Destination);
                let error = Error::on("remove", shown, "something is mounted there")
                    .hint("unmount it, it is left alone with what is in it");
                let reason = String::from("remove: something is mounted there");
                self.counters.record(Side::Destination, path, reason, &error);
                return Err(());
            }
            Err(errno) => {
                fail("open directory", errno);
                return Err(());
            }
        };
        let name = name.to_owned();
        let mut level =
            Level { name, id: id(&stat), dir: None, directories: Vec::new(), stays: false };
        for name in names.iter() {
            if !self.may_remove() {
                break;
            }
            match at::stat(&fd, name) {
                Ok(stat) if stat.kind == Kind::Dir => level.directories.push(name.to_owned()),
                Ok(stat) => {
                    let below = || join(&path(), name);
                    self.change_at(below, || Change::Delete(stat.kind));
                    let removed = if self.options.dry_run { Ok(()) } else { at::unlink(&fd, name) };
                    match removed {
                        Ok(()) => add(&self.counters.deleted, 1),
                        Err(errno) => {
                            level.stays = true;
                            self.fail_removal(below(), "remove", errno);
                        }
                    }
                }
                Err(Errno::NOENT) => {}
                Err(errno) => {
                    level.stays = true;
                    fail("stat an entry of", errno);
                }
            }
        }
        level.dir = Some(fd);
        Ok(level)
    }

    /// Removes the emptied directory `done` from the level above it, whose descriptor is found again
    /// through ".." if it was let go; it must be the same directory as before.
    fn leave(
        &self,
        base: &Path,
        levels: &mut [Level],
        parent: &OwnedFd,
        done: &Level,
    ) -> Result<(), Errno> {
        if let (Some(above), Some(dir)) = (levels.last_mut(), &done.dir)
            && above.dir.is_none()
        {
            let found = at::open_dir(dir, c"..")?;
            if id(&at::stat_fd(&found)?) != above.id {
                return Err(Errno::STALE);
            }
            above.dir = Some(found);
        }
        if done.stays {
            if let Some(above) = levels.last_mut() {
                above.stays = true;
            }
            return Ok(());
        }
        self.change_at(
            || self.removal_path(base, levels, &done.name),
            || Change::Delete(Kind::Dir),
        );
        let dir = levels.last().and_then(|above| above.dir.as_ref()).unwrap_or(parent);
        if !self.options.dry_run {
            at::remove_dir(dir, &done.name)?;
        }
        add(&self.counters.deleted, 1);
        Ok(())
    }

    /// The path of `name` below `levels` below `base`.
    fn removal_path(&self, base: &Path, levels: &[Level], name: &CStr) -> PathBuf {
        let mut path = base.to_owned();
        for level in levels {
            path = join(&path, &level.name);
        }
        join(&path, name)
    }
}
