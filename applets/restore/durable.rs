//! Whether what was restored is on the disk. A boot does not wait for that: its marker says `"durable": false`
//! and in which boot of the kernel it was written, and a process in the background makes both true.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use molecule_tools::error::{Error, Result};
use molecule_tools::fs::{Dir, Kind};
use molecule_tools::process;
use rustix::fs::{Mode, OFlags};
use tracing::{info, warn};

use super::marker;

/// Has the file systems of `trees` written to their disks (syncfs(2)); false if one of them cannot.
pub fn sync<'a>(trees: impl IntoIterator<Item = &'a Dir>) -> bool {
    trees.into_iter().all(|tree| match rustix::fs::syncfs(tree) {
        Ok(()) => true,
        Err(errno) => {
            warn!("{}", Error::os("write to disk", tree.path(), errno));
            false
        }
    })
}

/// Starts a process in the background that has the trees at `paths` written to disk and says so in a marker of
/// this boot of the kernel. It has the rights of this process, the agent's at boot, and needs no more: a
/// marker that the agent has changed is the agent's own loss.
pub fn finish_in_background(root: &Dir, paths: &[PathBuf]) {
    let Some((marker, offset)) = pending_marker(root) else { return };
    let open = |path: &PathBuf| root.open_beneath(path).transpose();
    let trees: Result<Vec<Dir>> = paths.iter().filter_map(open).collect();
    let started = trees.and_then(|trees| {
        let mut keep = vec![marker.as_fd()];
        keep.extend(trees.iter().map(AsFd::as_fd));
        process::start_in_background(c"restore-sync", &keep, || {
            let done = trees.iter().all(|tree| rustix::fs::syncfs(tree).is_ok());
            // In place and of the same length: a reader finds the old word or the new one.
            let said = done && rustix::io::pwrite(&marker, b"true ", offset) == Ok(5);
            u8::from(!(said && rustix::fs::fsync(&marker).is_ok()))
        })
    });
    if let Err(error) = started {
        info!("{}", error.hint("what was restored reaches the disk a little later"));
    }
}

/// The marker, if it is of this boot of the kernel and not durable, and where it says so.
fn pending_marker(root: &Dir) -> Option<(OwnedFd, u64)> {
    let configs = root.open_beneath(std::path::Path::new(marker::DIRECTORY)).ok()??;
    let flags =
        OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&configs, marker::NAME, flags, Mode::empty()).ok()?;
    let is_file =
        rustix::fs::fstat(&file).is_ok_and(|stat| Kind::from_mode(stat.st_mode) == Kind::File);
    let mut head = [0; 512];
    let length = rustix::io::pread(&file, &mut head, 0).ok()?;
    let pending = marker::pending(&head[..length])?;
    (is_file && Some(pending.boot_id) == marker::boot_id()).then_some((file, pending.offset))
}
