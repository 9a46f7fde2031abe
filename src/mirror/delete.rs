//! Removing what the source does not have.
//!
//! Deletion comes last: only when the whole source has been read without an error is a name that is
//! not there known to be gone, and each is looked up once more before. After the first error at the
//! source no thread removes anything more. Trees are removed with a bounded number of descriptors at any depth,
//! and a mount below a surplus name is left alone with what is in it.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
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

/// Bytes of an entry beside its name in what getdents64(2) fills.
const LISTED: usize = 24;
/// Directories held open along the path into a tree that is removed.
const OPEN_LEVELS: usize = 8;

/// How many times more a directory is read that is not found empty: somebody may fill it all the time.
const AGAIN: usize = 20;
/// Names of subdirectories that wait in all levels before each level reads its own in small portions.
const MANY_WAITING: usize = 8 * 1024;
/// What one getdents64(2) may fill then.
const SMALL_LISTING: usize = 512;

/// Why a directory is removed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// The source has none of its name.
    Surplus,
    /// The source has something else of its name.
    Room,
}

/// One level of a tree that is being removed.
struct Level {
    name: CString,
    id: Id,
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

impl Level {
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

impl Engine<'_> {
    /// Remembers a directory whose names have to be compared after everything was copied.
    pub(super) fn note_surplus(&self, node: &Arc<Node>) {
        if self.kept.has_room() {
            self.kept.add(node);
            self.surplus.lock().unwrap_or_else(PoisonError::into_inner).push(node.clone());
        } else {
            self.counters.deletion_pending.store(true, Ordering::Relaxed);
        }
    }

    /// Queues the deletions, unless the source could not be read in full, or not all of it has been.
    pub(super) fn queue_purges(&self) {
        let nodes =
            std::mem::take(&mut *self.surplus.lock().unwrap_or_else(PoisonError::into_inner));
        let pending = self.counters.deletion_pending.swap(false, Ordering::Relaxed)
            || self.counters.unlinked.load(Ordering::Relaxed) > 0;
        if nodes.is_empty() && !pending || self.stopped() {
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
            let any = pending || nodes.iter().any(|node| self.is_surplus_in(node));
            self.counters.deletion_deferred.store(any, Ordering::Relaxed);
            return;
        }
        if pending {
            return self.counters.deletion_pending.store(true, Ordering::Relaxed);
        }
        for node in nodes {
            node.expect(1);
            self.queue.push_beyond_limit(Task::Purge(node));
        }
    }

