//! From the words of a request to one open device, and the line that says why this one.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use molecule_tools::error::{Error, escape};
use molecule_tools::fs::Dir;
use molecule_tools::volume::device::{AcceptedDevice, Device};
use molecule_tools::volume::discover::{self, DiskSelection, Mounts, SelectionReason, WholeDisk};
use molecule_tools::volume::look;
use molecule_tools::volume::nodes::{DeviceNode, DeviceNodes};
use molecule_tools::volume::probe::{self, Probe};
use rustix::io::Errno;
use tracing::{info, warn};

use super::request::DEFAULT_DEVICE;

const SYSFS: &str = "/sys";

/// A device that was found.
pub struct LocatedDevice {
    /// Open for reading.
    pub device: Device,
    /// Only this partition of it, if one was asked for.
    pub partition: Option<u32>,
    /// In a word, for the report.
    pub why: &'static str,
    /// DeviceNodes of the partitions the kernel knows: start and size in bytes, name, node.
    parts: Vec<(u64, u64, String, DeviceNode)>,
    name: String,
}

/// Finds the device; `None` if there is no such device, an error with the reason if it is not clear
/// which one is meant. Says what was taken and why, unless it is just the node that was named.
///
/// `mount_point` is where an earlier restore has mounted what it found: that is no use of a disk.
pub fn locate(
    request: &OsStr,
    nodes: &DeviceNodes,
    mount_point: &Path,
) -> Result<Option<LocatedDevice>, String> {
    let text = request.to_string_lossy();
    if let Some((key @ ("UUID" | "LABEL"), value)) = text.split_once('=') {
        return by_identifier(key, value, nodes, &mounts(mount_point));
    }
    let path = Path::new(request);
    let is_volume_id = text.starts_with("vol-") && !text.contains('/');
    if is_volume_id {
        let selection =
            discover::by_volume_id(&text, &disks(&mounts(mount_point), |_| true)?, &|disk| {
                identify(disk, nodes)
            });
        return select(selection, &text, nodes);
    }
    let path = usual_path(path);
    let accepted = match path == Path::new(DEFAULT_DEVICE) {
        true => AcceptedDevice::Block,
        false => AcceptedDevice::BlockOrImage,
    };
    match Device::open(&path, accepted) {
        Ok(Some(device)) => return Ok(Some(LocatedDevice::new(device, "name", nodes))),
        Ok(None) => {}
        Err(error) => match error.errno() {
            // No node of a device that exists can be opened: it is not there (any more).
            Some(Errno::NXIO | Errno::NODEV) => info!("{error}"),
            Some(errno) => {
                let error = match errno {
                    Errno::ACCESS | Errno::PERM if !rustix::process::geteuid().is_root() => {
                        error.hint("run it as root")
                    }
                    _ => error,
                };
                warn!("{error}");
                return Err(error.to_string());
            }
            None => info!("{error}"),
        },
    }
    // Only names in /dev are names of the cloud's or the kernel's.
    let Some(name) = path.strip_prefix("/dev").ok().and_then(Path::to_str) else {
        return Ok(None);
    };
    let mounts = mounts(mount_point);
    let disks = disks(&mounts, |disk| discover::is_relevant(disk, name))?;
    let identify = |disk: &WholeDisk| identify(disk, nodes);
    let busy = |disk: &WholeDisk| is_busy(disk, nodes, &mounts);
    select(discover::by_name(name, &disks, &identify, &busy), &text, nodes)
}

/// Says of a device that somebody named and that is not there which disks are.
pub fn list_disks(request: &OsStr, mount_point: &Path) {
    /// A line each.
    const MOST: usize = 16;
    warn!(
        "{} was asked for and is not there; name one that is: a node, vol-..., UUID= or LABEL=",
        escape(request)
    );
    // Where they cannot be listed, that has been said.
    let disks = disks(&mounts(mount_point), |_| true).unwrap_or_default();
    for disk in disks.iter().take(MOST) {
        info!("there is {}", discover::describe_disk(disk));
    }
    match disks.len() {
        0 => info!("no disk is there"),
        count if count > MOST => info!("and {} more", count - MOST),
        _ => {}
    }
}

/// A bare word is a file here, or else the name of a device.
fn usual_path(path: &Path) -> PathBuf {
    let bare = path.components().count() == 1 && path.is_relative();
    let absent = || {
        let stat = look::again(|| rustix::fs::stat(path));
        matches!(stat, Err(Errno::NOENT | Errno::NOTDIR))
    };
    match bare && absent() {
        true => Path::new("/dev").join(path),
        false => path.to_owned(),
    }
}

