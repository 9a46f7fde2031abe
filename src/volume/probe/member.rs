//! Members of something larger: Linux RAID, LVM, bcache, LUKS.
#![forbid(unsafe_code)]

use super::signature::{FoundFormat, Magic};
use crate::volume::bytes::checksum::{bcache, crc32_from, holds};
use crate::volume::bytes::fields::{be16, be32, field, has, label, le16, le32, le64, uuid};
use crate::volume::bytes::source::ByteExtent;

/// LUKS 1 and 2 (cryptsetup, on-disk format specifications). Where the first header is gone, the
/// second one of LUKS 2 at its known places still shows that the data is encrypted.
pub(super) fn luks(extent: &ByteExtent<'_>, _: &Magic) -> Option<FoundFormat> {
    const SECOND: [u64; 9] =
        [0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000];
    let first = extent.bytes(0, 512)?;
    let header = match has(&first, 0, b"LUKS\xba\xbe") {
        true => first,
        false => SECOND
            .into_iter()
            .map_while(|offset| extent.bytes(offset, 512))
            .find(|header| has(header, 0, b"SKUL\xba\xbe"))?,
    };
    let uuid = label(&header, 168, 40);
    match be16(&header, 6)? {
        1 => Some(FoundFormat::new(uuid, None)),
        2 => Some(FoundFormat::new(uuid, label(&header, 24, 48))),
        _ => None,
    }
}

const MD: u32 = 0xa92b_4efc;

/// Linux RAID (md(4), linux/raid/md_p.h): 0.90 and 1.0 at the end, 1.1 at the start, 1.2 at 4 KiB.
pub(super) fn md(extent: &ByteExtent<'_>, _: &Magic) -> Option<FoundFormat> {
    const RESERVED: u64 = 0x1_0000;
    let size = extent.size();
    let old = || md_0(extent, (size - size % RESERVED).checked_sub(RESERVED)?);
    let at_end = || {
        (size > RESERVED).then_some(())?;
        old().or_else(|| md_1(extent, (size - size % 0x1000).checked_sub(0x2000)?))
    };
    at_end().or_else(|| md_1(extent, 0)).or_else(|| md_1(extent, 0x1000))
}

fn md_0(extent: &ByteExtent<'_>, offset: u64) -> Option<FoundFormat> {
    const CHECKSUM: usize = 152;
    let magic = extent.bytes(offset, 4)?;
    let word: fn(&[u8], usize) -> Option<u32> = match (le32(&magic, 0)?, be32(&magic, 0)?) {
        (MD, _) => le32,
        (_, MD) => be32,
        _ => return None,
    };
    let bytes = extent.bytes(offset, 4096)?;
    let data = u64::from(word(&bytes, 32)?) * 1024;
    let end = data.checked_add(0x1_0000)?;
    let mut sum = 0_u64;
    for at in (0..bytes.len()).step_by(4).filter(|at| *at != CHECKSUM) {
        sum += u64::from(word(&bytes, at)?);
    }
    if !holds(folded(sum), word(&bytes, CHECKSUM)?) || extent.size() < end || offset < data {
        return None;
    }
    // At the end of the last partition of a disk it is also near the end of the disk.
    if extent.is_covered(offset - data, end) {
        return None;
    }
    let whole = word(&bytes, 8)? >= 90;
    let mut id = word(&bytes, 20)?.to_be_bytes().to_vec();
    for at in [52, 56, 60] {
        id.extend(if whole { word(&bytes, at)?.to_be_bytes() } else { [0; 4] });
    }
    Some(FoundFormat::new(uuid(&id, 0), None))
}

