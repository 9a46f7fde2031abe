//! Clean and dirty file systems, on devices that allow the replay and on such that do not, beside a
//! mounted original with the same UUID.

use crate::support::sandbox::{Image, LoopDevice, Outcome, Sandbox};
use crate::support::{Case, case, test_case};
use crate::volume::disk::{
    BTRFS, EXT4, Fs, XFS, clean, dirty, has_marker, kernel_said, landed, read_only, restore, said,
    sandbox,
};

pub fn cases() -> Vec<Case> {
    vec![
        case("a_clean_ext4_is_restored", EXT4, || is_clean(Fs::Ext4)),
        case("a_clean_xfs_is_restored", XFS, || is_clean(Fs::Xfs)),
        case("a_clean_btrfs_is_restored", BTRFS, || is_clean(Fs::Btrfs)),
        test_case!(ext2_and_ext3_are_restored, EXT4),
        case("a_clean_ext4_needs_no_writable_device", EXT4, || clean_read_only(Fs::Ext4)),
        case("a_clean_xfs_needs_no_writable_device", XFS, || clean_read_only(Fs::Xfs)),
        case("a_clean_btrfs_needs_no_writable_device", BTRFS, || clean_read_only(Fs::Btrfs)),
        case("the_journal_of_a_dirty_ext4_is_replayed", EXT4, || replayed(Fs::Ext4)),
        case("the_log_of_a_dirty_xfs_is_replayed", XFS, || replayed(Fs::Xfs)),
        case("the_log_tree_of_a_dirty_btrfs_is_replayed", BTRFS, || replayed(Fs::Btrfs)),
        case("a_dirty_ext4_that_cannot_be_replayed_deletes_nothing", EXT4, || stale(Fs::Ext4)),
        case("a_dirty_xfs_that_cannot_be_replayed_deletes_nothing", XFS, || stale(Fs::Xfs)),
        case("a_dirty_btrfs_that_cannot_be_replayed_deletes_nothing", BTRFS, || stale(Fs::Btrfs)),
        case("a_dirty_ext4_beside_its_mounted_original", EXT4, || beside_original(Fs::Ext4)),
        case("a_dirty_xfs_beside_its_mounted_original", XFS, || beside_original(Fs::Xfs)),
        case("a_dirty_btrfs_beside_its_mounted_original", BTRFS, || beside_original(Fs::Btrfs)),
    ]
}

/// What the log says when all goes well at once.
pub fn ordinary(fs: Fs) -> [String; 3] {
    [
        "/dev/xvdb detected — attempting restore".into(),
        format!("/dev/xvdb fstype={}", fs.name()),
        "mounted /dev/xvdb at /mnt/restore (ro)".into(),
    ]
}

/// All of it landed, and the log says so.
#[track_caller]
pub fn is_complete(sandbox: &Sandbox, outcome: &Outcome, manifest: &str) {
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert_eq!(landed(sandbox), manifest, "{outcome:?}");
    for path in ["/configs", "/workspace", "/home/agent/.claude"] {
        let line = format!("MOLECULE-RESTORE: ok {path}\n");
        assert!(outcome.stdout().contains(&line), "{outcome:?}");
    }
    assert!(has_marker(sandbox));
}

#[track_caller]
fn is_clean(fs: Fs) {
    let (image, manifest) = clean(fs);
    let (sandbox, outcome) = restore(&image.attach());
    assert_eq!(said(&outcome), ordinary(fs));
    is_complete(&sandbox, &outcome, &manifest);
}

fn ext2_and_ext3_are_restored() {
    for name in ["ext2", "ext3"] {
        let image = Image::new(24 << 20).make(&format!("mkfs.{name}"), ["-q", "-F"]);
        let device = image.attach();
        device.fill("mkdir -p configs workspace home/agent/.claude; echo a > workspace/a");
        let (sandbox, outcome) = restore(&device);
        assert_eq!(said(&outcome)[1], format!("/dev/xvdb fstype={name}"));
        assert_eq!(sandbox.sh("cat /workspace/a"), "a\n");
        assert_eq!(outcome.status, 0, "{outcome:?}");
    }
}

#[track_caller]
fn clean_read_only(fs: Fs) {
    let (image, manifest) = clean(fs);
    let (sandbox, outcome) = restore(&read_only(&image));
    assert_eq!(said(&outcome), ordinary(fs));
    is_complete(&sandbox, &outcome, &manifest);
}

#[track_caller]
fn replayed(fs: Fs) {
    let volume = dirty(fs);
    let (sandbox, outcome) = restore(&volume.copy.attach());
    assert_eq!(said(&outcome), ordinary(fs));
    is_complete(&sandbox, &outcome, &volume.manifest);
}

#[track_caller]
fn stale(fs: Fs) {
    let volume = dirty(fs);
    let device = read_only(&volume.copy);
    let sandbox = sandbox(&device);
    sandbox.sh("echo mine > /workspace/mine");
    let outcome = sandbox.program().arg("restore").run();
    let (options, reason, without, word) = match fs {
        Fs::Ext4 => ("ro", "Read-only file system", "ro,noload", "write access unavailable"),
        Fs::Xfs => ("ro,nouuid", "Read-only file system", "ro,nouuid,norecovery", "log mount"),
        Fs::Btrfs => (
            "ro,subvolid=5",
            "Input/output error",
            "ro,rescue=nologreplay,subvolid=5",
            "log replay required on RO media",
        ),
    };
    let [first, second, last] = ordinary(fs);
    let expected = [
        first,
        second,
        format!("mount: /dev/xvdb (loopN, {options}): {reason}"),
        format!(
            "WARN /dev/xvdb is mounted without its journal ({without}): changes made shortly \
             before the snapshot may be missing or damaged, nothing will be deleted"
        ),
        last,
    ];
    assert_eq!(said(&outcome), expected);
    assert!(kernel_said(&outcome).iter().any(|line| line.contains(word)), "{outcome:?}");
    // What was in the journal only is missing, and what the destination has stays.
    assert_ne!(landed(&sandbox), volume.manifest);
    assert_eq!(sandbox.sh("cat /workspace/mine"), "mine\n");
    // XFS had not even its first directories outside of the log: nothing could be restored.
    let nothing = fs == Fs::Xfs;
    if !nothing {
        assert_eq!(sandbox.sh("cat /configs/.auth_token"), "secret\n");
    }
    assert_eq!(sandbox.sh("ls /workspace | grep -c late || :"), "0\n");
    assert_eq!(outcome.status, if nothing { 1 } else { 23 }, "{outcome:?}");
    assert!(!outcome.stdout().contains("MOLECULE-RESTORE: ok /workspace"), "{outcome:?}");
}

#[track_caller]
fn beside_original(fs: Fs) {
    let volume = dirty(fs);
    let device = LoopDevice::of(volume.copy.path(), &[]);
    let original = volume.original.path().display();
    let sandbox = Sandbox::with(&format!("mkdir original; mount -o loop {original} original"));
    sandbox.add_device("xvdb", &device);
    let outcome = sandbox.program().arg("restore").run();
    assert_eq!(said(&outcome), ordinary(fs));
    is_complete(&sandbox, &outcome, &volume.manifest);
}
