//! What no tool here makes, laid out byte by byte: Linux RAID without its driver, ZFS without its
//! tools. blkid reads it as we do, and mdadm finds our checksums right.

use std::process::Command;

use crate::probe::image::{Image, PATH};
use crate::support::{self, Case, Need, test_case};

const BLKID: Need = Need::Program("blkid");

pub fn cases() -> Vec<Case> {
    vec![
        test_case!(raid_1_0_1_1_and_1_2, &[BLKID, Need::Program("mdadm")]),
        test_case!(raid_0_90_in_both_byte_orders, &[BLKID, Need::Program("mdadm")]),
        test_case!(raid_at_the_end_of_the_last_partition, &[BLKID, Need::Program("sfdisk")]),
        test_case!(raid_with_a_wrong_checksum_or_place, &[BLKID]),
        test_case!(a_member_hides_what_it_mirrors, &[BLKID, Need::Program("mke2fs")]),
        test_case!(zfs_labels, &[BLKID]),
    ]
}

fn folded(sum: u64) -> u32 {
    u32::try_from((sum & 0xffff_ffff) + (sum >> 32)).unwrap()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// A version 1 superblock (linux/raid/md_p.h) that stands at byte `offset`.
fn superblock_1(offset: u64, roles: u32) -> Vec<u8> {
    let length = 256 + usize::try_from(roles).unwrap() * 2;
    let mut bytes = vec![0; length];
    put(&mut bytes, 0, &0xa92b_4efc_u32.to_le_bytes());
    put(&mut bytes, 4, &1_u32.to_le_bytes());
    put(&mut bytes, 16, &std::array::from_fn::<u8, 16, _>(|i| i as u8 + 1));
    put(&mut bytes, 32, b"host:array");
    put(&mut bytes, 72, &1_u32.to_le_bytes());
    put(&mut bytes, 80, &8192_u64.to_le_bytes());
    put(&mut bytes, 92, &2_u32.to_le_bytes());
    put(&mut bytes, 128, &2048_u64.to_le_bytes());
    put(&mut bytes, 136, &8192_u64.to_le_bytes());
    put(&mut bytes, 144, &(offset / 512).to_le_bytes());
    put(&mut bytes, 168, &[7; 16]);
    put(&mut bytes, 220, &roles.to_le_bytes());
    put(&mut bytes, 256, &[0, 0, 1, 0]);
    let mut sum = 0_u64;
    for chunk in bytes.chunks(4) {
        sum += chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    put(&mut bytes, 216, &folded(sum).to_le_bytes());
    bytes
}

/// A version 0.90 superblock; `bytes_of` gives the byte order.
fn superblock_0(kibibytes: u32, bytes_of: fn(u32) -> [u8; 4]) -> Vec<u8> {
    let mut words = vec![0_u32; 1024];
    for (at, value) in [(0, 0xa92b_4efc), (2, 90), (5, 0x1234_5678), (7, 1), (8, kibibytes)] {
        words[at] = value;
    }
    for (at, value) in [(9, 2), (10, 2), (13, 0x9abc_def0), (14, 5), (15, 6)] {
        words[at] = value;
    }
    words[38] = folded(words.iter().map(|word| u64::from(*word)).sum());
    words.into_iter().flat_map(bytes_of).collect()
}

fn examined(image: &Image) -> String {
    support::ok(Command::new("mdadm").arg("--examine").arg(image.path()).env("PATH", PATH))
}

const SIZE: u64 = 16 << 20;

fn raid_1_0_1_1_and_1_2() {
    for (offset, roles) in [(SIZE - 8192, 2), (0, 3), (4096, 128)] {
        let image = Image::new(16);
        image.write(offset, &superblock_1(offset, roles));
        let found = image.agreed();
        assert_eq!(found.fstype, Some("linux_raid_member"), "at {offset}");
        assert_eq!(found.uuid.as_deref(), Some("01020304-0506-0708-090a-0b0c0d0e0f10"));
        assert_eq!(found.label.as_deref(), Some("host:array"));
        let text = examined(&image);
        assert!(text.contains("- correct"), "{text}");
    }
}

fn raid_0_90_in_both_byte_orders() {
    for bytes_of in [u32::to_le_bytes, u32::to_be_bytes] {
        let image = Image::new(16);
        image.write(SIZE - 65536, &superblock_0(8192, bytes_of));
        assert_eq!(image.agreed().fstype, Some("linux_raid_member"));
    }
    let image = Image::new(16);
    image.write(SIZE - 65536, &superblock_0(8192, u32::to_le_bytes));
    let text = examined(&image);
    assert!(text.contains("- correct"), "{text}");
}

fn raid_at_the_end_of_the_last_partition() {
    let image = Image::new(16);
    let whole = "label: dos\nstart=2048, size=30720, type=fd\n";
    crate::probe::tables::sfdisk(&image.path(), whole);
    image.write(SIZE - 65536, &superblock_0(8192, u32::to_le_bytes));
    let found = image.agreed();
    assert_eq!(found.fstype, None);
    assert_eq!(found.partitions[0].fstype, Some("linux_raid_member"));
    // Without the partition it is the disk's.
    image.write(0, &[0; 512]);
    assert_eq!(image.agreed().fstype, Some("linux_raid_member"));
}

fn raid_with_a_wrong_checksum_or_place() {
    let image = Image::new(16);
    image.write(8192, &superblock_1(8192, 2));
    assert_eq!(image.agreed().fstype, None, "no place for one");
    image.write(0, &superblock_1(4096, 2));
    assert_eq!(image.agreed().fstype, None, "it says it is elsewhere");
    // blkid looks at checksums since 2.39 only.
    let mut bad = superblock_1(0, 2);
    bad[20] ^= 1;
    image.write(0, &bad);
    assert_eq!(image.probe().fstype, None);
    let mut bad = superblock_0(8192, u32::to_le_bytes);
    bad[4000] ^= 1;
    image.write(0, &[0; 512]).write(SIZE - 65536, &bad);
    assert_eq!(image.probe().fstype, None);
}

/// RAID 1 with its superblock at the end looks like its file system from the start, and so does a
/// partition table in it.
fn a_member_hides_what_it_mirrors() {
    let image = Image::made(16, "mke2fs", &["-q", "-F", "-t", "ext4"]);
    let disk = Image::new(16);
    crate::probe::tables::sfdisk(&disk.path(), "label: dos\nstart=2048, size=8192\n");
    image.write(0, &std::fs::read(disk.path()).unwrap()[..512]);
    assert_eq!(image.agreed().fstype, Some("ext4"));
    image.write(SIZE - 8192, &superblock_1(SIZE - 8192, 2));
    let found = image.agreed();
    assert_eq!((found.fstype, found.table), (Some("linux_raid_member"), None));
}

/// A pair of an XDR list: size, decoded size, name, value.
fn pair(name: &str, value: &[u8]) -> Vec<u8> {
    let padded = name.len().next_multiple_of(4);
    let size = u32::try_from(12 + padded + value.len()).unwrap();
    let mut bytes = size.to_be_bytes().to_vec();
    bytes.extend(size.to_be_bytes());
    bytes.extend(u32::try_from(name.len()).unwrap().to_be_bytes());
    bytes.extend(name.as_bytes());
    bytes.resize(12 + padded, 0);
    bytes.extend(value);
    bytes
}

fn number(value: u64) -> Vec<u8> {
    [&8_u32.to_be_bytes()[..], &1_u32.to_be_bytes(), &value.to_be_bytes()].concat()
}

fn text(value: &str) -> Vec<u8> {
    let mut bytes = [9_u32, 1, u32::try_from(value.len()).unwrap()].map(u32::to_be_bytes).concat();
    bytes.extend(value.as_bytes());
    bytes.resize(12 + value.len().next_multiple_of(4), 0);
    bytes
}

fn zfs_labels() {
    let mut list = vec![1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    list.extend(pair("version", &number(5000)));
    list.extend(pair("name", &text("tank")));
    list.extend(pair("pool_guid", &number(12345678901234567890)));
    list.extend(pair("guid", &number(42)));
    // A nested list: its head, its pairs, and an end of two zero words.
    list.extend(pair("vdev_tree", &[&19_u32.to_be_bytes()[..], &[0; 12]].concat()));
    list.extend(pair("guid", &number(43)));
    list.extend([0; 8]);
    list.extend(pair("hostname", &text("box")));
    list.extend([0; 8]);
    let uberblock = 0x00ba_b10c_u64.to_le_bytes();
    let aligned = 80_u64 << 20;
    for labels in [[0, 256 << 10].as_slice(), &[aligned - (512 << 10), aligned - (256 << 10)]] {
        let image = Image::new(80);
        for label in labels {
            image.write(label + 16384, &list);
            for slot in [0_u64, 4096, 8192] {
                image.write(label + 131_072 + slot, &uberblock);
            }
        }
        let found = image.agreed();
        assert_eq!(found.fstype, Some("zfs_member"));
        assert_eq!(found.uuid.as_deref(), Some("12345678901234567890"));
        assert_eq!(found.label.as_deref(), Some("tank"));
        image.write(labels[1] + 131_072, &[0; 9000]);
        assert_eq!(image.agreed().fstype, None, "three uberblocks are not enough");
    }
}
