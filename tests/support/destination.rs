//! The file systems that a workspace's trees lie on, for tests that hold on each of them.

use super::{Case, Need, case};

/// What the trees of the restore set lie on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filesystem {
    Ext4,
    Xfs,
    Btrfs,
    /// Each tree an overlay, its layers on a tmpfs.
    Overlay,
    Tmpfs,
}

use Filesystem::{Btrfs, Ext4, Overlay, Tmpfs, Xfs};

/// All of them.
pub const FILESYSTEMS: [Filesystem; 5] = [Ext4, Xfs, Btrfs, Overlay, Tmpfs];

impl Filesystem {
    /// For [`super::sandbox::Sandbox::with`], after which `script` runs: /vol on a file system of its own, each
    /// tree a mount of what is made of `image` (a path in the root, filled before) there.
    pub fn script(self, script: &str) -> String {
        let disk = |mebibytes: u32, mkfs: &str| {
            format!(
                "truncate -s {mebibytes}M .disk; {mkfs} .disk >/dev/null; mount -o loop .disk vol"
            )
        };
        let volume = match self {
            Ext4 => disk(64, "mkfs.ext4 -q -F"),
            Xfs => disk(320, "mkfs.xfs -q -f"),
            Btrfs => disk(160, "mkfs.btrfs -q -f"),
            Overlay | Tmpfs => "mount -t tmpfs -o mode=755 vol vol".into(),
        };
        let tree = match self {
            Overlay => {
                "mkdir vol/$n vol/$n/upper vol/$n/work vol/$n/lower; cp -a $d/. vol/$n/lower
                 chown 1000:1000 vol/$n/upper
                 mount -t overlay -o lowerdir=vol/$n/lower,upperdir=vol/$n/upper,workdir=vol/$n/work o $d"
            }
            _ => "mkdir vol/$n; cp -a $d/. vol/$n; mount --bind vol/$n $d",
        };
        format!(
            "{script}
             mkdir -p vol home/agent/.claude; {volume}; n=0
             for d in configs workspace home/agent/.claude; do n=$((n+1)); {tree}; done"
        )
    }

    /// `run` as a case for each of them, whose names end in theirs.
    pub fn cases(name: &str, run: fn(Self)) -> Vec<Case> {
        let needs = |filesystem| -> &[Need] {
            match filesystem {
                Xfs => {
                    &[Need::Root, Need::Loop, Need::Program("strace"), Need::Program("mkfs.xfs")]
                }
                Btrfs => {
                    &[Need::Root, Need::Loop, Need::Program("strace"), Need::Program("mkfs.btrfs")]
                }
                _ => &[Need::Root, Need::Loop, Need::Program("strace")],
            }
        };
        let one = |filesystem: Self| {
            let name = format!("{name}_on_{filesystem:?}").to_lowercase();
            case(name.leak(), needs(filesystem), move || run(filesystem))
        };
        FILESYSTEMS.map(one).into()
    }
}
