//! Restores by hand, one after the other: mounts and loop devices do not pile up.

use std::process::Command;

use crate::support::sandbox::{Image, LoopDevice, PROGRAM_INSIDE, Sandbox};
use crate::support::{Case, Need, case, ok, test_case};
use crate::volume::disk::{
    BTRFS, EXT4, Fs, XFS, clean, dirty, has_marker, put, read_only, said, sandbox,
};

pub fn cases() -> Vec<Case> {
    const STRACE: &[Need] =
        &[Need::Root, Need::Loop, Need::Filesystem("ext4"), Need::Program("strace")];
    vec![
        case("five_restores_of_an_ext4_device", EXT4, || device(Fs::Ext4)),
        case("five_restores_of_an_xfs_device", XFS, || device(Fs::Xfs)),
        case("five_restores_of_a_btrfs_device", BTRFS, || device(Fs::Btrfs)),
        case("five_restores_of_an_ext4_partition", EXT4, || partition(Fs::Ext4)),
        case("five_restores_of_an_xfs_partition", XFS, || partition(Fs::Xfs)),
        case("five_restores_of_a_btrfs_partition", BTRFS, || partition(Fs::Btrfs)),
        case("five_restores_of_an_ext4_image", EXT4, || image(Fs::Ext4)),
        case("five_restores_of_an_xfs_image", XFS, || image(Fs::Xfs)),
        case("five_restores_of_a_btrfs_image", BTRFS, || image(Fs::Btrfs)),
        test_case!(five_restores_of_a_btrfs_image_that_is_not_replayed, BTRFS),
        test_case!(five_restores_of_an_ext4_that_is_not_replayed, EXT4),
        test_case!(five_restores_beside_a_mount_of_something_else, EXT4),
        test_case!(two_volumes_in_turn, EXT4),
        test_case!(five_restores_of_a_partition_on_an_old_kernel, STRACE),
        test_case!(a_bind_mount_of_a_directory_is_not_the_volume, EXT4),
        test_case!(a_writable_mount_is_not_used_again, EXT4),
    ]
}

/// What is mounted below /mnt, and how many loop devices show `file` of the sandbox.
fn left(sandbox: &Sandbox, file: &str) -> (String, usize) {
    let mounts = sandbox.sh("grep ' /mnt' /proc/self/mountinfo | cut -d' ' -f3,5");
    let wanted = sandbox.sh(&format!("stat -c '%Hd:%Ld %i' {file}"));
    let loops = ok(Command::new("losetup").args(["-n", "-l", "-O", "BACK-MAJ:MIN,BACK-INO"]));
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    (mounts, loops.lines().filter(|line| words(line) == words(&wanted)).count())
}

/// Restores `device` five times; each leaves what the first one has left. Gives the number of loop
/// devices.
#[track_caller]
fn five_times(sandbox: &Sandbox, device: &str, status: i32) -> usize {
    let mut first = None;
    for _ in 0..5 {
        let outcome = sandbox.program().args(["restore", "--force", "--device", device]).run();
        assert_eq!(outcome.status, status, "{outcome:?}");
        assert!(has_marker(sandbox), "{outcome:?}");
        let left = left(sandbox, device);
        assert_eq!(left.0.lines().count(), 1, "{left:?} {outcome:?}");
        assert!(left.0.ends_with(" /mnt/restore\n"), "{left:?}");
        match &first {
            None => first = Some(left),
            Some(first) => assert_eq!(&left, first, "{outcome:?}"),
        }
    }
    first.unwrap().1
}

#[track_caller]
fn device(fs: Fs) {
    let device = clean(fs).0.attach();
    assert_eq!(five_times(&sandbox(&device), "/dev/xvdb", 0), 0);
}

#[track_caller]
fn partition(fs: Fs) {
    let (image, _) = clean(fs);
    let disk = Image::new((fs.mebibytes() + 8) << 20);
    let end = 2048 + fs.mebibytes() * 2048 - 1;
    ok(Command::new("sgdisk").arg(format!("-n1:2048:{end}")).arg(disk.path()));
    put(disk.path(), 1 << 20, image.path());
    let device = disk.attach();
    assert_eq!(five_times(&sandbox(&device), "/dev/xvdb", 0), 1);
}

