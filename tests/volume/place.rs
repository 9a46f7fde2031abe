//! Where the mount is put, and by which system calls.

use crate::support::sandbox::{LoopDevice, Sandbox};
use crate::support::{Case, Need, test_case};
use crate::volume::disk::{EXT4, Fs, clean, dirty, has_marker, restore, said, sandbox};
use crate::volume::journals::{is_complete, ordinary};

pub fn cases() -> Vec<Case> {
    const STRACE: &[Need] =
        &[Need::Root, Need::Loop, Need::Filesystem("ext4"), Need::Program("strace")];
    vec![
        test_case!(the_mount_is_private_read_only_nosuid_nodev_noexec, EXT4),
        test_case!(a_read_only_mount_of_the_same_device_is_reused, EXT4),
        test_case!(a_mount_without_journal_is_not_trusted_when_reused, EXT4),
        test_case!(an_earlier_mount_without_journal_is_used_again, EXT4),
        test_case!(an_earlier_mount_of_an_image_is_used_again, EXT4),
        test_case!(unmount_leaves_a_writable_mount_alone, &[Need::Root]),
        test_case!(a_mount_of_something_else_is_left_alone, EXT4),
        test_case!(a_device_mounted_for_writing_is_refused, EXT4),
        test_case!(a_link_on_the_way_to_the_mount_point_is_not_followed, EXT4),
        test_case!(a_mount_point_that_cannot_be_made_hinders_nothing, EXT4),
        test_case!(unmount_undoes_it_and_frees_loop_devices, EXT4),
        test_case!(kernels_without_the_new_mount_calls, STRACE),
        test_case!(kernels_without_the_new_mount_calls_and_a_dirty_device, STRACE),
    ]
}

fn the_mount_is_private_read_only_nosuid_nodev_noexec() {
    let (image, _) = clean(Fs::Ext4);
    let device = LoopDevice::of(image.path(), &[]);
    let sandbox = sandbox(&device);
    sandbox.sh("mount --make-rshared /");
    sandbox.program().arg("restore").run();
    let mounts = sandbox.sh("grep ' /mnt/restore ' /proc/self/mountinfo");
    let fields: Vec<&str> = mounts.split_whitespace().collect();
    assert_eq!(fields[5], "ro,nosuid,nodev,noexec,relatime", "{mounts}");
    assert_eq!(fields[6], "-", "it is propagated: {mounts}");
}

fn a_read_only_mount_of_the_same_device_is_reused() {
    let (image, manifest) = clean(Fs::Ext4);
    let device = image.attach();
    let sandbox = sandbox(&device);
    sandbox.sh("mkdir -p /mnt/restore; mount -o ro /dev/xvdb /mnt/restore");
    let outcome = sandbox.program().arg("restore").run();
    assert_eq!(said(&outcome), ordinary(Fs::Ext4));
    is_complete(&sandbox, &outcome, &manifest);
    assert_eq!(sandbox.sh("grep -c ' /mnt' /proc/mounts"), "1\n");
}

fn a_mount_without_journal_is_not_trusted_when_reused() {
    let volume = dirty(Fs::Ext4);
    let device = volume.copy.attach();
    let sandbox = sandbox(&device);
    sandbox.sh("mkdir -p /mnt/restore; mount -o ro,noload /dev/xvdb /mnt/restore");
    sandbox.sh("echo mine > /workspace/mine");
    let outcome = sandbox.program().arg("restore").run();
    let warning = "WARN the file system at /mnt/restore was mounted before without its journal";
    assert!(said(&outcome).iter().any(|line| line.starts_with(warning)), "{outcome:?}");
    assert_eq!(sandbox.sh("cat /workspace/mine"), "mine\n");
    assert_eq!(outcome.status, 23, "{outcome:?}");
}

