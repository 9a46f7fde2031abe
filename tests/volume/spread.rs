//! A restore set that lies in several subvolumes, or on several partitions.

use std::path::Path;
use std::process::Command;

use crate::support::sandbox::{Image, LoopDevice, Outcome, Sandbox};
use crate::support::{Case, Need, case, ok, test_case};
use crate::volume::disk::{BTRFS, EXT4, Fs, has_marker, put, said, sandbox};

pub fn cases() -> Vec<Case> {
    const LUKS: &[Need] =
        &[Need::Root, Need::Loop, Need::Filesystem("ext4"), Need::Program("cryptsetup")];
    vec![
        test_case!(a_default_subvolume_of_any_name, BTRFS),
        test_case!(the_default_subvolume_comes_before_the_top, BTRFS),
        test_case!(subvolumes_as_fedora_has_them, BTRFS),
        test_case!(subvolumes_as_ubuntu_has_them, BTRFS),
        test_case!(subvolumes_as_opensuse_has_them, BTRFS),
        test_case!(a_path_that_is_a_subvolume_of_its_own, BTRFS),
        test_case!(one_of_several_subvolumes_is_not_guessed, BTRFS),
        test_case!(a_kept_snapshot_comes_after_what_is_written_to, BTRFS),
        test_case!(a_link_in_the_first_tree_is_not_passed_over, BTRFS),
        case("home_on_another_partition", EXT4, || home(64, 96)),
        case("home_on_another_and_smaller_partition", EXT4, || home(96, 64)),
        test_case!(a_partition_named_after_its_mount_point, EXT4),
        test_case!(a_path_may_be_on_a_partition_that_cannot_be_read, LUKS),
        test_case!(a_missing_path_on_the_only_file_system_is_absent, EXT4),
    ]
}

/// Makes the directories and a file that names each of them.
fn fill(paths: &[&str]) -> String {
    paths.iter().map(|path| format!("mkdir -p {path}; echo {path} > {path}/file; ")).collect()
}

fn btrfs(script: &str) -> LoopDevice {
    let device = Fs::Btrfs.empty().attach();
    device.fill(script);
    device
}

fn restore(device: &LoopDevice) -> (Sandbox, Outcome) {
    let sandbox = sandbox(device);
    sandbox.sh("mkdir -p /home/agent/.claude");
    let outcome = sandbox.program().arg("restore").run();
    (sandbox, outcome)
}

/// Each path came from the directory that is said, and nothing but /mnt/restore stays mounted.
#[track_caller]
fn is_spread(sandbox: &Sandbox, outcome: &Outcome, sources: [&str; 3]) {
    let paths = ["configs", "workspace", "home/agent/.claude"];
    for (path, source) in paths.iter().zip(sources) {
        let line = format!("MOLECULE-RESTORE: rsync {source}/ -> /{path}/\n");
        assert!(outcome.stdout().contains(&line), "{line}{outcome:?}");
        let line = format!("MOLECULE-RESTORE: ok /{path}\n");
        assert!(outcome.stdout().contains(&line), "{line}{outcome:?}");
        assert!(sandbox.path(format!("/{path}/file")).exists(), "{outcome:?}");
    }
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert!(has_marker(sandbox));
    assert_eq!(sandbox.sh("grep ' /mnt' /proc/mounts | cut -d' ' -f2"), "/mnt/restore\n");
}

fn a_default_subvolume_of_any_name() {
    let device = btrfs(&format!(
        "btrfs -q subvolume create deep; btrfs -q subvolume create deep/machine; \
         btrfs subvolume set-default deep/machine; cd deep/machine; {}",
        fill(&["configs", "workspace", "home/agent/.claude"])
    ));
    let (sandbox, outcome) = restore(&device);
    let below = "MOLECULE-RESTORE: the restore set is below /mnt/restore/deep/machine\n";
    assert!(outcome.stdout().contains(below), "{outcome:?}");
    let top = "/mnt/restore/deep/machine";
    let [configs, workspace, claude] =
        ["configs", "workspace", "home/agent/.claude"].map(|path| format!("{top}/{path}"));
    is_spread(&sandbox, &outcome, [&configs, &workspace, &claude]);
}

fn the_default_subvolume_comes_before_the_top() {
    let device = btrfs(&format!(
        "{all} echo old > workspace/file; btrfs -q subvolume create work; \
         btrfs subvolume set-default work; cd work; {all}",
        all = fill(&["configs", "workspace", "home/agent/.claude"])
    ));
    let (sandbox, outcome) = restore(&device);
    assert_eq!(sandbox.sh("cat /workspace/file"), "workspace\n", "{outcome:?}");
}

