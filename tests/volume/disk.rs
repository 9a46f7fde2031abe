//! Images with a workspace in them, clean or copied while mounted and written, and what a restore of
//! them said and left.

use std::path::Path;
use std::process::Command;

use crate::support::Need;
use crate::support::ok;
use crate::support::sandbox::{Image, LoopDevice, Outcome, Sandbox};

/// What nearly every case here needs.
pub const LOOP: &[Need] = &[Need::Root, Need::Loop];
pub const EXT4: &[Need] = &[Need::Root, Need::Loop, Need::Filesystem("ext4")];
pub const XFS: &[Need] =
    &[Need::Root, Need::Loop, Need::Filesystem("xfs"), Need::Program("mkfs.xfs")];
pub const BTRFS: &[Need] =
    &[Need::Root, Need::Loop, Need::Filesystem("btrfs"), Need::Program("mkfs.btrfs")];

/// A file system to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fs {
    Ext4,
    Xfs,
    Btrfs,
}

impl Fs {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// Size of the images in MiB: the least that mkfs takes, and room for what is written.
    pub fn mebibytes(self) -> u64 {
        match self {
            Self::Ext4 => 64,
            Self::Xfs => 300,
            Self::Btrfs => 128,
        }
    }

    pub fn empty(self) -> Image {
        let image = Image::new(self.mebibytes() << 20);
        match self {
            // Blocks of 1 KiB, so that the first copy of the superblock is at 8193 KiB.
            Self::Ext4 => image.make("mkfs.ext4", ["-q", "-F", "-b", "1024", "-N", "8192"]),
            Self::Xfs => image.make("mkfs.xfs", ["-q", "-f"]),
            Self::Btrfs => image.make("mkfs.btrfs", ["-q", "-f"]),
        }
    }
}

/// How many files a workspace has.
pub const FILES: usize = 400;

/// An original, a copy of it, and what a complete restore of the copy leaves.
pub struct Volume {
    pub original: Image,
    pub copy: Image,
    pub manifest: String,
}

/// Lists type, mode, owner, size and content of the three paths of the restore set below the current
/// directory.
const MANIFEST: &str = "find configs workspace home/agent/.claude ! -name .restore-completed \
    -printf '%p %y %m %U:%G %s\\n' | grep -v '^[^ ]* d' | sort; \
    find configs workspace home/agent/.claude -type f ! -name .restore-completed -print0 \
    | sort -z | xargs -0 cat | sha256sum";

/// Fills a new file system with the restore set; `$1` is the image, `$2` a mount point, `$3` the copy
/// to be made while it is mounted, or empty.
const FILL: &str = r#"
    umask 022
    mount -o loop "$1" "$2"; cd "$2"
    eval "$BEFORE"
    mkdir -p configs workspace home/agent/.claude
    echo secret > configs/.auth_token; chmod 600 configs/.auth_token
    echo '{}' > home/agent/.claude/settings.json; chown 1000:1000 home/agent/.claude/settings.json
    sync -f .
    if [ -n "$3" ]; then
        # On the disk only in the journal: XFS and ext4 write metadata home much later.
        seq "$FILES" | while read -r n; do echo "file $n" > "workspace/$n"; done
        sync -f .
        echo late > workspace/late; sync workspace/late
        cp --sparse=always "$1" "$3"
    else
        seq "$FILES" | while read -r n; do echo "file $n" > "workspace/$n"; done
    fi
    eval "$MANIFEST"
    cd /; umount "$2"
"#;

fn fill(original: &Path, copy: Option<&Path>, before: &str) -> String {
    let place = tempfile::tempdir().unwrap();
    ok(Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-euc", FILL, "sh"])
        .args([original, place.path(), copy.unwrap_or(Path::new(""))])
        .env("FILES", FILES.to_string())
        .env("MANIFEST", MANIFEST)
        .env("BEFORE", before))
}

/// A file system that was unmounted, after `before` (sh) ran in its top directory. The restore set is
/// made in the directory in which `before` ends.
pub fn clean_after(fs: Fs, before: &str) -> (Image, String) {
    let image = fs.empty();
    let manifest = fill(image.path(), None, before);
    (image, manifest)
}

/// A file system that was unmounted.
pub fn clean(fs: Fs) -> (Image, String) {
    clean_after(fs, "")
}

/// A file system and a copy of it that was made while it was mounted and had just been written.
pub fn dirty(fs: Fs) -> Volume {
    let original = fs.empty();
    let copy = Image::new(0);
    let manifest = fill(original.path(), Some(copy.path()), "");
    Volume { original, copy, manifest }
}

/// Overwrites `count` bytes with zeros.
pub fn zero(image: &Path, offset: u64, count: usize) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::OpenOptions::new().write(true).open(image).unwrap();
    file.write_all_at(&vec![0; count], offset).unwrap();
}

/// Copies `content` into `disk` at byte `offset`, holes left out.
#[track_caller]
pub fn put(disk: &Path, offset: u64, content: &Path) {
    assert_eq!(offset % 4096, 0);
    ok(Command::new("dd")
        .args(["bs=4096", "conv=notrunc,sparse", "status=none"])
        .arg(format!("seek={}", offset / 4096))
        .arg(format!("if={}", content.display()))
        .arg(format!("of={}", disk.display())));
}

/// A read-only loop device.
pub fn read_only(image: &Image) -> LoopDevice {
    LoopDevice::of(image.path(), &["--read-only"])
}

/// A sandbox with `device` as /dev/xvdb.
pub fn sandbox(device: &LoopDevice) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.add_device("xvdb", device);
    sandbox
}

/// `restore` without any option in a sandbox with `device` as /dev/xvdb.
pub fn restore(device: &LoopDevice) -> (Sandbox, Outcome) {
    let sandbox = sandbox(device);
    let outcome = sandbox.program().arg("restore").run();
    (sandbox, outcome)
}

/// What is in the restore set of the sandbox, in the form of [`Volume::manifest`].
pub fn landed(sandbox: &Sandbox) -> String {
    sandbox.sh(&format!("cd /; mkdir -p configs workspace home/agent/.claude; {MANIFEST}"))
}

/// The lines about the source: from the first to `mounted` or the one that says why there is none.
/// The prefix is gone, `loop17` is `loopN`, and the kernel's own words are left out.
pub fn said(outcome: &Outcome) -> Vec<String> {
    let mut lines = Vec::new();
    for line in outcome.stdout().lines() {
        let line = line.strip_prefix("MOLECULE-RESTORE: ").unwrap_or(line);
        if !line.starts_with("mount: kernel: ") {
            lines.push(without_numbers(line));
        }
        if line.starts_with("mounted ") || line.ends_with("skipping") || line.contains("— skipping")
        {
            break;
        }
    }
    lines
}

/// The kernel's words in the log.
pub fn kernel_said(outcome: &Outcome) -> Vec<String> {
    let stdout = outcome.stdout();
    let lines = stdout.lines().filter_map(|line| {
        line.strip_prefix("MOLECULE-RESTORE: mount: kernel: ").map(without_numbers)
    });
    lines.collect()
}

fn without_numbers(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("loop") {
        let (before, after) = rest.split_at(at + 4);
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        text.push_str(before);
        text.push_str(if digits > 0 { "N" } else { "" });
        rest = &after[digits..];
    }
    text + rest
}

/// Whether the marker was dropped.
pub fn has_marker(sandbox: &Sandbox) -> bool {
    sandbox.path("/configs/.restore-completed").exists()
}