/// Twice in an incident, by hand: the second run must not pile up mounts.
fn an_earlier_mount_without_journal_is_used_again() {
    let volume = dirty(Fs::Ext4);
    let device = LoopDevice::of(volume.copy.path(), &["--read-only"]);
    let (sandbox, first) = restore(&device);
    let mounts = sandbox.sh("grep ' /mnt' /proc/mounts");
    let second = sandbox.program().args(["restore", "--force"]).run();
    assert_eq!(said(&second), said(&first));
    assert_eq!(second.status, 23, "{second:?}");
    assert_eq!(sandbox.sh("grep ' /mnt' /proc/mounts"), mounts);
}

fn an_earlier_mount_of_an_image_is_used_again() {
    let volume = dirty(Fs::Ext4);
    let sandbox = Sandbox::new();
    std::fs::copy(volume.copy.path(), sandbox.path("/tmp/image")).unwrap();
    let run = || sandbox.program().args(["restore", "--force", "--device", "/tmp/image"]).run();
    let first = run();
    let mounts = sandbox.sh("grep ' /mnt' /proc/mounts");
    assert_eq!(said(&run()), said(&first));
    assert_eq!(sandbox.sh("grep ' /mnt' /proc/mounts"), mounts);
    // Another file is something else.
    sandbox.sh("cp /tmp/image /tmp/other");
    let other = sandbox.program().args(["restore", "--force", "--device", "/tmp/other"]).run();
    assert_eq!(said(&other).last().unwrap(), "mounted /tmp/other at /mnt/restore.1 (ro)");
}

fn unmount_leaves_a_writable_mount_alone() {
    let sandbox = Sandbox::new();
    sandbox.sh("mkdir /mnt/restore; mount -t tmpfs mine /mnt/restore");
    let outcome = sandbox.program().args(["restore", "--unmount"]).run();
    assert_eq!(outcome.status, 1, "{outcome:?}");
    let line = "restore: unmount /mnt/restore: it is mounted for writing; ";
    assert!(outcome.stderr().starts_with(line), "{outcome:?}");
    assert_eq!(sandbox.sh("grep -c ' /mnt/restore ' /proc/mounts"), "1\n");
}

fn a_mount_of_something_else_is_left_alone() {
    let (image, manifest) = clean(Fs::Ext4);
    let device = image.attach();
    let sandbox = sandbox(&device);
    sandbox.sh(
        "mkdir -p /mnt/restore; mount -t tmpfs other /mnt/restore; mkdir /mnt/restore/workspace",
    );
    let outcome = sandbox.program().arg("restore").run();
    let said = said(&outcome);
    assert!(
        said[2].starts_with("WARN /mnt/restore is a mount point of something else"),
        "{said:?}"
    );
    assert_eq!(said[3], "mounted /dev/xvdb at /mnt/restore.1 (ro)");
    assert!(outcome.stdout().contains("rsync /mnt/restore.1/configs/ -> /configs/"));
    is_complete(&sandbox, &outcome, &manifest);
    // Only what is at /mnt/restore outlives a restore.
    let mounts = sandbox.sh("grep ' /mnt' /proc/mounts | cut -d' ' -f2,3");
    assert_eq!(mounts, "/mnt/restore tmpfs\n");
}

fn a_device_mounted_for_writing_is_refused() {
    let (image, _) = clean(Fs::Ext4);
    let device = image.attach();
    let sandbox = sandbox(&device);
    sandbox.sh("mkdir -p /mnt/restore; mount /dev/xvdb /mnt/restore");
    let outcome = sandbox.program().arg("restore").run();
    let expected = [
        "/dev/xvdb detected — attempting restore",
        "/dev/xvdb fstype=ext4",
        "mount: /dev/xvdb (loopN, ro): Device or resource busy; it is mounted for writing or held \
         elsewhere",
        "WARN mount of /dev/xvdb failed — skipping restore",
    ];
    assert_eq!(said(&outcome), expected);
    assert!(!has_marker(&sandbox));
}

fn a_link_on_the_way_to_the_mount_point_is_not_followed() {
    let (image, manifest) = clean(Fs::Ext4);
    let device = image.attach();
    let sandbox = sandbox(&device);
    sandbox.sh("ln -s /tmp /mnt/restore");
    let outcome = sandbox.program().arg("restore").run();
    let warned = said(&outcome).iter().any(|line| {
        line.starts_with("WARN ") && line.contains("/mnt/restore: it is a symbolic link")
    });
    assert!(warned, "{outcome:?}");
    is_complete(&sandbox, &outcome, &manifest);
    assert_eq!(sandbox.sh("grep -c ' /tmp ' /proc/mounts || :"), "0\n");
}

