//! The ways to name a device.

use std::process::Command;

use crate::support::sandbox::{Image, LoopDevice, Sandbox};
use crate::support::{Case, ok, test_case};
use crate::volume::disk::{EXT4, Fs, LOOP, XFS, clean, dirty, landed, put, said};
use crate::volume::journals::is_complete;

pub fn cases() -> Vec<Case> {
    vec![
        test_case!(a_symbolic_link_to_a_block_device_is_followed, EXT4),
        test_case!(a_kernel_name_without_a_node_in_dev, EXT4),
        test_case!(an_image_file_is_read_only, EXT4),
        test_case!(an_image_file_with_a_dirty_journal_is_not_changed, EXT4),
        test_case!(the_environment_names_an_image_file_too, EXT4),
        test_case!(a_uuid_of_a_partition, EXT4),
        test_case!(a_label, EXT4),
        test_case!(a_uuid_that_two_unused_devices_have_takes_none, EXT4),
        test_case!(a_uuid_that_the_mounted_original_has_too_takes_the_copy, XFS),
        test_case!(a_volume_that_is_not_attached, LOOP),
    ]
}

fn device_option(sandbox: &Sandbox, device: &str) -> crate::support::sandbox::Outcome {
    sandbox.program().args(["restore", "--device", device]).run()
}

fn a_symbolic_link_to_a_block_device_is_followed() {
    let (image, manifest) = clean(Fs::Ext4);
    let device = image.attach();
    let sandbox = Sandbox::new();
    sandbox.add_device("nvme1n1", &device);
    sandbox.sh("ln -s nvme1n1 /dev/xvdb");
    let outcome = sandbox.program().arg("restore").run();
    assert_eq!(said(&outcome), crate::volume::journals::ordinary(Fs::Ext4));
    is_complete(&sandbox, &outcome, &manifest);
}

/// /dev of a container has no node of a disk that was attached later.
fn a_kernel_name_without_a_node_in_dev() {
    let (image, manifest) = clean(Fs::Ext4);
    let device = image.attach();
    let sandbox = Sandbox::new();
    let path = device.path().to_str().unwrap();
    assert!(!sandbox.path(path).exists());
    let outcome = device_option(&sandbox, path);
    let said = said(&outcome);
    assert!(said[0].starts_with("/dev/loopN is /dev/loopN: 64.0 MiB, model unknown"), "{said:?}");
    assert!(said[0].ends_with("the kernel has a disk of that name"), "{said:?}");
    assert_eq!(said[1], "/dev/loopN detected — attempting restore");
    is_complete(&sandbox, &outcome, &manifest);
}

fn with_file(image: &Image) -> Sandbox {
    let sandbox = Sandbox::new();
    std::fs::copy(image.path(), sandbox.path("/tmp/image")).unwrap();
    sandbox
}

fn an_image_file_is_read_only() {
    let (image, manifest) = clean(Fs::Ext4);
    let sandbox = with_file(&image);
    let outcome = device_option(&sandbox, "/tmp/image");
    let expected = [
        "/tmp/image detected — attempting restore",
        "/tmp/image fstype=ext4",
        "mounted /tmp/image at /mnt/restore (ro)",
    ];
    assert_eq!(said(&outcome), expected);
    is_complete(&sandbox, &outcome, &manifest);
    let before = std::fs::read(image.path()).unwrap();
    assert!(std::fs::read(sandbox.path("/tmp/image")).unwrap() == before, "the image was changed");
}

fn an_image_file_with_a_dirty_journal_is_not_changed() {
    let volume = dirty(Fs::Ext4);
    let sandbox = with_file(&volume.copy);
    let outcome = device_option(&sandbox, "/tmp/image");
    let warned = |line: &String| line.starts_with("WARN /tmp/image is mounted without its journal");
    assert!(said(&outcome).iter().any(warned), "{outcome:?}");
    assert_ne!(landed(&sandbox), volume.manifest);
    let before = std::fs::read(volume.copy.path()).unwrap();
    assert!(std::fs::read(sandbox.path("/tmp/image")).unwrap() == before, "the image was changed");
}

