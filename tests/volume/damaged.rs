//! Superblocks and journals that were overwritten.

use std::path::Path;
use std::process::Command;

use crate::support::sandbox::{Image, LoopDevice};
use crate::support::{Case, ok, test_case};
use crate::volume::disk::{
    BTRFS, EXT4, Fs, XFS, clean, dirty, kernel_said, landed, restore, said, zero,
};
use crate::volume::journals::ordinary;

pub fn cases() -> Vec<Case> {
    vec![
        test_case!(ext4_with_a_zeroed_journal_superblock, EXT4),
        test_case!(ext4_with_a_zeroed_superblock_is_read_by_a_copy_of_it, EXT4),
        test_case!(ext4_with_zeroed_group_descriptors_is_read_by_a_copy, EXT4),
        test_case!(ext4_with_features_no_kernel_knows, EXT4),
        test_case!(xfs_with_features_no_kernel_knows, XFS),
        test_case!(a_truncated_btrfs_is_refused, BTRFS),
        test_case!(ext4_that_claims_more_than_the_device_has, EXT4),
        test_case!(xfs_with_a_zeroed_superblock_is_raw, XFS),
        test_case!(xfs_with_a_zeroed_log_is_not_guessed_at, XFS),
        test_case!(a_truncated_xfs_is_refused, XFS),
        test_case!(ext4_with_orphans_and_no_journal_is_not_changed, EXT4),
        test_case!(a_fall_back_never_writes_to_the_device, EXT4),
    ]
}

const WITHOUT: &str = "changes made shortly before the snapshot may be missing or damaged, nothing \
                       will be deleted";

