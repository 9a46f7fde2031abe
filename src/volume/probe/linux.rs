//! File systems that are recognised by one superblock: f2fs, erofs, SquashFS, ReiserFS, JFS, NILFS2.
#![forbid(unsafe_code)]

use super::signature::{FoundFormat, Magic};
use crate::volume::bytes::checksum::{crc32_from, crc32c_without, holds};
use crate::volume::bytes::fields::{be16, has, label, le16, le32, le64, utf16_le, uuid};
use crate::volume::bytes::source::ByteExtent;

/// f2fs (linux/f2fs_fs.h); the checksum is there if a field names its place.
pub(super) fn f2fs(extent: &ByteExtent<'_>, magic: &Magic) -> Option<FoundFormat> {
    const MAGIC: u32 = 0xf2f5_2010;
    let bytes = extent.bytes(magic.base(), 3072)?;
    let place = usize::try_from(le32(&bytes, 0x20)?).ok()?;
    if place != 0 && !holds(crc32_from(MAGIC, bytes.get(..place)?), le32(&bytes, place)?) {
        return None;
    }
    if (le16(&bytes, 4)?, le16(&bytes, 6)?) == (1, 0) {
        return Some(FoundFormat::new(None, None));
    }
    Some(FoundFormat::new(uuid(&bytes, 0x6c), utf16_le(&bytes, 0x7c, 1024)))
}

/// erofs (linux/erofs_fs.h).
pub(super) fn erofs(extent: &ByteExtent<'_>, magic: &Magic) -> Option<FoundFormat> {
    const HAS_CHECKSUM: u32 = 1;
    let bytes = extent.bytes(magic.base(), 128)?;
    if le32(&bytes, 8)? & HAS_CHECKSUM != 0 {
        // To the end of the block; the kernel keeps the checksum without the final inversion.
        let block_log = bytes.get(12).filter(|log| (9..=16).contains(*log))?;
        let block = 1_u64 << block_log;
        let length = if block > magic.base() { block - magic.base() } else { block };
        let summed = extent.bytes(magic.base(), length)?;
        if !holds(!crc32c_without(&summed, 4..8)?, le32(&bytes, 4)?) {
            return None;
        }
    }
    Some(FoundFormat::new(uuid(&bytes, 48), label(&bytes, 64, 16)))
}

/// SquashFS 4.
pub(super) fn squashfs(extent: &ByteExtent<'_>, magic: &Magic) -> Option<FoundFormat> {
    let bytes = extent.bytes(magic.base(), 96)?;
    (le16(&bytes, 28)? >= 4).then(|| FoundFormat::new(None, None))
}

/// SquashFS up to 3, in either byte order.
pub(super) fn squashfs3(extent: &ByteExtent<'_>, magic: &Magic) -> Option<FoundFormat> {
    let bytes = extent.bytes(magic.base(), 96)?;
    let version = if has(magic.bytes, 0, b"sqsh") { be16(&bytes, 28)? } else { le16(&bytes, 28)? };
    (version <= 3).then(|| FoundFormat::new(None, None))
}

/// ReiserFS 3.5 and 3.6; a copy in the journal is not the superblock.
pub(super) fn reiserfs(extent: &ByteExtent<'_>, magic: &Magic) -> Option<FoundFormat> {
    let bytes = extent.bytes(magic.base(), 512)?;
    let sectors = u64::from(le16(&bytes, 44)?) / 512;
    let journal = u64::from(le32(&bytes, 12)?);
    if sectors == 0 || magic.base() / 1024 / sectors > journal / 2 {
        return None;
    }
    Some(match magic.bytes.get(6) {
        Some(b'2' | b'3') => FoundFormat::new(uuid(&bytes, 84), label(&bytes, 100, 16)),
        _ => FoundFormat::new(None, None),
    })
}

/// JFS: the logarithms of its sizes are kept beside them.
pub(super) fn jfs(extent: &ByteExtent<'_>, magic: &Magic) -> Option<FoundFormat> {
    let bytes = extent.bytes(magic.base(), 512)?;
    let power = |log: u16| 1_u32.checked_shl(log.into());
    let (block_log, sector_log) = (le16(&bytes, 20)?, le16(&bytes, 28)?);
    let sound = Some(le32(&bytes, 16)?) == power(block_log)
        && Some(le32(&bytes, 24)?) == power(sector_log)
        && block_log.checked_sub(sector_log) == Some(le16(&bytes, 22)?);
    sound.then(|| FoundFormat::new(uuid(&bytes, 136), label(&bytes, 152, 16)))
}

/// NILFS2: two superblocks, each with a checksum; the one with the later checkpoint counts.
pub(super) fn nilfs2(extent: &ByteExtent<'_>, _: &Magic) -> Option<FoundFormat> {
    const FIRST: u64 = 1024;
    let first = extent.bytes(FIRST, 1024)?;
    let place = (extent.size() / 512).checked_sub(8)? * 512;
    let second = extent
        .bytes(place, 1024)
        .filter(|bytes| nilfs2_holds(bytes) == Some(true) && !extent.is_covered(place, 1024));
    let checkpoint = |bytes: &[u8]| le64(bytes, 56);
    let newest = match (nilfs2_holds(&first) == Some(true), second) {
        (true, Some(second)) if checkpoint(&first) > checkpoint(&second) => second,
        (true, _) => first,
        (false, second) => second?,
    };
    Some(FoundFormat::new(uuid(&newest, 152), label(&newest, 168, 80)))
}

fn nilfs2_holds(bytes: &[u8]) -> Option<bool> {
    const MAGIC: u16 = 0x3434;
    const SUM: std::ops::Range<usize> = 16..20;
    let length = usize::from(le16(bytes, 8)?);
    if le16(bytes, 6)? != MAGIC || length < SUM.end {
        return Some(false);
    }
    let mut summed = bytes.get(..length)?.to_vec();
    summed.get_mut(SUM)?.fill(0);
    Some(holds(crc32_from(le32(bytes, 12)?, &summed), le32(bytes, SUM.start)?))
}
