//! Directories of the destination: making and mending them before their entries, finishing them after.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;

use super::itemize::{Change, Differences};
use super::metadata::{Object, compare};
use super::report::{Side, add};
use super::times::same_time;
use super::tree::{Node, Pair};
use super::xattrs::Xattrs;
use super::{Engine, Pass};
use crate::fs::xattr::Target;
use crate::fs::{Kind, MAKING, Stat, at};

/// What stands ready in the destination for a source directory.
pub(super) struct Place {
    pub dst: Option<OwnedFd>,
    /// See [`Node::fresh`].
    pub fresh: bool,
    /// See [`Node::closed`].
    pub closed: bool,
    /// See [`Node::widened`].
    pub widened: Option<u32>,
    /// See [`Node::unfinished`].
    pub unfinished: bool,
    /// See [`Node::protected`].
    pub protected: bool,
}

impl Place {
    /// A directory of this run's own making, none in a dry run.
    fn fresh(dst: Option<OwnedFd>) -> Self {
        let closed = false;
        Self { dst, fresh: true, closed, widened: None, unfinished: false, protected: false }
    }

    /// One that was there, and is open to its users.
    fn open(dst: OwnedFd) -> Self {
        Self { fresh: false, ..Self::fresh(Some(dst)) }
    }
}

