//! Directories: listing the source, making the destination, finishing when everything below is done.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::ahead::{Found, look};
use super::itemize::{Change, Differences};
use super::metadata::{Object, Xattrs, compare};
use super::pool::{Name, Task};
use super::report::{Side, add};
use super::tree::{Node, Pair};
use super::{Engine, Pass, Worker};
use crate::fs::xattr::Target;
use crate::fs::{Kind, Stat, at};

/// Names gathered before they are sorted by inode number and handed on. ext4 hands out names in the
/// order of their hashes; in the order of inodes, tables and data are read front to back.
const BATCH: usize = 1024;
/// Entries one thread takes at a time: many, where handing over costs more than the work, and few,
/// where each one waits for the volume (or a batch, where a batch waits once).
const LIST_FAST: usize = 64;
const LIST_SLOW: usize = 4;

/// What stands ready in the destination for a source directory.
struct Place {
    dst: Option<OwnedFd>,
    fresh: bool,
}

impl Engine<'_> {
    /// Queues the directory `name` of `node`.
    pub(super) fn descend(&self, node: &Arc<Node>, name: CString) {
        node.expect(1);
        self.queue.push_beyond_limit(Task::Directory(node.clone(), name));
    }

    /// Mirrors the directory `name` of `parent` with its entries; those that are directories are
    /// queued.
    pub(super) fn directory(&self, worker: &mut Worker, parent: &Arc<Node>, name: CString) {
        let Some(pair) = self.open(parent, &name) else { return };
        let opened = at::open_dir(&pair.src, &name)
            .and_then(|src| at::stat_fd(&src).map(|stat| (src, stat)));
        let (src, stat) = match opened {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return self.vanished(parent, &name),
            Err(errno) => return self.fail(parent, &name, Side::Source, "open directory", errno),
        };
        let xattrs = match Xattrs::read(&Target::fd(&src)) {
            Ok(xattrs) => xattrs,
            Err(errno) => {
                return self.fail(parent, &name, Side::Source, "read xattrs of", errno);
            }
        };
        let made = match self.pass {
            Pass::Copy => self.make_directory(parent, &pair, &name, &stat, &xattrs).map(Some),
            Pass::MakeRoom => Ok(existing_directory(&pair, &name)),
        };
        let place = match made {
            Ok(Some(place)) => place,
            Ok(None) => return,
            Err((operation, errno)) => {
                return self.fail(parent, &name, Side::Destination, operation, errno);
            }
        };
        let fresh = place.fresh;
        let pair = Arc::new(Pair { src, dst: place.dst });
        let node = match Node::new(Some(parent.clone()), name, stat, &pair, fresh) {
            Ok(node) => Arc::new(node),
            Err(errno) => {
                return self.fail(parent, c"", Side::Destination, "stat a new directory in", errno);
            }
        };
        parent.expect(1);
        self.held.note(&node);
        if stat.mount_id == self.src_mount {
            self.list(worker, &node, &pair);
        } else {
            // What is mounted there belongs to another file system; its mount point is ours.
            node.whole.store(false, Ordering::Relaxed);
            self.leave_out(parent, &node.name);
        }
        self.release(node);
    }

    /// Reads the source directory and deals with its entries.
    pub(super) fn list(&self, worker: &mut Worker, node: &Arc<Node>, pair: &Arc<Pair>) {
        add(&self.counters.directories, 1);
        let mut batch: Vec<Name> = Vec::new();
        let mut listing = std::mem::take(&mut worker.listing);
        let listed = at::list(&pair.src, &mut listing, |name, kind, ino| {
            if self.is_excepted(node, name) {
                return;
            }
            node.src_entries.fetch_add(1, Ordering::Relaxed);
            if kind == Some(Kind::Dir) {
                return self.descend(node, name.to_owned());
            }
            add(&self.counters.waiting, 1);
            batch.push(Name { name: name.to_owned(), kind, ino });
            if batch.len() == BATCH {
                self.hand_out(worker, node, pair, std::mem::take(&mut batch));
            }
        });
        worker.listing = listing;
        if let Err(errno) = listed {
            node.whole.store(false, Ordering::Relaxed);
            self.fail(node, c"", Side::Source, "list", errno);
        }
        self.hand_out(worker, node, pair, batch);
    }

    /// Cuts a batch into lists for the queue and does what does not fit there itself.
    fn hand_out(
        &self,
        worker: &mut Worker,
        node: &Arc<Node>,
        pair: &Arc<Pair>,
        mut batch: Vec<Name>,
    ) {
        if self.counters.stopped() {
            return self.pass_over(batch.len());
        }
        batch.sort_unstable_by_key(|name| name.ino);
        let size = match (self.queue.slow(), node.fresh) {
            (false, _) => LIST_FAST,
            (true, false) => LIST_SLOW,
            (true, true) => worker.ahead.batch(self.ahead_wanted()).max(LIST_SLOW),
        };
        while batch.len() > size {
            let list = batch.split_off(batch.len() - size);
            self.pass_on(worker, node, pair, list);
        }
        node.expect(1);
        self.entries(worker, node, Some(pair), batch);
    }

    /// Mirrors a list of entries, one expected thing of `node`.
    pub(super) fn entries(
        &self,
        worker: &mut Worker,
        node: &Arc<Node>,
        pair: Option<&Arc<Pair>>,
        list: Vec<Name>,
    ) {
        let opened;
        let pair = match pair {
            Some(pair) => Some(pair),
            None => {
                opened = self.open(node, c"");
                opened.as_ref()
            }
        };
        match pair {
            Some(pair) => self.batches(worker, node, pair, list),
            None => self.pass_over(list.len()),
        }
        self.release(node.clone());
    }

    /// Looks at the entries a batch at a time and mirrors each. Where their content will be wanted,
    /// the small files of a batch are read ahead, and the others are left to whoever is free.
    fn batches(&self, worker: &mut Worker, node: &Arc<Node>, pair: &Arc<Pair>, list: Vec<Name>) {
        let open = node.fresh && self.pass == Pass::Copy;
        let fill = open && !self.options.dry_run;
        let alone = list.len() == 1;
        let mut list = list.into_iter();
        while list.len() > 0 && !self.counters.stopped() {
            let size = if fill { worker.ahead.batch(self.ahead_wanted()) } else { 1 };
            let names = list.by_ref().take(size);
            let mut batch: Vec<Found> = names.map(|name| look(pair, name, open)).collect();
            if worker.ahead.read(&mut batch, self.src_mount).is_err() {
                // This file system reads with waiting only.
                self.no_ahead.store(true, Ordering::Relaxed);
            }
            for found in batch {
                if self.counters.stopped() {
                    self.pass_over(1);
                } else if fill && !alone && found.is_large() {
                    self.pass_on(worker, node, pair, vec![found.name]);
                } else {
                    self.entry(worker, node, pair, found);
                    self.pass_over(1);
                }
            }
        }
        self.pass_over(list.len());
    }

    fn ahead_wanted(&self) -> bool {
        self.queue.slow() && !self.no_ahead.load(Ordering::Relaxed)
    }

    /// Leaves a list to whoever is free; it is done here only when the queue is full.
    fn pass_on(&self, worker: &mut Worker, node: &Arc<Node>, pair: &Arc<Pair>, list: Vec<Name>) {
        node.expect(1);
        if let Err(Task::Entries(node, list)) = self.queue.push(Task::Entries(node.clone(), list)) {
            self.entries(worker, &node, Some(pair), list);
        }
    }

    /// Notes that `count` listed entries are dealt with, or given up.
    fn pass_over(&self, count: usize) {
        self.counters.waiting.fetch_sub(count as u64, Ordering::Relaxed);
    }

    /// Opens the destination directory for `stat`, making it where needed.
    fn make_directory(
        &self,
        parent: &Arc<Node>,
        pair: &Arc<Pair>,
        name: &CStr,
        stat: &Stat,
        xattrs: &Xattrs,
    ) -> Result<Place, (&'static str, Errno)> {
        let Some(dir) = &pair.dst else {
            self.change(parent, name, || Change::Create(Kind::Dir));
            add(&self.counters.copied, 1);
            return Ok(Place { dst: None, fresh: true });
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
            let dst = at::open_dir(dir, name).map_err(|errno| ("open directory", errno))?;
            self.mend_directory(parent, name, stat, xattrs, &dst)?;
            return Ok(Place { dst: Some(dst), fresh: false });
        }
        self.change(parent, name, || Change::Create(Kind::Dir));
        add(&self.counters.copied, 1);
        if self.options.dry_run {
            return Ok(Place { dst: None, fresh: true });
        }
        if old.is_some() {
            at::unlink(dir, name).map_err(|errno| ("remove", errno))?;
        }
        at::make_dir(dir, name, 0o700).map_err(|errno| ("make directory", errno))?;
        let dst = at::open_dir(dir, name).map_err(|errno| ("open directory", errno))?;
        if parent.fresh {
            return Ok(Place { dst: Some(dst), fresh: true });
        }
        // Somebody who can write in the parent may have put another directory there meanwhile.
        let made = at::stat_fd(&dst).map_err(|errno| ("stat", errno))?;
        let ours = made.uid == rustix::process::geteuid().as_raw() && made.mode & 0o077 == 0;
        if !ours {
            self.mend_directory(parent, name, stat, xattrs, &dst)?;
            return Ok(Place { dst: Some(dst), fresh: false });
        }
        let none = Xattrs::default();
        let found = Xattrs::read(&Target::fd(&dst)).map_err(|e| ("read xattrs of", e))?;
        Object::Open(dst.as_fd()).apply_differences(
            &Differences::default(),
            &made,
            &none,
            &found,
            &mut |operation, errno| self.fail(parent, name, Side::Destination, operation, errno),
        );
        Ok(Place { dst: Some(dst), fresh: true })
    }

    /// Mends owner, mode, ACLs and xattrs of a directory that was there before its entries are
    /// touched; its times wait for the end.
    pub(super) fn mend_directory(
        &self,
        parent: &Arc<Node>,
        name: &CStr,
        stat: &Stat,
        xattrs: &Xattrs,
        dst: &OwnedFd,
    ) -> Result<(), (&'static str, Errno)> {
        let old = at::stat_fd(dst).map_err(|errno| ("stat", errno))?;
        let found = Xattrs::read(&Target::fd(dst)).map_err(|errno| ("read xattrs of", errno))?;
        let mut differences = compare(stat, &old, xattrs, &found);
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
            &mut |operation, errno| self.fail(parent, name, Side::Destination, operation, errno),
        );
        Ok(())
    }

    /// Notes that one expected thing of `node` is done, and finishes every directory of which that
    /// was the last.
    pub(super) fn release(&self, node: Arc<Node>) {
        let mut node = node;
        while node.done() {
            let pair = self.finish(&node);
            let Some(parent) = node.parent.clone() else { return };
            if let Some(pair) = pair {
                self.held.reach_up(&parent, &pair);
            }
            node = parent;
        }
    }

    /// Everything below is done: a new directory is opened to its users, and any gets its times.
    fn finish(&self, node: &Arc<Node>) -> Option<Arc<Pair>> {
        if self.options.dry_run || self.pass == Pass::MakeRoom {
            if self.options.delete && !node.fresh && node.whole.load(Ordering::Relaxed) {
                self.note_surplus(node);
            }
            return None;
        }
        let pair = self.open(node, c"")?;
        let dst = pair.dst.as_ref()?;
        if node.fresh {
            match Xattrs::read(&Target::fd(&pair.src)) {
                Ok(xattrs) => Object::Open(dst.as_fd()).apply_new(
                    &node.stat,
                    &xattrs,
                    false,
                    &mut |operation, errno| {
                        self.fail(node, c"", Side::Destination, operation, errno);
                    },
                ),
                Err(errno) => self.fail(node, c"", Side::Source, "read xattrs of", errno),
            }
        } else {
            self.settle_times(node, dst);
            let whole = node.whole.load(Ordering::Relaxed);
            if self.options.delete && whole && self.has_surplus(node, dst) {
                self.note_surplus(node);
            }
        }
        Some(pair)
    }

    /// Sets the modification time of an older directory again, if its entries changed it.
    pub(super) fn settle_times(&self, node: &Node, dst: &OwnedFd) {
        let fail = |operation, errno| self.fail(node, c"", Side::Destination, operation, errno);
        match at::stat_fd(dst) {
            Ok(now) if now.mtime == node.stat.mtime => {}
            Ok(_) => Object::Open(dst.as_fd()).set_mtime(&node.stat, &mut { fail }),
            Err(errno) => fail("stat", errno),
        }
    }

    /// Whether the destination may have names the source has not. Every source name is there by now, so
    /// counting decides; where something failed, names have to be compared.
    fn has_surplus(&self, node: &Node, dst: &OwnedFd) -> bool {
        let mut count = 0;
        let mut buffer = vec![std::mem::MaybeUninit::uninit(); super::LISTING];
        let counted = at::list(dst, &mut buffer, |name, _, _| {
            count += u64::from(!self.is_excepted(node, name));
        });
        counted.is_err()
            || count != node.src_entries.load(Ordering::Relaxed)
            || node.uncertain.load(Ordering::Relaxed)
    }
}

/// The destination directory `name` if there is one.
fn existing_directory(pair: &Pair, name: &CStr) -> Option<Place> {
    let dst = at::open_dir(pair.dst.as_ref()?, name).ok()?;
    Some(Place { dst: Some(dst), fresh: false })
}