fn md_1(extent: &ByteExtent<'_>, offset: u64) -> Option<FoundFormat> {
    const CHECKSUM: usize = 216;
    let head = extent.bytes(offset, 256)?;
    let ours = le32(&head, 0)? == MD && le32(&head, 4)? == 1 && le64(&head, 144)? == offset / 512;
    let roles = le32(&head, 220)?;
    if !ours || roles > 1920 {
        return None;
    }
    let bytes = extent.bytes(offset, 256 + u64::from(roles) * 2)?;
    let mut sum = 0_u64;
    for at in (0..bytes.len()).step_by(4).filter(|at| *at != CHECKSUM) {
        sum += match le32(&bytes, at) {
            Some(word) => u64::from(word),
            None => u64::from(le16(&bytes, at)?),
        };
    }
    holds(folded(sum), le32(&bytes, CHECKSUM)?)
        .then(|| FoundFormat::new(uuid(&head, 16), label(&head, 32, 32)))
}

fn folded(sum: u64) -> u32 {
    ((sum & 0xffff_ffff) as u32).wrapping_add((sum >> 32) as u32)
}

/// Physical volume of LVM 2 (lvm2 sources, format_text/layout.h): the label names its own sector.
pub(super) fn lvm2(extent: &ByteExtent<'_>, magic: &Magic) -> Option<FoundFormat> {
    const SEED: u32 = 0xf597_a6cf;
    let bytes = extent.bytes(magic.base(), 1024)?;
    let (label, within) = [0, 512].into_iter().find_map(|at| {
        let sector = field(&bytes, at, 512)?;
        has(sector, 0, b"LABELONE").then_some((sector, at as u64))
    })?;
    let sector = (magic.base() + within) / 512;
    if le64(label, 8)? != sector || !holds(crc32_from(SEED, label.get(20..)?), le32(label, 16)?) {
        return None;
    }
    Some(FoundFormat::new(lvm_uuid(label), None))
}

/// 32 letters in groups of 6-4-4-4-4-4-6.
fn lvm_uuid(label: &[u8]) -> Option<String> {
    let raw = field(label, 32, 32)?;
    if raw.iter().all(|byte| *byte == 0) {
        return None;
    }
    let mut text = String::with_capacity(38);
    for (index, byte) in raw.iter().enumerate().take_while(|(_, byte)| **byte != 0) {
        if (6..=26).contains(&index) && (index - 6) % 4 == 0 {
            text.push('-');
        }
        text.push(char::from(*byte));
    }
    Some(text)
}

/// Bcache (linux/bcache.h): superblock at 4 KiB that knows its own place.
pub(super) fn bcache_device(extent: &ByteExtent<'_>, magic: &Magic) -> Option<FoundFormat> {
    let bytes = extent.bytes(magic.base(), 4096)?;
    let keys = usize::from(le16(&bytes, 0xce)?);
    let sound = le64(&bytes, 8)? == magic.base() / 512
        && keys <= 256
        && holds(bcache(field(&bytes, 8, 0xc8 + keys * 8)?), le64(&bytes, 0)?);
    sound.then(|| FoundFormat::new(uuid(&bytes, 40), None))
}

/// BitLocker (libbde, BitLocker Drive Encryption format): the boot sector of Vista, of Windows 7 and
/// later, or of a removable volume that looks like FAT.
pub(super) fn is_bitlocker(extent: &ByteExtent<'_>) -> bool {
    let Some(boot) = extent.bytes(0, 512) else { return false };
    let place = if has(&boot, 0, b"\xeb\x52\x90-FVE-FS-") {
        return true;
    } else if has(&boot, 0, b"\xeb\x58\x90-FVE-FS-") {
        le64(&boot, 176)
    } else if has(&boot, 0, b"\xeb\x58\x90MSWIN4.1") {
        le64(&boot, 440)
    } else {
        None
    };
    place
        .filter(|place| *place != 0)
        .and_then(|place| extent.bytes(place, 12))
        .is_some_and(|header| has(&header, 0, b"-FVE-FS-"))
}

pub(super) fn bitlocker(extent: &ByteExtent<'_>, _: &Magic) -> Option<FoundFormat> {
    is_bitlocker(extent).then(|| FoundFormat::new(None, None))
}
