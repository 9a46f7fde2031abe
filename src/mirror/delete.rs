//! Removing trees of the destination, with a bounded number of descriptors at any depth. A mount below a
//! name that is removed is left alone with what is in it.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;

use super::access::widen;
use super::announce;
use super::counters::add;
use super::engine::Engine;
use super::fault::Fault;
use super::itemize::Change;
use super::tree::{DirNode, OpenDir, join};
use crate::fs::descent::{DescentNext, TreeDescent};
use crate::fs::{Kind, Stat, at};

/// How many times more a directory is read that is not found empty: somebody may fill it all the time.
pub(super) const AGAIN: usize = 20;

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
    let start = match rustix::io::fcntl_dupfd_cloexec(parent, 3) {
        Ok(fd) => Arc::new(fd),
        Err(errno) => {
            let fault = Fault::Removal { operation: "remove directory", errno };
            announce::removal(engine, node.path_of(name), fault);
            return false;
        }
    };
    TreeRemoval {
        engine,
        base: node.path(),
        mount_id: stat.mount_id,
        purpose,
        descent: TreeDescent::new(start, name),
        levels: Vec::new(),
    }
    .run()
}

/// A tree that is being removed.
struct TreeRemoval<'a> {
    engine: &'a Engine<'a>,
    /// Path of the directory that it is an entry of.
    base: PathBuf,
    mount_id: u64,
    purpose: RemovalPurpose,
    /// Begins with the top of the tree.
    descent: TreeDescent,
    /// The state of each directory of the way.
    levels: Vec<RemovalLevel>,
}

struct RemovalLevel {
    /// Something was removed since it was last read from its beginning.
    removed: bool,
    /// How many times it may yet be read from its beginning.
    again: usize,
    /// Something below stays, so this directory stays too.
    stays: bool,
}

impl TreeRemoval<'_> {
    /// False if the top stays.
    fn run(mut self) -> bool {
        if !self.enter(AGAIN) {
            return false;
        }
        loop {
            if !self.engine.may_remove() {
                return false;
            }
            match self.descent.advance() {
                DescentNext::Name => {
                    if !self.enter(AGAIN) {
                        self.keep_deepest();
                    }
                }
                DescentNext::Unread => self.empty(),
                DescentNext::Done => {
                    let Some(gone) = self.leave() else { return false };
                    if self.levels.is_empty() {
                        return gone;
                    }
                }
            }
        }
    }

    /// Enters the directory in turn, which may be read `again` times more; false if it stays, which has been
    /// said.
    fn enter(&mut self, again: usize) -> bool {
        let (way, name) = (self.descent.way(), self.descent.name());
        widen(self.engine, way.fd(), name);
        let opened = at::open_dir(way.fd(), name)
            .and_then(|fd| at::stat_fd(&fd).map(|stat| (fd, stat)))
            .map_err(|errno| Fault::Removal { operation: "open directory", errno })
            .and_then(|(fd, stat)| match stat.mount_id == self.mount_id && !stat.mount_root {
                true if self.descent.is_full() => Err(Fault::TooDeep),
                true => Ok((fd, stat)),
                false => Err(Fault::MountedOver),
            });
        match opened {
            Ok((fd, stat)) => {
                self.descent.enter(fd, &stat);
                self.levels.push(RemovalLevel { removed: false, again, stays: false });
                true
            }
            Err(fault) => {
                announce::removal(self.engine, self.path(name), fault);
                self.descent.skip();
                false
            }
        }
    }

    /// Notes that something in the deepest directory stays.
    fn keep_deepest(&mut self) {
        if let Some(deepest) = self.levels.last_mut() {
            deepest.stays = true;
        }
    }

    /// Reads the next portion of the deepest directory and removes everything in it that is no directory.
    fn empty(&mut self) {
        let Self { engine, base, descent, levels, .. } = self;
        let Some(level) = levels.last_mut() else { return };
        let mut fail = |path, operation, errno| {
            level.stays = true;
            announce::removal(engine, path, Fault::Removal { operation, errno });
        };
        let listed = descent.list(|way, name, _| {
            if !engine.may_remove() {
                return false;
            }
            match at::stat(way.fd(), name) {
                Ok(stat) if stat.kind == Kind::Dir => return true,
                Ok(stat) => {
                    let path = || join(&way.path(base), name);
                    announce::change_at(engine, path, Change::Delete(stat.kind));
                    match if engine.dry_run() { Ok(()) } else { at::unlink(way.fd(), name) } {
                        Ok(()) => {
                            level.removed = true;
                            add(&engine.counters.deleted, 1);
                        }
                        Err(errno) => fail(path(), "remove", errno),
                    }
                }
                Err(Errno::NOENT) => {}
                Err(errno) => fail(way.path(base), "stat an entry of", errno),
            }
            false
        });
        if let Err(errno) = listed {
            fail(descent.way().path(base), "list", errno);
        }
    }

    /// Removes the emptied directory, and returns whether it is gone; `None` where the way to it is lost.
    fn leave(&mut self) -> Option<bool> {
        let level = self.levels.pop()?;
        let name = self.descent.way().last_name().to_owned();
        if self.descent.leave().is_err() {
            self.fail(&name, "find again the directory of", Errno::STALE);
            return None;
        }
        if level.stays {
            self.keep_deepest();
            return Some(false);
        }
        let dry_run = self.engine.dry_run();
        match if dry_run { Ok(()) } else { at::remove_dir(self.descent.here(), &name) } {
            Ok(()) => {}
            // Not every file system lists what it has left when some of a long list is removed meanwhile.
            Err(Errno::NOTEMPTY | Errno::EXIST) if level.removed && level.again > 0 => {
                self.descent.take_up(&name);
                if self.enter(level.again - 1) {
                    return Some(false);
                }
                self.keep_deepest();
                return Some(false);
            }
            Err(errno) => {
                self.fail(&name, "remove directory", errno);
                self.keep_deepest();
                return Some(false);
            }
        }
        // The object that takes the place of the top is a change of its own.
        if self.purpose == RemovalPurpose::Surplus || !self.levels.is_empty() {
            announce::change_at(self.engine, || self.path(&name), Change::Delete(Kind::Dir));
        }
        add(&self.engine.counters.deleted, 1);
        if let Some(above) = self.levels.last_mut() {
            above.removed = true;
        }
        Some(true)
    }

    /// The path of `name` in the deepest directory.
    fn path(&self, name: &CStr) -> PathBuf {
        join(&self.descent.way().path(&self.base), name)
    }

    fn fail(&self, name: &CStr, operation: &'static str, errno: Errno) {
        announce::removal(self.engine, self.path(name), Fault::Removal { operation, errno });
    }
}
