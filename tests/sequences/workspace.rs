//! A sandbox whose three trees are file systems, or directories of one, that can be made anew.

use std::path::PathBuf;
use std::process::Command;

use crate::support::destination::Filesystem;
use crate::support::ok;
use crate::support::sandbox::{Image, LoopDevice, Run, Sandbox};

/// The state of the volume's device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volume {
    Absent,
    /// A snapshot whose files are old.
    Old,
    /// A snapshot whose files are of the future, and which has records of an earlier life.
    Future,
    /// Nothing on it.
    Raw,
    /// A file system that the kernel refuses.
    Damaged,
    /// No device behind the node.
    Failing,
    /// [`Self::Old`] with content that cannot be read.
    Unreadable,
}

/// The trees, in the order of the restore set.
pub const TREES: [&str; 3] = ["/configs", "/workspace", "/home/agent/.claude"];
/// How the kernel calls this boot of it, as the program sees it.
const BOOT_ID: &str = "/run/boot_id";
/// What each tree brings from its image, and what the snapshots have beside other content.
const LAYOUT: &str =
    "mkdir dir deep deep/x; for f in old work dir/a dir/b deep/x/y; do echo CONTENT > $f; done";

/// `snapshot`, with a file and a directory that the kernel finds damaged.
fn unreadable(snapshot: LoopDevice) -> LoopDevice {
    for path in ["workspace/dir/b", "configs/deep"] {
        let damage = format!("set_inode_field /{path} block[0] 0");
        ok(Command::new("debugfs").args(["-w", "-R", &damage]).arg(snapshot.path()));
        snapshot.fill(&format!("! ls {path}/ 2>/dev/null && ! cat {path} 2>/dev/null"));
    }
    snapshot
}

/// One workspace after the other, in one sandbox.
pub struct Workspace {
    pub sandbox: Sandbox,
    filesystem: Filesystem,
    devices: [(Volume, LoopDevice); 5],
    /// Number of the next fresh tree.
    next: u32,
}

impl Workspace {
    pub fn new(filesystem: Filesystem) -> Self {
        let sandbox = Sandbox::with(&format!(
            "mkdir vol; echo first > .{BOOT_ID}
             mount --bind .{BOOT_ID} proc/sys/kernel/random/boot_id
             mount -t tmpfs -o mode=755 volume vol"
        ));
        let make = |program: &str, arguments: &[&str], mebibytes: u64| {
            let device = Image::new(mebibytes << 20).make(program, arguments).attach();
            sandbox.add_device("disk", &device);
            sandbox.sh("mount /dev/disk /vol; rm -r /dev/disk /vol/lost+found 2>/dev/null || :");
        };
        match filesystem {
            Filesystem::Ext4 => make("mkfs.ext4", &["-q", "-F"], 64),
            Filesystem::Xfs => make("mkfs.xfs", &["-q", "-f"], 320),
            Filesystem::Btrfs => make("mkfs.btrfs", &["-q", "-f"], 160),
            Filesystem::Overlay | Filesystem::Tmpfs => {}
        }
        // The runtime leaves a sign, and where it is asked to it works from its first moment on.
        sandbox.install(
            "/usr/local/bin/molecule-runtime",
            "#!/bin/sh\nif [ -e /run/work ]; then . /run/work; fi\n: > /tmp/started\n",
        );
        let layout = LAYOUT.replace("CONTENT", "image");
        sandbox.sh(&format!("mkdir /vol/image; cd /vol/image; {layout}; chown -R 1000:1000 ."));
        let layout = LAYOUT.replace("CONTENT", "snapshot");
        let snapshot = |date: &str, record: &str| {
            LoopDevice::ext4(
                16,
                &format!(
                    "for tree in configs workspace home/agent/.claude; do
                         mkdir -p $tree; (cd $tree; {layout}; echo snapshot > missing; echo snapshot > once
                            ln old linked; ln dir/a deep/x/linked; {record})
                     done
                     find . -exec touch -d {date} {{}} +; chown -R 1000:1000 configs workspace home/agent"
                ),
            )
        };
        let damaged = Image::new(16 << 20).make("mkfs.ext4", ["-q", "-F"]);
        // An incompatible feature that no kernel knows (s_feature_incompat at 1024 + 0x60).
        std::os::unix::fs::FileExt::write_at(
            &std::fs::OpenOptions::new().write(true).open(damaged.path()).unwrap(),
            &[0xff; 4],
            1024 + 0x60,
        )
        .unwrap();
        let devices = [
            (Volume::Old, snapshot("2020-01-01", ":")),
            (
                Volume::Future,
                snapshot("2033-01-01", "setfattr -n user.molecule.started -v 5.000000000 ."),
            ),
            (Volume::Raw, Image::new(1 << 20).attach()),
            (Volume::Damaged, damaged.attach()),
            (Volume::Unreadable, unreadable(snapshot("2020-01-01", ":"))),
        ];
        Self { sandbox, filesystem, devices, next: 0 }
    }

