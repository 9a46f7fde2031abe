//! What a superblock asks of the kernel that mounts it, and what the mount does instead.

use std::process::Command;

use crate::support::sandbox::{Image, LoopDevice, Outcome, PROGRAM_INSIDE, Sandbox};
use crate::support::{Case, Need, ok, test_case};
use crate::volume::disk::{EXT4, Fs, clean, dirty, has_marker, read_only, restore, said, sandbox};
use crate::volume::journals::is_complete;

pub fn cases() -> Vec<Case> {
    const STRACE: &[Need] =
        &[Need::Root, Need::Loop, Need::Filesystem("ext4"), Need::Program("strace")];
    const SQUASHFS: &[Need] = &[
        Need::Root,
        Need::Loop,
        Need::Filesystem("squashfs"),
        Need::Program("mksquashfs"),
        Need::Program("strace"),
    ];
    const EROFS: &[Need] =
        &[Need::Root, Need::Loop, Need::Filesystem("erofs"), Need::Program("mkfs.erofs")];
    const BTRFS_STRACE: &[Need] = &[
        Need::Root,
        Need::Loop,
        Need::Filesystem("btrfs"),
        Need::Program("mkfs.btrfs"),
        Need::Program("strace"),
    ];
    const F2FS: &[Need] = &[Need::Root, Need::Loop, Need::Program("mkfs.f2fs")];
    vec![
        test_case!(an_ext_that_asks_for_a_panic_does_not_get_it, EXT4),
        test_case!(an_ext4_that_asks_for_a_panic_and_is_not_replayed, EXT4),
        test_case!(an_ext4_that_asks_for_a_panic_mounted_from_a_copy, EXT4),
        test_case!(an_ext4_that_asks_for_a_panic_on_an_old_kernel, STRACE),
        test_case!(options_in_an_ext4_superblock_are_overridden, EXT4),
        test_case!(an_ext4_that_forbids_its_replay_is_no_good_copy, EXT4),
        test_case!(an_earlier_mount_of_an_ext4_that_forbids_its_replay, EXT4),
        test_case!(a_squashfs_is_told_to_continue, SQUASHFS),
        test_case!(a_driver_that_refuses_an_option_mounts_without_it, SQUASHFS),
        test_case!(a_driver_that_refuses_all_options_mounts_without_them, SQUASHFS),
        test_case!(an_erofs_that_names_a_disk_of_the_machine_is_not_mounted, EROFS),
        test_case!(an_ext4_with_an_external_journal_is_not_replayed, EXT4),
        test_case!(a_default_subvolume_that_cannot_be_told, BTRFS_STRACE),
        test_case!(an_f2fs_that_names_other_devices_is_not_mounted, F2FS),
    ]
}

/// What is in force for the ext4 mounted at /mnt/restore, the driver's defaults included: one option
/// per line.
fn in_force(sandbox: &Sandbox) -> String {
    let dev = std::os::unix::fs::MetadataExt::dev(
        &std::fs::metadata(sandbox.path("/mnt/restore")).unwrap(),
    );
    let number = format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev));
    let device = std::fs::canonicalize(format!("/sys/dev/block/{number}")).unwrap();
    let name = device.file_name().unwrap().to_str().unwrap().to_owned();
    std::fs::read_to_string(format!("/proc/fs/ext4/{name}/options")).unwrap()
}

#[track_caller]
fn is_guarded(sandbox: &Sandbox) {
    let options = in_force(sandbox);
    let has = |wanted: &str| options.lines().any(|line| line == wanted);
    for wanted in ["errors=continue", "block_validity", "nodiscard", "ro"] {
        assert!(has(wanted), "{wanted} is missing: {options}");
    }
}

fn ask_for_panic(image: &Image) {
    ok(Command::new("tune2fs").args(["-e", "panic", "-o", "discard,debug"]).arg(image.path()));
}

/// Writes to the superblock and leaves the journal as it is, which tune2fs(8) would replay.
fn set(image: &Image, field: &str, value: &str) {
    let request = format!("set_super_value {field} {value}");
    ok(Command::new("debugfs").args(["-w", "-R", &request]).arg(image.path()));
}

fn ask(image: &Image, options: &str) {
    set(image, "mount_opts", options);
}

