//! Trees laid out for a test: one verb per thing a tree can hold, by path relative to the top.

use std::ffi::OsStr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

/// Names in a raw ACL (acl(5), include/uapi/linux/posix_acl.h): tag, permission bits, id.
pub type AclEntry = (u16, u16, u32);
/// The id of entries that have none.
pub const NO_ID: u32 = u32::MAX;
/// The owner's entry.
pub const USER_OBJ: u16 = 0x01;
/// A named user's entry.
pub const USER: u16 = 0x02;
/// The owning group's entry.
pub const GROUP_OBJ: u16 = 0x04;
/// A named group's entry.
pub const GROUP: u16 = 0x08;
/// The mask.
pub const MASK: u16 = 0x10;
/// Everybody else's entry.
pub const OTHER: u16 = 0x20;

/// The xattr of the access ACL.
pub const ACCESS: &str = "system.posix_acl_access";
/// The xattr of the default ACL.
pub const DEFAULT: &str = "system.posix_acl_default";

/// `cap_net_bind_service=ep` as `security.capability` holds it (linux/capability.h, revision 2).
pub const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A raw ACL, version 2.
pub fn acl(entries: &[AclEntry]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// An ACL with a named user and a mask, as `setfacl -m u:UID:rw` leaves it.
pub fn acl_of_user(uid: u32) -> Vec<u8> {
    acl(&[
        (USER_OBJ, 6, NO_ID),
        (USER, 6, uid),
        (GROUP_OBJ, 4, NO_ID),
        (MASK, 6, NO_ID),
        (OTHER, 4, NO_ID),
    ])
}

/// A directory to fill. Every verb makes the parents it needs and gives the tree back.
#[derive(Debug, Clone)]
pub struct Tree(pub PathBuf);

impl Tree {
    /// A tree at `root`, which is made when absent.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&root).unwrap();
        Self(root)
    }

    /// The full path of `relative`.
    pub fn path(&self, relative: impl AsRef<OsStr>) -> PathBuf {
        match relative.as_ref().is_empty() {
            true => self.0.clone(),
            false => self.0.join(Path::new(relative.as_ref())),
        }
    }

    fn fresh(&self, relative: impl AsRef<OsStr>) -> PathBuf {
        let path = self.path(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// A regular file.
    pub fn file(&self, relative: impl AsRef<OsStr>, content: impl AsRef<[u8]>) -> &Self {
        std::fs::write(self.fresh(relative), content).unwrap();
        self
    }

    /// A directory.
    pub fn dir(&self, relative: impl AsRef<OsStr>) -> &Self {
        std::fs::create_dir_all(self.fresh(relative)).unwrap();
        self
    }

    /// A symlink to `target`.
    pub fn symlink(&self, relative: impl AsRef<OsStr>, target: &str) -> &Self {
        symlink(target, self.fresh(relative)).unwrap();
        self
    }

    /// Another name of `existing`; a symlink is linked itself.
    pub fn link(&self, relative: impl AsRef<OsStr>, existing: &str) -> &Self {
        let (old, new) = (self.path(existing), self.fresh(relative));
        rustix::fs::linkat(CWD, old, CWD, new, AtFlags::empty()).unwrap();
        self
    }

    /// A fifo.
    pub fn fifo(&self, relative: impl AsRef<OsStr>) -> &Self {
        self.node(relative, FileType::Fifo, 0, 0)
    }

    /// A socket that nobody listens on.
    pub fn socket(&self, relative: impl AsRef<OsStr>) -> &Self {
        let path = self.fresh(relative);
        match path.as_os_str().len() < 100 {
            true => drop(UnixListener::bind(path).unwrap()),
            false => {
                rustix::fs::mknodat(CWD, path, FileType::Socket, Mode::from(0o755), 0).unwrap()
            }
        }
        self
    }

    /// A fifo, socket or device node.
    pub fn node(
        &self,
        relative: impl AsRef<OsStr>,
        kind: FileType,
        major: u32,
        minor: u32,
    ) -> &Self {
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(CWD, self.fresh(relative), kind, Mode::from(0o640), device).unwrap();
        self
    }

    /// A file of `size` bytes with `content` at `offset` and holes elsewhere.
    pub fn sparse(
        &self,
        relative: impl AsRef<OsStr>,
        size: u64,
        offset: u64,
        content: &[u8],
    ) -> &Self {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::create(self.fresh(relative)).unwrap();
        file.set_len(size).unwrap();
        file.write_all_at(content, offset).unwrap();
        self
    }

    /// Permission bits, the umask does not matter.
    pub fn mode(&self, relative: impl AsRef<OsStr>, mode: u32) -> &Self {
        let bits = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.path(relative), bits).unwrap();
        self
    }

    /// Owner and group, of a symlink itself.
    pub fn owner(&self, relative: impl AsRef<OsStr>, uid: u32, gid: u32) -> &Self {
        std::os::unix::fs::lchown(self.path(relative), Some(uid), Some(gid)).unwrap();
        self
    }

    /// Modification time, of a symlink itself. The access time becomes the same.
    pub fn mtime(&self, relative: impl AsRef<OsStr>, seconds: i64, nanoseconds: i64) -> &Self {
        let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
        let times = Timestamps { last_access: time, last_modification: time };
        let path = self.path(relative);
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        self
    }

    /// An extended attribute, of a symlink itself.
    #[track_caller]
    pub fn xattr(&self, relative: impl AsRef<OsStr>, name: &str, value: impl AsRef<[u8]>) -> &Self {
        let path = self.path(relative);
        rustix::fs::lsetxattr(&path, name, value.as_ref(), XattrFlags::empty())
            .unwrap_or_else(|error| panic!("{}: {name}: {error}", path.display()));
        self
    }

    /// One of every kind of entry with every kind of metadata, `copies` times over.
    pub fn zoo(&self, copies: usize) -> &Self {
        for number in 0..copies {
            self.cage(&format!("cage{number}"), number as u32);
        }
        self.mode("", 0o751).owner("", 4001, 4002).mtime("", 1_400_000_000, 987_654_321)
    }

    fn cage(&self, top: &str, number: u32) {
        let at = |name: &str| format!("{top}/{name}");
        for file in 0..8 {
            let content = format!("{top} {file}\n").repeat(1 + file * 300);
            self.file(at(&format!("plain/sub/file{file}")), content);
            self.mtime(
                at(&format!("plain/sub/file{file}")),
                1_500_000_000 + file as i64,
                123_456_789,
            );
        }
        self.file(at("empty"), "").mode(at("empty"), 0o000);
        self.file(at("setuid"), "#!").owner(at("setuid"), 1000, 1001).mode(at("setuid"), 0o6755);
        self.xattr(at("setuid"), "security.capability", CAPABILITY);
        self.file(at("attributed"), "x").xattr(at("attributed"), "user.colour", "blue");
        self.xattr(at("attributed"), "trusted.rank", b"\x00\xff");
        self.xattr(at("attributed"), ACCESS, acl_of_user(7000 + number));
        self.dir(at("inheriting")).xattr(at("inheriting"), DEFAULT, acl_of_user(7100));
        self.file(at("inheriting/plain"), "no acl");
        rustix::fs::lremovexattr(self.path(at("inheriting/plain")), ACCESS).unwrap();
        self.mode(at("inheriting/plain"), 0o600);
        self.dir(at("sticky")).mode(at("sticky"), 0o3775).owner(at("sticky"), 0, 3_000_000_000);
        self.symlink(at("sym"), "plain/sub/file0").owner(at("sym"), 1234, 5678);
        self.symlink(at("dangling"), "/no/such\nplace").mtime(at("dangling"), 1_300_000_000, 5);
        self.file(at("links/one"), "linked").link(at("plain/two"), &at("links/one"));
        self.link(at("links/sym"), &at("sym"));
        self.fifo(at("fifo")).link(at("links/fifo"), &at("fifo")).socket(at("socket"));
        self.node(at("null"), FileType::CharacterDevice, 1, 3);
        self.node(at("block"), FileType::BlockDevice, 259, 70_000);
        self.sparse(at("sparse"), 8 << 20, 3 << 20, b"island");
        self.file(at("-rf\nname \u{e9}"), "odd");
        self.file(at(".foo.AbC123"), "looks temporary");
        self.mtime(at("links"), -1_000_000, 250_000_000).mtime(at("plain"), 5_000_000_000, 1);
    }
}