impl Engine<'_> {
    /// Opens the destination directory for `stat`, making it where needed.
    pub(super) fn make_directory(
        &self,
        parent: &Arc<Node>,
        pair: &Arc<Pair>,
        name: &CStr,
        stat: &Stat,
        xattrs: &Xattrs,
    ) -> Result<Option<Place>, (&'static str, Errno)> {
        let Some(dir) = &pair.dst else {
            self.change(parent, name, || Change::Create(Kind::Dir));
            add(&self.counters.copied, 1);
            return Ok(Some(Place::fresh(None)));
        };
        let old = if parent.fresh {
            None
        } else {
            match at::stat(dir, name) {
                Ok(old) => Some(old),
                Err(Errno::NOENT) => None,
                Err(errno) => return Err(("stat", errno)),
            }
        };
        if let Some(old) = &old
            && old.kind == Kind::Dir
        {
            let widened = self.widen(dir, name);
            let dst = at::open_dir(dir, name).map_err(|errno| ("open directory", errno))?;
            let mut place = Place { widened, ..Place::open(dst) };
            if is_closed(old) && !self.options.dry_run {
                // Not another one that was put there since.
                let now = place.dst.as_ref().map(at::stat_fd).transpose();
                let now = now.map_err(|errno| ("stat", errno))?;
                place.closed = now.as_ref().is_some_and(is_closed);
                place.unfinished = now.as_ref().is_some_and(is_unfinished);
            }
            // What its owner may not do in it as the source has it waits for the end as well.
            place.closed |= self.is_narrow(stat) || self.is_narrow(old);
            if let (false, Some(dst)) = (place.closed, &place.dst) {
                self.mend_directory(parent, name, stat, xattrs, dst)?;
            }
            place.protected = self.protects(stat, old);
            return Ok(Some(place));
        }
        if old.is_some_and(|old| self.protects(stat, &old)) {
            self.keep(parent, name);
            return Ok(None);
        }
        self.change(parent, name, || Change::Create(Kind::Dir));
        add(&self.counters.copied, 1);
        if self.options.dry_run {
            return Ok(Some(Place::fresh(None)));
        }
        if old.is_some() {
            at::unlink(dir, name).map_err(|errno| ("remove", errno))?;
        }
        let writing = self.queue.writing();
        at::make_dir(dir, name, MAKING).map_err(|errno| ("make directory", errno))?;
        let dst = at::open_dir(dir, name).map_err(|errno| ("open directory", errno))?;
        drop(writing);
        if parent.fresh {
            return Ok(Some(Place::fresh(Some(dst))));
        }
        // Somebody who can write in the parent may have put another directory there meanwhile.
        let made = at::stat_fd(&dst).map_err(|errno| ("stat", errno))?;
        if !is_closed(&made) {
            self.mend_directory(parent, name, stat, xattrs, &dst)?;
            return Ok(Some(Place::open(dst)));
        }
        let none = Xattrs::default();
        let found = Xattrs::read(&Target::fd(&dst)).map_err(|e| ("read xattrs of", e))?;
        Object::Open(dst.as_fd()).apply_differences(
            &Differences::default(),
            &made,
            &none,
            &found,
            &mut |operation, errno| self.fail_attribute(parent, name, operation, errno),
        );
        Ok(Some(Place::fresh(Some(dst))))
    }

    /// The destination directory `name`; of one that is not there, or not within reach, the source is
    /// read all the same.
    pub(super) fn existing_directory(&self, parent: &Arc<Node>, pair: &Pair, name: &CStr) -> Place {
        let Some(dir) = &pair.dst else { return Place::fresh(None) };
        let widened =
            if matches!(self.pass, Pass::Links(_)) { self.widen(dir, name) } else { None };
        match at::open_dir(dir, name) {
            Ok(dst) => Place { widened, ..Place::open(dst) },
            Err(errno) => {
                if !matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP) {
                    self.fail(parent, name, Side::Destination, "open directory", errno);
                }
                Place::fresh(None)
            }
        }
    }

    /// Mends owner, mode, ACLs and xattrs of a directory that was there, before its entries are
    /// touched unless it is closed; its times wait for the end.
    pub(super) fn mend_directory(
        &self,
        parent: &Arc<Node>,
        name: &CStr,
        stat: &Stat,
        xattrs: &Xattrs,
        dst: &OwnedFd,
    ) -> Result<(), (&'static str, Errno)> {
        let old = at::stat_fd(dst).map_err(|errno| ("stat", errno))?;
        // A directory is not made anew for it.
        let found = Xattrs::read(&Target::fd(dst)).unwrap_or_else(|errno| {
            self.fail_attribute(parent, name, "read xattrs of", errno);
            Xattrs::default()
        });
        let mut differences = compare(stat, &old, xattrs, &found, dst);
        if self.protects(stat, &old) {
            // Its time of last change tells only that something in it was made or removed.
            differences.time = false;
            if differences.any() {
                self.keep(parent, name);
            }
            return Ok(());
        }
        if differences.any() {
            self.change(parent, name, || Change::Touch(Kind::Dir, differences));
        }
        differences.time = false;
        if !differences.any() {
            return Ok(());
        }
        add(&self.counters.touched, 1);
        if self.options.dry_run {
            return Ok(());
        }
        Object::Open(dst.as_fd()).apply_differences(
            &differences,
            stat,
            xattrs,
            &found,
            &mut |operation, errno| self.fail_attribute(parent, name, operation, errno),
        );
        Ok(())
    }

    /// Everything below is done: a new or closed directory is opened to its users, and any gets its
    /// times.
    pub(super) fn finish(&self, node: &Arc<Node>) -> Option<Arc<Pair>> {
        if self.pass == Pass::Remove {
            if !node.fresh && node.whole.load(Ordering::Relaxed) {
                self.purge(node);
            }
            return None;
        }
        if self.options.dry_run || self.pass == Pass::MakeRoom {
            if self.removes() && !node.fresh && node.whole.load(Ordering::Relaxed) {
                self.note_surplus(node);
            }
            return None;
        }
        let pair = self.open(node, c"")?;
        let dst = pair.dst.as_ref()?;
        let mut fail = |operation, errno| self.fail_attribute(node, c"", operation, errno);
        if node.unfinished && !is_closed(&node.stat) {
            self.take_back(node, &pair.src, dst);
        }
        if node.fresh || node.closed {
            match Xattrs::read(&Target::fd(&pair.src)) {
                Ok(xattrs) if node.fresh => {
                    let dir = Object::Open(dst.as_fd());
                    dir.apply_new(&node.stat, &xattrs, None, false, &mut fail);
                }
                Ok(xattrs) => {
                    if let Err((operation, errno)) =
                        self.mend_directory(node, c"", &node.stat, &xattrs, dst)
                    {
                        self.fail(node, c"", Side::Destination, operation, errno);
                    }
                }
                Err(errno) => self.fail(node, c"", Side::Source, "read xattrs of", errno),
            }
        }
        if let Some(mode) = node.widened {
            self.narrow(node, dst, if node.protected { mode } else { node.stat.mode });
        }
        if !node.fresh {
            self.settle_times(node, dst);
            let whole = node.whole.load(Ordering::Relaxed);
            if self.removes() && whole && self.has_surplus(node, dst) {
                self.note_surplus(node);
            }
        }
        Some(pair)
    }

    /// Gives to root what a killed run has left half-written in a directory that is about to be opened
    /// and this one has not replaced (it could not be read, or the run ends early): files under a name of
    /// the source's that are not as the source has them and have the permissions of a file in the making.
    fn take_back(&self, node: &Arc<Node>, src: &OwnedFd, dst: &OwnedFd) {
        let own = rustix::process::geteuid().as_raw();
        let take = |name: &CStr| {
            let handle = at::open_handle(dst, name).map_err(|errno| ("open", errno))?;
            let old = at::stat_fd(&handle).map_err(|errno| ("stat", errno))?;
            let making = old.kind == Kind::File && old.mode == 0o600 && old.nlink == 1;
            if !making || old.uid == own {
                return Ok(());
            }
            match at::stat(src, name) {
                // Not of this source's making; its owner keeps it.
                Err(Errno::NOENT) => return Ok(()),
                Ok(new) if new.size == old.size && same_time(&new, &old, dst) => return Ok(()),
                // Where it cannot be told it is taken: the directory says that it is ours.
                Ok(_) | Err(_) => {}
            }
            at::chown_fd(&handle, own, old.gid).map_err(|errno| ("change owner of", errno))
        };
        let mut buffer = vec![std::mem::MaybeUninit::uninit(); super::LISTING];
        let listed = at::list(dst, &mut buffer, |name, _, _| match take(name) {
            Ok(()) | Err((_, Errno::NOENT)) => {}
            Err((operation, errno)) => self.fail_attribute(node, name, operation, errno),
        });
        if let Err(errno) = listed {
            self.fail(node, c"", Side::Destination, "list", errno);
        }
    }

    /// Whether the directory's owner, if that is who runs this, may not do everything in it.
    pub(super) fn is_narrow(&self, stat: &Stat) -> bool {
        self.ordinary && !self.options.dry_run && stat.mode & 0o700 != 0o700
    }

    /// Lets the owner of the directory `name` work in it until it is finished, as rsync(1) does. Gives the
    /// permission bits that it had; none where nothing was changed, and where that may not be, what
    /// follows says so.
    pub(super) fn widen(&self, dir: impl AsFd, name: &CStr) -> Option<u32> {
        if !self.ordinary || self.options.dry_run {
            return None;
        }
        let handle = at::open_handle(dir, name).ok()?;
        let now = at::stat_fd(&handle).ok()?;
        if now.kind != Kind::Dir || !self.is_narrow(&now) {
            return None;
        }
        at::chmod_handle(&handle, now.mode | 0o700).ok().map(|()| now.mode)
    }

    /// Gives an open directory the permission bits `mode` again.
    pub(super) fn narrow(&self, node: &Arc<Node>, dst: &OwnedFd, mode: u32) {
        if let Err(errno) = at::again(|| fchmod(dst, Mode::from_raw_mode(mode))) {
            self.fail_attribute(node, c"", "change mode of", errno);
        }
    }

    /// Sets the modification time of an older directory again, if its entries changed it.
    pub(super) fn settle_times(&self, node: &Arc<Node>, dst: &OwnedFd) {
        let mut fail = |operation, errno| self.fail_attribute(node, c"", operation, errno);
        match at::stat_fd(dst) {
            Ok(now) if node.protected || same_time(&node.stat, &now, dst) => {}
            Ok(_) => Object::Open(dst.as_fd()).set_mtime(&node.stat, &mut fail),
            Err(errno) => fail("stat", errno),
        }
    }

    /// Whether the destination may have names the source has not. Every source name is there by now, so
    /// counting decides; where something failed, names have to be compared.
    fn has_surplus(&self, node: &Node, dst: &OwnedFd) -> bool {
        let mut count = 0;
        let mut buffer = vec![std::mem::MaybeUninit::uninit(); super::LISTING];
        let counted = at::list(dst, &mut buffer, |name, _, _| {
            add(&self.counters.life, 1);
            count += u64::from(!self.is_excepted(node, name));
        });
        counted.is_err()
            || count != node.src_entries.load(Ordering::Relaxed)
            || node.uncertain.load(Ordering::Relaxed)
    }
}

/// Whether nobody but ourselves can reach what is in the directory.
fn is_closed(stat: &Stat) -> bool {
    stat.uid == rustix::process::geteuid().as_raw() && stat.mode & 0o077 == 0
}

/// Whether it is one that a killed run has left in the making. Nobody but ourselves has ever been in it.
fn is_unfinished(stat: &Stat) -> bool {
    is_closed(stat) && stat.mode & 0o1777 == MAKING
}