fn an_ext_that_asks_for_a_panic_does_not_get_it() {
    for name in ["ext2", "ext3", "ext4"] {
        let image = Image::new(24 << 20).make(&format!("mkfs.{name}"), ["-q", "-F"]);
        ask_for_panic(&image);
        let device = image.attach();
        device.fill("mkdir -p configs workspace home/agent/.claude; echo a > workspace/a");
        let (sandbox, outcome) = restore(&device);
        assert_eq!(outcome.status, 0, "{outcome:?}");
        assert_eq!(said(&outcome)[1], format!("/dev/xvdb fstype={name}"));
        is_guarded(&sandbox);
    }
}

fn an_ext4_that_asks_for_a_panic_and_is_not_replayed() {
    let volume = dirty(Fs::Ext4);
    set(&volume.copy, "errors", "3");
    let (sandbox, outcome) = restore(&read_only(&volume.copy));
    assert!(outcome.stdout().contains("is mounted without its journal (ro,noload)"), "{outcome:?}");
    is_guarded(&sandbox);
    assert!(in_force(&sandbox).lines().any(|line| line == "norecovery"));
}

fn an_ext4_that_asks_for_a_panic_mounted_from_a_copy() {
    // -e: in the copies too.
    let options = ["-q", "-F", "-b", "1024", "-e", "panic"];
    let image = Image::new(64 << 20).make("mkfs.ext4", options);
    LoopDevice::of(image.path(), &[]).fill("mkdir -p configs workspace; echo a > workspace/a");
    crate::volume::disk::zero(image.path(), 1024, 1024);
    let (sandbox, outcome) = restore(&image.attach());
    assert!(outcome.stdout().contains("(ro,noload,sb=8193)"), "{outcome:?}");
    assert_eq!(sandbox.sh("cat /workspace/a"), "a\n");
    is_guarded(&sandbox);
}

/// `restore` under strace(1) with `injections`.
fn with_faults(sandbox: &Sandbox, trace: &str, injections: &[&str]) -> Outcome {
    let mut run = sandbox.command("/usr/bin/strace").args(["-f", "-qq", "-o", "/tmp/trace"]);
    run = run.args(["-e", &format!("trace={trace}")]);
    for injection in injections {
        run = run.args(["-e", &format!("inject={injection}")]);
    }
    run.args([PROGRAM_INSIDE, "restore"]).run()
}

fn an_ext4_that_asks_for_a_panic_on_an_old_kernel() {
    let (image, manifest) = clean(Fs::Ext4);
    ask_for_panic(&image);
    let device = image.attach();
    let sandbox = sandbox(&device);
    let outcome = with_faults(&sandbox, "fsopen", &["fsopen:error=ENOSYS"]);
    is_complete(&sandbox, &outcome, &manifest);
    is_guarded(&sandbox);
}

fn options_in_an_ext4_superblock_are_overridden() {
    let (image, manifest) = clean(Fs::Ext4);
    ask(&image, "errors=panic,discard,noblock_validity");
    let (sandbox, outcome) = restore(&image.attach());
    is_complete(&sandbox, &outcome, &manifest);
    is_guarded(&sandbox);
}

/// The kernel obeys, and shows it in no list of mounts.
fn an_ext4_that_forbids_its_replay_is_no_good_copy() {
    for option in ["noload", "norecovery,errors=panic"] {
        let volume = dirty(Fs::Ext4);
        ask(&volume.copy, option);
        let device = LoopDevice::of(volume.copy.path(), &[]);
        let sandbox = sandbox(&device);
        sandbox.sh("echo mine > /workspace/mine");
        let outcome = sandbox.program().arg("restore").run();
        let warning = "WARN /dev/xvdb: its superblock forbids the replay of its journal";
        assert!(said(&outcome).iter().any(|line| line == warning), "{outcome:?}");
        assert_eq!(outcome.status, 23, "{outcome:?}");
        assert_eq!(sandbox.sh("cat /workspace/mine"), "mine\n", "{outcome:?}");
        is_guarded(&sandbox);
    }
}

