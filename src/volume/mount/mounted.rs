//! A mounted file system, and putting it where others can see it.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::api::OneMount;
use super::target::MountTarget;
use crate::error::{Result, escape};
use crate::fs::Dir;
use crate::volume::btrfs;
use crate::volume::loopdev::{self, LoopBacking, LoopDevice};
use crate::volume::mountinfo::MountRecord;
use crate::volume::nodes::DeviceNodes;
use crate::volume::place::{self, MountPlace};

/// A mounted file system.
#[derive(Debug)]
pub struct MountedVolume {
    hold: Hold,
    /// Its root.
    pub root: Dir,
    /// False when it was mounted without replaying its journal: recent changes may be missing.
    pub replayed: bool,
    /// Whether the device may have been mounted before, with options that count for this mount too.
    shared: bool,
    // The kernel frees a loop device with the mount, at the latest with this value.
    _device: Option<LoopDevice>,
}

/// Whose mount it is.
#[derive(Debug)]
enum Hold {
    /// Made now.
    Own(OneMount),
    /// Found where an earlier restore or the operator put it; it stays.
    Found(MountPlace),
}

/// A mount that others can see.
#[derive(Debug)]
pub struct ShownMount {
    /// The root, under the path where it is shown. It keeps a mount that is shown nowhere.
    pub root: Dir,
    /// Where it is shown.
    pub point: PathBuf,
    /// See [`MountedVolume::replayed`].
    pub replayed: bool,
    /// Ends the mount if it is not to outlive this restore.
    pub passing: Option<PassingMount>,
}

/// Takes a mount out of the file tree when it is dropped.
#[derive(Debug)]
pub struct PassingMount(MountPlace);

impl Drop for PassingMount {
    fn drop(&mut self) {
        self.0.detach();
    }
}

impl MountedVolume {
    pub(super) fn new(
        mount: OneMount,
        root: Dir,
        replayed: bool,
        shared: bool,
        device: Option<LoopDevice>,
    ) -> Self {
        Self { hold: Hold::Own(mount), root, replayed, shared, _device: device }
    }

    /// A mount of the same range of the same device or file, whole and read-only, at `place` or one of
    /// its siblings.
    pub(super) fn earlier(
        target: &MountTarget<'_>,
        place: &MountPlace,
        nodes: &DeviceNodes,
    ) -> Option<Self> {
        let places = place.try_clone().and_then(|first| {
            let siblings = place.siblings()?;
            Ok(std::iter::once(first).chain(siblings))
        });
        let found = places.map(|places| {
            places.into_iter().find_map(|place| {
                // Mounting it once more does no harm.
                let shows = shows(target, &place, nodes).unwrap_or_else(|error| {
                    info!("{error}; it is not used again");
                    None
                });
                let (root, replayed) = shows?;
                let hold = Hold::Found(place);
                Some(Self { hold, root, replayed, shared: false, _device: None })
            })
        });
        found.unwrap_or_else(|error| {
            info!("{error}");
            None
        })
    }

    /// Puts the mount where others can see it. If `place` is taken by the same file system mounted
    /// read-only, that mount is used; if by anything else, the next free directory, until the restore
    /// ends. Where that fails, the volume is shown nowhere, under the name of the place.
    pub fn show_at(mut self, place: &MountPlace) -> ShownMount {
        match self.put(place) {
            Ok((point, passing)) => self.seen(&point, passing),
            Err(error) => {
                warn!("{error}; the volume is not visible in the file tree");
                self.keep(place.shown())
            }
        }
    }

