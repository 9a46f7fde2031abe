//! Walking the source: opening its directories, listing them, handing their entries out.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ahead::is_too_large;
use super::announce;
use super::counters::add;
use super::directory::{self, ReadyDir};
use super::engine::{Engine, MirrorPass, MirrorTask, Worker};
use super::entry;
use super::fault::{Fault, Side, Step};
use super::found::{FoundEntry, ListedName, look};
use super::limits::{LISTING, SMALL_LISTING};
use super::tree::{DirNode, DirPair, OpenDir, Pending};
use super::xattrs::Xattrs;
use crate::fs::xattr::XattrTarget;
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

/// Mirrors the directory `name` of `parent` with its entries; those that are directories are
/// queued.
pub(super) fn directory(w: &mut Worker<'_>, parent: &Arc<DirNode>, name: CString) {
    let engine = w.engine;
    let opened = engine.open(parent).and_then(|parent| open(engine, &parent, &name));
    let Some(Some((dir, pending))) = announce::value(engine, parent, &name, opened) else { return };
    engine.held.note(&dir.node);
    if dir.node.stat.mount_id == engine.src_mount {
        list(w, &dir, 0);
    } else {
        // Entries of a mount there belong to another file system; its mount point is ours.
        dir.node.set_incomplete();
        announce::left_out(engine, parent, &dir.node.name);
    }
    release(engine, pending);
}

/// Opens the directory `name` of `parent` in both trees and makes it in the destination where needed; `None`
/// where something else stays in its place.
fn open(engine: &Engine<'_>, parent: &OpenDir, name: &CString) -> Step<Option<(OpenDir, Pending)>> {
    let src = at::open_dir(&parent.pair.src, name).map_err(Fault::source("open directory"))?;
    let stat = at::stat_fd(&src).map_err(Fault::source("open directory"))?;
    let xattrs = Xattrs::read(&XattrTarget::fd(&src)).map_err(Fault::source("read xattrs of"))?;
    let ready = match engine.pass {
        MirrorPass::Copy => directory::make(engine, parent, name, &stat, &xattrs)?,
        _ => Some(directory::existing(engine, parent, name)),
    };
    let Some(ReadyDir { dst, standing, widened, protected }) = ready else { return Ok(None) };
    let pair = Arc::new(DirPair { src, dst });
    let above = Some(parent.node.clone());
    let mut node = DirNode::new(above, name.clone(), stat, &pair, standing)
        .map_err(Fault::destination("stat"))?;
    (node.widened, node.protected) = (widened, protected);
    let pending = Pending::first(node);
    Ok(Some((OpenDir { node: pending.node().clone(), pair }, pending)))
}