    /// Whether something that only the destination has may be removed now: a source that has answered
    /// with an error once may next say that a name is not there.
    fn may_remove(&self) -> bool {
        let stopped = self.stopped();
        if !self.counters.source_errors.load(Ordering::Relaxed) {
            return !stopped;
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
        let Some(dst) = &pair.dst else { return false };
        let mut found = false;
        let mut buffer = vec![MaybeUninit::uninit(); LISTING];
        let listed = at::list_until(dst, &mut buffer, |name, _, _| {
            found = !self.is_excepted(node, name)
                && matches!(at::stat(&pair.src, name), Err(Errno::NOENT));
            if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        // Where it cannot be told, no more is removed than otherwise.
        listed.is_ok() && found
    }

    /// Removes from the destination directory of `node` what the source directory has not.
    pub(super) fn purge(&self, node: &Arc<Node>) {
        let Some(pair) = self.open(node, c"") else { return };
        let Some(dst) = &pair.dst else { return };
        // Finished, with the permission bits of the source's.
        let mode = self.widen(dst, c".");
        let mut buffer = vec![MaybeUninit::uninit(); LISTING];
        for _ in 0..=AGAIN {
            let (mut bytes, mut removed, mut stays) = (0, false, false);
            let listed = at::list_until(dst, &mut buffer, |name, _, _| {
                bytes += name.to_bytes().len() + LISTED;
                if self.is_excepted(node, name) {
                    return ControlFlow::Continue(());
                }
                if !self.may_remove() {
                    return ControlFlow::Break(());
                }
                match at::stat(&pair.src, name) {
                    Ok(_) => {}
                    Err(Errno::NOENT) => {
                        let gone = self.remove(node, dst, name);
                        removed |= gone;
                        stays |= !gone;
                    }
                    Err(errno) => self.fail(node, name, Side::Source, "stat", errno),
                }
                ControlFlow::Continue(())
            });
            if let Err(errno) = listed {
                self.fail(node, c"", Side::Destination, "list", errno);
                break;
            }
            // Not every file system lists what it has left when some of a long list is removed meanwhile.
            if !removed || stays || bytes < LISTING / 2 || self.options.dry_run {
                break;
            }
        }
        if let Some(mode) = mode {
            self.narrow(node, dst, mode);
        }
        if !self.options.dry_run {
            self.settle_times(node, dst);
        }
    }

    /// Removes one surplus name with everything below it; false if it stays, which has been said.
    fn remove(&self, node: &Arc<Node>, dir: &OwnedFd, name: &CStr) -> bool {
        let (operation, errno) = match at::stat(dir, name) {
            Ok(stat) if stat.kind == Kind::Dir => {
                return self.remove_tree(node, dir, name, &stat, Purpose::Surplus);
            }
            Ok(stat) => {
                self.change(node, name, || Change::Delete(stat.kind));
                match if self.options.dry_run { Ok(()) } else { at::unlink(dir, name) } {
                    Ok(()) => {
                        add(&self.counters.deleted, 1);
                        return true;
                    }
                    Err(errno) => ("remove", errno),
                }
            }
            Err(Errno::NOENT) => return true,
            Err(errno) => ("stat", errno),
        };
        self.fail_removal(join(&node.path(), name), operation, errno);
        false
    }

    /// Makes room where a directory stands in the place of something else. Without deletion only an
    /// empty one gives way, and so after an error at the source.
    pub(super) fn clear(&self, node: &Arc<Node>, dir: &OwnedFd, name: &CStr) -> Result<(), Errno> {
        match at::remove_dir(dir, name) {
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.options.delete && self.may_remove() => {
                let stat = at::stat(dir, name)?;
                self.remove_tree(node, dir, name, &stat, Purpose::Room);
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

    /// Says in a dry run what [`Engine::clear`] would remove from the directory `name`, which is `old`.
    pub(super) fn foretell_clear(&self, node: &Arc<Node>, name: &CStr, old: Option<&Stat>) {
        let wanted = self.options.dry_run && self.options.delete;
        let Some(old) = old.filter(|old| wanted && old.kind == Kind::Dir) else { return };
        let Some(pair) = self.open(node, c"") else { return };
        if let Some(dir) = &pair.dst
            && self.may_remove()
        {
            self.remove_tree(node, dir, name, old, Purpose::Room);
        }
    }

    /// Removes the directory `name` of `parent`; false if it stays, which has been said.
    fn remove_tree(
        &self,
        node: &Arc<Node>,
        parent: &OwnedFd,
        name: &CStr,
        stat: &Stat,
        purpose: Purpose,
    ) -> bool {
        let base = node.path();
        let mut buffer = vec![MaybeUninit::uninit(); LISTING];
        let (mut levels, mut waiting): (Vec<Level>, usize) = (Vec::new(), 0);
        match self.enter(&base, &levels, parent.as_fd(), name, stat.mount_id) {
            Ok(level) => levels.push(level),
            Err(()) => return false,
        }
        let mut stays = false;
        while let Some(depth) = levels.len().checked_sub(1) {
            if !self.may_remove() {
                return false;
            }
            if let Some(next) = levels[depth].directories.pop() {
                waiting -= 1;
                let Some(dir) = &levels[depth].dir else { return false };
                match self.enter(&base, &levels, dir.as_fd(), &next, stat.mount_id) {
                    Ok(level) => levels.push(level),
                    Err(()) => levels[depth].stays = true,
                }
                if levels.len() > OPEN_LEVELS {
                    let shut = levels.len() - 1 - OPEN_LEVELS;
                    levels[shut].shut();
                }
                continue;
            }
            let (above, level) = levels.split_at_mut(depth);
            if level[0].more {
                let size = if waiting < MANY_WAITING { LISTING } else { SMALL_LISTING };
                self.empty(&base, above, &mut level[0], &mut buffer[..size]);
                waiting += level[0].directories.len();
                continue;
            }
            let Some(mut done) = levels.pop() else { return false };
            stays = done.stays;
            if let Err(errno) = self.leave(&base, &mut levels, parent, &done, purpose) {
                if matches!(errno, Errno::NOTEMPTY | Errno::EXIST) && done.read_again() {
                    levels.push(done);
                    continue;
                }
                let path = self.removal_path(&base, &levels, &done.name);
                self.fail_removal(path, "remove directory", errno);
                match levels.last_mut() {
                    Some(above) if above.dir.is_some() => above.stays = true,
                    _ => return false,
                }
            }
        }
        !stays
    }

    /// Opens the directory `name` and gives the level to work on. An error has been said.
    fn enter(
        &self,
        base: &Path,
        levels: &[Level],
        dir: BorrowedFd<'_>,
        name: &CStr,
        mount_id: u64,
    ) -> Result<Level, ()> {
        let path = || self.removal_path(base, levels, name);
        self.widen(dir, name);
        let opened = at::open_dir(dir, name)
            .and_then(|fd| at::stat_fd(&fd).map(|stat| (fd, stat)))
            .and_then(|(fd, stat)| match stat.mount_id == mount_id && !stat.mount_root {
                true => Ok((fd, stat)),
                false => Err(Errno::BUSY),
            });
        match opened {
            Ok((fd, stat)) => Ok(Level {
                name: name.to_owned(),
                id: id(&stat),
                dir: Some(fd),
                directories: Vec::new(),
                position: 0,
                more: true,
                removed: false,
                again: AGAIN,
                stays: false,
            }),
            Err(Errno::BUSY) => {
                let (path, shown) = self.show(path(), Side::Destination);
                let error = Error::on("remove", shown, "something is mounted there")
                    .hint("unmount it, it is left alone with what is in it");
                let reason = String::from("remove: something is mounted there");
                self.counters.record(Side::Destination, path, reason, &error);
                Err(())
            }
            Err(errno) => {
                self.fail_removal(path(), "open directory", errno);
                Err(())
            }
        }
    }

    /// Reads the next portion of a level, removes everything in it that is no directory, and notes what is.
    fn empty(
        &self,
        base: &Path,
        above: &[Level],
        level: &mut Level,
        buffer: &mut [MaybeUninit<u8>],
    ) {
        let Level { name, dir: Some(fd), directories, more, removed, stays, .. } = level else {
            return;
        };
        let path = || self.removal_path(base, above, name);
        let listed = at::list_portion(&*fd, buffer, |name, _, _| {
            if !self.may_remove() {
                return ControlFlow::Break(());
            }
            match at::stat(&*fd, name) {
                Ok(stat) if stat.kind == Kind::Dir => directories.push(name.to_owned()),
                Ok(stat) => {
                    let below = || join(&path(), name);
                    self.change_at(below, || Change::Delete(stat.kind));
                    match if self.options.dry_run { Ok(()) } else { at::unlink(&*fd, name) } {
                        Ok(()) => {
                            *removed = true;
                            add(&self.counters.deleted, 1);
                        }
                        Err(errno) => {
                            *stays = true;
                            self.fail_removal(below(), "remove", errno);
                        }
                    }
                }
                Err(Errno::NOENT) => {}
                Err(errno) => {
                    *stays = true;
                    self.fail_removal(path(), "stat an entry of", errno);
                }
            }
            ControlFlow::Continue(())
        });
        *more = listed.is_ok_and(|flow| flow.is_continue());
        if let Err(errno) = listed {
            *stays = true;
            self.fail_removal(path(), "list", errno);
        }
    }

    /// Removes the emptied directory `done` from the level above it, whose descriptor is found again
    /// through ".." if it was let go; it must be the same directory as before.
    fn leave(
        &self,
        base: &Path,
        levels: &mut [Level],
        parent: &OwnedFd,
        done: &Level,
        purpose: Purpose,
    ) -> Result<(), Errno> {
        if let (Some(above), Some(dir)) = (levels.last_mut(), &done.dir)
            && above.dir.is_none()
        {
            let found = at::open_dir(dir, c"..")?;
            if id(&at::stat_fd(&found)?) != above.id {
                return Err(Errno::STALE);
            }
            at::set_position(&found, above.position)?;
            above.dir = Some(found);
        }
        if done.stays {
            if let Some(above) = levels.last_mut() {
                above.stays = true;
            }
            return Ok(());
        }
        let dir = levels.last().and_then(|above| above.dir.as_ref()).unwrap_or(parent);
        if !self.options.dry_run {
            at::remove_dir(dir, &done.name)?;
        }
        // What takes the place of the top is a change of its own.
        if purpose == Purpose::Surplus || !levels.is_empty() {
            self.change_at(
                || self.removal_path(base, levels, &done.name),
                || Change::Delete(Kind::Dir),
            );
        }
        add(&self.counters.deleted, 1);
        if let Some(above) = levels.last_mut() {
            above.removed = true;
        }
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
