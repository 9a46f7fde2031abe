//! The master boot record and the chain of extended boot records behind it. There is no checksum: the
//! signature, the boot indicators and the bounds are all that distinguishes a table from other boot code.
#![forbid(unsafe_code)]

use super::kind::PartitionKind;
use super::table::{PartitionEntry, PartitionLayout, PartitionTable};
use crate::volume::bytes::fields::{field, has, le32};
use crate::volume::bytes::source::DeviceBytes;

/// Links followed in a row that lead to no partition.
const EMPTY_LINKS: u32 = 100;
/// Partitions of one table at most; the kernel has minor numbers for 256.
const PARTITIONS: usize = 256;

/// One of the four records of a boot sector; sectors count from the boot sector or, in links, from the
/// start of the extended partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct MbrRecord {
    boot: u8,
    kind: u8,
    start: u32,
    sectors: u32,
}

impl MbrRecord {
    pub(super) fn protects_gpt(&self) -> bool {
        self.kind == 0xee
    }

    fn is_link(&self) -> bool {
        self.sectors != 0 && PartitionKind::of_byte(self.kind) == PartitionKind::Extended
    }

    fn is_data(&self) -> bool {
        self.sectors != 0 && PartitionKind::of_byte(self.kind) != PartitionKind::Extended
    }
}

/// The records of a boot sector; `None` without the signature.
pub(super) fn records(sector: &[u8]) -> Option<Vec<MbrRecord>> {
    if !has(sector, 510, b"\x55\xaa") {
        return None;
    }
    let parse = |raw: &[u8]| {
        Some(MbrRecord {
            boot: *raw.first()?,
            kind: *raw.get(4)?,
            start: le32(raw, 8)?,
            sectors: le32(raw, 12)?,
        })
    };
    field(sector, 446, 64)?.chunks_exact(16).map(parse).collect()
}

/// The table of a disk whose first sector is `boot`.
pub(super) fn read(
    source: &DeviceBytes<'_>,
    boot: &[u8],
    records: &[MbrRecord],
) -> Option<PartitionLayout> {
    const AIX: &[u8] = b"\xc9\xc2\xd4\xc1";
    if has(boot, 0, AIX) || records.iter().any(|record| !matches!(record.boot, 0 | 0x80)) {
        return None;
    }
    let mut entries: Vec<PartitionEntry> = (1..)
        .zip(records)
        .filter(|(_, record)| record.sectors != 0)
        .map(|(number, record)| entry(source, number, record, u64::from(record.start)))
        .collect();
    for record in records.iter().filter(|record| record.is_link()) {
        logical(source, record, &mut entries);
    }
    Some(PartitionLayout { table: PartitionTable::Dos, entries })
}

fn entry(source: &DeviceBytes<'_>, number: u32, record: &MbrRecord, start: u64) -> PartitionEntry {
    PartitionEntry {
        number,
        kind: PartitionKind::of_byte(record.kind),
        name: None,
        // At most 2^34 sectors of at most 2^16 bytes.
        start_bytes: start * source.sector_size(),
        size_bytes: u64::from(record.sectors) * source.sector_size(),
    }
}

/// Follows the links of an extended partition. A link that does not lead on ends the chain.
fn logical(source: &DeviceBytes<'_>, extended: &MbrRecord, entries: &mut Vec<PartitionEntry>) {
    let base = u64::from(extended.start);
    let end = base + u64::from(extended.sectors);
    let (mut at, mut sectors) = (base, u64::from(extended.sectors));
    let mut seen = Vec::new();
    let mut empty = 0;
    while base != 0 && empty < EMPTY_LINKS && entries.len() < PARTITIONS && !seen.contains(&at) {
        seen.push(at);
        let boot = source.bytes(at * source.sector_size(), 512);
        let Some(records) = boot.as_deref().and_then(records) else { return };
        empty += 1;
        for (index, record) in records.iter().enumerate().filter(|(_, r)| r.is_data()) {
            let start = at + u64::from(record.start);
            let stop = start + u64::from(record.sectors);
            // The third and fourth are unused; OS/2 put real partitions there.
            let stray = index >= 2
                && (stop > end || u64::from(record.start) + u64::from(record.sectors) > sectors);
            let known = entries.iter().any(|e| e.start_bytes == start * source.sector_size());
            if !stray && !known && entries.len() < PARTITIONS {
                let number = entries.iter().map(|e| e.number).max().unwrap_or(0).max(4) + 1;
                entries.push(entry(source, number, record, start));
                empty = 0;
            }
        }
        let Some(link) = records.iter().find(|record| record.is_link() && record.start != 0) else {
            return;
        };
        (at, sectors) = (base + u64::from(link.start), link.sectors.into());
    }
}
