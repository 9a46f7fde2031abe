//! exFAT (Microsoft, exFAT File System Specification) and NTFS (the linux-ntfs documentation).
#![forbid(unsafe_code)]

use super::member::is_bitlocker;
use super::signature::{FoundFormat, Magic};
use crate::volume::bytes::checksum::holds;
use crate::volume::bytes::fields::{le16, le32, le64, serial, utf16_le};
use crate::volume::bytes::source::ByteExtent;

/// exFAT: the sum over the first eleven sectors stands in the twelfth.
pub(super) fn exfat(extent: &ByteExtent<'_>, magic: &Magic) -> Option<FoundFormat> {
    let boot = extent.bytes(magic.base(), 512)?;
    let (sector_log, cluster_log) = (*boot.get(108)?, *boot.get(109)?);
    if !(9..=12).contains(&sector_log) || cluster_log > 25 - sector_log {
        return None;
    }
    let sector = 1_u64 << sector_log;
    let region = extent.bytes(0, 12 * sector)?;
    let (summed, stored) = region.split_at_checked(usize::try_from(11 * sector).ok()?)?;
    let sum = summed
        .iter()
        .enumerate()
        .filter(|(at, _)| !matches!(at, 106 | 107 | 112))
        .fold(0_u32, |sum, (_, byte)| sum.rotate_right(1).wrapping_add((*byte).into()));
    if stored.chunks_exact(4).any(|word| !holds(Some(sum), le32(word, 0))) {
        return None;
    }
    Some(FoundFormat::new(serial(&boot, 100), exfat_label(extent, &boot, sector, cluster_log)))
}

/// The name is an entry of the root directory, nearly always the first.
fn exfat_label(
    extent: &ByteExtent<'_>,
    boot: &[u8],
    sector: u64,
    cluster_log: u8,
) -> Option<String> {
    const ENTRIES: u32 = 2048;
    const LABEL: u8 = 0x83;
    const CLUSTERS: std::ops::RangeInclusive<u32> = 2..=0xffff_fff6;
    let cluster_size = sector << cluster_log;
    let heap = u64::from(le32(boot, 88)?) * sector;
    let place = |cluster: u32| {
        u64::from(cluster.checked_sub(2)?).checked_mul(cluster_size)?.checked_add(heap)
    };
    let mut cluster = le32(boot, 96)?;
    let mut within = 0;
    for _ in 0..ENTRIES {
        let entry = extent.bytes(place(cluster)?.checked_add(within)?, 32)?;
        match *entry.first()? {
            0 => return None,
            LABEL => return utf16_le(&entry, 2, (usize::from(*entry.get(1)?) * 2).min(22)),
            _ => within += 32,
        }
        if within == cluster_size {
            let link = u64::from(le32(boot, 80)?) * sector + u64::from(cluster) * 4;
            cluster = le32(&extent.bytes(link, 4)?, 0).filter(|next| CLUSTERS.contains(next))?;
            within = 0;
        }
    }
    None
}

/// Whether the first sector is that of an NTFS volume, which looks like a partition table.
pub(super) fn is_ntfs(extent: &ByteExtent<'_>) -> bool {
    const MAGIC: Magic = Magic::new(0, 3, b"NTFS    ");
    MAGIC.is_in(extent) && ntfs(extent, &MAGIC).is_some()
}

/// NTFS: the parameter block, and two records of the master file table that must be there.
pub(super) fn ntfs(extent: &ByteExtent<'_>, magic: &Magic) -> Option<FoundFormat> {
    const VOLUME: u64 = 3;
    const LARGEST_CLUSTER: u64 = 2 << 20;
    let boot = extent.bytes(magic.base(), 512)?;
    let sector = u64::from(le16(&boot, 11)?);
    let cluster_sectors = match *boot.get(13)? {
        count @ 1..=128 if count.is_power_of_two() => u64::from(count),
        log @ 240..=249 => 1 << (256 - u32::from(log)),
        _ => return None,
    };
    let cluster = sector * cluster_sectors;
    let unused = le16(&boot, 14)? == 0
        && *boot.get(16)? == 0
        && le16(&boot, 17)? == 0
        && le16(&boot, 19)? == 0
        && le16(&boot, 22)? == 0
        && le32(&boot, 32)? == 0;
    if !(256..=4096).contains(&sector) || cluster > LARGEST_CLUSTER || !unused {
        return None;
    }
    let record = match *boot.get(64)? {
        count @ 1..=64 if count.is_power_of_two() => u64::from(count) * cluster,
        log @ 0xe1..=0xf7 => 1_u64 << (256 - u32::from(log)),
        _ => return None,
    };
    let clusters = le64(&boot, 40)? / cluster_sectors;
    let (table, mirror) = (le64(&boot, 48)?, le64(&boot, 56)?);
    if table > clusters || mirror > clusters {
        return None;
    }
    let table = table.checked_mul(cluster)?;
    let volume = table.checked_add(VOLUME * record)?;
    let fits = |at: u64| at.checked_add(record).is_some_and(|end| end <= extent.size());
    let is_file = |at: u64| extent.bytes(at, 4).is_some_and(|bytes| bytes == b"FILE");
    if !fits(volume) || !is_file(table) || !is_file(volume) || is_bitlocker(extent) {
        return None;
    }
    let id = le64(&boot, 72)?;
    let uuid = (id != 0).then(|| format!("{id:016X}"));
    Some(FoundFormat::new(uuid, ntfs_label(extent, volume, record)))
}

/// The volume name is an attribute of its own in the record of the volume.
fn ntfs_label(extent: &ByteExtent<'_>, offset: u64, length: u64) -> Option<String> {
    const NAME: u32 = 0x60;
    const END: u32 = u32::MAX;
    const HEADER: usize = 22;
    // Records have 1 or 4 KiB; what claims more is not read whole.
    let record = extent.bytes(offset, length.min(64 * 1024))?;
    let allocated = usize::try_from(le32(&record, 28)?).ok()?;
    let mut at = usize::from(le16(&record, 20)?);
    while at <= allocated {
        let attribute = record.get(at..).filter(|rest| rest.len() >= HEADER)?;
        let size = usize::try_from(le32(attribute, 4)?).ok()?;
        match (le32(attribute, 0)?, size) {
            (END, _) | (_, 0) => return None,
            (NAME, _) => {
                let length = usize::try_from(le32(attribute, 16)?).ok()?;
                return utf16_le(attribute, le16(attribute, 20)?.into(), length);
            }
            _ => at = at.checked_add(size)?,
        }
    }
    None
}