fn an_earlier_mount_of_an_ext4_that_forbids_its_replay() {
    let volume = dirty(Fs::Ext4);
    ask(&volume.copy, "noload");
    let device = LoopDevice::of(volume.copy.path(), &[]);
    let sandbox = sandbox(&device);
    sandbox.sh("echo mine > /workspace/mine; mkdir -p /mnt/restore");
    sandbox.sh("mount -o ro /dev/xvdb /mnt/restore");
    let outcome = sandbox.program().arg("restore").run();
    assert_eq!(outcome.status, 23, "{outcome:?}");
    assert_eq!(sandbox.sh("cat /workspace/mine"), "mine\n", "{outcome:?}");
    assert_eq!(sandbox.sh("grep -c ' /mnt' /proc/mounts"), "1\n");
}

fn squashed() -> Image {
    let tree = tempfile::tempdir().unwrap();
    for path in ["configs", "workspace", "home/agent/.claude"] {
        std::fs::create_dir_all(tree.path().join(path)).unwrap();
        std::fs::write(tree.path().join(path).join("file"), path).unwrap();
    }
    let image = Image::new(0);
    ok(Command::new("mksquashfs").arg(tree.path()).arg(image.path()).args([
        "-noappend",
        "-quiet",
        "-no-progress",
    ]));
    // Up to whole sectors, as a device has.
    let file = std::fs::OpenOptions::new().write(true).open(image.path()).unwrap();
    file.set_len(file.metadata().unwrap().len().next_multiple_of(4096)).unwrap();
    image
}

#[track_caller]
fn is_restored(sandbox: &Sandbox, outcome: &Outcome) {
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert_eq!(sandbox.sh("cat /workspace/file"), "workspace");
    assert!(has_marker(sandbox));
    let options = sandbox.sh("grep ' /mnt/restore squashfs ' /proc/mounts");
    assert!(!options.contains("errors=panic"), "{options}");
}

fn a_squashfs_is_told_to_continue() {
    let device = LoopDevice::of(squashed().path(), &[]);
    let sandbox = sandbox(&device);
    let outcome = with_faults(&sandbox, "fsconfig", &[]);
    is_restored(&sandbox, &outcome);
    let trace = sandbox.sh("cat /tmp/trace");
    let told = r#"FSCONFIG_SET_STRING, "errors", "continue", 0) = 0"#;
    assert!(trace.contains(told), "{trace}");
}

fn a_driver_that_refuses_an_option_mounts_without_it() {
    let device = LoopDevice::of(squashed().path(), &[]);
    let sandbox = sandbox(&device);
    let outcome = with_faults(&sandbox, "fsconfig", &["fsconfig:error=EINVAL:when=5"]);
    is_restored(&sandbox, &outcome);
    let trace = sandbox.sh("cat /tmp/trace");
    let refused = r#""errors", "continue", 0) = -1 EINVAL (Invalid argument) (INJECTED)"#;
    assert!(trace.contains(refused), "{trace}");
}

