//! The source of a restore: from the name of a device to a directory that holds the restore set.
//! Says every line that the boot log has between the marker check and the paths.
//!
//! - `search`: each path in the trees of the file systems
//! - `subvolumes`: the trees of a btrfs
//! - `trees`: the trees that were found
//! - `candidates`: the file systems of a device
//! - `locate`: the device
//! - `request`: the words of the request
#![forbid(unsafe_code)]

mod candidates;
mod locate;
mod request;
mod search;
mod subvolumes;
mod trees;

use std::os::fd::AsFd;
use std::path::Path;

use molecule_tools::error::{Result, escape};
use molecule_tools::fs::Dir;
use molecule_tools::volume::nodes::DeviceNodes;
use molecule_tools::volume::place::{self, MountPlace};
use molecule_tools::volume::probe::{self, Probe};
use serde_json::Value;
use tracing::{info, warn};

use candidates::candidates;
pub use locate::list_disks;
use locate::locate;
pub use request::{DEFAULT_DEVICE, SourceRequest};
use search::SourceSearch;
pub use trees::{FoundTree, SourceTrees};

/// Where to restore from.
pub enum RestoreSource {
    /// Read-only trees.
    Ready {
        /// Where each path of the restore set is.
        trees: SourceTrees,
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
pub fn open(request: &SourceRequest<'_>) -> RestoreSource {
    let nodes = match DeviceNodes::new(request.root, request.mount_point) {
        Ok(nodes) => nodes,
        Err(error) => return skip(format!("{error}"), true),
    };
    let name = escape(request.device).to_string();
    let located =
        match locate(request.device, &nodes, &request.root.path().join(request.mount_point)) {
            Ok(Some(located)) => located,
            Ok(None) => {
                info!("no {name} — first-time provision or no backup snapshot, skipping");
                return RestoreSource::Skip { reason: format!("no {name}"), failed: false };
            }
            Err(reason) => {
                // To others than root it says nothing that the device cannot be looked at.
                if rustix::process::geteuid().is_root() {
                    info!("no {name} — first-time provision or no backup snapshot, skipping");
                }
                return RestoreSource::Skip { reason, failed: true };
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
        return RestoreSource::Skip { reason: format!("no file system on {name}"), failed: true };
    }
    let place = MountPlace::prepare(request.root, request.mount_point)
        .inspect_err(|error| warn!("{error}; the volume will not be visible in the file tree"))
        .ok();
    let search = SourceSearch {
        request,
        located: &located,
        nodes: &nodes,
        place: place.as_ref(),
        name: &name,
        unread: found.unread.is_some() && found.table.is_some(),
    };
    let Some((trees, device)) = search.run(&candidates) else {
        warn!("mount of {name} failed — skipping restore");
        return RestoreSource::Skip { reason: format!("mount of {name} failed"), failed: true };
    };
    RestoreSource::Ready { trees, device }
}

/// Unmounts what [`open`] has mounted; says what was unmounted.
pub fn unmount(root: &Dir, mount_point: &Path) -> Result<()> {
    let done = place::unmount(root, mount_point)?;
    for path in &done {
        info!("unmounted {}", escape(path));
    }
    if done.is_empty() {
        info!("nothing is mounted at {}", escape(mount_point));
    }
    Ok(())
}

fn skip(reason: String, failed: bool) -> RestoreSource {
    warn!("{reason}");
    RestoreSource::Skip { reason, failed }
}