fn subvolumes_as_fedora_has_them() {
    let device = btrfs(&format!(
        "btrfs -q subvolume create root; btrfs -q subvolume create home; \
         (cd root; mkdir home; {}) && (cd home; {})",
        fill(&["configs", "workspace"]),
        fill(&["agent/.claude"])
    ));
    let (sandbox, outcome) = restore(&device);
    is_spread(
        &sandbox,
        &outcome,
        [
            "/mnt/restore/root/configs",
            "/mnt/restore/root/workspace",
            "/mnt/restore/home/agent/.claude",
        ],
    );
}

fn subvolumes_as_ubuntu_has_them() {
    let device = btrfs(&format!(
        "btrfs -q subvolume create @; btrfs -q subvolume create @home; \
         (cd @; mkdir home; {}) && (cd @home; {})",
        fill(&["configs", "workspace"]),
        fill(&["agent/.claude"])
    ));
    let (sandbox, outcome) = restore(&device);
    let line = "home/agent/.claude is at /mnt/restore/@home/agent/.claude\n";
    assert!(outcome.stdout().contains(line), "{outcome:?}");
    is_spread(
        &sandbox,
        &outcome,
        ["/mnt/restore/@/configs", "/mnt/restore/@/workspace", "/mnt/restore/@home/agent/.claude"],
    );
}

/// The root is a snapshot of itself; older ones lie beside it.
fn subvolumes_as_opensuse_has_them() {
    let device = btrfs(&format!(
        "btrfs -q subvolume create @; btrfs -q subvolume create @/home; \
         btrfs -q subvolume create @/.snapshots; \
         for n in 1 2; do mkdir @/.snapshots/$n; \
         btrfs -q subvolume create @/.snapshots/$n/snapshot; \
         (cd @/.snapshots/$n/snapshot; mkdir home; {}; echo $n > workspace/file); done; \
         btrfs subvolume set-default @/.snapshots/2/snapshot; (cd @/home; {})",
        fill(&["configs", "workspace"]).trim_end_matches("; "),
        fill(&["agent/.claude"])
    ));
    let (sandbox, outcome) = restore(&device);
    is_spread(
        &sandbox,
        &outcome,
        [
            "/mnt/restore/@/.snapshots/2/snapshot/configs",
            "/mnt/restore/@/.snapshots/2/snapshot/workspace",
            "/mnt/restore/@/home/agent/.claude",
        ],
    );
    assert_eq!(sandbox.sh("cat /workspace/file"), "2\n");
}

fn a_path_that_is_a_subvolume_of_its_own() {
    let device = btrfs(&format!(
        "{} btrfs -q subvolume create @workspace; echo a > @workspace/file",
        fill(&["configs", "home/agent/.claude"])
    ));
    let (sandbox, outcome) = restore(&device);
    is_spread(
        &sandbox,
        &outcome,
        ["/mnt/restore/configs", "/mnt/restore/@workspace", "/mnt/restore/home/agent/.claude"],
    );
}

fn one_of_several_subvolumes_is_not_guessed() {
    let device = btrfs(&format!(
        "for s in one two; do btrfs -q subvolume create $s; (cd $s; {}); done; {}",
        fill(&["workspace"]).trim_end_matches("; "),
        fill(&["configs"])
    ));
    let (sandbox, outcome) = restore(&device);
    let warning = "WARN choose the source of workspace: 2 subvolumes have it: one, two; ";
    assert!(outcome.stdout().contains(warning), "{outcome:?}");
    assert_eq!(outcome.status, 23, "{outcome:?}");
    assert!(outcome.stdout().contains("ok /configs\n"), "{outcome:?}");
    // Nothing at all has this one.
    let absent = "source /mnt/restore/home/agent/.claude absent — skipping";
    assert!(outcome.stdout().contains(absent), "{outcome:?}");
    assert_eq!(sandbox.sh("ls -A /workspace"), "");
}

fn a_kept_snapshot_comes_after_what_is_written_to() {
    let device = btrfs(&format!(
        "btrfs -q subvolume create live; (cd live; {}; echo old > workspace/file); \
         btrfs -q subvolume snapshot -r live a-monday; btrfs -q subvolume snapshot -r live b-tuesday; \
         echo new > live/workspace/file",
        fill(&["configs", "workspace", "home/agent/.claude"]).trim_end_matches("; ")
    ));
    let (sandbox, outcome) = restore(&device);
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert_eq!(sandbox.sh("cat /workspace/file"), "new\n");
}

/// The agent of an earlier life could have put it there; what lies below is older.
fn a_link_in_the_first_tree_is_not_passed_over() {
    let device = btrfs(&format!(
        "btrfs -q subvolume create live; btrfs subvolume set-default live; \
         (cd live; {}; mkdir -p home/agent; ln -s /etc home/agent/.claude); {}",
        fill(&["configs", "workspace"]).trim_end_matches("; "),
        fill(&["home/agent/.claude"])
    ));
    let (sandbox, outcome) = restore(&device);
    assert_eq!(outcome.status, 23, "{outcome:?}");
    assert!(outcome.stdout().contains("it is a symbolic link, not followed"), "{outcome:?}");
    assert_eq!(sandbox.sh("ls -A /home/agent/.claude"), "");
}

