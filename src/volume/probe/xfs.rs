//! XFS (xfs_db(8), kernel fs/xfs/libxfs/xfs_format.h): geometry, and the checksum of version 5.
#![forbid(unsafe_code)]

use super::signature::{FoundFormat, Magic};
use crate::volume::bytes::checksum::{crc32c_without, holds};
use crate::volume::bytes::fields::{be16, be32, be64, field, label, le32, uuid};
use crate::volume::bytes::source::ByteExtent;

pub(super) fn check(extent: &ByteExtent<'_>, magic: &Magic) -> Option<FoundFormat> {
    let bytes = extent.bytes(magic.base(), 512)?;
    if !geometry_holds(&bytes)? || !checksum_holds(extent, magic.base(), &bytes)? {
        return None;
    }
    Some(FoundFormat::new(uuid(&bytes, 32), label(&bytes, 108, 12)))
}

fn geometry_holds(bytes: &[u8]) -> Option<bool> {
    let power = |size: u32, log: u8, least: u8, most: u8| {
        (least..=most).contains(&log) && 1_u32.checked_shl(log.into()) == Some(size)
    };
    let byte = |at: usize| bytes.get(at).copied();
    let block_size = be32(bytes, 4)?;
    let blocks = be64(bytes, 8)?;
    let realtime_extent = be32(bytes, 80)?.wrapping_mul(block_size);
    let group_blocks = u64::from(be32(bytes, 84)?);
    let groups = u64::from(be32(bytes, 88)?);
    let (block_log, inode_log) = (byte(120)?, byte(122)?);
    // The last group may be short, but not shorter than 64 blocks.
    let least = groups.checked_sub(1)?.wrapping_mul(group_blocks).wrapping_add(64);
    Some(
        power(be16(bytes, 102)?.into(), byte(121)?, 9, 15)
            && power(block_size, block_log, 9, 16)
            && power(be16(bytes, 104)?.into(), inode_log, 8, 11)
            && block_log.checked_sub(inode_log) == Some(byte(123)?)
            && (4096..=1 << 30).contains(&realtime_extent)
            && byte(127)? <= 100
            && blocks != 0
            && (least..=groups.wrapping_mul(group_blocks)).contains(&blocks),
    )
}

fn checksum_holds(extent: &ByteExtent<'_>, base: u64, bytes: &[u8]) -> Option<bool> {
    const CHECKSUM: usize = 224;
    if be16(bytes, 100)? & 0xf != 5 {
        return Some(true);
    }
    let sector = extent.bytes(base, be16(bytes, 102)?.into())?;
    let stored = le32(field(&sector, CHECKSUM, 4)?, 0)?;
    Some(holds(crc32c_without(&sector, CHECKSUM..CHECKSUM + 4)?, stored))
}
