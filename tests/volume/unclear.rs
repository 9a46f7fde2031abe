//! What cannot be looked at is neither there nor absent: the restore fails, and loses nothing.

use crate::support::sandbox::{Image, LoopDevice, Outcome, PROGRAM_INSIDE, Sandbox};
use crate::support::{Case, Need, ok, test_case};
use crate::volume::disk::{EXT4, Fs, clean, dirty, has_marker, landed, said, sandbox};
use crate::volume::journals::is_complete;

pub fn cases() -> Vec<Case> {
    const STRACE: &[Need] =
        &[Need::Root, Need::Loop, Need::Filesystem("ext4"), Need::Program("strace")];
    vec![
        test_case!(a_device_that_cannot_be_opened_is_not_absent, STRACE),
        test_case!(a_device_that_stumbles_is_asked_again, STRACE),
        test_case!(disks_that_cannot_be_listed_are_not_absent, STRACE),
        test_case!(a_list_of_disks_that_stumbles_is_asked_again, STRACE),
        test_case!(loop_devices_that_the_container_may_not_use, STRACE),
        test_case!(loop_devices_that_the_kernel_does_not_have, EXT4),
        test_case!(a_shared_mount_without_mountinfo_is_no_good_copy, STRACE),
        test_case!(a_use_of_the_device_that_cannot_be_told, STRACE),
        test_case!(of_two_copies_one_whose_use_cannot_be_told_is_not_passed_over, STRACE),
        test_case!(an_earlier_mount_that_cannot_be_told_is_not_used, STRACE),
        test_case!(a_directory_of_the_source_that_cannot_be_opened, STRACE),
    ]
}

/// `restore` with `arguments` under strace(1), which makes system calls fail that name `path`.
fn with_faults(sandbox: &Sandbox, path: &str, fault: &str, arguments: &[&str]) -> Outcome {
    let run = sandbox.command("/usr/bin/strace").args(["-f", "-qq", "-o", "/tmp/trace"]);
    // Whichever of the two the C library of the day uses.
    let run = run.args(["-P", path, "-e", &format!("inject=open,openat:{fault}")]);
    run.args([PROGRAM_INSIDE, "restore"]).args(arguments).run()
}

fn injected(sandbox: &Sandbox) -> usize {
    let count = sandbox.sh("grep -c INJECTED /tmp/trace || :");
    count.trim().parse().unwrap()
}

#[track_caller]
fn is_untouched(sandbox: &Sandbox, outcome: &Outcome) {
    assert_eq!(outcome.status, 1, "{outcome:?}");
    assert!(!has_marker(sandbox), "{outcome:?}");
    assert_eq!(sandbox.sh("ls -A /configs /workspace"), "/configs:\n\n/workspace:\n");
}

fn a_device_that_cannot_be_opened_is_not_absent() {
    let device = clean(Fs::Ext4).0.attach();
    for errno in ["EIO", "ENOMEM", "EMFILE", "EACCES"] {
        let sandbox = sandbox(&device);
        let outcome = with_faults(&sandbox, "/dev/xvdb", &format!("error={errno}"), &[]);
        let said = said(&outcome);
        assert!(said[0].starts_with("WARN open /dev/xvdb: "), "{said:?}");
        is_untouched(&sandbox, &outcome);
        // What may pass is tried a few times.
        assert_eq!(injected(&sandbox), if errno == "EACCES" { 1 } else { 4 }, "{errno}");
    }
}

fn a_device_that_stumbles_is_asked_again() {
    let (image, manifest) = clean(Fs::Ext4);
    let device = image.attach();
    for (errno, count) in [("EIO", 2), ("EINTR", 20)] {
        let sandbox = sandbox(&device);
        let fault = format!("error={errno}:when=1..{count}");
        let outcome = with_faults(&sandbox, "/dev/xvdb", &fault, &[]);
        is_complete(&sandbox, &outcome, &manifest);
        assert_eq!(injected(&sandbox), count);
    }
}