/// A driver of the old kind, or mount(2): the first mount is refused as a whole.
fn a_driver_that_refuses_all_options_mounts_without_them() {
    let device = LoopDevice::of(squashed().path(), &[]);
    for (trace, faults) in [
        ("fsconfig", &["fsconfig:error=EINVAL:when=6"][..]),
        ("fsopen,mount", &["fsopen:error=ENOSYS", "mount:error=EINVAL:when=3"]),
    ] {
        let sandbox = sandbox(&device);
        let outcome = with_faults(&sandbox, trace, faults);
        is_restored(&sandbox, &outcome);
        let refused = sandbox.sh("grep 'EINVAL.*INJECTED' /tmp/trace");
        let whole = ["FSCONFIG_CMD_CREATE", r#""errors=continue""#];
        assert!(whole.iter().any(|it| refused.contains(it)), "{refused}");
        assert_eq!(said(&outcome).len(), 3, "{outcome:?}");
    }
}

fn an_f2fs_that_names_other_devices_is_not_mounted() {
    let [first, second] = [0, 1].map(|_| Image::new(64 << 20));
    ok(Command::new("mkfs.f2fs").args(["-q", "-f", "-c"]).args([second.path(), first.path()]));
    let device = first.attach();
    let sandbox = sandbox(&device);
    let outcome = sandbox.program().arg("restore").run();
    let expected = [
        "/dev/xvdb detected — attempting restore",
        "/dev/xvdb fstype=f2fs",
        "WARN /dev/xvdb: its superblock names further devices of the machine; it is not mounted",
        "WARN mount of /dev/xvdb failed — skipping restore",
    ];
    assert_eq!(said(&outcome), expected);
    assert_eq!(outcome.status, 1);
    assert!(!has_marker(&sandbox));
}

/// The files of such an image lie on whatever disk it names; the agent could be given its content.
fn an_erofs_that_names_a_disk_of_the_machine_is_not_mounted() {
    let tree = tempfile::tempdir().unwrap();
    for path in ["configs", "workspace", "home/agent/.claude"] {
        std::fs::create_dir_all(tree.path().join(path)).unwrap();
    }
    std::fs::write(tree.path().join("workspace/file"), [b'x'; 300_000]).unwrap();
    let [image, rest] = [0, 0].map(Image::new);
    ok(Command::new("mkfs.erofs")
        .args(["-Echunk-based", "--chunksize=4096"])
        .arg(format!("--blobdev={}", rest.path().display()))
        .args([image.path(), tree.path()]));
    // struct erofs_deviceslot: its tag is the path; the table is told in units of 128 bytes.
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(image.path()).unwrap();
    let mut slot = [0; 2];
    file.read_exact_at(&mut slot, 1024 + 88).unwrap();
    file.write_all_at(b"/dev/secret\0", u64::from(u16::from_le_bytes(slot)) * 128).unwrap();
    // feature_compat: no checksum, which whoever made this would have mended.
    file.write_all_at(&[0; 4], 1024 + 8).unwrap();
    let secret = Image::new(1 << 20);
    std::fs::write(secret.path(), "secret of the machine\n".repeat(50_000)).unwrap();
    let (device, secret) = (image.attach(), LoopDevice::of(secret.path(), &[]));
    let sandbox = sandbox(&device);
    sandbox.add_device("secret", &secret);
    let outcome = sandbox.program().arg("restore").run();
    let warning =
        "WARN /dev/xvdb: its superblock names further devices of the machine; it is not mounted";
    assert!(said(&outcome).iter().any(|line| line == warning), "{outcome:?}");
    assert_eq!(outcome.status, 1, "{outcome:?}");
    assert_eq!(sandbox.sh("ls -A /workspace"), "");
}

fn an_ext4_with_an_external_journal_is_not_replayed() {
    let journal = Image::new(16 << 20).attach();
    ok(Command::new("mke2fs")
        .args(["-q", "-F", "-b", "1024", "-O", "journal_dev"])
        .arg(journal.path()));
    let image = Image::new(64 << 20);
    ok(Command::new("mkfs.ext4")
        .args(["-q", "-F", "-b", "1024", "-J"])
        .arg(format!("device={}", journal.path().display()))
        .arg(image.path()));
    let device = image.attach();
    device.fill("mkdir -p configs workspace home/agent/.claude; echo a > workspace/a");
    let before = std::fs::read(journal.path()).unwrap();
    let (sandbox, outcome) = restore(&device);
    let warning = "WARN /dev/xvdb: its superblock names a journal device of the machine";
    assert!(said(&outcome).iter().any(|line| line == warning), "{outcome:?}");
    assert_eq!(outcome.status, 23, "{outcome:?}");
    assert_eq!(sandbox.sh("cat /workspace/a"), "a\n");
    assert!(std::fs::read(journal.path()).unwrap() == before, "the journal device was written to");
}

fn a_default_subvolume_that_cannot_be_told() {
    let (image, _) = clean(Fs::Btrfs);
    let device = image.attach();
    let sandbox = sandbox(&device);
    sandbox.sh("echo mine > /workspace/mine");
    let outcome = with_faults(&sandbox, "ioctl", &["ioctl:error=EPERM"]);
    let warning = "WARN /dev/xvdb: look up subvolumes of /dev/xvdb: Operation not permitted; another \
                   subvolume may be taken, nothing will be deleted";
    assert!(said(&outcome).iter().any(|line| line == warning), "{outcome:?}");
    assert_eq!(outcome.status, 23, "{outcome:?}");
    assert_eq!(sandbox.sh("cat /workspace/mine; cat /workspace/1"), "mine\nfile 1\n");
}
