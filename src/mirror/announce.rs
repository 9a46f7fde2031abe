//! Lines for the log, counts for the report and changes for the observer.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{StatVfsMountFlags, fstatfs, fstatvfs};
use rustix::io::Errno;

use super::counters::log_bounded;
use super::engine::Engine;
use super::fault::{AttributeFaults, Fault, Side, Step};
use super::itemize::Change;
use super::report::Stop;
use super::tree::{DirNode, OpenDir};
use crate::error::{escape, shorten};
use crate::fs::{Dir, at};

/// One step on `name` in `node`, or on the directory itself where that is empty, has failed.
pub(super) fn fault(engine: &Engine<'_>, node: &Arc<DirNode>, name: &CStr, fault: Fault) {
    node.set_uncertain();
    match fault {
        Fault::Stopped => return,
        Fault::Vanished => return vanished(engine, node, name),
        _ => {}
    }
    let path = node.path_of(name);
    let shown = shown(engine, &path, fault.side());
    engine.counters.fail(&fault, path, shown);
    let counters = &engine.counters;
    match fault {
        Fault::TooLarge(Errno::FBIG) => counters.over_limit.store(true, Ordering::Relaxed),
        Fault::TooLarge(_) => counters.did_not_fit.store(true, Ordering::Relaxed),
        _ if fault.is_full() && is_in_the_top_s_room(engine, node) => counters.stop(Stop::Full),
        _ if fault.is_full() => counters.did_not_fit.store(true, Ordering::Relaxed),
        _ if fault.is_read_only() && is_on_the_top_s_fs(engine, node) => stop_read_only(engine),
        _ => {}
    }
}

/// The value of a step on `name` in `node`, if it has not failed.
pub(super) fn value<T>(
    engine: &Engine<'_>,
    node: &Arc<DirNode>,
    name: &CStr,
    step: Step<T>,
) -> Option<T> {
    step.map_err(|error| fault(engine, node, name, error)).ok()
}

/// Opens `node`; a failure is one on `name` in it.
pub(super) fn opened(engine: &Engine<'_>, node: &Arc<DirNode>, name: &CStr) -> Option<OpenDir> {
    value(engine, node, name, engine.open(node))
}

/// Attributes of the destination's `name` in `node` could not be changed.
pub(super) fn attributes(
    engine: &Engine<'_>,
    node: &Arc<DirNode>,
    name: &CStr,
    faults: AttributeFaults,
) {
    for error in faults {
        fault(engine, node, name, error);
    }
}

/// The object at `path` in the destination could not be removed.
pub(super) fn removal(engine: &Engine<'_>, path: PathBuf, fault: Fault) {
    let shown = shown(engine, &path, Side::Destination);
    engine.counters.fail(&fault, path, shown);
    if fault.is_read_only() {
        stop_read_only(engine);
    }
}

fn vanished(engine: &Engine<'_>, node: &DirNode, name: &CStr) {
    let number = engine.counters.vanished.fetch_add(1, Ordering::Relaxed);
    log_bounded(number, "vanished entries", || {
        let shown = shown(engine, &node.path_of(name), Side::Source);
        tracing::warn!("{} vanished before it could be read", escape(shorten(&shown).as_ref()));
    });
}

/// A mount below the top of the source is not followed.
pub(super) fn left_out(engine: &Engine<'_>, node: &DirNode, name: &CStr) {
    node.set_uncertain();
    let number = engine.counters.mounts_left_out.fetch_add(1, Ordering::Relaxed);
    log_bounded(number, "mounts", || {
        let shown = shown(engine, &node.path_of(name), Side::Source);
        tracing::info!("{} is a mount of its own, left out", escape(shorten(&shown).as_ref()));
    });
}

/// `name` in `node` stays as it is although the source has something else.
pub(super) fn kept(engine: &Engine<'_>, node: &DirNode, name: &CStr) {
    let number = engine.counters.kept.fetch_add(1, Ordering::Relaxed);
    let path = node.path_of(name);
    log_bounded(number, "entries that stay", || {
        let shown = shown(engine, &path, Side::Destination);
        let shown = shorten(&shown);
        tracing::info!("{} stays: it is newer than the snapshot", escape(shown.as_ref()));
    });
    engine.counters.kept_paths.list(shorten(&path).into_owned());
}

/// `name` in `node` is about to be changed.
pub(super) fn change(engine: &Engine<'_>, node: &DirNode, name: &CStr, change: Change) {
    change_at(engine, || node.path_of(name), change);
}

/// The object at `path` is changed.
pub(super) fn change_at(engine: &Engine<'_>, path: impl FnOnce() -> PathBuf, change: Change) {
    let observer = engine.request.observer;
    if observer.wants_changes() {
        observer.change(&change, &path());
    }
}

fn shown(engine: &Engine<'_>, path: &std::path::Path, side: Side) -> PathBuf {
    let top = match side {
        Side::Source => engine.request.src.path(),
        Side::Destination => engine.request.dst_path(),
    };
    if path.as_os_str().is_empty() { top.to_owned() } else { top.join(path) }
}

/// Ends the run if the top of the destination is known to be read-only.
fn stop_read_only(engine: &Engine<'_>) {
    let flags = |dst: &Dir| at::again(|| fstatvfs(dst)).map(|fs| fs.f_flag);
    let flags = engine.request.dst.map(flags);
    if flags.is_some_and(|flags| flags.is_ok_and(|flags| flags.contains(StatVfsMountFlags::RDONLY)))
    {
        engine.counters.stop(Stop::ReadOnly);
    }
}

/// Whether `node`'s destination directory is on the mount and in the subvolume of the top: what is
/// mounted inside may be full, or read-only, where all the rest is not.
fn is_on_the_top_s_fs(engine: &Engine<'_>, node: &DirNode) -> bool {
    node.dst_fs == engine.dst_fs
}

/// Whether room that `node`'s destination directory does not have is missing everywhere. Not so in
/// another file system, nor below a limit of its own (project quotas), which statfs(2) shows as the
/// size; if that is not known, the others are tried.
fn is_in_the_top_s_room(engine: &Engine<'_>, node: &Arc<DirNode>) -> bool {
    let size = |fd: BorrowedFd<'_>| at::again(|| fstatfs(fd)).map(|fs| fs.f_blocks);
    let same_size = || {
        let dir = engine.open(node).ok()?;
        let top = engine.request.dst?;
        Some(size(dir.pair.dst.as_ref()?.as_fd()).ok()? == size(top.as_fd()).ok()?)
    };
    is_on_the_top_s_fs(engine, node) && same_size() == Some(true)
}