fn the_environment_names_an_image_file_too() {
    let (image, manifest) = clean(Fs::Ext4);
    let sandbox = with_file(&image);
    let outcome =
        sandbox.program().arg("restore").env("MOLECULE_RESTORE_DEVICE", "/tmp/image").run();
    is_complete(&sandbox, &outcome, &manifest);
}

fn identifier(name: &str, image: &Image) -> String {
    let value = ok(Command::new("blkid").args(["-p", "-s", name, "-o", "value"]).arg(image.path()));
    value.trim().to_owned()
}

fn a_uuid_of_a_partition() {
    let (image, manifest) = clean(Fs::Ext4);
    let uuid = identifier("UUID", &image);
    let disk = Image::new(80 << 20);
    ok(Command::new("sgdisk").args(["-n1:2048:+4M", "-n2:20480:+64M"]).arg(disk.path()));
    put(disk.path(), 20480 * 512, image.path());
    let _device = disk.attach();
    let sandbox = Sandbox::new();
    let outcome = device_option(&sandbox, &format!("UUID={uuid}"));
    let said = said(&outcome);
    assert!(said[0].starts_with(&format!("UUID={uuid} is partition 2 of /dev/loopN: 80.0 MiB")));
    assert_eq!(said.last().unwrap(), &format!("mounted UUID={uuid} at /mnt/restore (ro)"));
    is_complete(&sandbox, &outcome, &manifest);
}

fn a_label() {
    let (image, manifest) = clean(Fs::Ext4);
    // A label of this test alone: others use loop devices at the same time.
    let label = format!("vol{}", std::process::id());
    ok(Command::new("e2label").arg(image.path()).arg(&label));
    let _device = image.attach();
    let sandbox = Sandbox::new();
    let outcome = device_option(&sandbox, &format!("LABEL={label}"));
    let said = said(&outcome);
    assert!(said[0].starts_with(&format!("LABEL={label} is /dev/loopN: 64.0 MiB")), "{said:?}");
    is_complete(&sandbox, &outcome, &manifest);
}

fn a_uuid_that_two_unused_devices_have_takes_none() {
    let (image, _) = clean(Fs::Ext4);
    let uuid = identifier("UUID", &image);
    let [_first, _second] = [0, 1].map(|_| LoopDevice::of(image.path(), &["--read-only"]));
    let sandbox = Sandbox::new();
    let outcome = device_option(&sandbox, &format!("UUID={uuid}"));
    let said = said(&outcome);
    let warning = format!(
        "WARN UUID={uuid} could be any of 2 disks, taking none; name one with --device or \
         MOLECULE_RESTORE_DEVICE"
    );
    assert_eq!(said[0], warning);
    for line in &said[1..3] {
        let expected = "candidate /dev/loopN: 64.0 MiB, model unknown, serial unknown, not mounted";
        assert_eq!(line, expected);
    }
    assert!(said[3].starts_with(&format!("no UUID={uuid} — ")), "{said:?}");
    assert_eq!(outcome.status, 1, "{outcome:?}");
    assert!(!crate::volume::disk::has_marker(&sandbox));
}

fn a_uuid_that_the_mounted_original_has_too_takes_the_copy() {
    let volume = dirty(Fs::Xfs);
    let uuid = identifier("UUID", &volume.original);
    let _device = LoopDevice::of(volume.copy.path(), &[]);
    let original = volume.original.path().display();
    let sandbox = Sandbox::with(&format!("mkdir original; mount -o loop {original} original"));
    let outcome = device_option(&sandbox, &format!("UUID={uuid}"));
    is_complete(&sandbox, &outcome, &volume.manifest);
}

fn a_volume_that_is_not_attached() {
    let sandbox = Sandbox::new();
    for device in ["vol-0123456789abcdef0", "UUID=no-such-uuid", "/dev/no-such", "/no/such/file"] {
        let outcome = device_option(&sandbox, device);
        let line = format!("no {device} — first-time provision or no backup snapshot, skipping");
        assert_eq!(said(&outcome), [line]);
    }
}
