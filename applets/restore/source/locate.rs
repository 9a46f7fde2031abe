//! From the words of a request to one open device, and the line that says why this one.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use molecule_tools::error::escape;
use molecule_tools::fs::Dir;
use molecule_tools::volume::device::{Device, Node, Nodes};
use molecule_tools::volume::discover::{self, Disk, Mounts, Selection, Why};
use molecule_tools::volume::probe::{self, Probe};
use rustix::io::Errno;
use tracing::{info, warn};

use super::DEFAULT_DEVICE;

const SYSFS: &str = "/sys";

/// A device that was found.
pub struct Located {
    /// Open for reading.
    pub device: Device,
    /// Only this partition of it, if one was asked for.
    pub partition: Option<u32>,
    /// In a word, for the report.
    pub why: &'static str,
    /// Nodes of the partitions the kernel knows: start and size in bytes, name, node.
    parts: Vec<(u64, u64, String, Node)>,
    name: String,
}

/// Finds the device; none if there is no such device, an error with the reason if it cannot be told
/// which one is meant. Says what was taken and why, unless it is just the node that was named.
pub fn locate(request: &OsStr, nodes: &Nodes) -> Result<Option<Located>, String> {
    let text = request.to_string_lossy();
    if let Some((key @ ("UUID" | "LABEL"), value)) = text.split_once('=') {
        return by_identifier(key, value, nodes);
    }
    let path = Path::new(request);
    let is_volume_id = text.starts_with("vol-") && !text.contains('/');
    if is_volume_id {
        let selection =
            discover::by_volume_id(&text, &disks(|_| true), &|disk| identify(disk, nodes));
        return select(selection, &text, nodes);
    }
    let path = usual_path(path);
    match Device::open(&path, path != Path::new(DEFAULT_DEVICE)) {
        Ok(Some(device)) => return Ok(Some(Located::new(device, "name", nodes))),
        Ok(None) => {}
        Err(error) => match error.errno() {
            // No node of a device that exists can be opened: it is not there (any more).
            Some(Errno::NXIO | Errno::NODEV) => info!("{error}"),
            Some(_) => {
                warn!("{error}");
                return Err(error.to_string());
            }
            None => info!("{error}"),
        },
    }
    // Only names in /dev are names the cloud or the kernel gives.
    let Some(name) = path.strip_prefix("/dev").ok().and_then(Path::to_str) else {
        return Ok(None);
    };
    let disks = disks(|disk| discover::is_relevant(disk, name));
    let identify = |disk: &Disk| identify(disk, nodes);
    let busy = |disk: &Disk| is_busy(disk, nodes);
    select(discover::by_name(name, &disks, &identify, &busy), &text, nodes)
}

/// A bare word is a file here, or else the name of a device.
fn usual_path(path: &Path) -> PathBuf {
    let bare = path.components().count() == 1 && path.is_relative();
    match bare && rustix::fs::stat(path).is_err() {
        true => Path::new("/dev").join(path),
        false => path.to_owned(),
    }
}