    /// The processes that a running `boot` has started and that are its children still.
    pub fn steps(&self, boot: u32) -> Vec<u32> {
        let parent = |pid: &u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            status.lines().find_map(|line| line.strip_prefix("PPid:\t")?.parse().ok())
        };
        self.sandbox.processes().into_iter().filter(|pid| parent(pid) == Some(boot)).collect()
    }

    /// Puts a fresh tree in the place of tree `index`: the image's content and nothing else.
    pub fn make_anew(&mut self, index: usize) {
        let (tree, fresh) = (TREES[index], format!("/vol/{}", self.next));
        self.next += 1;
        let clear = format!(
            "while umount -l {tree} 2>/dev/null; do :; done; mkdir -p {tree}; mkdir {fresh}"
        );
        let mount = match self.filesystem {
            Filesystem::Overlay => format!(
                "mkdir {fresh}/upper {fresh}/work; chown 1000:1000 {fresh}/upper
                 mount -t overlay -o lowerdir=/vol/image,upperdir={fresh}/upper,workdir={fresh}/work o {tree}"
            ),
            _ => format!("cp -a /vol/image/. {fresh}; mount --bind {fresh} {tree}"),
        };
        self.sandbox.sh(&format!("{clear}; {mount}"));
    }

    /// A workspace from before any start.
    pub fn reset(&mut self) {
        self.attach(Volume::Absent);
        self.sandbox.sh("rm -f /run/work /tmp/started");
        (0..TREES.len()).for_each(|index| self.make_anew(index));
        // All but the newest trees and the image; what a process still writes there may stay.
        let oldest = self.next - 3;
        self.sandbox.sh(&format!(
            "cd /vol; for n in *; do [ $n = image ] || [ $n -ge {oldest} ] || rm -rf $n || :; done"
        ));
    }

    /// Makes /dev/xvdb what `volume` says.
    pub fn attach(&self, volume: Volume) {
        self.sandbox.sh("rm -f /dev/xvdb");
        match volume {
            Volume::Absent => {}
            Volume::Failing => drop(self.sandbox.sh("mknod /dev/xvdb b 240 77")),
            _ => {
                let (_, device) = self.devices.iter().find(|(kind, _)| *kind == volume).unwrap();
                self.sandbox.add_device("xvdb", device);
            }
        }
    }

    /// Another boot of the machine's kernel: nothing in memory is lost, but its boot id is new.
    pub fn reboot(&self, number: u64) {
        std::fs::write(
            self.sandbox.path(BOOT_ID),
            format!("00000000-0000-4000-8000-{number:012}\n"),
        )
        .unwrap();
    }

    /// A container's start, in a fresh mount namespace as far as the restore's mounts go.
    pub fn entrypoint(&self) -> Run {
        self.sandbox.sh(
            "for n in /mnt/restore*; do umount -l $n 2>/dev/null || :; done; rm -f /tmp/started",
        );
        self.sandbox.program().arg("entrypoint")
    }

    /// Whether a runtime ran since the last [`Self::entrypoint`].
    pub fn runtime_ran(&self) -> bool {
        self.sandbox.path("/tmp/started").exists()
    }

    /// The container is killed: every process in it.
    pub fn kill(&self) {
        for _ in 0..2 {
            for pid in self.sandbox.processes() {
                let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }

    /// Where `name` of tree `index` is, from outside.
    pub fn path(&self, index: usize, name: &str) -> PathBuf {
        self.sandbox.path(TREES[index]).join(name)
    }
}
