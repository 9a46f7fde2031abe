//! The file systems of a device that may be the source.
#![forbid(unsafe_code)]

use std::path::Path;

use molecule_tools::volume::discover;
use molecule_tools::volume::loopdev::ByteRange;
use molecule_tools::volume::mount::{self, MountTarget};
use molecule_tools::volume::partitions::PartitionKind;
use molecule_tools::volume::probe::{self, Probe};
use tracing::{info, warn};

use super::locate::LocatedDevice;

/// A file system that may be the source.
pub struct CandidateFs<'a> {
    /// Number of its partition; `None` for the whole device.
    pub partition: Option<u32>,
    pub start_bytes: u64,
    pub size_bytes: u64,
    pub fstype: &'a str,
    pub uuid: Option<&'a str>,
    /// Its names in the partition table and in the file system.
    pub names: [Option<&'a str>; 2],
    pub backup_superblock: Option<u64>,
}

/// The file system on the whole device first, then those of its partitions, the largest first.
pub fn candidates<'a>(
    located: &LocatedDevice,
    found: &'a Probe,
    name: &str,
) -> Vec<CandidateFs<'a>> {
    let size = discover::human_size;
    if let Some(table) = found.table {
        let count = found.partitions.len();
        info!("{name} has a {} partition table with {count} partition(s)", table.name());
    }
    if !found.ambivalent.is_empty() {
        warn!("{name} shows more than one type: {}", found.ambivalent.join(", "));
    }
    let mut parts: Vec<&probe::ProbedPartition> = found
        .partitions
        .iter()
        .filter(|part| located.partition.is_none_or(|number| number == part.number))
        .filter(|part| {
            let wanted = !matches!(
                part.kind,
                PartitionKind::Esp
                    | PartitionKind::BiosBoot
                    | PartitionKind::Swap
                    | PartitionKind::Extended
            );
            let swap = part.fstype == Some("swap");
            located.partition.is_some() || (wanted && !swap)
        })
        .collect();
    let no_file_system = |part: &probe::ProbedPartition| {
        part.fstype.is_some_and(|fstype| mount::why_not_mountable(fstype).is_some())
    };
    parts.sort_unstable_by_key(|part| {
        (no_file_system(part), std::cmp::Reverse(part.size_bytes), part.number)
    });
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
        Some(CandidateFs {
            partition: Some(part.number),
            start_bytes: part.start_bytes,
            size_bytes: part.size_bytes,
            fstype: fstype?,
            uuid: part.uuid.as_deref().or(backup.and_then(|backup| backup.uuid.as_deref())),
            names: [part.name.as_deref(), part.label.as_deref()],
            backup_superblock: backup.map(|backup| backup.superblock),
        })
    });
    let whole = |fstype, uuid, backup_superblock| CandidateFs {
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

impl CandidateFs<'_> {
    pub fn label(&self, name: &str) -> String {
        match self.partition {
            Some(number) => {
                format!("partition {number} of {name} ({})", discover::human_size(self.size_bytes))
            }
            None => name.to_owned(),
        }
    }

    pub fn target<'b>(&'b self, located: &'b LocatedDevice, shown: &'b Path) -> MountTarget<'b> {
        let node = match self.partition {
            None => located.whole(),
            Some(_) => located.partition_at(self.start_bytes, self.size_bytes),
        };
        MountTarget {
            device: &located.device,
            range: ByteRange { offset: self.start_bytes, length: self.size_bytes },
            node,
            fstype: self.fstype,
            backup_superblock: self.backup_superblock,
            shown,
        }
    }
}
