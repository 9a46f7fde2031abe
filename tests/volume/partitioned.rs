//! Disks with partition tables, with and without a kernel that has scanned them.

use std::path::Path;
use std::process::Command;

use crate::support::sandbox::{Image, LoopDevice, Sandbox};
use crate::support::{Case, ok, test_case};
use crate::volume::disk::{
    BTRFS, EXT4, Fs, XFS, clean, clean_after, dirty, has_marker, put, read_only, restore, said,
    zero,
};
use crate::volume::journals::is_complete;

pub fn cases() -> Vec<Case> {
    vec![
        test_case!(a_root_snapshot_with_gpt_and_dirty_xfs_beside_its_original, XFS),
        test_case!(a_partition_the_kernel_has_scanned_is_mounted_by_its_node, XFS),
        test_case!(a_journal_in_use_is_not_replayed_behind_its_user, EXT4),
        test_case!(a_partition_on_a_read_only_disk, EXT4),
        test_case!(an_mbr_with_a_logical_partition, EXT4),
        test_case!(a_hybrid_mbr_is_read_as_gpt, EXT4),
        test_case!(a_disk_with_sectors_of_4_kib, EXT4),
        test_case!(the_backup_gpt_serves_when_the_first_is_damaged, EXT4),
        test_case!(the_partition_that_holds_the_restore_set_is_taken, EXT4),
        test_case!(if_no_partition_holds_anything_the_log_says_so, EXT4),
        test_case!(a_damaged_superblock_within_a_partition, EXT4),
        test_case!(a_btrfs_whose_root_is_a_subvolume, BTRFS),
        test_case!(a_btrfs_with_another_default_subvolume, BTRFS),
    ]
}

const MIB: u64 = 1 << 20;

/// A disk with a GPT: BIOS boot (1), ESP (2, vfat), then one Linux partition for each content, which
/// is put into it.
fn gpt(contents: &[&Path]) -> Image {
    let size = |path: &Path| std::fs::metadata(path).unwrap().len();
    let total: u64 = contents.iter().map(|path| size(path) + MIB).sum();
    let disk = Image::new(total + 40 * MIB);
    let mut sgdisk = Command::new("sgdisk");
    sgdisk.args(["-n1:2048:4095", "-t1:ef02", "-n2:4096:+16M", "-t2:ef00"]);
    let mut start = 20 * MIB;
    let mut places = Vec::new();
    for (index, content) in contents.iter().enumerate() {
        let (number, last) = (index + 3, (start + size(content)) / 512 - 1);
        sgdisk.arg(format!("-n{number}:{}:{last}", start / 512));
        places.push((start, content));
        start = (start + size(content)).next_multiple_of(MIB);
    }
    ok(sgdisk.arg(disk.path()));
    let esp = Image::new(16 * MIB).make("mkfs.vfat", ["-n", "EFI"]);
    put(disk.path(), 2 * MIB, esp.path());
    for (start, content) in places {
        put(disk.path(), start, content);
    }
    disk
}

fn lines(count: usize, partition: &str, fs: Fs) -> Vec<String> {
    vec![
        "/dev/xvdb detected — attempting restore".into(),
        format!("/dev/xvdb has a gpt partition table with {count} partition(s)"),
        format!("/dev/xvdb fstype={}", fs.name()),
        format!("taking partition {partition}: it holds the restore set"),
        "mounted /dev/xvdb at /mnt/restore (ro)".into(),
    ]
}

/// What production has: a snapshot of a live root volume, attached to a machine of the same image.
fn a_root_snapshot_with_gpt_and_dirty_xfs_beside_its_original() {
    let volume = dirty(Fs::Xfs);
    let disk = LoopDevice::of(gpt(&[volume.copy.path()]).path(), &[]);
    let original = volume.original.path().display();
    let sandbox = Sandbox::with(&format!("mkdir original; mount -o loop {original} original"));
    sandbox.add_device("xvdb", &disk);
    let outcome = sandbox.program().arg("restore").run();
    assert_eq!(said(&outcome), lines(3, "3 of /dev/xvdb (300.0 MiB)", Fs::Xfs));
    is_complete(&sandbox, &outcome, &volume.manifest);
}