fn select(
    selection: DiskSelection,
    request: &str,
    nodes: &DeviceNodes,
) -> Result<Option<LocatedDevice>, String> {
    let request = escape(request);
    match selection {
        DiskSelection::None => Ok(None),
        DiskSelection::Several(disks) => {
            warn!(
                "{request} could be any of {} disks, taking none; name one with --device or \
                 MOLECULE_RESTORE_DEVICE",
                disks.len()
            );
            for disk in &disks {
                info!("candidate {}", discover::describe_disk(disk));
            }
            Err(format!("{request} could be any of {} disks", disks.len()))
        }
        DiskSelection::Unclear(disks, reason) => {
            warn!("{reason}; whether {request} is there cannot be told");
            for disk in &disks {
                info!("not looked at: {}", discover::describe_disk(disk));
            }
            Err(reason)
        }
        DiskSelection::Taken(disk, why) => {
            let about = discover::describe_disk(&disk);
            let word = match &why {
                SelectionReason::KernelName => {
                    info!("{request} is {about}: the kernel has a disk of that name");
                    "kernel name"
                }
                SelectionReason::Record(name) => {
                    info!("{request} is {about}: its controller says it was attached as {name}");
                    "nvme record"
                }
                SelectionReason::Serial => {
                    info!("{request} is {about}: its serial number is the volume id");
                    "serial"
                }
                SelectionReason::OnlySpare(record) => {
                    let record = match record {
                        Some(name) => format!("its controller says it was attached as {name}"),
                        None => "its controller tells no name".into(),
                    };
                    warn!(
                        "nothing is attached as {request}; taking {about}: the only EBS disk that \
                         is not in use ({record})"
                    );
                    "only spare disk"
                }
            };
            open(&disk, word, nodes)
        }
    }
}

fn open(
    disk: &WholeDisk,
    why: &'static str,
    nodes: &DeviceNodes,
) -> Result<Option<LocatedDevice>, String> {
    match Device::open_number(nodes, &disk.name, disk.number) {
        Ok(device) => Ok(Some(LocatedDevice::new(device, why, nodes))),
        Err(error) => {
            warn!("{error}");
            Err(error.to_string())
        }
    }
}

/// The part of a disk that has the identifier: the whole of it, or a partition.
struct Match {
    disk: WholeDisk,
    partition: Option<u32>,
}

fn by_identifier(
    key: &str,
    value: &str,
    nodes: &DeviceNodes,
    mounts: &Mounts,
) -> Result<Option<LocatedDevice>, String> {
    let mut matches: Vec<Match> = Vec::new();
    let mut unclear: Vec<WholeDisk> = Vec::new();
    let mut reason = None;
    for disk in disks(mounts, |_| true)? {
        let found = Device::open_number(nodes, &disk.name, disk.number)
            .and_then(|device| probe::probe(&device.as_fd()));
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                // An empty drive, or a device that has gone, holds nothing; what is in use elsewhere is
                // the original, not the snapshot, and often not this container's to open.
                let gone =
                    matches!(error.errno(), Some(Errno::NOMEDIUM | Errno::NXIO | Errno::NODEV));
                if !gone && disk.in_use.is_none() {
                    unclear.push(disk);
                    reason.get_or_insert(error.to_string());
                }
                continue;
            }
        };
        let hits = hits(&found, key, value);
        matches.extend(hits.into_iter().map(|partition| Match { disk: disk.clone(), partition }));
    }
    if let (true, Some(reason)) = (matches.is_empty(), reason) {
        return select(DiskSelection::Unclear(unclear, reason), &format!("{key}={value}"), nodes);
    }
    // A snapshot has the identifier of the original, which may be in use on the same machine.
    if matches.len() > 1 {
        let (mut unused, mut used) = (Vec::new(), Vec::new());
        let mut unclear = false;
        for it in matches {
            let busy = is_busy(&it.disk, nodes, mounts).unwrap_or_else(|error| {
                warn!("{error}; whether it is in use cannot be told");
                unclear = true;
                false
            });
            if it.disk.in_use.is_none() && !busy { unused.push(it) } else { used.push(it) }
        }
        matches = match unused.len() {
            1 if !unclear => unused,
            _ => unused.into_iter().chain(used).collect(),
        };
    }
    let shown = escape(value);
    if matches.len() > 1 {
        let disks = matches.into_iter().map(|it| it.disk).collect();
        return select(DiskSelection::Several(disks), &format!("{key}={value}"), nodes);
    }
    let Some(found) = matches.pop() else { return Ok(None) };
    let part = found.partition.map_or(String::new(), |number| format!(" partition {number} of"));
    info!("{key}={shown} is{part} {}", discover::describe_disk(&found.disk));
    let located = open(&found.disk, "identifier", nodes)?;
    Ok(located.map(|located| LocatedDevice { partition: found.partition, ..located }))
}

