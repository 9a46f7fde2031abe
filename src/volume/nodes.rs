//! Device nodes, also where /dev has none.
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::look;
use super::number::DeviceNumber;
use super::place::MountPlace;
use crate::error::{Error, Result};
use crate::fs::{Dir, Kind, TempName};

/// A block device's number and a path under which the kernel finds it.
#[derive(Debug, Clone)]
pub struct DeviceNode {
    /// Device number.
    pub number: DeviceNumber,
    /// A path that leads to it as long as the [`DeviceNodes`] it came from live.
    pub path: PathBuf,
}

impl DeviceNode {
    /// Opens it; `mode` is O_RDONLY or O_RDWR, and what else is wanted.
    pub fn open(&self, mode: OFlags) -> Result<OwnedFd, Errno> {
        open_node(&self.path, mode)
    }

    /// Whether the kernel refuses to lend the block device exclusively: it or a partition of it is
    /// mounted in some mount namespace, built upon, or swapped to (open(2), O_EXCL). An error if the
    /// kernel does not say.
    pub fn is_claimed(&self) -> Result<bool> {
        match self.open(OFlags::RDONLY | OFlags::EXCL) {
            Ok(_) => Ok(false),
            Err(Errno::BUSY) => Ok(true),
            Err(errno) => Err(Error::os("ask for the use of", &self.path, errno)),
        }
    }
}

/// Opens the device node, or image file, at `path`: without waiting for a medium, and again where what keeps it
/// from being opened may pass.
pub(super) fn open_node(path: &Path, mode: OFlags) -> Result<OwnedFd, Errno> {
    let flags = mode | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    look::again(|| rustix::fs::open(path, flags, Mode::empty()))
}

/// A private directory for device nodes: a tmpfs that is mounted nowhere, is not `nodev`, and goes
/// away with this value. A container's /dev has only the nodes of the moment it was started.
#[derive(Debug)]
pub struct DeviceNodes {
    dir: OnceCell<Dir>,
    root: Dir,
    scratch: PathBuf,
}

impl DeviceNodes {
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
                let place = MountPlace::prepare(&self.root, &self.scratch)?;
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
    pub fn make(&self, name: &str, kind: Kind, number: DeviceNumber) -> Result<DeviceNode> {
        let entry = CString::new(name.replace('/', "!"))
            .map_err(|_| Error::on("make node", name, "it has a NUL byte"))?;
        let temp = TempName::new();
        let dir = self.dir()?;
        dir.make_node(temp.as_cstr(), kind, 0o600, number)?;
        dir.rename(temp.as_cstr(), &entry)?;
        let path = Path::new("/proc/self/fd")
            .join(dir.as_fd().as_raw_fd().to_string())
            .join(OsStr::from_bytes(entry.to_bytes()));
        Ok(DeviceNode { number, path })
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

fn attached_for_a_moment(place: &MountPlace) -> Result<OwnedFd, Errno> {
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
