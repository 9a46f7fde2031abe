//! What is no file system, or none that can be mounted: a WARN, no marker, and the boot goes on.

use std::process::{Command, Stdio};

use crate::support::sandbox::{Image, Outcome, Sandbox};
use crate::support::{Case, Need, ok, test_case};
use crate::volume::disk::{LOOP, has_marker, restore, said, sandbox};

pub fn cases() -> Vec<Case> {
    const LUKS: &[Need] = &[Need::Root, Need::Loop, Need::Program("cryptsetup")];
    const LVM: &[Need] = &[Need::Root, Need::Loop, Need::Program("pvcreate")];
    vec![
        test_case!(zeros_are_raw, LOOP),
        test_case!(random_bytes_are_raw, LOOP),
        test_case!(a_device_of_one_sector_is_raw, LOOP),
        test_case!(luks_is_named, LUKS),
        test_case!(a_partition_with_luks_is_named, LUKS),
        test_case!(lvm_is_named, LVM),
        test_case!(a_raid_member_is_named, LOOP),
        test_case!(swap_is_named, LOOP),
        test_case!(vfat_without_a_driver_fails_to_mount, LOOP),
        test_case!(no_device_is_no_error, &[Need::Root]),
        test_case!(a_regular_file_at_the_default_name_is_no_device, &[Need::Root]),
        test_case!(a_character_device_is_no_device, &[Need::Root]),
        test_case!(without_the_right_to_mount_the_boot_goes_on, LOOP),
    ]
}

/// Nothing landed, no marker, nothing mounted.
#[track_caller]
fn is_untouched(sandbox: &Sandbox, outcome: &Outcome) {
    assert!(!has_marker(sandbox), "{outcome:?}");
    assert_eq!(sandbox.sh("ls -A /configs /workspace"), "/configs:\n\n/workspace:\n");
    assert_eq!(sandbox.sh("grep ' /mnt' /proc/mounts || :"), "", "{outcome:?}");
}

#[track_caller]
fn raw(image: Image) {
    let (sandbox, outcome) = restore(&image.attach());
    let expected = [
        "/dev/xvdb detected — attempting restore",
        "WARN no fs detected on /dev/xvdb (raw/unformatted) — skipping",
    ];
    assert_eq!(said(&outcome), expected);
    is_untouched(&sandbox, &outcome);
}

fn zeros_are_raw() {
    raw(Image::new(64 << 20));
}

fn random_bytes_are_raw() {
    use std::io::Write as _;
    let image = Image::new(4 << 20);
    // A fixed sequence (xorshift), so that a failure can be repeated.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(1 << 19)
    .flatten()
    .collect();
    std::fs::OpenOptions::new().write(true).open(image.path()).unwrap().write_all(&bytes).unwrap();
    raw(image);
}

fn a_device_of_one_sector_is_raw() {
    raw(Image::new(512));
}

/// A type that no mount can work for: `what` is in the WARN.
#[track_caller]
fn named(image: Image, fstype: &str, what: &str) {
    let (sandbox, outcome) = restore(&image.attach());
    let expected = [
        "/dev/xvdb detected — attempting restore".to_owned(),
        format!("/dev/xvdb fstype={fstype}"),
        format!("mount: /dev/xvdb: unknown filesystem type '{fstype}'"),
        format!("WARN /dev/xvdb: {what}"),
        "WARN mount of /dev/xvdb failed — skipping restore".to_owned(),
    ];
    assert_eq!(said(&outcome), expected);
    is_untouched(&sandbox, &outcome);
}

#[track_caller]
fn luks_image(mebibytes: u64) -> Image {
    use std::io::Write as _;
    let image = Image::new(mebibytes << 20);
    let mut child = Command::new("cryptsetup")
        .args(["luksFormat", "-q", "--type", "luks1", "--pbkdf-force-iterations", "1000"])
        .arg(image.path())
        .arg("-")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"secret").unwrap();
    assert!(child.wait().unwrap().success());
    image
}

fn luks_is_named() {
    named(luks_image(16), "crypto_LUKS", "it is encrypted with LUKS, no key is known");
}

fn a_partition_with_luks_is_named() {
    let disk = Image::new(64 << 20);
    ok(Command::new("sgdisk").args(["-n1:2048:+16M", "-t1:8309"]).arg(disk.path()));
    crate::volume::disk::put(disk.path(), 1 << 20, luks_image(16).path());
    let (sandbox, outcome) = restore(&disk.attach());
    let said = said(&outcome);
    assert_eq!(said[1], "/dev/xvdb has a gpt partition table with 1 partition(s)");
    let warning = "WARN partition 1 of /dev/xvdb (16.0 MiB): it is encrypted with LUKS, no key is \
                   known";
    assert!(said.iter().any(|line| line == warning), "{said:?}");
    assert_eq!(said.last().unwrap(), "WARN mount of /dev/xvdb failed — skipping restore");
    is_untouched(&sandbox, &outcome);
}

