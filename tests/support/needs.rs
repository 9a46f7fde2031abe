//! What a test needs of the machine, and whether the machine has it.

use std::path::Path;

/// One thing a test cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Effective uid 0 with CAP_SYS_ADMIN (mounts, owners, device nodes).
    Root,
    /// FUSE mounts.
    Fuse,
    /// A Docker engine, which the tests start; only where `MOLECULE_REQUIRE` names it, for it is much to start.
    Docker,
    /// Loop devices.
    Loop,
    /// A program in PATH.
    Program(&'static str),
    /// A file system type the kernel knows.
    Filesystem(&'static str),
}

impl Need {
    /// Name in messages and in `MOLECULE_REQUIRE`.
    pub fn label(&self) -> String {
        match self {
            Self::Root => "root".into(),
            Self::Fuse => "fuse".into(),
            Self::Docker => "docker (named in MOLECULE_REQUIRE)".into(),
            Self::Loop => "loop".into(),
            Self::Program(name) => (*name).into(),
            Self::Filesystem(name) => format!("{name}-kernel"),
        }
    }

    /// Whether the machine has it.
    pub fn met(&self) -> bool {
        match self {
            Self::Root => effective(21),
            Self::Fuse => Path::new("/dev/fuse").exists(),
            Self::Docker => {
                let named = std::env::var("MOLECULE_REQUIRE").unwrap_or_default();
                named.split(',').any(|word| word == "docker")
            }
            Self::Loop => Path::new("/dev/loop-control").exists(),
            Self::Program(name) => std::env::var_os("PATH").is_some_and(|path| {
                std::env::split_paths(&path)
                    .chain(["/usr/sbin".into(), "/sbin".into()])
                    .any(|directory| directory.join(name).is_file())
            }),
            Self::Filesystem(name) => std::fs::read_to_string("/proc/filesystems")
                .is_ok_and(|list| list.lines().any(|line| line.trim_end().ends_with(name))),
        }
    }

    /// Whether `MOLECULE_REQUIRE` (`all` or labels with commas between) makes it a must.
    pub fn required_by(&self, required: &str) -> bool {
        match self {
            Self::Docker => false,
            _ => required.split(',').any(|word| word == "all" || word == self.label()),
        }
    }
}

/// Whether capability `number` (linux/capability.h; 21 is CAP_SYS_ADMIN) is effective.
fn effective(number: u32) -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:\t"))
            .and_then(|mask| u64::from_str_radix(mask, 16).ok())
            .is_some_and(|mask| mask >> number & 1 == 1)
    })
}