fn a_mount_point_that_cannot_be_made_hinders_nothing() {
    let (image, manifest) = clean(Fs::Ext4);
    let device = image.attach();
    let sandbox = sandbox(&device);
    sandbox.sh("mount -t tmpfs -o ro empty /mnt");
    let outcome = sandbox.program().arg("restore").run();
    let said = said(&outcome);
    assert!(said[1].starts_with("WARN make directory "), "{said:?}");
    assert!(said[1].contains("Read-only file system"), "{said:?}");
    assert_eq!(said[3], "mounted /dev/xvdb at /mnt/restore (ro)");
    is_complete(&sandbox, &outcome, &manifest);
}

fn unmount_undoes_it_and_frees_loop_devices() {
    let volume = dirty(Fs::Ext4);
    let device = LoopDevice::of(volume.copy.path(), &["--read-only"]);
    let (sandbox, _) = restore(&device);
    let mounted = sandbox.sh("grep ' /mnt/restore ' /proc/mounts");
    // Without replay it is on a loop device over the device.
    let name = mounted.split([' ', '/']).find(|word| word.starts_with("loop")).unwrap().to_owned();
    let backing = std::path::PathBuf::from(format!("/sys/class/block/{name}/loop/backing_file"));
    let over = std::fs::read_to_string(&backing).unwrap();
    assert!(over.contains("xvdb"), "{over}");
    let outcome = sandbox.program().args(["restore", "--unmount"]).run();
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert!(outcome.stdout().contains("unmounted /mnt/restore\n"), "{outcome:?}");
    assert_eq!(sandbox.sh("grep ' /mnt' /proc/mounts || :"), "");
    // Somebody else may have taken the number in the meantime, but not for this device.
    assert_ne!(std::fs::read_to_string(&backing).unwrap_or_default(), over);
    let again = sandbox.program().args(["restore", "--unmount"]).run();
    assert_eq!(again.status, 0);
    assert!(again.stdout().contains("nothing is mounted at /mnt/restore\n"), "{again:?}");
}

/// `restore` on a kernel that knows no fsopen(2).
fn on_an_old_kernel(sandbox: &Sandbox) -> crate::support::sandbox::Outcome {
    sandbox
        .command("/usr/bin/strace")
        .args(["-f", "-qq", "-o", "/tmp/trace", "-e", "trace=fsopen,mount"])
        .args(["-e", "inject=fsopen:error=ENOSYS", crate::support::sandbox::PROGRAM_INSIDE])
        .arg("restore")
        .run()
}

fn kernels_without_the_new_mount_calls() {
    let (image, manifest) = clean(Fs::Ext4);
    let device = image.attach();
    let sandbox = sandbox(&device);
    let outcome = on_an_old_kernel(&sandbox);
    assert_eq!(said(&outcome), ordinary(Fs::Ext4));
    is_complete(&sandbox, &outcome, &manifest);
    let options = sandbox.sh("grep ' /mnt/restore ' /proc/mounts | cut -d' ' -f4");
    assert!(options.starts_with("ro,nosuid,nodev,noexec"), "{options}");
}

fn kernels_without_the_new_mount_calls_and_a_dirty_device() {
    let volume = dirty(Fs::Ext4);
    let device = LoopDevice::of(volume.copy.path(), &["--read-only"]);
    let sandbox = sandbox(&device);
    let outcome = on_an_old_kernel(&sandbox);
    let said = said(&outcome);
    assert!(said[3].contains("is mounted without its journal (ro,noload)"), "{said:?}");
    assert_eq!(said.last().unwrap(), "mounted /dev/xvdb at /mnt/restore (ro)");
    // The private device nodes were mounted there for a moment only.
    assert_eq!(sandbox.sh("grep -c ' /mnt' /proc/mounts"), "1\n");
}
