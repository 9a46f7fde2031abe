//! The attributes that statx(2) returns of one object, in the form the mechanisms compare.
#![forbid(unsafe_code)]

use rustix::fs::{AtFlags, Statx, StatxAttributes, StatxFlags, Timestamps};
use rustix::time::Timespec;

/// The type of a file system object (inode(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Block device.
    Block,
    /// Character device.
    Char,
    /// Named pipe.
    Fifo,
    /// Unix domain socket.
    Socket,
}

impl Kind {
    /// Decodes the S_IFMT bits of a mode.
    pub fn from_mode(mode: u32) -> Self {
        match mode & 0o170_000 {
            0o040_000 => Self::Dir,
            0o120_000 => Self::Symlink,
            0o060_000 => Self::Block,
            0o020_000 => Self::Char,
            0o010_000 => Self::Fifo,
            0o140_000 => Self::Socket,
            _ => Self::File,
        }
    }

    /// The S_IFMT bits of this type.
    pub fn bits(self) -> u32 {
        match self {
            Self::File => 0o100_000,
            Self::Dir => 0o040_000,
            Self::Symlink => 0o120_000,
            Self::Block => 0o060_000,
            Self::Char => 0o020_000,
            Self::Fifo => 0o010_000,
            Self::Socket => 0o140_000,
        }
    }

    /// A noun for messages.
    pub fn noun(self) -> &'static str {
        match self {
            Self::File => "a regular file",
            Self::Dir => "a directory",
            Self::Symlink => "a symbolic link",
            Self::Block => "a block device",
            Self::Char => "a character device",
            Self::Fifo => "a fifo",
            Self::Socket => "a socket",
        }
    }
}

/// Seconds since 1970 and nanoseconds, as statx(2) returns them.
pub type FileTime = (i64, u32);

/// Device (major, minor) and number of an inode.
pub type InodeId = ((u32, u32), u64);

/// The attributes of one object; never those of what a link points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Type.
    pub kind: Kind,
    /// Permission, set-id and sticky bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Allocated 512-byte units.
    pub blocks: u64,
    /// Number of hard links.
    pub nlink: u32,
    /// Inode number.
    pub ino: u64,
    /// Device number (major, minor) of the file system.
    pub dev: (u32, u32),
    /// Device number (major, minor) this node stands for; (0, 0) unless a device.
    pub rdev: (u32, u32),
    /// Access time: seconds, nanoseconds.
    pub atime: (i64, u32),
    /// Modification time: seconds, nanoseconds.
    pub mtime: (i64, u32),
    /// Time of the last change of the inode (owner, mode, links, content): seconds, nanoseconds.
    pub ctime: (i64, u32),
    /// Mount the object was reached through.
    pub mount_id: u64,
    /// Whether the object is the root of a mount.
    pub mount_root: bool,
}

impl Stat {
    /// Fields asked of the kernel.
    pub(super) const MASK: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::MNT_ID);
    /// Never trigger automounts, never follow.
    pub(super) const FLAGS: AtFlags = AtFlags::SYMLINK_NOFOLLOW.union(AtFlags::NO_AUTOMOUNT);

    /// Whether the kernel has said which mount the object is on (since Linux 5.8). An emulator may hand on the bit
    /// that says so without the number, which is then 0.
    pub(super) fn has_mount(found: &Statx) -> bool {
        let said = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID);
        said && found.stx_mnt_id != 0
    }

    /// Whether the file is known to have holes.
    pub fn is_sparse(&self) -> bool {
        self.blocks.saturating_mul(512) < self.size
    }

    /// The inode.
    pub fn id(&self) -> InodeId {
        (self.dev, self.ino)
    }

    /// True when both are the same inode of the same file system.
    pub fn same_inode(&self, other: &Self) -> bool {
        self.ino == other.ino && self.dev == other.dev
    }

    /// Access and modification times in the form utimensat(2) takes.
    pub fn times(&self) -> Timestamps {
        let spec =
            |(seconds, nanos): (i64, u32)| Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
        Timestamps { last_access: spec(self.atime), last_modification: spec(self.mtime) }
    }
}

impl From<Statx> for Stat {
    fn from(x: Statx) -> Self {
        let mode = u32::from(x.stx_mode);
        Self {
            kind: Kind::from_mode(mode),
            mode: mode & 0o7777,
            uid: x.stx_uid,
            gid: x.stx_gid,
            size: x.stx_size,
            blocks: x.stx_blocks,
            nlink: x.stx_nlink,
            ino: x.stx_ino,
            dev: (x.stx_dev_major, x.stx_dev_minor),
            rdev: (x.stx_rdev_major, x.stx_rdev_minor),
            atime: (x.stx_atime.tv_sec, x.stx_atime.tv_nsec),
            mtime: (x.stx_mtime.tv_sec, x.stx_mtime.tv_nsec),
            ctime: (x.stx_ctime.tv_sec, x.stx_ctime.tv_nsec),
            mount_id: x.stx_mnt_id,
            mount_root: x.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        }
    }
}
