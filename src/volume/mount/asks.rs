//! Requests of a volume's superblock to the kernel that mounts it, where that could harm the host
//! or the restore. A user who could write the volume chose these bytes.
#![forbid(unsafe_code)]

use crate::error::{Error, Result, describe};
use crate::volume::probe::ReadAt;

/// A request of a superblock beyond being mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SuperblockAsks {
    /// Nothing that matters here.
    Nothing,
    /// The journal must not be replayed; the reason.
    NoReplay(&'static str),
    /// The kernel would open further block devices that the superblock names; the reason.
    OtherDevices(&'static str),
}

const SUPERBLOCK: u64 = 1024;

/// Reads the superblock of the `fstype` that starts at byte `offset` of `device`.
pub(super) fn asks(device: &impl ReadAt, offset: u64, fstype: &str) -> Result<SuperblockAsks> {
    let read = |at: u64, length: usize| read(device, offset + at, length);
    Ok(match fstype {
        "ext2" | "ext3" | "ext4" => ext(&read(SUPERBLOCK, 1024)?),
        // The kernel takes the first of the two copies that is sound.
        "f2fs" => match f2fs(&read(SUPERBLOCK, 3072)?) || f2fs(&read(4096 + SUPERBLOCK, 3072)?) {
            true => {
                SuperblockAsks::OtherDevices("its superblock names further devices of the machine")
            }
            false => SuperblockAsks::Nothing,
        },
        "erofs" => erofs(&read(SUPERBLOCK, 128)?),
        "reiserfs" => match read(65_536, 20)?.get(16..20) {
            // jp_journal_dev of struct journal_params (reiserfs_fs.h).
            Some(&[0, 0, 0, 0]) => SuperblockAsks::Nothing,
            _ => {
                SuperblockAsks::OtherDevices("its superblock names a journal device of the machine")
            }
        },
        _ => SuperblockAsks::Nothing,
    })
}

/// struct ext4_super_block (fs/ext4/ext4.h).
fn ext(superblock: &[u8]) -> SuperblockAsks {
    const HAS_JOURNAL: u32 = 4;
    let number = |at: usize| match superblock.get(at..at + 4) {
        Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
        _ => 0,
    };
    let [compatible, journal_inode] = [number(0x5c), number(0xe0)];
    if compatible & HAS_JOURNAL != 0 && journal_inode == 0 {
        return SuperblockAsks::NoReplay("its superblock names a journal device of the machine");
    }
    // s_mount_opts: the kernel reads these before the options of the mount, and no option takes
    // "noload" back. It shows them in no list of mounts.
    let options = superblock.get(0x200..0x240).unwrap_or_default();
    let options = options.split(|&byte| byte == 0).next().unwrap_or_default();
    match options.split(|&byte| byte == b',').any(|it| it == b"noload" || it == b"norecovery") {
        true => SuperblockAsks::NoReplay("its superblock forbids the replay of its journal"),
        false => SuperblockAsks::Nothing,
    }
}

/// struct erofs_super_block (fs/erofs/erofs_fs.h): a device table names further devices by path, and
/// files may lie on them.
fn erofs(superblock: &[u8]) -> SuperblockAsks {
    const DEVICE_TABLE: u8 = 8;
    let has_table = superblock.get(80).is_some_and(|features| features & DEVICE_TABLE != 0);
    let has_devices = superblock.get(86..88).is_some_and(|count| count != [0, 0]);
    match has_table && has_devices {
        true => SuperblockAsks::OtherDevices("its superblock names further devices of the machine"),
        false => SuperblockAsks::Nothing,
    }
}

/// Whether struct f2fs_super_block (linux/f2fs_fs.h) lists devices: `devs[0].path`.
fn f2fs(superblock: &[u8]) -> bool {
    superblock.starts_with(&0xF2F5_2010_u32.to_le_bytes())
        && superblock.get(2201).is_some_and(|&byte| byte != 0)
}

fn read(device: &impl ReadAt, offset: u64, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut done = 0;
    while done < length {
        match device.read_at(offset + done as u64, &mut bytes[done..]) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) => {
                let reason = rustix::io::Errno::from_io_error(&error);
                let reason = reason.map_or_else(|| error.to_string(), describe);
                return Err(Error::plain("read the superblock", reason));
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(writes: &[(usize, &[u8])]) -> Vec<u8> {
        let mut image = vec![0; 128 * 1024];
        for (at, bytes) in writes {
            image[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        image
    }

    fn of(fstype: &str, writes: &[(usize, &[u8])]) -> SuperblockAsks {
        asks(&&image(writes)[..], 0, fstype).unwrap()
    }

    #[test]
    fn what_an_ext_superblock_asks_for() {
        const JOURNAL: (usize, &[u8]) = (1024 + 0x5c, &[4]);
        const INODE: (usize, &[u8]) = (1024 + 0xe0, &[8]);
        let options =
            |text: &'static str| of("ext4", &[JOURNAL, INODE, (1024 + 0x200, text.as_bytes())]);
        assert_eq!(of("ext2", &[]), SuperblockAsks::Nothing);
        assert_eq!(of("ext4", &[JOURNAL, INODE]), SuperblockAsks::Nothing);
        assert!(matches!(of("ext3", &[JOURNAL]), SuperblockAsks::NoReplay(_)));
        for forbids in ["noload", "norecovery", "errors=panic,noload", "noload,x=y"] {
            assert!(matches!(options(forbids), SuperblockAsks::NoReplay(_)), "{forbids}");
        }
        for harmless in ["noloader", "errors=panic", "x=noload", ",,"] {
            assert_eq!(options(harmless), SuperblockAsks::Nothing, "{harmless}");
        }
    }

    #[test]
    fn superblocks_that_name_devices() {
        let magic = 0xF2F5_2010_u32.to_le_bytes();
        let first: (usize, &[u8]) = (1024, &magic);
        let second: (usize, &[u8]) = (5120, &magic);
        assert_eq!(of("f2fs", &[first, second]), SuperblockAsks::Nothing);
        for at in [1024 + 2201, 5120 + 2201] {
            let asked = of("f2fs", &[first, second, (at, b"/dev/sda")]);
            assert!(matches!(asked, SuperblockAsks::OtherDevices(_)), "{at}");
        }
        const TABLE: (usize, &[u8]) = (1024 + 80, &[8]);
        const COUNT: (usize, &[u8]) = (1024 + 86, &[1]);
        assert_eq!(of("erofs", &[]), SuperblockAsks::Nothing);
        assert_eq!(of("erofs", &[COUNT]), SuperblockAsks::Nothing);
        assert_eq!(of("erofs", &[TABLE]), SuperblockAsks::Nothing);
        assert!(matches!(of("erofs", &[TABLE, COUNT]), SuperblockAsks::OtherDevices(_)));
        assert_eq!(of("reiserfs", &[]), SuperblockAsks::Nothing);
        let asked = of("reiserfs", &[(65_536 + 16, &[0, 8])]);
        assert!(matches!(asked, SuperblockAsks::OtherDevices(_)));
    }

    #[test]
    fn a_short_device_is_read_to_its_end() {
        assert_eq!(asks(&&[0_u8; 1500][..], 0, "ext4").unwrap(), SuperblockAsks::Nothing);
        assert_eq!(asks(&&[0_u8; 10][..], 0, "f2fs").unwrap(), SuperblockAsks::Nothing);
    }
}
