//! The source of a restore: from the name of a device to a directory that holds the restore set.
//! Says every line that the boot log has between the marker check and the paths.
#![forbid(unsafe_code)]

mod locate;
mod search;
mod subvolumes;
mod trees;

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use molecule_tools::error::{Result, escape};
use molecule_tools::fs::Dir;
use molecule_tools::volume::device::Nodes;
use molecule_tools::volume::discover;
use molecule_tools::volume::loopdev::Range;
use molecule_tools::volume::mount::{self, Place, Target};
use molecule_tools::volume::partitions::Kind;
use molecule_tools::volume::probe::{self, Probe};
use serde_json::Value;
use tracing::{info, warn};

use locate::{Located, locate};
use search::Search;
pub use trees::{Found, Trees};

/// The device a control plane attaches a backup at. A file of this name is not what was asked for; a
/// file of any other name is.
pub const DEFAULT_DEVICE: &str = "/dev/xvdb";

/// What is asked for.
pub struct Request<'a> {
    /// A device node, an image file, `UUID=`, `LABEL=` or a volume id (`vol-...`).
    pub device: &'a OsStr,
    /// The root beneath which `mount_point` is made.
    pub root: &'a Dir,
    /// Where the file system is mounted.
    pub mount_point: &'a Path,
    /// The restore set, relative paths.
    pub paths: &'a [PathBuf],
}

/// Where to restore from.
pub enum Source {
    /// Read-only trees.
    Ready {
        /// Where each path of the restore set is.
        trees: Trees,
        /// For the report.
        device: Value,
    },
    /// Nothing to restore from; the log says why.
    Skip {
        /// The same, for the report.
        reason: String,
        /// Whether something was there that could not be used.
        failed: bool,
    },
}

/// Finds, identifies and mounts the source.
pub fn open(request: &Request<'_>) -> Source {
    let nodes = match Nodes::new(request.root, request.mount_point) {
        Ok(nodes) => nodes,
        Err(error) => return skip(format!("{error}"), true),
    };
    let name = escape(request.device).to_string();
    let located =
        match locate(request.device, &nodes, &request.root.path().join(request.mount_point)) {
            Ok(Some(located)) => located,
            Ok(None) => {
                info!("no {name} — first-time provision or no backup snapshot, skipping");
                return Source::Skip { reason: format!("no {name}"), failed: false };
            }
            Err(reason) => {
                info!("no {name} — first-time provision or no backup snapshot, skipping");
                return Source::Skip { reason, failed: true };
            }
        };
    info!("{name} detected — attempting restore");
    let found = probe::probe(&located.device.as_fd()).unwrap_or_else(|error| {
        warn!("{name}: {error}");
        Probe::default()
    });
    let candidates = candidates(&located, &found, &name);
    if candidates.is_empty() {
        warn!("no fs detected on {name} (raw/unformatted) — skipping");
        return Source::Skip { reason: format!("no file system on {name}"), failed: true };
    }
    let place = Place::prepare(request.root, request.mount_point)
        .inspect_err(|error| warn!("{error}; the volume will not be visible in the file tree"))
        .ok();
    let search = Search {
        request,
        located: &located,
        nodes: &nodes,
        place: place.as_ref(),
        name: &name,
        unread: found.unread.is_some() && found.table.is_some(),
    };
    let Some((trees, device)) = search.run(&candidates) else {
        warn!("mount of {name} failed — skipping restore");
        return Source::Skip { reason: format!("mount of {name} failed"), failed: true };
    };
    Source::Ready { trees, device }
}

/// Unmounts what [`open`] has mounted; says what was unmounted.
pub fn unmount(root: &Dir, mount_point: &Path) -> Result<()> {
    let done = mount::unmount(root, mount_point)?;
    for path in &done {
        info!("unmounted {}", escape(path));
    }
    if done.is_empty() {
        info!("nothing is mounted at {}", escape(mount_point));
    }
    Ok(())
}

fn skip(reason: String, failed: bool) -> Source {
    warn!("{reason}");
    Source::Skip { reason, failed }
}

/// A file system that may be the source.
struct Candidate<'a> {
    /// Number of its partition; none for the whole device.
    partition: Option<u32>,
    start_bytes: u64,
    size_bytes: u64,
    fstype: &'a str,
    uuid: Option<&'a str>,
    /// What the partition table and the file system call it.
    names: [Option<&'a str>; 2],
    backup_superblock: Option<u64>,
}

/// The file system on the whole device first, then those of its partitions, the largest first.
fn candidates<'a>(located: &Located, found: &'a Probe, name: &str) -> Vec<Candidate<'a>> {
    let size = discover::size;
    if let Some(table) = found.table {
        let count = found.partitions.len();
        info!("{name} has a {} partition table with {count} partition(s)", table.name());
    }
    if !found.ambivalent.is_empty() {
        warn!("{name} shows more than one type: {}", found.ambivalent.join(", "));
    }
    let mut parts: Vec<&probe::Partition> = found
        .partitions
        .iter()
        .filter(|part| located.partition.is_none_or(|number| number == part.number))
        .filter(|part| {
            let wanted =
                !matches!(part.kind, Kind::Esp | Kind::BiosBoot | Kind::Swap | Kind::Extended);
            let swap = part.fstype == Some("swap");
            located.partition.is_some() || (wanted && !swap)
        })
        .collect();
    let no_file_system = |part: &probe::Partition| {
        part.fstype.is_some_and(|fstype| mount::why_not_mountable(fstype).is_some())
    };
    parts.sort_by_key(|part| (no_file_system(part), std::cmp::Reverse(part.size_bytes)));
    let parts = parts.into_iter().filter_map(|part| {
        let backup = part.ext_backup.as_ref();
        let fstype = part.fstype.or(backup.map(|backup| backup.fstype));
        if fstype.is_none() {
            info!(
                "partition {} of {name} ({}) holds no known type",
                part.number,
                size(part.size_bytes)
            );
        }
        Some(Candidate {
            partition: Some(part.number),
            start_bytes: part.start_bytes,
            size_bytes: part.size_bytes,
            fstype: fstype?,
            uuid: part.uuid.as_deref().or(backup.and_then(|backup| backup.uuid.as_deref())),
            names: [part.name.as_deref(), part.label.as_deref()],
            backup_superblock: backup.map(|backup| backup.superblock),
        })
    });
    let whole = |fstype, uuid, backup_superblock| Candidate {
        partition: None,
        start_bytes: 0,
        size_bytes: 0,
        fstype,
        uuid,
        names: [None, None],
        backup_superblock,
    };
    let mut all = Vec::new();
    if located.partition.is_none() {
        all.extend(found.fstype.map(|fstype| whole(fstype, found.uuid.as_deref(), None)));
    }
    all.extend(parts);
    if let (None, Some(backup)) = (located.partition, &found.ext_backup) {
        all.push(whole(backup.fstype, backup.uuid.as_deref(), Some(backup.superblock)));
    }
    all
}

impl Candidate<'_> {
    fn label(&self, name: &str) -> String {
        match self.partition {
            Some(number) => {
                format!("partition {number} of {name} ({})", discover::size(self.size_bytes))
            }
            None => name.to_owned(),
        }
    }

    fn target<'b>(&'b self, located: &'b Located, shown: &'b Path) -> Target<'b> {
        let node = match self.partition {
            None => located.whole(),
            Some(_) => located.partition_at(self.start_bytes, self.size_bytes),
        };
        Target {
            device: &located.device,
            range: Range { offset: self.start_bytes, length: self.size_bytes },
            node,
            fstype: self.fstype,
            backup_superblock: self.backup_superblock,
            shown,
        }
    }
}