fn a_partition_the_kernel_has_scanned_is_mounted_by_its_node() {
    let volume = dirty(Fs::Xfs);
    let disk = gpt(&[volume.copy.path()]);
    let device = LoopDevice::of(disk.path(), &["--partscan"]);
    // What the scan does, for kernels without a parser of partition tables.
    let name = device.path().file_name().unwrap().to_str().unwrap();
    let number = format!("/sys/class/block/{name}p3/dev");
    if !Path::new(&number).exists() {
        let mut addpart = Command::new("addpart");
        ok(addpart.arg(device.path()).args(["3", "40960", &(300 * MIB / 512).to_string()]));
    }
    let (sandbox, outcome) = restore(&device);
    assert_eq!(said(&outcome), lines(3, "3 of /dev/xvdb (300.0 MiB)", Fs::Xfs));
    is_complete(&sandbox, &outcome, &volume.manifest);
    // The mount is on the partition's own device, not on another loop device.
    let number = std::fs::read_to_string(number).unwrap();
    let mounted = std::fs::metadata(sandbox.path("/mnt/restore")).unwrap();
    let dev = std::os::unix::fs::MetadataExt::dev(&mounted);
    let shown = format!("{}:{}\n", rustix::fs::major(dev), rustix::fs::minor(dev));
    assert_eq!(shown, number);
}

/// The kernel's idea of the partition is another than the table's, and somebody writes to it.
fn a_journal_in_use_is_not_replayed_behind_its_user() {
    let (image, _) = clean(Fs::Ext4);
    let disk = gpt(&[image.path()]);
    // Only so does the kernel forget the partitions with the disk.
    let device = LoopDevice::of(disk.path(), &["--partscan"]);
    let name = device.path().file_name().unwrap().to_str().unwrap();
    let node = format!("/sys/class/block/{name}p3/dev");
    if Path::new(&node).exists() {
        ok(Command::new("delpart").arg(device.path()).arg("3"));
    }
    let mut addpart = Command::new("addpart");
    ok(addpart.arg(device.path()).args(["3", "40960", &(65 * MIB / 512).to_string()]));
    let number = std::fs::read_to_string(node).unwrap();
    let sandbox = Sandbox::new();
    sandbox.add_device("xvdb", &device);
    let number = number.trim().replace(':', " ");
    sandbox.sh(&format!("mknod /dev/part b {number}; mkdir /tmp/live; mount /dev/part /tmp/live"));
    sandbox
        .sh("echo new > /tmp/live/workspace/new; sync -f /tmp/live; echo mine > /workspace/mine");
    let outcome = sandbox.program().arg("restore").run();
    let line = "mount: open for writing partition 3 of /dev/xvdb (64.0 MiB): its disk is in use \
                elsewhere; its journal cannot be replayed";
    assert!(said(&outcome).iter().any(|it| it == line), "{outcome:?}");
    assert_eq!(outcome.status, 23, "{outcome:?}");
    assert_eq!(sandbox.sh("cat /workspace/mine"), "mine\n");
}

fn a_partition_on_a_read_only_disk() {
    let (image, manifest) = clean(Fs::Ext4);
    let (sandbox, outcome) = restore(&read_only(&gpt(&[image.path()])));
    assert_eq!(said(&outcome), lines(3, "3 of /dev/xvdb (64.0 MiB)", Fs::Ext4));
    is_complete(&sandbox, &outcome, &manifest);
}

