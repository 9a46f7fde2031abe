//! Disks and partitions as sysfs lists them (Documentation/ABI/stable/sysfs-block).

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::super::device::Number;
use super::mounts::Mounts;
use crate::error::{Result, escape};
use crate::fs::{Dir, Listing};

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Kernel name (`nvme1n1`).
    pub name: String,
    /// Device number.
    pub number: Number,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Model, empty where the driver tells none.
    pub model: String,
    /// Serial number, empty where the driver tells none.
    pub serial: String,
    /// What it, or a partition of it, is used for ("mounted at /", "held by dm-0"); none if unused.
    pub in_use: Option<String>,
    /// Partitions the kernel has found on it.
    pub partitions: Vec<Partition>,
}

/// A partition the kernel knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Kernel name (`nvme1n1p1`).
    pub name: String,
    /// Device number.
    pub number: Number,
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
/// left out. `sysfs` is where sysfs is mounted.
pub fn disks(sysfs: &Path, mounts: &Mounts, wanted: impl Fn(&str) -> bool) -> Result<Vec<Disk>> {
    let class = Dir::open_operator_path(sysfs.join("class/block"))?;
    let mut disks: Vec<Disk> = Listing::read(&class)?
        .into_iter()
        .filter_map(|entry| {
            let name = entry.name.to_str().ok().filter(|name| wanted(name))?;
            disk(&class, name, mounts)
        })
        .collect();
    // nvme2n1 before nvme10n1.
    disks.sort_by_key(|disk| (disk.name.len(), disk.name.clone()));
    Ok(disks)
}

fn disk(class: &Dir, name: &str, mounts: &Mounts) -> Option<Disk> {
    if name.starts_with("ram") || name.starts_with("zram") {
        return None;
    }
    // The entries of a class are the kernel's own links.
    let dir = Dir::open_operator_path(class.path().join(name)).ok()?;
    if attribute(&dir, "partition").is_some() {
        return None;
    }
    let number = parse_number(attribute(&dir, "dev")?.as_bytes())?;
    let size_bytes = units(&attribute(&dir, "size")?)?;
    if size_bytes == 0 {
        return None;
    }
    let device = Dir::open_operator_path(dir.path().join("device")).ok();
    let text = |name| device.as_ref().and_then(|dir| attribute(dir, name)).unwrap_or_default();
    let partitions = partitions(&dir);
    let used = |number, name: &str, dir: &Dir| {
        let mounted =
            mounts.point(number, name).map(|point| format!("mounted at {}", escape(point)));
        mounted.or_else(|| held(dir))
    };
    let in_use = used(number, name, &dir).or_else(|| {
        partitions.iter().find_map(|part| {
            let dir = Dir::open_operator_path(dir.path().join(&part.name)).ok()?;
            used(part.number, &part.name, &dir)
        })
    });
    Some(Disk {
        name: name.to_owned(),
        number,
        size_bytes,
        model: text("model"),
        serial: text("serial"),
        in_use,
        partitions,
    })
}

fn partitions(disk: &Dir) -> Vec<Partition> {
    let entries = Listing::read(disk).unwrap_or_default();
    let mut partitions: Vec<Partition> = entries
        .into_iter()
        .filter_map(|entry| {
            let dir = disk.open_dir(&entry.name).ok()?;
            attribute(&dir, "partition")?;
            Some(Partition {
                name: entry.name.to_str().ok()?.to_owned(),
                number: parse_number(attribute(&dir, "dev")?.as_bytes())?,
                start_bytes: units(&attribute(&dir, "start")?)?,
                size_bytes: units(&attribute(&dir, "size")?)?,
            })
        })
        .collect();
    partitions.sort_by_key(|partition| partition.start_bytes);
    partitions
}

/// Which device is built upon this one (device mapper, md, bcache).
fn held(dir: &Dir) -> Option<String> {
    let holders = dir.open_dir(c"holders").ok()?;
    let holder = Listing::read(&holders).ok()?.into_iter().next()?;
    let name = std::ffi::OsStr::from_bytes(holder.name.to_bytes());
    Some(format!("held by {}", escape(name)))
}

/// The number of device `name` of `class` ("block", "misc"); none if the kernel has no such device.
pub fn number(sysfs: &Path, class: &str, name: &str) -> Option<Number> {
    let dir = Dir::open_operator_path(sysfs.join("class").join(class).join(name)).ok()?;
    parse_number(attribute(&dir, "dev")?.as_bytes())
}

/// The kernel's name of block device `number`.
pub fn name(sysfs: &Path, number: Number) -> Option<String> {
    let dir = Dir::open_operator_path(sysfs.join("dev/block")).ok()?;
    let link = CString::new(format!("{}:{}", number.0, number.1)).ok()?;
    let target = dir.read_symlink(&link).ok()?;
    Some(Path::new(target.to_str().ok()?).file_name()?.to_str()?.to_owned())
}

/// `MAJOR:MINOR`
pub(super) fn parse_number(text: &[u8]) -> Option<Number> {
    let (major, minor) = std::str::from_utf8(text).ok()?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn units(text: &str) -> Option<u64> {
    text.parse::<u64>().ok()?.checked_mul(SECTOR)
}

fn attribute(dir: &Dir, name: &str) -> Option<String> {
    let bytes = dir.read_file(&CString::new(name).ok()?, LIMIT).ok()??;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}
