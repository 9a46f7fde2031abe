//! Removing what the source does not have.
//!
//! Deletion comes last: only when the whole source has been read without an error is a name that is
//! not there known to be gone, and each is looked up once more before. After the first error at the
//! source no thread removes anything more.
#![forbid(unsafe_code)]

use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::access::{narrow, settle_times, widen};
use super::announce;
use super::delete;
use super::engine::{Engine, MirrorTask};
use super::fault::Fault;
use super::limits::LISTING;
use super::tree::DirNode;
use crate::fs::at;
use crate::lock::lock;

/// Bytes of an entry beside its name in what getdents64(2) fills.
const LISTED: usize = 24;

/// Remembers a directory whose names have to be compared after everything was copied.
pub(super) fn note(engine: &Engine<'_>, node: &Arc<DirNode>) {
    if engine.kept.has_room() {
        engine.kept.add(node);
        lock(&engine.surplus).push(node.clone());
    } else {
        engine.counters.deletion_pending.store(true, Ordering::Relaxed);
    }
}

/// Queues the deletions, unless the source could not be read in full, or not all of it has been.
pub(super) fn queue(engine: &Engine<'_>) {
    let counters = &engine.counters;
    let nodes = std::mem::take(&mut *lock(&engine.surplus));
    let pending = counters.deletion_pending.swap(false, Ordering::Relaxed)
        || counters.unlinked.load(Ordering::Relaxed) > 0;
    if nodes.is_empty() && !pending || engine.stopped() || !engine.may_remove() {
        return;
    }
    if counters.over_limit.load(Ordering::Relaxed) {
        counters.deletion_withheld.store(true, Ordering::Relaxed);
        tracing::warn!("nothing is deleted, because a file that is too large was not read");
        return;
    }
    if counters.did_not_fit.load(Ordering::Relaxed) {
        // It has not been read to its end, and reading the source again takes long.
        let any = pending || nodes.iter().any(|node| has_surplus(engine, node));
        counters.deletion_deferred.store(any, Ordering::Relaxed);
        return;
    }
    if pending {
        return counters.deletion_pending.store(true, Ordering::Relaxed);
    }
    for node in nodes {
        engine.queue.push(MirrorTask::Purge(node));
    }
}

/// Whether `node`'s destination directory has a name that the source's is seen not to have.
fn has_surplus(engine: &Engine<'_>, node: &Arc<DirNode>) -> bool {
    let Some(dir) = announce::opened(engine, node, c"") else { return false };
    let Some(dst) = &dir.pair.dst else { return false };
    let mut found = false;
    let mut buffer = vec![MaybeUninit::uninit(); LISTING];
    let listed = at::list_until(dst, &mut buffer, |name, _, _| {
        found = !engine.is_excepted(node, name)
            && matches!(at::stat(&dir.pair.src, name), Err(Errno::NOENT));
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    // If it cannot be listed, no more is removed than otherwise.
    listed.is_ok() && found
}

/// Removes from the destination directory of `node` what the source directory has not.
pub(super) fn purge(engine: &Engine<'_>, node: &Arc<DirNode>) {
    let Some(dir) = announce::opened(engine, node, c"") else { return };
    let Some(dst) = &dir.pair.dst else { return };
    // Finished, with the permission bits of the source's.
    let mode = widen(engine, dst, c".");
    let mut buffer = vec![MaybeUninit::uninit(); LISTING];
    for _ in 0..=delete::AGAIN {
        let (mut bytes, mut removed, mut stays) = (0, false, false);
        let listed = at::list_until(dst, &mut buffer, |name, _, _| {
            bytes += name.to_bytes().len() + LISTED;
            if engine.is_excepted(node, name) {
                return ControlFlow::Continue(());
            }
            if !engine.may_remove() {
                return ControlFlow::Break(());
            }
            match at::stat(&dir.pair.src, name) {
                Ok(_) => {}
                Err(Errno::NOENT) => {
                    let gone = delete::remove_surplus(engine, node, dst, name);
                    removed |= gone;
                    stays |= !gone;
                }
                Err(errno) => {
                    announce::fault(engine, node, name, Fault::source("stat")(errno));
                }
            }
            ControlFlow::Continue(())
        });
        if let Err(errno) = listed {
            let fault = Fault::destination("list")(errno);
            announce::fault(engine, node, c"", fault);
            break;
        }
        // Not every file system lists what it has left when some of a long list is removed meanwhile.
        if !removed || stays || bytes < LISTING / 2 || engine.dry_run() {
            break;
        }
    }
    if let Some(mode) = mode {
        narrow(engine, node, dst, mode);
    }
    if !engine.dry_run() {
        settle_times(engine, node, dst);
    }
}
