//! The content of a device: file system type, identifier, label, partitions, read from its bytes alone
//! as blkid(8) reports it. Nothing is written, each byte is read at most once, less than 1 MiB in all,
//! and no byte of the device can cause a panic.
#![forbid(unsafe_code)]

mod btrfs;
mod ext;
mod fat;
mod linux;
mod member;
mod optical;
mod signature;
mod swap;
mod table;
mod windows;
mod xfs;
mod zfs;

pub use super::bytes::source::ReadAt;
pub use ext::ExtBackup;

use super::bytes::source::{ByteExtent, DeviceBytes};
use super::partitions;
pub use super::partitions::{PartitionKind, PartitionTable};
use crate::error::{Error, Result};
use signature::{FormatUsage, FoundFormat};
use table::FORMATS;

/// The result of [`probe`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probe {
    /// blkid's TYPE of the whole device; `None` when there is no signature, or more than one.
    pub fstype: Option<&'static str>,
    /// As blkid prints it.
    pub uuid: Option<String>,
    /// Volume name.
    pub label: Option<String>,
    /// The types found when there is more than one and none can be trusted; empty otherwise.
    pub ambivalent: Vec<&'static str>,
    /// A sound copy of an ext superblock, looked for where no type was found.
    pub ext_backup: Option<ExtBackup>,
    /// Partition table of the device.
    pub table: Option<PartitionTable>,
    /// Its partitions by number.
    pub partitions: Vec<ProbedPartition>,
    /// Why some of it could not be read: a partition without a type may have one then.
    pub unread: Option<rustix::io::Errno>,
}

/// A partition and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbedPartition {
    /// Its number in the kernel.
    pub number: u32,
    /// Its purpose by its entry.
    pub kind: PartitionKind,
    /// Name in its entry (GPT).
    pub name: Option<String>,
    /// Start in bytes from the start of the device.
    pub start_bytes: u64,
    /// Size in bytes by its entry; it may reach beyond the end of the device.
    pub size_bytes: u64,
    /// blkid's TYPE of the content.
    pub fstype: Option<&'static str>,
    /// As blkid prints it.
    pub uuid: Option<String>,
    /// Volume name.
    pub label: Option<String>,
    /// See [`Probe::ambivalent`].
    pub ambivalent: Vec<&'static str>,
    /// See [`Probe::ext_backup`].
    pub ext_backup: Option<ExtBackup>,
}

/// Probes a device or an image. Partitions are probed too, the largest first. An error only if
/// reading failed and nothing was found.
pub fn probe(device: &impl ReadAt) -> Result<Probe> {
    let source = DeviceBytes::new(device);
    let boot_sector = ByteExtent::whole(&source, &[]);
    let layout = partitions::read(&source).filter(|layout| {
        // The boot sector of these ends like a master boot record.
        layout.table == PartitionTable::Gpt
            || !(fat::is_fat(&boot_sector) || windows::is_ntfs(&boot_sector))
    });
    let ranges: Vec<(u64, u64)> = layout
        .iter()
        .flat_map(|layout| &layout.entries)
        .map(|entry| (entry.start_bytes, entry.size_bytes))
        .collect();
    let whole = search(&ByteExtent::whole(&source, &ranges));
    let mut result = Probe {
        fstype: whole.fstype,
        uuid: whole.uuid,
        label: whole.label,
        ambivalent: whole.ambivalent,
        ext_backup: whole.ext_backup,
        ..Probe::default()
    };
    if let Some(layout) = layout.filter(|_| !whole.is_raid) {
        result.table = Some(layout.table);
        result.partitions = layout.entries.into_iter().map(ProbedPartition::from).collect();
        let mut order: Vec<&mut ProbedPartition> = result.partitions.iter_mut().collect();
        order.sort_unstable_by_key(|partition| {
            (std::cmp::Reverse(partition.size_bytes), partition.number)
        });
        for partition in order {
            partition.search(&source);
        }
    }
    if source.exhausted() {
        tracing::warn!(
            "the probe stopped after {} bytes; some partitions may show no type",
            DeviceBytes::LIMIT
        );
    }
    result.unread = source.failure();
    match source.failure() {
        Some(errno) if result.fstype.is_none() && result.table.is_none() => {
            Err(Error::failed("read the device", errno)
                .hint("see the kernel log; nothing was found in what could be read"))
        }
        _ => Ok(result),
    }
}

impl From<partitions::PartitionEntry> for ProbedPartition {
    fn from(entry: partitions::PartitionEntry) -> Self {
        Self {
            number: entry.number,
            kind: entry.kind,
            name: entry.name,
            start_bytes: entry.start_bytes,
            size_bytes: entry.size_bytes,
            fstype: None,
            uuid: None,
            label: None,
            ambivalent: Vec::new(),
            ext_backup: None,
        }
    }
}

impl ProbedPartition {
    fn search(&mut self, source: &DeviceBytes<'_>) {
        if self.kind == PartitionKind::Extended {
            return;
        }
        let content = search(&ByteExtent::part(source, self.start_bytes, self.size_bytes));
        self.fstype = content.fstype;
        self.uuid = content.uuid;
        self.label = content.label;
        self.ambivalent = content.ambivalent;
        self.ext_backup = content.ext_backup;
    }
}

/// The content of one extent.
#[derive(Default)]
struct Content {
    fstype: Option<&'static str>,
    uuid: Option<String>,
    label: Option<String>,
    ambivalent: Vec<&'static str>,
    ext_backup: Option<ExtBackup>,
    is_raid: bool,
}

/// Goes through the table as libblkid's safe probing does: a RAID or crypto member ends the search,
/// on a floppy-sized extent the first hit does, otherwise two hits are ambivalent unless both may
/// share a device.
fn search(extent: &ByteExtent<'_>) -> Content {
    const FLOPPY: u64 = 1440 * 1024;
    const LEAST: u64 = 1024;
    if extent.size() <= LEAST {
        return Content::default();
    }
    let mut hits: Vec<(FormatUsage, FoundFormat)> = Vec::new();
    for format in FORMATS {
        if format.usage == FormatUsage::Raid && extent.size() <= FLOPPY {
            continue;
        }
        if let Some(found) = format.find(extent) {
            hits.push((format.usage, found));
            if extent.size() <= FLOPPY
                || matches!(format.usage, FormatUsage::Raid | FormatUsage::Crypto)
            {
                break;
            }
        }
    }
    let ambivalent =
        hits.len() > 1 && hits.iter().any(|(usage, _)| *usage != FormatUsage::Tolerant);
    if ambivalent {
        let names = hits.iter().map(|(_, found)| found.name).collect();
        return Content { ambivalent: names, ..Content::default() };
    }
    match hits.into_iter().next() {
        None => Content { ext_backup: ext::backup(extent), ..Content::default() },
        Some((usage, found)) => Content {
            fstype: Some(found.name),
            uuid: found.uuid,
            label: found.label,
            is_raid: usage == FormatUsage::Raid,
            ..Content::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Zeros that it does not tell the number of.
    struct Unsized;

    impl ReadAt for Unsized {
        fn read_at(&self, _: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
            buffer.fill(0);
            Ok(buffer.len())
        }
        fn size(&self) -> std::io::Result<u64> {
            Err(rustix::io::Errno::IO.into())
        }
    }

    #[test]
    fn a_device_that_does_not_tell_its_size_is_not_empty() {
        assert_eq!(probe(&Unsized).unwrap_err().errno(), Some(rustix::io::Errno::IO));
        assert!(probe(&&[0_u8; 4096][..]).is_ok());
    }
}