/// The first block of ext4's journal, in bytes, of a file system with blocks of 1 KiB.
fn journal_at(image: &Path) -> u64 {
    let blocks = ok(Command::new("debugfs").args(["-R", "blocks <8>"]).arg(image));
    blocks.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

fn ext4_with_a_zeroed_journal_superblock() {
    let (image, manifest) = clean(Fs::Ext4);
    zero(image.path(), journal_at(image.path()), 1024);
    let (sandbox, outcome) = restore(&image.attach());
    let [first, second, last] = ordinary(Fs::Ext4);
    let expected = [
        first,
        second,
        "mount: /dev/xvdb (loopN, ro): Invalid argument".into(),
        format!("WARN /dev/xvdb is mounted without its journal (ro,noload): {WITHOUT}"),
        last,
    ];
    assert_eq!(said(&outcome), expected);
    assert!(kernel_said(&outcome).iter().any(|line| line.starts_with("JBD2: ")), "{outcome:?}");
    assert_eq!(landed(&sandbox), manifest);
}

fn ext4_with_a_zeroed_superblock_is_read_by_a_copy_of_it() {
    let (image, manifest) = clean(Fs::Ext4);
    zero(image.path(), 1024, 1024);
    let (sandbox, outcome) = restore(&image.attach());
    let [first, second, last] = ordinary(Fs::Ext4);
    let expected = [
        first,
        second,
        "WARN /dev/xvdb: the first superblock is damaged, a copy of it was found".into(),
        format!("WARN /dev/xvdb is mounted without its journal (ro,noload,sb=8193): {WITHOUT}"),
        last,
    ];
    assert_eq!(said(&outcome), expected);
    assert_eq!(landed(&sandbox), manifest);
}

fn ext4_with_zeroed_group_descriptors_is_read_by_a_copy() {
    let (image, manifest) = clean(Fs::Ext4);
    zero(image.path(), 2048, 1024);
    let (sandbox, outcome) = restore(&image.attach());
    let [first, second, last] = ordinary(Fs::Ext4);
    let expected = [
        first,
        second,
        "mount: /dev/xvdb (loopN, ro): Structure needs cleaning".into(),
        "mount: /dev/xvdb (loopN, ro,noload): Structure needs cleaning".into(),
        format!("WARN /dev/xvdb is mounted without its journal (ro,noload,sb=8193): {WITHOUT}"),
        last,
    ];
    assert_eq!(said(&outcome), expected);
    assert_eq!(landed(&sandbox), manifest);
}

/// A device on which every mount fails: what the log ends with, and that nothing lands.
#[track_caller]
fn refused(image: Image, fstype: &str, kernel: &str) {
    let (sandbox, outcome) = restore(&image.attach());
    let said = said(&outcome);
    assert_eq!(said[0], "/dev/xvdb detected — attempting restore");
    assert_eq!(said[1], format!("/dev/xvdb fstype={fstype}"));
    assert!(said[2].starts_with("mount: /dev/xvdb (loopN, ro"), "{said:?}");
    assert_eq!(said.last().unwrap(), "WARN mount of /dev/xvdb failed — skipping restore");
    assert!(kernel_said(&outcome).iter().any(|line| line.contains(kernel)), "{outcome:?}");
    assert_eq!(sandbox.sh("ls -A /configs /workspace; cat /proc/mounts | grep /mnt || :"), {
        "/configs:\n\n/workspace:\n"
    });
}

fn ext4_with_features_no_kernel_knows() {
    let (image, _) = clean(Fs::Ext4);
    // tune2fs does not set what it does not know; debugfs does, checksum included.
    let command = "set_super_value feature_incompat 0x402c2c2";
    ok(Command::new("debugfs").args(["-w", "-R", command]).arg(image.path()));
    refused(image, "ext4", "EXT4-fs (loopN)");
}

fn xfs_with_features_no_kernel_knows() {
    let (image, _) = clean(Fs::Xfs);
    let write = ["-x", "-c", "sb 0", "-c", "write -d features_incompat 0x8000000b"];
    ok(Command::new("xfs_db").args(write).arg(image.path()));
    refused(image, "xfs", "XFS (loopN)");
}

fn a_truncated_btrfs_is_refused() {
    let (image, _) = clean(Fs::Btrfs);
    let file = std::fs::OpenOptions::new().write(true).open(image.path()).unwrap();
    file.set_len(Fs::Btrfs.mebibytes() << 19).unwrap();
    refused(image, "btrfs", "BTRFS");
}

fn ext4_that_claims_more_than_the_device_has() {
    let (image, _) = clean(Fs::Ext4);
    let file = std::fs::OpenOptions::new().write(true).open(image.path()).unwrap();
    file.set_len(Fs::Ext4.mebibytes() << 19).unwrap();
    refused(image, "ext4", "exceeds size of device");
}

fn xfs_with_a_zeroed_superblock_is_raw() {
    let (image, _) = clean(Fs::Xfs);
    zero(image.path(), 0, 512);
    let (_sandbox, outcome) = restore(&image.attach());
    let expected = [
        "/dev/xvdb detected — attempting restore",
        "WARN no fs detected on /dev/xvdb (raw/unformatted) — skipping",
    ];
    assert_eq!(said(&outcome), expected);
}

/// Without its log an XFS that was in use may be anything; the kernel takes a zeroed log for a clean
/// one, so only what was written home is there and the log line says no more than the kernel knows.
fn xfs_with_a_zeroed_log_is_not_guessed_at() {
    let volume = dirty(Fs::Xfs);
    let geometry = ok(Command::new("xfs_db")
        .args(["-r", "-c", "sb 0", "-c", "print logstart agblocks agblklog blocksize logblocks"])
        .arg(volume.copy.path()));
    let value = |name: &str| -> u64 {
        let line = geometry.lines().find(|line| line.starts_with(&format!("{name} = "))).unwrap();
        line.split(" = ").nth(1).unwrap().parse().unwrap()
    };
    let (start, bits) = (value("logstart"), value("agblklog"));
    let block = (start >> bits) * value("agblocks") + (start & ((1 << bits) - 1));
    let offset = block * value("blocksize");
    // Garbage, not zeros: half a log record.
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::OpenOptions::new().write(true).open(volume.copy.path()).unwrap();
    file.write_all_at(&vec![0xa5; 1 << 20], offset).unwrap();
    let (_sandbox, outcome) = restore(&volume.copy.attach());
    let said = said(&outcome);
    assert!(said.iter().any(|line| line.starts_with("mount: /dev/xvdb (loopN, ro,nouuid)")));
    assert!(said.iter().any(|line| line.contains("(ro,nouuid,norecovery)")), "{outcome:?}");
    assert!(!outcome.stdout().contains("MOLECULE-RESTORE: ok "), "{outcome:?}");
}

fn a_truncated_xfs_is_refused() {
    let (image, _) = clean(Fs::Xfs);
    let file = std::fs::OpenOptions::new().write(true).open(image.path()).unwrap();
    file.set_len(100 << 20).unwrap();
    refused(image, "xfs", "XFS (loopN)");
}

/// Attempts without replay go through read-only loop devices, even when the device is writable.
fn a_fall_back_never_writes_to_the_device() {
    let (image, _) = clean(Fs::Ext4);
    zero(image.path(), 1024, 1024);
    let before = std::fs::read(image.path()).unwrap();
    let device = LoopDevice::of(image.path(), &[]);
    let (_sandbox, outcome) = restore(&device);
    assert!(said(&outcome).iter().any(|line| line.contains("sb=8193")), "{outcome:?}");
    assert!(std::fs::read(image.path()).unwrap() == before, "the device was written to");
}

/// A file that was open and removed when the snapshot was made is in the orphan list. Told not to
/// replay, the kernel still clears the list if it can write.
fn ext4_with_orphans_and_no_journal_is_not_changed() {
    let image = Fs::Ext4.empty();
    let copy = Image::new(0);
    let script = r#"mount -o loop "$0" "$2"; cd "$2"; mkdir configs workspace; echo a > workspace/a
        exec 9> workspace/removed; echo b >&9; sync -f .; rm workspace/removed; sync -f .
        cp "$0" "$1"; exec 9>&-; cd /; umount "$2""#;
    let place = tempfile::tempdir().unwrap();
    ok(Command::new("unshare")
        .args(["--mount", "--propagation", "private", "bash", "-euc", script])
        .args([image.path(), copy.path(), place.path()]));
    // What was in the journal goes home, the list included; then the journal is damaged.
    ok(Command::new("debugfs").args(["-w", "-R", "journal_run"]).arg(copy.path()));
    let orphan = ok(Command::new("debugfs").args(["-R", "show_super_stats -h"]).arg(copy.path()));
    assert!(orphan.contains("First orphan inode:"), "{orphan}");
    zero(copy.path(), journal_at(copy.path()), 1024);
    let before = std::fs::read(copy.path()).unwrap();
    let device = LoopDevice::of(copy.path(), &[]);
    let (sandbox, outcome) = restore(&device);
    assert!(said(&outcome).iter().any(|line| line.contains("(ro,noload)")), "{outcome:?}");
    assert_eq!(sandbox.sh("cat /workspace/a"), "a\n");
    assert!(std::fs::read(copy.path()).unwrap() == before, "the device was written to");
}