fn disks_that_cannot_be_listed_are_not_absent() {
    let sandbox = Sandbox::new();
    let outcome = with_faults(&sandbox, "/sys/class/block", "error=EIO", &[]);
    let said = said(&outcome);
    let warning = "WARN open /sys/class/block: Input/output error; which disks there are cannot be \
                   told";
    assert_eq!(said[0], warning, "{said:?}");
    is_untouched(&sandbox, &outcome);
}

fn a_list_of_disks_that_stumbles_is_asked_again() {
    let sandbox = Sandbox::new();
    let outcome = with_faults(&sandbox, "/sys/class/block", "error=EIO:when=1..3", &[]);
    let line = "no /dev/xvdb — first-time provision or no backup snapshot, skipping";
    assert_eq!(said(&outcome), [line]);
    assert_eq!(injected(&sandbox), 3);
}

fn loop_devices_that_the_container_may_not_use() {
    let (image, _) = clean(Fs::Ext4);
    let sandbox = Sandbox::new();
    std::fs::copy(image.path(), sandbox.path("/tmp/image")).unwrap();
    sandbox.sh("mknod /dev/loop-control c 10 237");
    // What a device cgroup says.
    let fault = "error=EPERM";
    let outcome = with_faults(&sandbox, "/dev/loop-control", fault, &["--device", "/tmp/image"]);
    let line = "mount: open /dev/loop-control: Operation not permitted; the container may not use loop \
                devices: docker run --privileged, or --device /dev/loop-control \
                --device-cgroup-rule='b 7:* rwm'";
    assert!(said(&outcome).iter().any(|it| it == line), "{outcome:?}");
    assert!(!outcome.stdout().contains("loop module"), "{outcome:?}");
    is_untouched(&sandbox, &outcome);
}

fn loop_devices_that_the_kernel_does_not_have() {
    let (image, _) = clean(Fs::Ext4);
    let sandbox = Sandbox::with("umount -l sys; mount -t tmpfs empty sys");
    std::fs::copy(image.path(), sandbox.path("/tmp/image")).unwrap();
    let outcome = sandbox.program().args(["restore", "--device", "/tmp/image"]).run();
    let line = "mount: open /dev/loop-control: No such file or directory; load the kernel's loop \
                module";
    assert!(said(&outcome).iter().any(|it| it == line), "{outcome:?}");
    is_untouched(&sandbox, &outcome);
}

/// Somebody has mounted the device without its journal; a second mount shares that.
fn mounted_elsewhere(options: &str) -> (LoopDevice, Sandbox, String) {
    let volume = dirty(Fs::Ext4);
    let device = volume.copy.attach();
    let sandbox = sandbox(&device);
    sandbox.sh("echo mine > /workspace/mine; mkdir /tmp/elsewhere");
    sandbox.sh(&format!("mount -o {options} /dev/xvdb /tmp/elsewhere"));
    (device, sandbox, volume.manifest)
}

#[track_caller]
fn is_stale(sandbox: &Sandbox, outcome: &Outcome) {
    assert_eq!(sandbox.sh("cat /workspace/mine"), "mine\n", "{outcome:?}");
    assert_eq!(outcome.status, 23, "{outcome:?}");
    assert!(outcome.stdout().contains("WARN /workspace was restored from a stale copy"));
}

fn a_shared_mount_without_mountinfo_is_no_good_copy() {
    let (_device, sandbox, _) = mounted_elsewhere("ro,noload");
    let outcome = with_faults(&sandbox, "mountinfo", "error=EIO", &["--force"]);
    let warning = "WARN the file system at /mnt/restore was mounted before, perhaps without its \
                   journal (open /proc/self/mountinfo: Input/output error): ";
    assert!(said(&outcome).iter().any(|line| line.starts_with(warning)), "{outcome:?}");
    is_stale(&sandbox, &outcome);
}

