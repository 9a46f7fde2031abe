//! ext2, ext3, ext4 and their external journal (kernel documentation, filesystems/ext4/super.rst).
#![forbid(unsafe_code)]

use super::signature::{FoundFormat, Magic};
use crate::volume::bytes::checksum::{crc32c, holds};
use crate::volume::bytes::fields::{has, label, le16, le32, uuid};
use crate::volume::bytes::source::ByteExtent;

pub(super) const MAGIC: Magic = Magic::new(1024, 0x38, b"\x53\xef");

const HAS_JOURNAL: u32 = 0x4;
const INCOMPAT_EXT2: u32 = 0x2 | 0x10;
const INCOMPAT_EXT3: u32 = INCOMPAT_EXT2 | 0x4;
const JOURNAL_DEVICE: u32 = 0x8;
const RO_COMPAT_EXT3: u32 = 0x1 | 0x2 | 0x4;
const METADATA_CHECKSUM: u32 = 0x400;
const TEST_FILESYSTEM: u32 = 0x4;

/// A whole superblock, checked for itself.
struct Superblock {
    bytes: Vec<u8>,
    compat: u32,
    incompat: u32,
    ro_compat: u32,
    flags: u32,
}

impl Superblock {
    fn read(extent: &ByteExtent<'_>, offset: u64) -> Option<Self> {
        let bytes = extent.bytes(offset, 1024)?;
        let superblock = Self {
            compat: le32(&bytes, 0x5c)?,
            incompat: le32(&bytes, 0x60)?,
            ro_compat: le32(&bytes, 0x64)?,
            flags: le32(&bytes, 0x160)?,
            bytes,
        };
        let bytes = &superblock.bytes;
        let sound = has(bytes, 0x38, b"\x53\xef")
            && le32(bytes, 0x18)? < 256
            // The kernel keeps the checksum without the final inversion.
            && (superblock.ro_compat & METADATA_CHECKSUM == 0
                || holds(!crc32c(bytes.get(..0x3fc)?), le32(bytes, 0x3fc)?));
        sound.then_some(superblock)
    }

    /// The type by its features, as a driver of that type would accept it.
    fn name(&self) -> Option<&'static str> {
        let journal = self.compat & HAS_JOURNAL != 0;
        let beyond_ext3 =
            self.ro_compat & !RO_COMPAT_EXT3 != 0 || self.incompat & !INCOMPAT_EXT3 != 0;
        if self.incompat & JOURNAL_DEVICE != 0 {
            Some("jbd")
        } else if beyond_ext3 {
            (self.flags & TEST_FILESYSTEM == 0).then_some("ext4")
        } else if journal {
            Some("ext3")
        } else {
            (self.incompat & !INCOMPAT_EXT2 == 0).then_some("ext2")
        }
    }

    fn found(&self, name: &'static str) -> FoundFormat {
        FoundFormat::named(name, uuid(&self.bytes, 0x68), label(&self.bytes, 0x78, 16))
    }
}

pub(super) fn check(extent: &ByteExtent<'_>, magic: &Magic) -> Option<FoundFormat> {
    let superblock = Superblock::read(extent, magic.base())?;
    Some(superblock.found(superblock.name()?))
}

/// The type of the time before ext4 was declared stable.
pub(super) fn check_development(extent: &ByteExtent<'_>, magic: &Magic) -> Option<FoundFormat> {
    let superblock = Superblock::read(extent, magic.base())?;
    let marked = superblock.flags & TEST_FILESYSTEM != 0;
    (marked && superblock.incompat & JOURNAL_DEVICE == 0).then(|| superblock.found("ext4dev"))
}

/// A sound copy of an ext superblock, to mount by when the first one is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtBackup {
    /// `ext2`, `ext3` or `ext4`.
    pub fstype: &'static str,
    /// As blkid prints it.
    pub uuid: Option<String>,
    /// Volume name.
    pub label: Option<String>,
    /// Block size in bytes.
    pub block_size: u64,
    /// Where the copy is, in units of 1 KiB: the value of the mount option `sb=`.
    pub superblock: u64,
}

/// Looks for a copy of the superblock where mke2fs(8) puts the first ones for blocks of 1, 2 and
/// 4 KiB: in block groups 1, 3, 5, 7 and 9 of the default size.
pub(super) fn backup(extent: &ByteExtent<'_>) -> Option<ExtBackup> {
    [1024_u64, 2048, 4096].into_iter().find_map(|block_size| {
        let first_block = u64::from(block_size == 1024);
        [1_u64, 3, 5, 7, 9].into_iter().find_map(|group| {
            let offset = (group * block_size * 8 + first_block) * block_size;
            let superblock = Superblock::read(extent, offset)?;
            let own = u64::from(le16(&superblock.bytes, 0x5a)?) == group
                && 1024_u64.checked_shl(le32(&superblock.bytes, 0x18)?) == Some(block_size);
            let FoundFormat { name, uuid, label } = superblock.found(superblock.name()?);
            (own && name != "jbd").then_some(ExtBackup {
                fstype: name,
                uuid,
                label,
                block_size,
                superblock: offset / 1024,
            })
        })
    })
}
