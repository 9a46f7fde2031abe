//! Who may do what in directories of the destination while they are worked on.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, fchmod};

use super::announce;
use super::engine::Engine;
use super::fault::{AttributeFaults, Fault};
use super::metadata::MetadataObject;
use super::times::same_time;
use super::tree::DirNode;
use crate::fs::{Kind, MAKING, Stat, at};

/// Whether only this user can reach the content of the directory.
pub(super) fn is_private(stat: &Stat) -> bool {
    stat.uid == rustix::process::geteuid().as_raw() && stat.mode & 0o077 == 0
}

/// Whether it is one that a killed run has left in the making. Nobody but ourselves has ever been in it.
pub(super) fn is_unfinished(stat: &Stat) -> bool {
    is_private(stat) && stat.mode & 0o1777 == MAKING
}

/// Whether the directory's owner, if that is who runs this, may not do everything in it.
pub(super) fn is_narrow(engine: &Engine<'_>, stat: &Stat) -> bool {
    engine.ordinary && !engine.dry_run() && stat.mode & 0o700 != 0o700
}

/// Lets the owner of the directory `name` work in it until it is finished, as rsync(1) does. Returns the
/// permission bits that it had; `None` where nothing was changed, and where that may not be, what
/// follows says so.
pub(super) fn widen(engine: &Engine<'_>, dir: impl AsFd, name: &CStr) -> Option<u32> {
    if !engine.ordinary || engine.dry_run() {
        return None;
    }
    let handle = at::open_handle(dir, name).ok()?;
    let now = at::stat_fd(&handle).ok()?;
    if now.kind != Kind::Dir || !is_narrow(engine, &now) {
        return None;
    }
    at::chmod_handle(&handle, now.mode | 0o700).ok().map(|()| now.mode)
}

/// Sets the permission bits of the directory of `node` to `mode` again.
pub(super) fn narrow(engine: &Engine<'_>, node: &Arc<DirNode>, dst: &OwnedFd, mode: u32) {
    if let Err(errno) = at::again(|| fchmod(dst, Mode::from_raw_mode(mode))) {
        let fault = Fault::Attribute { operation: "change mode of", errno };
        announce::fault(engine, node, c"", fault);
    }
}

/// Sets the modification time of a directory that was there again, if its entries changed it.
pub(super) fn settle_times(engine: &Engine<'_>, node: &Arc<DirNode>, dst: &OwnedFd) {
    let mut faults = AttributeFaults::default();
    match at::stat_fd(dst) {
        Ok(now) if node.protected || same_time(&node.stat, &now, dst) => {}
        Ok(_) => {
            faults.check("set times of", MetadataObject::Open(dst.as_fd()).set_mtime(&node.stat));
        }
        Err(errno) => faults.add("stat", errno),
    }
    announce::attributes(engine, node, c"", faults);
}