/// The mount that is in use is the device's, and the look at its use fails: mountinfo decides.
fn a_use_of_the_device_that_cannot_be_told() {
    for (options, good) in [("ro", true), ("ro,noload", false)] {
        let (_device, sandbox, manifest) = mounted_elsewhere(options);
        let sandbox_path = "/dev/xvdb";
        // 1: for reading. 2: O_EXCL, and again.
        let fault = "error=EIO:when=2..5";
        let outcome = with_faults(&sandbox, sandbox_path, fault, &["--force"]);
        let trace = sandbox.sh("grep INJECTED /tmp/trace");
        assert_eq!(trace.matches("O_EXCL").count(), 4, "{trace}");
        match good {
            true => {
                assert_eq!(outcome.status, 0, "{outcome:?}");
                assert_eq!(landed(&sandbox), manifest);
            }
            false => is_stale(&sandbox, &outcome),
        }
    }
}

fn of_two_copies_one_whose_use_cannot_be_told_is_not_passed_over() {
    let (image, _) = clean(Fs::Ext4);
    let copy = Image::new(0);
    std::fs::copy(image.path(), copy.path()).unwrap();
    let uuid = ok(std::process::Command::new("blkid")
        .args(["-p", "-s", "UUID", "-o", "value"])
        .arg(image.path()));
    let [first, second] = [image, copy].map(Image::attach);
    let sandbox = Sandbox::new();
    for device in [&first, &second] {
        sandbox.add_device(device.path().file_name().unwrap().to_str().unwrap(), device);
    }
    let device = format!("UUID={}", uuid.trim());
    // Opened to be probed, then to be asked; from here on it fails.
    let path = first.path().to_str().unwrap();
    let outcome = with_faults(&sandbox, path, "error=EIO:when=3+", &["--device", &device]);
    let said = said(&outcome);
    let warning = format!("WARN {device} could be any of 2 disks, taking none; ");
    assert!(said.iter().any(|line| line.starts_with(&warning)), "{said:?}");
    is_untouched(&sandbox, &outcome);
}

/// Mounting the file once more does no harm.
fn an_earlier_mount_that_cannot_be_told_is_not_used() {
    let (image, manifest) = clean(Fs::Ext4);
    let sandbox = Sandbox::new();
    std::fs::copy(image.path(), sandbox.path("/tmp/image")).unwrap();
    let arguments = ["--force", "--device", "/tmp/image"];
    sandbox.program().arg("restore").args(arguments).run();
    let outcome = with_faults(&sandbox, "/proc/self/fdinfo", "error=EIO", &arguments);
    assert!(injected(&sandbox) > 0);
    let said = said(&outcome);
    let line = "look up the mount of /mnt/restore: Input/output error; it is not used again";
    assert!(said.iter().any(|it| it == line), "{said:?}");
    assert_eq!(said.last().unwrap(), "mounted /tmp/image at /mnt/restore.1 (ro)");
    is_complete(&sandbox, &outcome, &manifest);
    assert_eq!(sandbox.sh("grep -c ' /mnt' /proc/mounts"), "1\n");
}

/// The kernel says EIO for one directory on the way: that path fails, and no other.
fn a_directory_of_the_source_that_cannot_be_opened() {
    let (image, _) = clean(Fs::Ext4);
    let device = image.attach();
    let sandbox = sandbox(&device);
    sandbox.sh("mkdir -p /home/agent/.claude; echo mine > /home/agent/.claude/mine");
    let outcome = with_faults(&sandbox, ".claude", "error=EIO", &[]);
    let stdout = outcome.stdout();
    assert!(!stdout.contains("absent"), "{outcome:?}");
    assert!(stdout.contains("ok /workspace\n"), "{outcome:?}");
    assert!(stdout.contains("WARN rsync to /home/agent/.claude exited 23"), "{outcome:?}");
    assert_eq!(outcome.status, 23, "{outcome:?}");
    assert_eq!(sandbox.sh("ls -A /home/agent/.claude"), "mine\n");
}
