//! Walking the source: opening its directories, listing them, handing their entries out.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::ahead::{Found, look};
use super::pool::{Name, Task};
use super::report::{Side, add};
use super::tree::{Node, Pair};
use super::xattrs::Xattrs;
use super::{Engine, LISTING, Pass, Worker};
use crate::fs::xattr::Target;
use crate::fs::{Kind, at};

/// Names gathered before they are sorted by inode number and handed on. ext4 hands out names in the
/// order of their hashes; in the order of inodes, tables and data are read front to back.
const BATCH: usize = 1024;
/// Entries one thread takes at a time: many, where handing over costs more than the work, and few,
/// where each one waits for the volume (or a batch, where a batch waits once).
const LIST_FAST: usize = 64;
const LIST_SLOW: usize = 4;

/// Directories that wait before a directory is listed only as far as it is worked off, and before that is
/// done in the smallest portions.
const SOME: u64 = 4096;
const MANY: u64 = 32 * 1024;
/// What one getdents64(2) may fill then.
const SMALL_LISTING: usize = 512;

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
            Pass::Copy => self.make_directory(parent, &pair, &name, &stat, &xattrs),
            _ => Ok(Some(self.existing_directory(parent, &pair, &name))),
        };
        let place = match made {
            Ok(Some(place)) => place,
            Ok(None) => return,
            Err((operation, errno)) => {
                return self.fail(parent, &name, Side::Destination, operation, errno);
            }
        };
        let pair = Arc::new(Pair { src, dst: place.dst });
        let node = match Node::new(Some(parent.clone()), name, stat, &pair, place.fresh) {
            Ok(mut node) => {
                node.closed = place.closed;
                node.unfinished = place.unfinished;
                node.widened = place.widened;
                node.protected = place.protected;
                Arc::new(node)
            }
            Err(errno) => {
                return self.fail(parent, c"", Side::Destination, "stat a new directory in", errno);
            }
        };
        parent.expect(1);
        self.held.note(&node);
        if stat.mount_id == self.src_mount {
            self.list(worker, &node, &pair, 0);
        } else {
            // What is mounted there belongs to another file system; its mount point is ours.
            node.whole.store(false, Ordering::Relaxed);
            self.leave_out(parent, &node.name);
        }
        self.release(node);
    }

    /// Reads the source directory from `position` and deals with its entries. Where many directories wait
    /// already, the rest waits in the directory until those that were found are done.
    pub(super) fn list(
        &self,
        worker: &mut Worker,
        node: &Arc<Node>,
        pair: &Arc<Pair>,
        mut position: u64,
    ) {
        add(&self.counters.directories, u64::from(position == 0));
        let mut batch: Vec<Name> = Vec::new();
        let mut directories = Vec::new();
        let mut listing = std::mem::take(&mut worker.listing);
        let mut listed = at::set_position(&pair.src, position).map(ControlFlow::Continue);
        while let Ok(ControlFlow::Continue(())) = listed {
            add(&self.counters.life, 1);
            let waiting = self.queue.directories();
            let size = if waiting < MANY { LISTING } else { SMALL_LISTING };
            listed = at::list_portion(&pair.src, &mut listing[..size], |name, mut kind, ino| {
                if self.is_excepted(node, name) {
                    return ControlFlow::Continue(());
                }
                node.src_entries.fetch_add(1, Ordering::Relaxed);
                if kind.is_none() && waiting >= SOME {
                    kind = at::stat(&pair.src, name).map(|stat| stat.kind).ok();
                }
                if kind == Some(Kind::Dir) {
                    directories.push(name.to_owned());
                } else if kind.is_none() || self.pass != Pass::Remove {
                    add(&self.counters.waiting, 1);
                    batch.push(Name { name: name.to_owned(), kind, ino });
                }
                if batch.len() == BATCH {
                    self.hand_out(worker, node, pair, std::mem::take(&mut batch));
                }
                ControlFlow::Continue(())
            });
            let more = matches!(listed, Ok(ControlFlow::Continue(())));
            if more && waiting >= SOME && !directories.is_empty() {
                match at::position(&pair.src) {
                    Ok(there) => position = there,
                    Err(errno) => {
                        listed = Err(errno);
                        break;
                    }
                }
                // Below those that were found, for the last is taken first.
                node.expect(1);
                self.queue.push_beyond_limit(Task::List(node.clone(), position));
                listed = Ok(ControlFlow::Break(()));
            }
            for name in directories.drain(..) {
                self.descend(node, name);
            }
        }
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
        if self.stopped() {
            return self.pass_over(batch.len());
        }
        batch.sort_unstable_by_key(|name| name.ino);
        let ahead = node.fresh && self.ahead_wanted() && worker.ahead.is_able();
        let size = match (self.queue.slow(), ahead) {
            (false, _) => LIST_FAST,
            (true, false) => LIST_SLOW,
            (true, true) => worker.ahead.batch().max(LIST_SLOW),
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
    /// the small files of a batch are read ahead when that helps, and the large ones are left to
    /// whoever is free.
    fn batches(&self, worker: &mut Worker, node: &Arc<Node>, pair: &Arc<Pair>, list: Vec<Name>) {
        let open = node.fresh && self.pass == Pass::Copy;
        let fill = open && !self.options.dry_run;
        let alone = list.len() == 1;
        let mut list = list.into_iter();
        while list.len() > 0 && !self.stopped() {
            // The source is looked at as ourselves, a batch at a time, for taking ids has its price.
            worker.ids.reset();
            let size = if fill { worker.ahead.batch() } else { 1 };
            let names = list.by_ref().take(size);
            let mut batch: Vec<Found> = names.map(|name| look(pair, name, open)).collect();
            if fill && self.ahead_wanted() && worker.ahead.read(&mut batch, self.src_mount).is_err()
            {
                // This file system reads with waiting only.
                self.no_ahead.store(true, Ordering::Relaxed);
            }
            for found in batch {
                if self.stopped() {
                    self.pass_over(1);
                } else if fill && !alone && found.is_large() {
                    self.pass_on(worker, node, pair, vec![found.name]);
                } else {
                    self.entry(worker, node, pair, found);
                    self.pass_over(1);
                }
            }
        }
        worker.ids.reset();
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
}
