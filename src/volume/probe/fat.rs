//! FAT 12, 16 and 32 (Microsoft, FAT32 File System Specification). The magic strings are weak, so
//! the whole parameter block has to make sense.
#![forbid(unsafe_code)]

use super::member::is_bitlocker;
use super::signature::{FoundFormat, Magic};
use crate::volume::bytes::fields::{field, has, label, le16, le32, serial};
use crate::volume::bytes::source::ByteExtent;

pub(super) const MAGICS: &[Magic] = &[
    Magic::new(0, 0x52, b"MSWIN"),
    Magic::new(0, 0x52, b"FAT32   "),
    Magic::new(0, 0x36, b"MSDOS"),
    Magic::new(0, 0x36, b"FAT16   "),
    Magic::new(0, 0x36, b"FAT12   "),
    Magic::new(0, 0x36, b"FAT     "),
    Magic::new(0, 0, b"\xeb"),
    Magic::new(0, 0, b"\xe9"),
    Magic::new(0, 0x1fe, b"\x55\xaa"),
];

/// The parameter block. Sums are kept in 32 bits as every driver does.
struct Parameters {
    sector: u32,
    cluster_sectors: u32,
    reserved: u32,
    root_entries: u32,
    is_32: bool,
    /// Sectors of one table, FAT 32 only.
    table_sectors: u32,
    /// Sectors of all tables.
    tables: u32,
}

impl Parameters {
    fn read(boot: &[u8], magic: &Magic) -> Option<Self> {
        // OS/2 put such a block before JFS and HPFS.
        let foreign = has(boot, 0x36, b"JFS     ") || has(boot, 0x36, b"HPFS    ");
        if magic.bytes.len() <= 2 && (!has(boot, 0x1fe, b"\x55\xaa") || foreign) {
            return None;
        }
        let (sector, media) = (le16(boot, 0x0b)?, *boot.get(0x15)?);
        let (cluster, copies) = (*boot.get(0x0d)?, *boot.get(0x10)?);
        let (reserved, root_entries) = (u32::from(le16(boot, 0x0e)?), u32::from(le16(boot, 0x11)?));
        let sound = (512..=4096).contains(&sector)
            && sector.is_power_of_two()
            && cluster.is_power_of_two()
            && copies != 0
            && reserved != 0
            && (media == 0xf0 || media >= 0xf8);
        if !sound {
            return None;
        }
        let or = |short: u32, long: u32| if short == 0 { long } else { short };
        let (short, long) = (u32::from(le16(boot, 0x16)?), le32(boot, 0x24)?);
        let sectors = or(le16(boot, 0x13)?.into(), le32(boot, 0x20)?);
        let sector = u32::from(sector);
        let tables = or(short, long).wrapping_mul(copies.into());
        let root = (root_entries * 32).div_ceil(sector);
        let clusters = sectors.wrapping_sub(reserved.wrapping_add(tables).wrapping_add(root))
            / u32::from(cluster);
        let is_32 = short == 0 && long != 0;
        let most = match (is_32, clusters > 0xff4) {
            (true, _) => 0x0fff_fff6,
            (false, true) => 0xfff4,
            (false, false) => 0xff4,
        };
        let cluster_sectors = cluster.into();
        (clusters <= most).then_some(Self {
            sector,
            cluster_sectors,
            reserved,
            root_entries,
            is_32,
            table_sectors: long,
            tables,
        })
    }
}

/// Whether the first sector is that of a FAT volume, which looks like a partition table.
pub(super) fn is_fat(extent: &ByteExtent<'_>) -> bool {
    MAGICS.iter().find(|magic| magic.is_in(extent)).is_some_and(|magic| {
        let boot = extent.bytes(0, 512);
        boot.and_then(|boot| Parameters::read(&boot, magic)).is_some() && !is_bitlocker(extent)
    })
}

pub(super) fn check(extent: &ByteExtent<'_>, magic: &Magic) -> Option<FoundFormat> {
    let boot = extent.bytes(0, 512)?;
    let parameters = Parameters::read(&boot, magic).filter(|_| !is_bitlocker(extent))?;
    let sector = parameters.sector;
    if parameters.is_32 {
        let name = label_in_chain(extent, &parameters, le32(&boot, 0x2c)?);
        if !has_fsinfo(extent, u64::from(le16(&boot, 0x30)?) * u64::from(sector))? {
            return None;
        }
        return Some(FoundFormat::new(serial(&boot, 0x43), name));
    }
    if le16(&boot, 0x16)? == 0 {
        return Some(FoundFormat::new(None, None));
    }
    let root = parameters.reserved.wrapping_add(parameters.tables).wrapping_mul(sector);
    let name = label_in(extent, root.into(), parameters.root_entries);
    let has_serial = matches!(boot.get(0x26)?, 0x28 | 0x29);
    Some(FoundFormat::new(serial(&boot, 0x27).filter(|_| has_serial), name))
}

/// The information sector of FAT 32 is signed, or left empty by old tools; `offset` 0 means none.
fn has_fsinfo(extent: &ByteExtent<'_>, offset: u64) -> Option<bool> {
    if offset == 0 {
        return Some(true);
    }
    let info = extent.bytes(offset, 512)?;
    let first = field(&info, 0, 4)?;
    let second = field(&info, 484, 4)?;
    Some(
        matches!(first, b"RRaA" | b"RRdA" | b"\0\0\0\0") && matches!(second, b"rrAa" | b"\0\0\0\0"),
    )
}

/// Bytes of directories searched for the volume's name at most; it is nearly always the first entry.
const SEARCHED: u32 = 64 * 1024;

/// The name in the directory of `count` entries at `offset`.
fn label_in(extent: &ByteExtent<'_>, offset: u64, count: u32) -> Option<String> {
    const VOLUME: u8 = 0x08;
    const DIRECTORY: u8 = 0x10;
    if offset.checked_add(u64::from(count) * 32)? > extent.size() {
        return None;
    }
    for index in 0..count.min(SEARCHED / 32) {
        let entry = extent.bytes(offset + u64::from(index) * 32, 32)?;
        let (first, attributes) = (*entry.first()?, *entry.get(11)?);
        if first == 0 {
            return None;
        }
        let is_plain = first != 0xe5
            && le16(&entry, 20)? == 0
            && le16(&entry, 26)? == 0
            && attributes & 0x3f != 0x0f;
        if is_plain && attributes & (VOLUME | DIRECTORY) == VOLUME {
            return label(&entry, 0, 11);
        }
    }
    None
}

/// The name in the root directory of FAT 32, a chain of clusters.
fn label_in_chain(extent: &ByteExtent<'_>, parameters: &Parameters, root: u32) -> Option<String> {
    let Parameters { sector, cluster_sectors, reserved, tables, table_sectors, .. } = *parameters;
    let bytes = cluster_sectors * sector;
    let entries = u64::from(table_sectors) * u64::from(sector) / 4;
    let mut next = root;
    for _ in 0..(SEARCHED / bytes).clamp(1, 99) {
        if next == 0 || u64::from(next) >= entries {
            return None;
        }
        let start = reserved
            .wrapping_add(tables)
            .wrapping_add(next.wrapping_sub(2).wrapping_mul(cluster_sectors));
        let found = label_in(extent, u64::from(start) * u64::from(sector), bytes / 32);
        if found.is_some() {
            return found;
        }
        let link = u64::from(reserved) * u64::from(sector) + u64::from(next) * 4;
        next = le32(&extent.bytes(link, 4)?, 0)? & 0x0fff_ffff;
    }
    None
}
