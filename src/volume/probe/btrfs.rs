//! Btrfs (kernel documentation of its on-disk format): the superblock at 64 KiB.
#![forbid(unsafe_code)]

use super::signature::{FoundFormat, Magic};
use crate::volume::bytes::checksum::{crc32c, holds};
use crate::volume::bytes::fields::{label, le16, le32, le64, uuid};
use crate::volume::bytes::source::ByteExtent;

pub(super) fn check(extent: &ByteExtent<'_>, magic: &Magic) -> Option<FoundFormat> {
    const CRC32C: u16 = 0;
    let bytes = extent.bytes(magic.base(), 4096)?;
    // The other kinds (xxhash, SHA-256, BLAKE2) are left to the driver.
    let sound =
        le16(&bytes, 0xc4)? != CRC32C || holds(crc32c(bytes.get(0x20..)?), le32(&bytes, 0)?);
    let own = le64(&bytes, 0x30)? == magic.base();
    (sound && own).then(|| FoundFormat::new(uuid(&bytes, 0x20), label(&bytes, 0x12b, 256)))
}
