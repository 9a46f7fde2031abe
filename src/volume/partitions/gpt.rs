//! GPT (UEFI specification 2.10, 5.3): the header at sector 1, or the one in the last sector when the
//! first one or its entries do not match their checksums.
#![forbid(unsafe_code)]

use super::kind::PartitionKind;
use super::table::{PartitionEntry, PartitionLayout, PartitionTable};
use crate::volume::bytes::checksum::{crc32, crc32_without, holds};
use crate::volume::bytes::fields::{guid, has, le32, le64, utf16_le};
use crate::volume::bytes::source::DeviceBytes;

const HEADER: u32 = 92;
const ENTRY: u32 = 128;
/// Entries read at most; every tool writes 128.
const ENTRIES: u32 = 1024;

pub(super) fn read(source: &DeviceBytes<'_>) -> Option<PartitionLayout> {
    let last = (source.size() / source.sector_size()).checked_sub(1)?;
    let entries = entries(source, 1, last).or_else(|| entries(source, last, last))?;
    Some(PartitionLayout { table: PartitionTable::Gpt, entries })
}

fn entries(source: &DeviceBytes<'_>, own: u64, last: u64) -> Option<Vec<PartitionEntry>> {
    let sector = source.sector_size();
    let header = source.bytes(own.checked_mul(sector)?, sector)?;
    let length = le32(&header, 12)?;
    if !has(&header, 0, b"EFI PART") || !(HEADER.into()..=sector).contains(&length.into()) {
        return None;
    }
    let covered = header.get(..usize::try_from(length).ok()?)?;
    let (first_usable, last_usable) = (le64(&header, 40)?, le64(&header, 48)?);
    let (count, size) = (le32(&header, 80)?, le32(&header, 84)?);
    let sound = holds(crc32_without(covered, 16..20)?, le32(&header, 16)?)
        && le64(&header, 24)? == own
        && first_usable <= last_usable
        && last_usable <= last
        && !(first_usable < own && own < last_usable)
        && size == ENTRY
        && (1..=ENTRIES).contains(&count);
    if !sound {
        return None;
    }
    let length = u64::from(count) * u64::from(ENTRY);
    let table = source.bytes(le64(&header, 72)?.checked_mul(sector)?, length)?;
    if !holds(crc32(&table), le32(&header, 88)?) {
        return None;
    }
    let parse = |(number, raw): (u32, &[u8])| -> Option<PartitionEntry> {
        let (start, end) = (le64(raw, 32)?, le64(raw, 40)?);
        let usable = first_usable <= start && start <= end && end <= last_usable;
        let kind = PartitionKind::of_guid(&guid(raw, 0)?);
        Some(PartitionEntry {
            number,
            kind,
            name: utf16_le(raw, 56, 72),
            start_bytes: start.checked_mul(sector)?,
            size_bytes: (end - start.min(end)).checked_add(1)?.checked_mul(sector)?,
        })
        .filter(|_| usable)
    };
    Some((1..).zip(table.chunks_exact(ENTRY as usize)).filter_map(parse).collect())
}