    fn put(&mut self, place: &MountPlace) -> Result<(PathBuf, Option<PassingMount>)> {
        let here = || (place.shown().to_owned(), None);
        let fd = match &self.hold {
            Hold::Found(found) => return Ok((found.shown().to_owned(), None)),
            Hold::Own(OneMount::Attached(at)) if at.shown() == place.shown() => return Ok(here()),
            Hold::Own(OneMount::Attached(at)) => {
                if place.is_free()? && place.take(at).is_ok() {
                    return Ok(here());
                }
                return Ok((at.shown().to_owned(), Some(PassingMount(at.try_clone()?))));
            }
            Hold::Own(OneMount::Detached(fd)) => fd,
        };
        if place.is_free()? {
            place.attach(fd)?;
            return Ok(here());
        }
        let there = place.open()?;
        let (old, new) = (there.stat()?, self.root.stat()?);
        if old.same_inode(&new) && place::is_read_only(&there)? {
            self.root = there;
            return Ok(here());
        }
        let next = place.next_free()?;
        warn!(
            "{} is a mount point of something else (device {}:{}), mounting at {} until the restore \
             ends",
            escape(place.shown()),
            old.dev.0,
            old.dev.1,
            escape(next.shown())
        );
        next.attach(fd)?;
        Ok((next.shown().to_owned(), Some(PassingMount(next))))
    }

    fn seen(self, point: &Path, passing: Option<PassingMount>) -> ShownMount {
        let replayed = self.has_replayed(point);
        ShownMount { root: self.root.shown_as(point), point: point.to_owned(), replayed, passing }
    }

    /// A mount that is shown nowhere, under a name for log lines: it ends with the last directory that
    /// is open in it.
    pub fn keep(self, shown: &Path) -> ShownMount {
        let replayed = self.has_replayed(shown);
        let Self { hold, root, .. } = self;
        if let Hold::Own(mount) = hold {
            mount.end();
        }
        ShownMount { root: root.shown_as(shown), point: shown.to_owned(), replayed, passing: None }
    }

    /// Whether the journal was replayed. Mounts of one device share their options: an older one may
    /// have forbidden it.
    fn has_replayed(&self, shown: &Path) -> bool {
        if !(self.replayed && self.shared) {
            return self.replayed;
        }
        let consequence = "changes made shortly before the snapshot may be missing or damaged, \
                           nothing will be deleted";
        match MountRecord::of(&self.root) {
            Ok(record) if record.skips_journal() => {
                warn!(
                    "the file system at {} was mounted before without its journal: {consequence}",
                    escape(shown)
                );
                false
            }
            Ok(_) => true,
            Err(error) => {
                warn!(
                    "the file system at {} was mounted before, perhaps without its journal \
                     ({error}): {consequence}",
                    escape(shown)
                );
                false
            }
        }
    }

    /// Unmounts it again, unless it was there before.
    pub fn discard(self) {
        let Self { hold, root, .. } = self;
        drop(root);
        match hold {
            Hold::Own(OneMount::Attached(place)) => {
                if let Err(error) = place.unmount() {
                    warn!("{error}");
                }
            }
            // A detached mount ends with its descriptor.
            Hold::Own(OneMount::Detached(_)) | Hold::Found(_) => {}
        }
    }
}

/// The root of what is mounted at `place`, and whether its journal was replayed, if it is `target`.
fn shows(
    target: &MountTarget<'_>,
    place: &MountPlace,
    nodes: &DeviceNodes,
) -> Result<Option<(Dir, bool)>> {
    if place.is_free()? {
        return Ok(None);
    }
    let root = place.open()?;
    if !place::is_read_only(&root)? {
        return Ok(None);
    }
    let number = match target.fstype {
        "btrfs" => btrfs::device(&root)?,
        _ => Some(root.stat()?.dev),
    };
    let Some(number) = number else { return Ok(None) };
    let own = target.node.as_ref().is_some_and(|(_, node)| node.number == number);
    let same = own
        || loopdev::backing(number, nodes)? == Some(LoopBacking::of(target.device, target.range)?);
    if !same {
        return Ok(None);
    }
    let record = MountRecord::of(&root)?;
    Ok(record.is_whole.then(|| (root, !record.skips_journal())))
}