fn select(selection: Selection, request: &str, nodes: &Nodes) -> Result<Option<Located>, String> {
    let request = escape(request);
    match selection {
        Selection::None => Ok(None),
        Selection::Several(disks) => {
            warn!(
                "{request} could be any of {} disks, taking none; name one with --device or \
                 MOLECULE_RESTORE_DEVICE",
                disks.len()
            );
            for disk in &disks {
                info!("candidate {}", discover::describe(disk));
            }
            Err(format!("{request} could be any of {} disks", disks.len()))
        }
        Selection::Taken(disk, why) => {
            let about = discover::describe(&disk);
            let word = match &why {
                Why::KernelName => {
                    info!("{request} is {about}: the kernel has a disk of that name");
                    "kernel name"
                }
                Why::Record(name) => {
                    info!("{request} is {about}: its controller says it was attached as {name}");
                    "nvme record"
                }
                Why::Serial => {
                    info!("{request} is {about}: its serial number is the volume id");
                    "serial"
                }
                Why::OnlySpare(record) => {
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

fn open(disk: &Disk, why: &'static str, nodes: &Nodes) -> Result<Option<Located>, String> {
    match Device::open_number(nodes, &disk.name, disk.number) {
        Ok(device) => Ok(Some(Located::new(device, why, nodes))),
        Err(error) => {
            warn!("{error}");
            Err(error.to_string())
        }
    }
}

/// What is on a disk that has the identifier: the whole of it, or a partition.
struct Match {
    disk: Disk,
    partition: Option<u32>,
}

fn by_identifier(key: &str, value: &str, nodes: &Nodes) -> Result<Option<Located>, String> {
    let mut matches: Vec<Match> = Vec::new();
    for disk in disks(|_| true) {
        let Ok(device) = Device::open_number(nodes, &disk.name, disk.number) else { continue };
        let Ok(found) = probe::probe(&device.as_fd()) else { continue };
        let hits = hits(&found, key, value);
        matches.extend(hits.into_iter().map(|partition| Match { disk: disk.clone(), partition }));
    }
    // A snapshot has the identifier of the original, which may be in use on the same machine.
    if matches.len() > 1 {
        let free = |it: &Match| it.disk.in_use.is_none() && !is_busy(&it.disk, nodes);
        let (unused, used): (Vec<Match>, Vec<Match>) = matches.into_iter().partition(free);
        matches = match unused.len() {
            1 => unused,
            _ => unused.into_iter().chain(used).collect(),
        };
    }
    let shown = escape(value);
    if matches.len() > 1 {
        let disks = matches.into_iter().map(|it| it.disk).collect();
        return select(Selection::Several(disks), &format!("{key}={value}"), nodes);
    }
    let Some(found) = matches.pop() else { return Ok(None) };
    let part = found.partition.map_or(String::new(), |number| format!(" partition {number} of"));
    info!("{key}={shown} is{part} {}", discover::describe(&found.disk));
    let located = open(&found.disk, "identifier", nodes)?;
    Ok(located.map(|located| Located { partition: found.partition, ..located }))
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

fn disks(wanted: impl Fn(&str) -> bool) -> Vec<Disk> {
    let mut mounts = Mounts::default();
    // Process 1 is the host's where the container shares its process ids.
    for process in ["/proc/1", "/proc/self"] {
        if let Ok(dir) = Dir::open_operator_path(process)
            && let Ok(Some(text)) = dir.read_file(c"mountinfo", 16 << 20)
        {
            mounts.add(&text);
        }
    }
    discover::disks(Path::new(SYSFS), &mounts, wanted).unwrap_or_else(|error| {
        info!("{error}");
        Vec::new()
    })
}

fn identify(disk: &Disk, nodes: &Nodes) -> Option<discover::Identify> {
    let device = Device::open_number(nodes, &disk.name, disk.number).ok()?;
    discover::identify(&device)
}

/// Whether the kernel refuses to lend the disk exclusively: then it or a partition of it is mounted,
/// in whatever mount namespace, or built upon, or swapped to.
fn is_busy(disk: &Disk, nodes: &Nodes) -> bool {
    let Ok(device) = Device::open_number(nodes, &disk.name, disk.number) else { return false };
    device.is_claimed()
}

impl Located {
    fn new(device: Device, why: &'static str, nodes: &Nodes) -> Self {
        let sysfs = Path::new(SYSFS);
        let name = device.number().and_then(|number| discover::name(sysfs, number));
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

    /// The block device itself, with its kernel name; none for an image file.
    pub fn whole(&self) -> Option<(String, Node)> {
        Some((self.name.clone(), self.device.node()?.clone()))
    }

    /// The kernel's own device of the partition that is exactly there, if it has one.
    pub fn partition_at(&self, start: u64, size: u64) -> Option<(String, Node)> {
        let part = self.parts.iter().find(|part| (part.0, part.1) == (start, size))?;
        Some((part.2.clone(), part.3.clone()))
    }
}
