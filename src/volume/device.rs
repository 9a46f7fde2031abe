//! One open block device or image file, and device nodes made where /dev has none.
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::ioctl;
use super::look;
use super::mount::Place;
use super::probe::ReadAt as _;
use crate::error::{Error, Result};
use crate::fs::{Dir, Kind, TempName};

/// (major, minor) of a block device.
pub type Number = (u32, u32);

/// A block device or an image file, open for reading.
#[derive(Debug)]
pub struct Device {
    file: File,
    shown: PathBuf,
    node: Option<Node>,
}

/// A block device's number and a path under which the kernel finds it.
#[derive(Debug, Clone)]
pub struct Node {
    /// Device number.
    pub number: Number,
    /// A path that leads to it as long as the [`Nodes`] it came from live.
    pub path: PathBuf,
}

impl Node {
    /// Whether the kernel refuses to lend the block device exclusively: it or a partition of it is
    /// mounted in some mount namespace, built upon, or swapped to (open(2), O_EXCL). An error if the
    /// kernel does not say.
    pub fn is_claimed(&self) -> Result<bool> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::EXCL | OFlags::CLOEXEC;
        let open = || rustix::fs::open(&self.path, flags, Mode::empty());
        match look::again(open) {
            Ok(_) => Ok(false),
            Err(Errno::BUSY) => Ok(true),
            Err(errno) => Err(Error::os("ask for the use of", &self.path, errno)),
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Device {
    /// Opens what the operator named, links followed; none if it does not exist. `image` says whether
    /// a regular file will do; anything else but a block device is refused (no errno).
    pub fn open(path: &Path, image: bool) -> Result<Option<Self>> {
        let fail = |errno| Error::os("open", path, errno);
        // Stat before open: opening a character device or a fifo can have effects.
        let kind = match look::again(|| rustix::fs::stat(path)) {
            Ok(stat) => Kind::from_mode(stat.st_mode),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(fail(errno)),
        };
        if kind != Kind::Block && !(image && kind == Kind::File) {
            return Err(Error::on("use", path, format!("it is {}", kind.noun()))
                .hint("a block device is needed"));
        }
        let file = File::from(open_read_only(path).map_err(fail)?);
        let stat = rustix::fs::fstat(&file).map_err(fail)?;
        let node = match Kind::from_mode(stat.st_mode) {
            Kind::Block => Some(Node {
                number: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
                path: path.to_owned(),
            }),
            Kind::File if image => None,
            kind => return Err(Error::on("use", path, format!("it is {}", kind.noun()))),
        };
        Ok(Some(Self { file, shown: path.to_owned(), node }))
    }

    /// Opens the block device that sysfs lists as `name` with `number`: through its node in /dev if
    /// that is the right one, else through a node made in `nodes`.
    pub fn open_number(nodes: &Nodes, name: &str, number: Number) -> Result<Self> {
        let usual = Path::new("/dev").join(name.replace('!', "/"));
        if let Ok(Some(device)) = Self::open(&usual, false)
            && device.number() == Some(number)
        {
            return Ok(device);
        }
        let node = nodes.make(name, Kind::Block, number)?;
        let fd = open_read_only(&node.path).map_err(|errno| Error::os("open", &usual, errno))?;
        Ok(Self { file: File::from(fd), shown: usual, node: Some(node) })
    }

    /// The open file, for reading.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The name for messages: the path given, or the one it would have in /dev.
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// The block device; none for an image file.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Device number; none for an image file.
    pub fn number(&self) -> Option<Number> {
        self.node.as_ref().map(|node| node.number)
    }

    /// Size in bytes; `None` if it cannot be told.
    pub fn size(&self) -> Option<u64> {
        self.file.as_fd().size().ok()
    }

    /// See [`Node::is_claimed`]; an image file never is.
    pub fn is_claimed(&self) -> Result<bool> {
        self.node.as_ref().map_or(Ok(false), Node::is_claimed)
    }

    /// Whether the kernel refuses writes to the block device (BLKROGET), as far as it tells. Always
    /// so for an image file, which is never opened for writing.
    pub fn read_only(&self) -> bool {
        match self.node {
            Some(_) => ioctl::is_block_read_only(&self.file).unwrap_or(false),
            None => true,
        }
    }
}

fn open_read_only(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    look::again(|| rustix::fs::open(path, flags, Mode::empty()))
}

/// A private directory for device nodes: a tmpfs that is mounted nowhere, is not `nodev`, and goes
/// away with this value. A container's /dev has only the nodes of the moment it was started.
#[derive(Debug)]
pub struct Nodes {
    dir: OnceCell<Dir>,
    root: Dir,
    scratch: PathBuf,
}

impl Nodes {
    /// The directory is made when it is needed. `scratch` beneath `root` is a directory (made if
    /// absent) that can be mounted on for a moment on kernels without fsmount(2) (before 5.2) or where
    /// it is filtered.
    pub fn new(root: &Dir, scratch: &Path) -> Result<Self> {
        Ok(Self { dir: OnceCell::new(), root: root.try_clone()?, scratch: scratch.to_owned() })
    }

    fn dir(&self) -> Result<&Dir> {
        if let Some(dir) = self.dir.get() {
            return Ok(dir);
        }
        let fd = match detached() {
            Err(Errno::NOSYS | Errno::PERM) => {
                let place = Place::prepare(&self.root, &self.scratch)?;
                let place = if place.is_free()? { place } else { place.next_free()? };
                attached_for_a_moment(&place)
            }
            other => other,
        };
        let fd = fd.map_err(|errno| {
            let reason = crate::error::describe(errno);
            Error::plain("make a private directory for device nodes", reason)
                .hint("it needs CAP_SYS_ADMIN")
        })?;
        Ok(self.dir.get_or_init(|| Dir::from_fd(fd, "(private device nodes)")))
    }

    /// A node named `name` for device `number`.
    pub fn make(&self, name: &str, kind: Kind, number: Number) -> Result<Node> {
        let entry = CString::new(name.replace('/', "!"))
            .map_err(|_| Error::on("make node", name, "it has a NUL byte"))?;
        let temp = TempName::new();
        let dir = self.dir()?;
        dir.make_node(temp.as_cstr(), kind, 0o600, number)?;
        dir.rename(temp.as_cstr(), &entry)?;
        let path = Path::new("/proc/self/fd")
            .join(dir.as_fd().as_raw_fd().to_string())
            .join(OsStr::from_bytes(entry.to_bytes()));
        Ok(Node { number, path })
    }
}

fn detached() -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "mode", "0700")?;
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    )
}

fn attached_for_a_moment(place: &Place) -> Result<OwnedFd, Errno> {
    use rustix::mount::{MountFlags, UnmountFlags};
    let path = place.by_descriptor();
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    rustix::mount::mount("none", &path, "tmpfs", flags, c"mode=0700")?;
    place.make_private();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&path, flags, Mode::empty());
    // The open descriptor keeps the file system; nobody else sees it from here on.
    rustix::mount::unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    fd
}