#[track_caller]
fn sfdisk(disk: &Image, script: &str) {
    use std::io::Write as _;
    let mut child = Command::new("sfdisk")
        .args(["--quiet", "--no-tell-kernel", "--no-reread"])
        .arg(disk.path())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn an_mbr_with_a_logical_partition() {
    let (image, manifest) = clean(Fs::Ext4);
    let disk = Image::new(160 * MIB);
    sfdisk(
        &disk,
        "label: dos\n\
         start=2048, size=16384, type=ef\n\
         start=20480, size=16384, type=82\n\
         start=40960, type=5\n\
         start=43008, size=20480, type=83\n\
         start=65536, size=131072, type=83\n",
    );
    put(disk.path(), 65536 * 512, image.path());
    let (sandbox, outcome) = restore(&disk.attach());
    let said = said(&outcome);
    assert_eq!(said[1], "/dev/xvdb has a dos partition table with 5 partition(s)");
    let taken = "taking partition 6 of /dev/xvdb (64.0 MiB): it holds the restore set";
    assert!(said.iter().any(|line| line == taken), "{said:?}");
    is_complete(&sandbox, &outcome, &manifest);
}

fn a_hybrid_mbr_is_read_as_gpt() {
    let (image, manifest) = clean(Fs::Ext4);
    let disk = gpt(&[image.path()]);
    ok(Command::new("sgdisk").args(["--hybrid", "3"]).arg(disk.path()));
    let (sandbox, outcome) = restore(&disk.attach());
    let said = said(&outcome);
    assert!(said.last().unwrap().starts_with("mounted "), "{said:?}");
    is_complete(&sandbox, &outcome, &manifest);
}

fn a_disk_with_sectors_of_4_kib() {
    let (image, manifest) = clean(Fs::Ext4);
    let disk = Image::new(80 * MIB);
    // Before it is a device: whoever looks at all disks has then read what is there, not what was.
    put(disk.path(), 8 * MIB, image.path());
    let device = LoopDevice::of(disk.path(), &["--sector-size", "4096"]);
    // In sectors: 1 MiB to 5 MiB, 8 MiB to 72 MiB.
    let parts = ["-n1:256:1279", "-t1:ef00", "-n2:2048:18431"];
    ok(Command::new("sgdisk").args(parts).arg(device.path()));
    let (sandbox, outcome) = restore(&device);
    assert_eq!(said(&outcome), lines(2, "2 of /dev/xvdb (64.0 MiB)", Fs::Ext4));
    is_complete(&sandbox, &outcome, &manifest);
}

fn the_backup_gpt_serves_when_the_first_is_damaged() {
    let (image, manifest) = clean(Fs::Ext4);
    let disk = gpt(&[image.path()]);
    zero(disk.path(), 512, 512);
    let (sandbox, outcome) = restore(&disk.attach());
    assert_eq!(said(&outcome), lines(3, "3 of /dev/xvdb (64.0 MiB)", Fs::Ext4));
    is_complete(&sandbox, &outcome, &manifest);
}

/// The larger partition is tried first and holds something else; the restore set is in the smaller.
fn the_partition_that_holds_the_restore_set_is_taken() {
    let (image, manifest) = clean(Fs::Ext4);
    let other = Image::new(96 * MIB).make("mkfs.ext4", ["-q", "-F"]);
    let (sandbox, outcome) = restore(&gpt(&[image.path(), other.path()]).attach());
    let said = said(&outcome);
    let [first, second] = [
        "partition 4 of /dev/xvdb holds nothing of the restore set",
        "taking partition 3 of /dev/xvdb (64.0 MiB): it holds the restore set",
    ]
    .map(|wanted| said.iter().position(|line| line == wanted));
    assert!(first.is_some() && first < second, "{said:?}");
    is_complete(&sandbox, &outcome, &manifest);
    assert_eq!(sandbox.sh("grep -c ' /mnt/' /proc/mounts"), "1\n");
}

fn if_no_partition_holds_anything_the_log_says_so() {
    let [small, large] = [24, 48].map(|size| Image::new(size * MIB));
    let [small, large] = [small, large].map(|image| image.make("mkfs.ext4", ["-q", "-F"]));
    let (sandbox, outcome) = restore(&gpt(&[small.path(), large.path()]).attach());
    let said = said(&outcome);
    for number in [3, 4] {
        let line = format!("partition {number} of /dev/xvdb holds nothing of the restore set");
        assert!(said.contains(&line), "{said:?}");
    }
    assert_eq!(said.last().unwrap(), "mounted /dev/xvdb at /mnt/restore (ro)");
    let absent = "source /mnt/restore/workspace absent — skipping";
    assert!(outcome.stdout().contains(absent), "{outcome:?}");
    // By hand, nothing of what was asked for is a failure.
    assert_eq!(outcome.status, 1, "{outcome:?}");
    assert!(!has_marker(&sandbox));
}

fn a_damaged_superblock_within_a_partition() {
    let (image, manifest) = clean(Fs::Ext4);
    zero(image.path(), 1024, 1024);
    let (sandbox, outcome) = restore(&gpt(&[image.path()]).attach());
    let warning = "WARN partition 3 of /dev/xvdb (64.0 MiB): the first superblock is damaged, a copy \
                   of it was found";
    assert!(said(&outcome).iter().any(|line| line == warning), "{outcome:?}");
    assert_eq!(crate::volume::disk::landed(&sandbox), manifest);
}

fn a_btrfs_whose_root_is_a_subvolume() {
    let (image, manifest) = clean_after(Fs::Btrfs, "btrfs -q subvolume create @rootfs; cd @rootfs");
    let (sandbox, outcome) = restore(&image.attach());
    let stdout = outcome.stdout();
    let below = "MOLECULE-RESTORE: the restore set is below /mnt/restore/@rootfs\n";
    assert!(stdout.contains(below), "{outcome:?}");
    assert!(stdout.contains("rsync /mnt/restore/@rootfs/configs/ -> /configs/"), "{outcome:?}");
    is_complete(&sandbox, &outcome, &manifest);
}

/// The default subvolume is what a plain mount shows; the restore set is at the top.
fn a_btrfs_with_another_default_subvolume() {
    let before = "btrfs -q subvolume create other; btrfs subvolume set-default other";
    let (image, manifest) = clean_after(Fs::Btrfs, before);
    let (sandbox, outcome) = restore(&image.attach());
    assert_eq!(said(&outcome), crate::volume::journals::ordinary(Fs::Btrfs));
    is_complete(&sandbox, &outcome, &manifest);
}