/// Without fsopen(2) each file system that is looked into is on a directory for a while: the first has
/// nothing, one is shown, one has the rest.
fn five_restores_of_a_partition_on_an_old_kernel() {
    let script = |paths: &[&str]| {
        paths
            .iter()
            .map(|path| format!("mkdir -p {path}; echo a > {path}/file; "))
            .collect::<String>()
    };
    let contents = [
        (96, script(&["other"])),
        (64, script(&["configs", "workspace"])),
        (32, script(&["agent/.claude"])),
    ];
    let disk = Image::new(200 << 20);
    let mut start = 1;
    for (mebibytes, script) in contents {
        let image = Image::new(mebibytes << 20).make("mkfs.ext4", ["-q", "-F"]);
        LoopDevice::of(image.path(), &[]).fill(&script);
        let (first, last) = (start * 2048, (start + mebibytes) * 2048 - 1);
        ok(Command::new("sgdisk").arg(format!("-n0:{first}:{last}")).arg(disk.path()));
        put(disk.path(), start << 20, image.path());
        start += mebibytes;
    }
    let device = disk.attach();
    let sandbox = sandbox(&device);
    let mut first = None;
    for _ in 0..5 {
        let outcome = sandbox
            .command("/usr/bin/strace")
            .args(["-f", "-qq", "-o", "/tmp/trace", "-e", "trace=fsopen"])
            .args(["-e", "inject=fsopen:error=ENOSYS", PROGRAM_INSIDE, "restore", "--force"])
            .run();
        assert_eq!(outcome.status, 0, "{outcome:?}");
        assert!(outcome.stdout().contains("ok /home/agent/.claude\n"), "{outcome:?}");
        assert_eq!(said(&outcome).last().unwrap(), "mounted /dev/xvdb at /mnt/restore (ro)");
        let left = left(&sandbox, "/dev/xvdb");
        assert!(left.0.ends_with(" /mnt/restore\n"), "{left:?}");
        assert_eq!(left.0.lines().count(), 1, "{left:?}");
        assert_eq!(left.1, 1, "{left:?}");
        assert_eq!(first.get_or_insert(left.clone()), &left);
    }
    sandbox.sh("test -e /mnt/restore/workspace/file");
}

fn copied(image: &Image) -> Sandbox {
    let sandbox = Sandbox::new();
    ok(Command::new("cp")
        .arg("--sparse=always")
        .args([image.path(), sandbox.path("/tmp/image").as_path()]));
    sandbox
}

#[track_caller]
fn image(fs: Fs) {
    assert_eq!(five_times(&copied(&clean(fs).0), "/tmp/image", 0), 1);
}

fn five_restores_of_a_btrfs_image_that_is_not_replayed() {
    let volume = dirty(Fs::Btrfs);
    assert_eq!(five_times(&copied(&volume.copy), "/tmp/image", 23), 1);
}

fn five_restores_of_an_ext4_that_is_not_replayed() {
    let volume = dirty(Fs::Ext4);
    let device = read_only(&volume.copy);
    assert_eq!(five_times(&sandbox(&device), "/dev/xvdb", 23), 1);
}

/// Only the mount that is at /mnt/restore may outlive a restore.
fn five_restores_beside_a_mount_of_something_else() {
    let device = clean(Fs::Ext4).0.attach();
    let sandbox = sandbox(&device);
    sandbox.sh("mkdir -p /mnt/restore; mount -t tmpfs other /mnt/restore");
    let before = left(&sandbox, "/dev/xvdb");
    for _ in 0..5 {
        let outcome = sandbox.program().args(["restore", "--force"]).run();
        assert_eq!(outcome.status, 0, "{outcome:?}");
        assert_eq!(said(&outcome).last().unwrap(), "mounted /dev/xvdb at /mnt/restore.1 (ro)");
        assert_eq!(left(&sandbox, "/dev/xvdb"), before);
    }
}

fn two_volumes_in_turn() {
    let sandbox = copied(&clean(Fs::Ext4).0);
    sandbox.sh("cp /tmp/image /tmp/other");
    let restore = |device: &str| {
        let outcome = sandbox.program().args(["restore", "--force", "--device", device]).run();
        assert_eq!(outcome.status, 0, "{outcome:?}");
        said(&outcome).last().unwrap().clone()
    };
    assert_eq!(restore("/tmp/image"), "mounted /tmp/image at /mnt/restore (ro)");
    let before = left(&sandbox, "/tmp/image");
    for _ in 0..2 {
        assert_eq!(restore("/tmp/other"), "mounted /tmp/other at /mnt/restore.1 (ro)");
        assert_eq!(restore("/tmp/image"), "mounted /tmp/image at /mnt/restore (ro)");
        assert_eq!(left(&sandbox, "/tmp/image"), before);
        assert_eq!(left(&sandbox, "/tmp/other").1, 0);
    }
}

fn a_bind_mount_of_a_directory_is_not_the_volume() {
    let device = clean(Fs::Ext4).0.attach();
    let sandbox = sandbox(&device);
    sandbox.sh("mkdir -p /mnt/restore /tmp/whole; mount -o ro /dev/xvdb /tmp/whole; \
         mount --bind /tmp/whole/workspace /mnt/restore");
    let outcome = sandbox.program().arg("restore").run();
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert_eq!(said(&outcome).last().unwrap(), "mounted /dev/xvdb at /mnt/restore.1 (ro)");
}

fn a_writable_mount_is_not_used_again() {
    let (image, _) = clean(Fs::Ext4);
    let original = LoopDevice::of(image.path(), &[]);
    let sandbox = sandbox(&original);
    sandbox.sh("mkdir -p /mnt/restore; mount /dev/xvdb /mnt/restore");
    let outcome = sandbox.program().arg("restore").run();
    assert_eq!(outcome.status, 1, "{outcome:?}");
    assert!(!has_marker(&sandbox));
}