fn lvm_is_named() {
    let image = Image::new(32 << 20);
    // On the file itself, so that the machine's LVM never sees a device.
    let config = "devices { scan=[\"/dev\"] use_devicesfile=0 }";
    let device = crate::support::sandbox::LoopDevice::of(image.path(), &[]);
    ok(Command::new("pvcreate")
        .args(["-q", "-y", "--config", config])
        .arg(device.path())
        .env("DM_DISABLE_UDEV", "1"));
    drop(device);
    named(image, "LVM2_member", "it is a physical volume of LVM, no file system");
}

/// A version 1.2 superblock as mdadm(8) writes it: the kernel here may have no md driver to make one.
fn a_raid_member_is_named() {
    let image = Image::new(32 << 20);
    let mut block = vec![0_u8; 1024];
    let mut set = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    set(0, &0xa92b_4efc_u32.to_le_bytes());
    set(4, &1_u32.to_le_bytes());
    set(16, &[7; 16]);
    set(32, b"host:array");
    // Level 1, 2 disks, data at 2048 sectors, this superblock at sector 8.
    set(72, &1_u32.to_le_bytes());
    set(80, &61_440_u64.to_le_bytes());
    set(92, &2_u32.to_le_bytes());
    set(128, &2048_u64.to_le_bytes());
    set(136, &61_440_u64.to_le_bytes());
    set(144, &8_u64.to_le_bytes());
    set(220, &2_u32.to_le_bytes());
    let sum: u64 = block[..260]
        .chunks(4)
        .map(|word| u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]])))
        .sum();
    let folded = (sum & 0xffff_ffff) + (sum >> 32);
    block[216..220].copy_from_slice(&u32::try_from(folded & 0xffff_ffff).unwrap().to_le_bytes());
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::OpenOptions::new().write(true).open(image.path()).unwrap();
    file.write_all_at(&block, 4096).unwrap();
    let told =
        ok(Command::new("blkid").args(["-p", "-s", "TYPE", "-o", "value"]).arg(image.path()));
    assert_eq!(told, "linux_raid_member\n", "the image is not what mdadm would make");
    named(image, "linux_raid_member", "it is a member of a RAID array (md), no file system");
}

fn swap_is_named() {
    let image = Image::new(16 << 20).make("mkswap", ["-q"]);
    named(image, "swap", "it is swap space, no file system");
}

fn vfat_without_a_driver_fails_to_mount() {
    let image = Image::new(16 << 20).make("mkfs.vfat", ["-n", "DATA"]);
    let (sandbox, outcome) = restore(&image.attach());
    let said = said(&outcome);
    assert_eq!(said[1], "/dev/xvdb fstype=vfat");
    match Need::Filesystem("vfat").met() {
        true => assert_eq!(said.last().unwrap(), "mounted /dev/xvdb at /mnt/restore (ro)"),
        false => {
            assert_eq!(said[2], "mount: /dev/xvdb (loopN, ro): unknown filesystem type 'vfat'");
            assert_eq!(said[3], "WARN mount of /dev/xvdb failed — skipping restore");
            is_untouched(&sandbox, &outcome);
        }
    }
}

const NO_DEVICE: &str = "no /dev/xvdb — first-time provision or no backup snapshot, skipping";

fn no_device_is_no_error() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.program().arg("restore").run();
    assert_eq!(said(&outcome), [NO_DEVICE]);
    assert_eq!(outcome.status, 0);
    is_untouched(&sandbox, &outcome);
}

fn a_regular_file_at_the_default_name_is_no_device() {
    let sandbox = Sandbox::new();
    sandbox.sh("dd if=/dev/zero of=/dev/xvdb bs=1M count=1 status=none");
    let outcome = sandbox.program().arg("restore").run();
    assert_eq!(said(&outcome).last().unwrap(), NO_DEVICE);
    is_untouched(&sandbox, &outcome);
}

fn a_character_device_is_no_device() {
    let sandbox = Sandbox::new();
    sandbox.sh("mknod /dev/xvdb c 1 3");
    let outcome = sandbox.program().arg("restore").run();
    assert_eq!(said(&outcome).last().unwrap(), NO_DEVICE);
    is_untouched(&sandbox, &outcome);
}

fn without_the_right_to_mount_the_boot_goes_on() {
    const CAP_SYS_ADMIN: u32 = 21;
    let (image, _) = crate::volume::disk::clean(crate::volume::disk::Fs::Ext4);
    let device = image.attach();
    let sandbox = sandbox(&device);
    let outcome = sandbox.program().arg("restore").drop_capability(CAP_SYS_ADMIN).run();
    let said = said(&outcome);
    assert_eq!(said[0], "/dev/xvdb detected — attempting restore");
    assert_eq!(said[1], "/dev/xvdb fstype=ext4");
    assert!(said[2].starts_with("mount: "), "{said:?}");
    assert!(said[2].contains("CAP_SYS_ADMIN"), "{said:?}");
    assert_eq!(said.last().unwrap(), "WARN mount of /dev/xvdb failed — skipping restore");
    is_untouched(&sandbox, &outcome);
}
