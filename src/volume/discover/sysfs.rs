//! Disks and partitions as sysfs lists them (Documentation/ABI/stable/sysfs-block).
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

use super::mounts::Mounts;
use crate::error::{Result, escape};
use crate::fs::{Dir, DirListing, Kind};
use crate::volume::look::again_of;
use crate::volume::number::{self, DeviceNumber};

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeDisk {
    /// Kernel name (`nvme1n1`).
    pub name: String,
    /// Device number.
    pub number: DeviceNumber,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Model, empty if the driver has none.
    pub model: String,
    /// Serial number, empty if the driver has none.
    pub serial: String,
    /// The use of it or of a partition of it ("mounted at /", "held by dm-0"); `None` if unused.
    pub in_use: Option<String>,
    /// Partitions the kernel has found on it.
    pub partitions: Vec<DiskPartition>,
}

impl WholeDisk {
    /// Whether an earlier restore has mounted it or a partition of it.
    pub fn is_mounted_by_restore(&self, mounts: &Mounts) -> bool {
        let partitions = self.partitions.iter().map(|part| (part.number, &part.name));
        std::iter::once((self.number, &self.name))
            .chain(partitions)
            .any(|(number, name)| mounts.has_own(number, name))
    }
}

/// A partition the kernel knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskPartition {
    /// Kernel name (`nvme1n1p1`).
    pub name: String,
    /// Device number.
    pub number: DeviceNumber,
    /// Start in bytes from the start of the disk.
    pub start_bytes: u64,
    /// Size in bytes.
    pub size_bytes: u64,
}

/// The unit of `start` and `size`, whatever the disk's sector size is.
const SECTOR: u64 = 512;
/// An attribute is at most a page.
const LIMIT: usize = 4096;

/// The disks that have a size and a name that is `wanted`, sorted by name; memory disks (ram, zram) are
/// left out. `sysfs` is where sysfs is mounted. An error if sysfs cannot be read: then it is not
/// known which disks there are.
pub fn disks(
    sysfs: &Path,
    mounts: &Mounts,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<WholeDisk>> {
    let class = open(&sysfs.join("class/block"))?;
    let mut disks = Vec::new();
    for entry in again_of(|| DirListing::read(&class))? {
        if let Some(name) = entry.name.to_str().ok().filter(|name| wanted(name)) {
            disks.extend(disk(&class, name, mounts)?);
        }
    }
    // nvme2n1 before nvme10n1.
    disks.sort_unstable_by_key(|disk: &WholeDisk| (disk.name.len(), disk.name.clone()));
    Ok(disks)
}

/// `None` if `name` is no disk, or has just gone.
fn disk(class: &Dir, name: &str, mounts: &Mounts) -> Result<Option<WholeDisk>> {
    if name.starts_with("ram") || name.starts_with("zram") {
        return Ok(None);
    }
    // The entries of a class are the kernel's own links.
    let Some(dir) = there(open(&class.path().join(name)))? else { return Ok(None) };
    if attribute(&dir, "partition")?.is_some() {
        return Ok(None);
    }
    let number = attribute(&dir, "dev")?.and_then(|text| number::parse(text.as_bytes()));
    let size = attribute(&dir, "size")?.and_then(|text| units(&text)).filter(|&size| size > 0);
    let (Some(number), Some(size_bytes)) = (number, size) else { return Ok(None) };
    // These are the driver's to answer; a disk without a name is asked in other ways.
    let device = there(open(&dir.path().join("device")))?;
    let text = |name| {
        let text = device.as_ref().map(|dir| attribute(dir, name));
        text.and_then(Result::ok).flatten().unwrap_or_default()
    };
    let partitions = partitions(&dir)?;
    let used = |number, name: &str, dir: &Dir| {
        let mounted =
            mounts.point(number, name).map(|point| format!("mounted at {}", escape(point)));
        match mounted {
            Some(mounted) => Ok(Some(mounted)),
            None => held(dir),
        }
    };
    let mut in_use = used(number, name, &dir)?;
    for part in &partitions {
        if in_use.is_none()
            && let Some(dir) = there(open(&dir.path().join(&part.name)))?
        {
            in_use = used(part.number, &part.name, &dir)?;
        }
    }
    Ok(Some(WholeDisk {
        name: name.to_owned(),
        number,
        size_bytes,
        model: text("model"),
        serial: text("serial"),
        in_use,
        partitions,
    }))
}

fn partitions(disk: &Dir) -> Result<Vec<DiskPartition>> {
    let mut partitions = Vec::new();
    for entry in again_of(|| DirListing::read(disk))? {
        if entry.kind.is_some_and(|kind| kind != Kind::Dir) {
            continue;
        }
        let Some(dir) = there(again_of(|| disk.open_dir(&entry.name)))? else { continue };
        if attribute(&dir, "partition")?.is_none() {
            continue;
        }
        let number = attribute(&dir, "dev")?.and_then(|text| number::parse(text.as_bytes()));
        let start = attribute(&dir, "start")?.and_then(|text| units(&text));
        let size = attribute(&dir, "size")?.and_then(|text| units(&text));
        if let (Some(number), Some(start_bytes), Some(size_bytes)) = (number, start, size) {
            let name = entry.name.to_string_lossy().into_owned();
            partitions.push(DiskPartition { name, number, start_bytes, size_bytes });
        }
    }
    partitions.sort_unstable_by_key(|partition| (partition.start_bytes, partition.number));
    Ok(partitions)
}

/// Which device is built upon this one (device mapper, md, bcache).
fn held(dir: &Dir) -> Result<Option<String>> {
    let Some(holders) = there(again_of(|| dir.open_dir(c"holders")))? else { return Ok(None) };
    let holders = again_of(|| DirListing::read(&holders))?;
    Ok(holders.into_iter().next().map(|holder| {
        let name = std::ffi::OsStr::from_bytes(holder.name.to_bytes());
        format!("held by {}", escape(name))
    }))
}

/// The number of device `name` of `class` ("block", "misc"); `None` if the kernel has no such device.
pub fn device_number(sysfs: &Path, class: &str, name: &str) -> Result<Option<DeviceNumber>> {
    let Some(dir) = there(open(&sysfs.join("class").join(class).join(name)))? else {
        return Ok(None);
    };
    Ok(attribute(&dir, "dev")?.and_then(|text| number::parse(text.as_bytes())))
}

/// The kernel's name of block device `number`; `None` if it does not tell.
pub fn kernel_name(sysfs: &Path, number: DeviceNumber) -> Option<String> {
    let dir = open(&sysfs.join("dev/block")).ok()?;
    let link = CString::new(format!("{}:{}", number.0, number.1)).ok()?;
    let target = dir.read_symlink(&link).ok()?;
    Some(Path::new(target.to_str().ok()?).file_name()?.to_str()?.to_owned())
}

fn open(path: &Path) -> Result<Dir> {
    again_of(|| Dir::open_operator_path(path))
}

/// The object that was looked for; `None` if it is not there, or went while it was looked at.
fn there<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) => match error.errno() {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::NODEV | Errno::NXIO) => Ok(None),
            _ => Err(error),
        },
    }
}

fn units(text: &str) -> Option<u64> {
    text.parse::<u64>().ok()?.checked_mul(SECTOR)
}

fn attribute(dir: &Dir, name: &str) -> Result<Option<String>> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    let bytes = there(again_of(|| dir.read_file(&name, LIMIT)))?.flatten();
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()))
}