const MIB: u64 = 1 << 20;

/// A disk with one partition for each content, with these names.
fn disk(contents: &[(&Path, &str)]) -> LoopDevice {
    let size = |path: &Path| std::fs::metadata(path).unwrap().len().next_multiple_of(MIB);
    let total: u64 = contents.iter().map(|(path, _)| size(path)).sum();
    let disk = Image::new(total + 4 * MIB);
    let mut sgdisk = Command::new("sgdisk");
    let mut start = MIB;
    let mut places = Vec::new();
    for (index, (content, name)) in contents.iter().enumerate() {
        let (number, last) = (index + 1, (start + size(content)) / 512 - 1);
        sgdisk.arg(format!("-n{number}:{}:{last}", start / 512));
        sgdisk.arg(format!("-c{number}:{name}"));
        places.push((start, *content));
        start += size(content);
    }
    ok(sgdisk.arg(disk.path()));
    for (start, content) in places {
        put(disk.path(), start, content);
    }
    disk.attach()
}

fn ext4(mebibytes: u64, script: &str) -> Image {
    let image = Image::new(mebibytes << 20).make("mkfs.ext4", ["-q", "-F"]);
    LoopDevice::of(image.path(), &[]).fill(script);
    image
}

#[track_caller]
fn home(root: u64, home: u64) {
    let root = ext4(root, &(fill(&["configs", "workspace"]) + "mkdir home"));
    let home = ext4(home, &fill(&["agent/.claude"]));
    let boot = ext4(24, "mkdir grub");
    let parts = [(boot.path(), "a"), (root.path(), "b"), (home.path(), "c")];
    let (sandbox, outcome) = restore(&disk(&parts));
    let size = std::fs::metadata(home.path()).unwrap().len() >> 20;
    let claude = format!("(partition 3 of /dev/xvdb ({size}.0 MiB))/agent/.claude");
    is_spread(&sandbox, &outcome, ["/mnt/restore/configs", "/mnt/restore/workspace", &claude]);
    // The one that is shown is the one that has most.
    assert!(sandbox.path("/mnt/restore/configs").exists());
}

fn a_partition_named_after_its_mount_point() {
    let root = ext4(64, &fill(&["configs", "home/agent/.claude"]));
    let work = ext4(96, "echo a > file");
    let other = ext4(32, "echo b > file");
    let parts = [(root.path(), "root"), (work.path(), "Workspace"), (other.path(), "other")];
    let (sandbox, outcome) = restore(&disk(&parts));
    is_spread(
        &sandbox,
        &outcome,
        [
            "/mnt/restore/configs",
            "(partition 2 of /dev/xvdb (96.0 MiB))",
            "/mnt/restore/home/agent/.claude",
        ],
    );
    assert_eq!(sandbox.sh("cat /workspace/file"), "a\n");
}

fn a_path_may_be_on_a_partition_that_cannot_be_read() {
    use std::io::Write as _;
    let root = ext4(64, &fill(&["configs", "workspace"]));
    let home = Image::new(16 << 20);
    let mut child = Command::new("cryptsetup")
        .args(["luksFormat", "-q", "--type", "luks1", "--pbkdf-force-iterations", "1000"])
        .arg(home.path())
        .arg("-")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"secret").unwrap();
    assert!(child.wait().unwrap().success());
    let (_sandbox, outcome) = restore(&disk(&[(root.path(), "root"), (home.path(), "home")]));
    let stdout = outcome.stdout();
    assert!(stdout.contains("ok /workspace\n"), "{outcome:?}");
    assert!(!stdout.contains("absent"), "{outcome:?}");
    let warning = "WARN look for home/agent/.claude: partition 2 of /dev/xvdb (16.0 MiB) could not be \
                   mounted: ";
    assert!(stdout.contains(warning), "{outcome:?}");
    assert_eq!(outcome.status, 23, "{outcome:?}");
}

fn a_missing_path_on_the_only_file_system_is_absent() {
    let root = ext4(64, &fill(&["configs", "workspace"]));
    let (_sandbox, outcome) = restore(&disk(&[(root.path(), "root")]));
    let line = "MOLECULE-RESTORE: source /mnt/restore/home/agent/.claude absent — skipping (likely \
                the prior workspace never wrote it)\n";
    assert!(outcome.stdout().contains(line), "{outcome:?}");
    assert_eq!(said(&outcome).last().unwrap(), "mounted /dev/xvdb at /mnt/restore (ro)");
    assert_eq!(outcome.status, 0, "{outcome:?}");
}
