//! The table of signatures, in the order of libblkid, which decides when several are there.
#![forbid(unsafe_code)]

use super::signature::{Format, FormatUsage, FoundFormat, Magic};
use super::{btrfs, ext, fat, linux, member, optical, swap, windows, xfs, zfs};
use crate::volume::bytes::source::ByteExtent;

const fn row(
    name: &'static str,
    usage: FormatUsage,
    least: u64,
    magics: &'static [Magic],
    check: fn(&ByteExtent<'_>, &Magic) -> Option<FoundFormat>,
) -> Format {
    Format { name, usage, least, magics, check }
}

const BCACHE: &[u8] = b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81";
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

pub(super) static FORMATS: &[Format] = &[
    row("linux_raid_member", FormatUsage::Raid, 0, &[], member::md),
    row(
        "bcache",
        FormatUsage::Content,
        8 * KIB,
        &[Magic::new(4 * KIB, 0x18, BCACHE)],
        member::bcache_device,
    ),
    row(
        "LVM2_member",
        FormatUsage::Raid,
        0,
        &[
            Magic::new(0, 0x218, b"LVM2 001"),
            Magic::new(0, 0x018, b"LVM2 001"),
            Magic::new(KIB, 0x018, b"LVM2 001"),
            Magic::new(KIB, 0x218, b"LVM2 001"),
        ],
        member::lvm2,
    ),
    row("crypto_LUKS", FormatUsage::Crypto, 0, &[], member::luks),
    row("BitLocker", FormatUsage::Crypto, 0, &[], member::bitlocker),
    row("vfat", FormatUsage::Content, 0, fat::MAGICS, fat::check),
    row("swsuspend", FormatUsage::Content, swap::LEAST, swap::SUSPENDED, swap::suspended),
    row("swap", FormatUsage::Content, swap::LEAST, swap::MAGICS, swap::check),
    row("xfs", FormatUsage::Content, 0, &[Magic::new(0, 0, b"XFSB")], xfs::check),
    row("ext4dev", FormatUsage::Content, 0, &[ext::MAGIC], ext::check_development),
    row("ext4", FormatUsage::Content, 0, &[ext::MAGIC], ext::check),
    row(
        "reiserfs",
        FormatUsage::Content,
        128 * KIB,
        &[
            Magic::new(8 * KIB, 0x34, b"ReIsErFs"),
            Magic::new(64 * KIB, 0x34, b"ReIsEr2Fs"),
            Magic::new(64 * KIB, 0x34, b"ReIsEr3Fs"),
            Magic::new(64 * KIB, 0x34, b"ReIsErFs"),
            Magic::new(8 * KIB, 20, b"ReIsErFs"),
        ],
        linux::reiserfs,
    ),
    row("jfs", FormatUsage::Content, 16 * MIB, &[Magic::new(32 * KIB, 0, b"JFS1")], linux::jfs),
    row("udf", FormatUsage::Tolerant, 0, optical::UDF_MAGICS, optical::udf),
    row(
        "iso9660",
        FormatUsage::Tolerant,
        0,
        &[Magic::new(32 * KIB, 1, b"CD001"), Magic::new(32 * KIB, 9, b"CDROM")],
        optical::iso9660,
    ),
    row("zfs_member", FormatUsage::Content, zfs::LEAST, &[], zfs::check),
    row("ntfs", FormatUsage::Content, 0, &[Magic::new(0, 3, b"NTFS    ")], windows::ntfs),
    row("squashfs", FormatUsage::Content, 0, &[Magic::new(0, 0, b"hsqs")], linux::squashfs),
    row(
        "squashfs3",
        FormatUsage::Content,
        0,
        &[Magic::new(0, 0, b"sqsh"), Magic::new(0, 0, b"hsqs")],
        linux::squashfs3,
    ),
    row(
        "btrfs",
        FormatUsage::Content,
        MIB,
        &[Magic::new(64 * KIB, 0x40, b"_BHRfS_M")],
        btrfs::check,
    ),
    row("nilfs2", FormatUsage::Content, MIB, &[], linux::nilfs2),
    row("exfat", FormatUsage::Content, 0, &[Magic::new(0, 3, b"EXFAT   ")], windows::exfat),
    row("f2fs", FormatUsage::Content, 0, &[Magic::new(KIB, 0, b"\x10\x20\xf5\xf2")], linux::f2fs),
    row("erofs", FormatUsage::Content, 0, &[Magic::new(KIB, 0, b"\xe2\xe1\xf5\xe0")], linux::erofs),
];