fn hits(found: &Probe, key: &str, value: &str) -> Vec<Option<u32>> {
    let equal = |uuid: &Option<String>, label: &Option<String>| match key {
        "UUID" => uuid.as_ref().is_some_and(|it| it.eq_ignore_ascii_case(value)),
        _ => label.as_deref() == Some(value),
    };
    let whole = equal(&found.uuid, &found.label).then_some(None);
    let parts = found.partitions.iter().filter(|part| equal(&part.uuid, &part.label));
    whole.into_iter().chain(parts.map(|part| Some(part.number))).collect()
}

/// The mounts, without those that an earlier restore has made at `mount_point`.
fn mounts(mount_point: &Path) -> Mounts {
    let mut mounts = Mounts::default();
    // Process 1 is the host's where the container shares its process ids. What is missing here is made
    // up for: a disk is also asked whether it is in use.
    for process in ["/proc/self", "/proc/1"] {
        if let Ok(dir) = Dir::open_operator_path(process)
            && let Ok(Some(text)) = dir.read_file(c"mountinfo", 16 << 20)
        {
            mounts.add(&text);
        }
        if process == "/proc/self" {
            mounts.disown(mount_point);
        }
    }
    mounts
}

/// The disks there are; an error that was logged if they cannot be listed.
fn disks(mounts: &Mounts, wanted: impl Fn(&str) -> bool) -> Result<Vec<WholeDisk>, String> {
    match discover::disks(Path::new(SYSFS), mounts, wanted) {
        Ok(disks) => Ok(disks),
        Err(error) if matches!(error.errno(), Some(Errno::NOENT | Errno::NOTDIR)) => {
            info!("{error}");
            Ok(Vec::new())
        }
        Err(error) => {
            warn!("{error}; which disks there are cannot be told");
            Err(error.to_string())
        }
    }
}

fn identify(
    disk: &WholeDisk,
    nodes: &DeviceNodes,
) -> molecule_tools::error::Result<Option<discover::ControllerRecord>> {
    let device = Device::open_number(nodes, &disk.name, disk.number)?;
    discover::identify(&device).map_err(|errno| Error::os("identify", device.shown(), errno))
}

/// Whether the kernel refuses to lend the disk exclusively: then it or a partition of it is mounted,
/// in whatever mount namespace, or built upon, or swapped to. The mount of an earlier restore holds it
/// like any other, and is not what is asked for.
fn is_busy(
    disk: &WholeDisk,
    nodes: &DeviceNodes,
    mounts: &Mounts,
) -> molecule_tools::error::Result<bool> {
    if disk.is_mounted_by_restore(mounts) {
        return Ok(false);
    }
    Device::open_number(nodes, &disk.name, disk.number)?.is_claimed()
}

impl LocatedDevice {
    fn new(device: Device, why: &'static str, nodes: &DeviceNodes) -> Self {
        let sysfs = Path::new(SYSFS);
        let name = device.number().and_then(|number| discover::kernel_name(sysfs, number));
        let name = name.unwrap_or_default();
        let disks = discover::disks(sysfs, &Mounts::default(), |disk| disk == name);
        let known = disks.unwrap_or_default().pop().map(|disk| disk.partitions);
        let known = known.unwrap_or_default();
        let parts = known
            .into_iter()
            .filter_map(|part| {
                let device = Device::open_number(nodes, &part.name, part.number).ok()?;
                let node = device.node()?.clone();
                Some((part.start_bytes, part.size_bytes, part.name, node))
            })
            .collect();
        Self { device, partition: None, why, parts, name }
    }

    /// The block device itself, with its kernel name; `None` for an image file.
    pub fn whole(&self) -> Option<(String, DeviceNode)> {
        Some((self.name.clone(), self.device.node()?.clone()))
    }

    /// The kernel's own device of the partition that is exactly there, if it has one.
    pub fn partition_at(&self, start: u64, size: u64) -> Option<(String, DeviceNode)> {
        let part = self.parts.iter().find(|part| (part.0, part.1) == (start, size))?;
        Some((part.2.clone(), part.3.clone()))
    }
}