/// Reads the source directory from `position` and deals with its entries. Where many directories wait
/// already, the rest waits in the directory until those that were found are done.
pub(super) fn list(w: &mut Worker<'_>, dir: &OpenDir, mut position: u64) {
    let engine = w.engine;
    let OpenDir { node, pair } = dir;
    add(&engine.counters.directories, u64::from(position == 0));
    let mut batch: Vec<ListedName> = Vec::new();
    let mut directories = Vec::new();
    let mut listing = std::mem::take(&mut w.listing);
    let mut listed = at::set_position(&pair.src, position).map(ControlFlow::Continue);
    while let Ok(ControlFlow::Continue(())) = listed {
        add(&engine.counters.life, 1);
        let waiting = engine.queue.later();
        let size = if waiting < MANY { LISTING } else { SMALL_LISTING };
        listed = at::list_portion(&pair.src, &mut listing[..size], |name, mut kind, ino| {
            if engine.is_excepted(node, name) {
                return ControlFlow::Continue(());
            }
            node.src_entries.fetch_add(1, Ordering::Relaxed);
            if kind.is_none() && waiting >= SOME {
                kind = at::stat(&pair.src, name).map(|stat| stat.kind).ok();
            }
            if kind == Some(Kind::Dir) {
                directories.push(name.to_owned());
            } else if kind.is_none() || engine.pass != MirrorPass::Remove {
                add(&engine.counters.waiting, 1);
                batch.push(ListedName { name: name.to_owned(), kind, ino });
            }
            if batch.len() == BATCH {
                hand_out(w, dir, std::mem::take(&mut batch));
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
            engine.queue.push(MirrorTask::List(Pending::more(node), position));
            listed = Ok(ControlFlow::Break(()));
        }
        for name in directories.drain(..) {
            engine.queue_directory(node, name);
        }
    }
    w.listing = listing;
    if let Err(errno) = listed {
        node.set_incomplete();
        let fault = Fault::Os { side: Side::Source, operation: "list", errno };
        announce::fault(engine, node, c"", fault);
    }
    hand_out(w, dir, batch);
}

/// Cuts a batch into lists for the queue and does what does not fit there itself.
fn hand_out(w: &mut Worker<'_>, dir: &OpenDir, mut batch: Vec<ListedName>) {
    let engine = w.engine;
    if engine.stopped() {
        return engine.pass_over(batch.len());
    }
    batch.sort_unstable_by_key(|name| name.ino);
    let ahead = dir.node.is_new() && wants_ahead(engine) && w.ahead.is_able();
    let size = match (engine.pace.is_slow(), ahead) {
        (false, _) => LIST_FAST,
        (true, false) => LIST_SLOW,
        (true, true) => w.ahead.batch().max(LIST_SLOW),
    };
    while batch.len() > size {
        let list = batch.split_off(batch.len() - size);
        pass_on(w, dir, list);
    }
    entries(w, dir, batch);
}

/// Mirrors a list of entries. Looks at them a batch at a time; where their content will be wanted,
/// the small files of a batch are read ahead when that helps, and the large ones are left to
/// free threads.
pub(super) fn entries(w: &mut Worker<'_>, dir: &OpenDir, list: Vec<ListedName>) {
    let engine = w.engine;
    let open = dir.node.is_new() && engine.pass == MirrorPass::Copy;
    let fill = open && !engine.dry_run();
    let alone = list.len() == 1;
    let mut list = list.into_iter();
    while list.len() > 0 && !engine.stopped() {
        // The source is looked at as ourselves, a batch at a time, for taking ids has its price.
        w.ids.reset();
        let size = if fill { w.ahead.batch() } else { 1 };
        let names = list.by_ref().take(size);
        let mut batch: Vec<FoundEntry> = names.map(|name| look(&dir.pair, name, open)).collect();
        if fill && wants_ahead(engine) && w.ahead.read(&mut batch, engine.src_mount).is_err() {
            // This file system reads with waiting only.
            engine.no_ahead.store(true, Ordering::Relaxed);
        }
        for found in batch {
            if engine.stopped() {
                engine.pass_over(1);
            } else if fill && !alone && is_too_large(&found) {
                pass_on(w, dir, vec![found.name]);
            } else {
                entry::mirror(w, dir, found);
                engine.pass_over(1);
            }
        }
    }
    w.ids.reset();
    engine.pass_over(list.len());
}

fn wants_ahead(engine: &Engine<'_>) -> bool {
    engine.pace.is_slow() && !engine.no_ahead.load(Ordering::Relaxed)
}

/// Leaves a list to a free thread; it is done here only when the queue is full.
fn pass_on(w: &mut Worker<'_>, dir: &OpenDir, list: Vec<ListedName>) {
    let task = MirrorTask::Entries(Pending::more(&dir.node), list);
    if let Err(MirrorTask::Entries(pending, list)) = w.engine.queue.offer(task) {
        entries(w, dir, list);
        release(w.engine, pending);
    }
}

/// Notes that one thing is done, and finishes every directory of which that was the last.
pub(super) fn release(engine: &Engine<'_>, pending: Pending) {
    let mut pending = Some(pending);
    while let Some(node) = pending.and_then(Pending::done) {
        let dir = directory::finish(engine, &node);
        if let (Some(dir), Some(parent)) = (dir, &node.parent) {
            engine.held.reach_up(parent, &dir.pair);
        }
        pending = Pending::above(&node);
    }
}
