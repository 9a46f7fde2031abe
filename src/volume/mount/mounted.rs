//! A mounted file system, and putting it where others can see it.

use std::path::{Path, PathBuf};

use tracing::warn;

use super::Target;
use super::api::Mount;
use super::place::{self, Place};
use crate::error::{Result, escape};
use crate::fs::Dir;
use crate::volume::device::Nodes;
use crate::volume::loopdev::{self, Backing, LoopDevice};

/// A mounted file system.
#[derive(Debug)]
pub struct Mounted {
    mount: Mount,
    /// Its root.
    pub root: Dir,
    /// False when it was mounted without replaying its journal: recent changes may be missing.
    pub replayed: bool,
    // The kernel frees a loop device with the mount, at the latest with this value.
    _device: Option<LoopDevice>,
}

impl Mounted {
    pub(super) fn new(mount: Mount, root: Dir, replayed: bool, device: Option<LoopDevice>) -> Self {
        Self { mount, root, replayed, _device: device }
    }

    /// What an earlier run left at `place`: the same range of the same device, on a read-only loop
    /// device, mounted read-only and without its journal.
    pub(super) fn earlier(target: &Target<'_>, place: &Place, nodes: &Nodes) -> Option<Self> {
        if place.is_free().ok()? {
            return None;
        }
        let root = place.open().ok()?;
        let backing = loopdev::backing(root.stat().ok()?.dev, nodes)?;
        let same = backing == Backing::of(target.device, target.range).ok()?
            && place::is_read_only(&root)
            && place::skips_journal(&root);
        let mount = Mount::Attached(place.try_clone().ok()?);
        same.then(|| Self::new(mount, root, false, None))
    }

    /// Puts the mount where others can see it and gives the path. If `place` is taken, and by the same
    /// file system mounted read-only, that mount is used; if by anything else, the next free
    /// directory.
    pub fn show_at(&mut self, place: &Place) -> Result<PathBuf> {
        let shown = self.attach(place)?;
        // Mounts of one device share their options: an older one may have forbidden the replay.
        if self.replayed && place::skips_journal(&self.root) {
            warn!(
                "the file system at {} was mounted before without its journal: changes made shortly \
                 before the snapshot may be missing or damaged, nothing will be deleted",
                escape(&shown)
            );
            self.replayed = false;
        }
        Ok(shown)
    }

    fn attach(&mut self, place: &Place) -> Result<PathBuf> {
        let fd = match &self.mount {
            Mount::Attached(place) => return Ok(place.shown().to_owned()),
            Mount::Detached(fd) => fd,
        };
        if place.is_free()? {
            place.attach(fd)?;
            return Ok(place.shown().to_owned());
        }
        let there = place.open()?;
        let (old, new) = (there.stat()?, self.root.stat()?);
        if old.same_inode(&new) && place::is_read_only(&there) {
            self.root = there;
            return Ok(place.shown().to_owned());
        }
        let next = place.next_free()?;
        warn!(
            "{} is a mount point of something else (device {}:{}), mounting at {}",
            escape(place.shown()),
            old.dev.0,
            old.dev.1,
            escape(next.shown())
        );
        next.attach(fd)?;
        Ok(next.shown().to_owned())
    }

    /// The root, under the path where the mount is shown. It keeps a mount that is shown nowhere.
    pub fn into_root(self, shown: &Path) -> Dir {
        self.root.shown_as(shown)
    }

    /// Unmounts it again.
    pub fn discard(self) {
        let Self { mount, root, .. } = self;
        drop(root);
        // A detached mount ends with its descriptor.
        if let Mount::Attached(place) = mount
            && let Err(error) = place.unmount()
        {
            warn!("{error}");
        }
    }
}
