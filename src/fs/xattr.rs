//! Extended attributes (xattr(7)) of objects held by descriptor or named in a held directory.
//!
//! Objects that cannot be opened without side effects (links, fifos, sockets, devices) are reached
//! through `/proc/self/fd/N/NAME`: the kernel jumps to the held directory and the last component is
//! not followed. Without a mounted /proc those calls fail with ENOENT.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, XattrFlags};
use rustix::io::Errno;

use super::at::again;

/// Largest list of names and largest value the kernel hands out (XATTR_LIST_MAX, XATTR_SIZE_MAX).
const LIMIT: usize = 64 * 1024;

/// POSIX access control list (acl(5)).
pub const ACCESS_ACL: &CStr = c"system.posix_acl_access";
/// The list that entries of a directory inherit.
pub const DEFAULT_ACL: &CStr = c"system.posix_acl_default";
/// File capabilities (capabilities(7)).
pub const CAPABILITY: &CStr = c"security.capability";

/// Room for the largest value; no memory until the first is read.
#[derive(Debug, Default)]
pub struct XattrBuffer(Vec<u8>);

/// The object of an attribute.
#[derive(Debug, Clone)]
pub enum XattrTarget<'a> {
    /// An open file or directory.
    Fd(BorrowedFd<'a>),
    /// `/proc/self/fd/N/NAME`; see [`XattrTarget::entry`].
    Path(CString),
    /// An entry of the calling thread's working directory; see [`XattrReach`].
    Here(&'a CStr),
    /// `/proc/self/fd/N`; see [`XattrTarget::handle`].
    Handle(CString),
}

impl<'a> XattrTarget<'a> {
    /// The open object itself.
    pub fn fd(fd: &'a impl AsFd) -> Self {
        Self::Fd(fd.as_fd())
    }

    /// The entry `name` of `dir`, not what it points to.
    pub fn entry(dir: impl AsFd, name: &CStr) -> Self {
        let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
        path.extend_from_slice(name.to_bytes());
        // A CStr has no inner NUL, so the default is never taken.
        Self::Path(CString::new(path).unwrap_or_default())
    }

    /// The object an O_PATH descriptor stands for; the kernel jumps to it and follows no further.
    pub fn handle(fd: impl AsFd) -> Self {
        let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
        Self::Handle(CString::new(path).unwrap_or_default())
    }

    /// Names of all attributes; empty on file systems without them.
    pub fn list(&self) -> Result<Vec<CString>, Errno> {
        let call = |buffer: &mut [u8]| {
            again(|| match self {
                Self::Fd(fd) => rustix::fs::flistxattr(fd, &mut *buffer),
                Self::Path(path) => rustix::fs::llistxattr(path.as_c_str(), &mut *buffer),
                Self::Here(entry) => rustix::fs::llistxattr(*entry, &mut *buffer),
                Self::Handle(path) => rustix::fs::listxattr(path.as_c_str(), &mut *buffer),
            })
        };
        let mut small = [0_u8; 256];
        match call(&mut small) {
            Ok(length) => Ok(split(&small[..length])),
            Err(Errno::RANGE) => {
                let mut large = vec![0; LIMIT];
                let length = call(&mut large)?;
                Ok(split(&large[..length]))
            }
            Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
            Err(errno) => Err(errno),
        }
    }

    /// Whether it has attribute `name`.
    pub fn has(&self, name: &CStr) -> Result<bool, Errno> {
        match self.call_get(name, &mut []) {
            Ok(_) | Err(Errno::RANGE) => Ok(true),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Value of attribute `name`, or `None` if it has none.
    pub fn get(&self, name: &CStr) -> Result<Option<Vec<u8>>, Errno> {
        let mut small = [0_u8; 256];
        match self.call_get(name, &mut small) {
            Ok(length) => Ok(Some(small[..length].to_vec())),
            Err(Errno::RANGE) => {
                let mut large = XattrBuffer::default();
                Ok(self.get_into(name, &mut large)?.map(<[u8]>::to_vec))
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// The same into a buffer that is used again.
    pub fn get_into<'b>(
        &self,
        name: &CStr,
        buffer: &'b mut XattrBuffer,
    ) -> Result<Option<&'b [u8]>, Errno> {
        buffer.0.resize(LIMIT, 0);
        match self.call_get(name, &mut buffer.0) {
            Ok(length) => Ok(Some(&buffer.0[..length])),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn call_get(&self, name: &CStr, buffer: &mut [u8]) -> Result<usize, Errno> {
        again(|| match self {
            Self::Fd(fd) => rustix::fs::fgetxattr(fd, name, &mut *buffer),
            Self::Path(path) => rustix::fs::lgetxattr(path.as_c_str(), name, &mut *buffer),
            Self::Here(entry) => rustix::fs::lgetxattr(*entry, name, &mut *buffer),
            Self::Handle(path) => rustix::fs::getxattr(path.as_c_str(), name, &mut *buffer),
        })
    }

    /// A handle (O_PATH) of the object itself, which stands for it wherever it is moved.
    pub fn open_handle(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let entry = |name: &CStr| {
            again(|| rustix::fs::open(name, flags | OFlags::NOFOLLOW, rustix::fs::Mode::empty()))
        };
        match self {
            Self::Fd(fd) => rustix::io::fcntl_dupfd_cloexec(fd, 3),
            Self::Path(path) => entry(path),
            Self::Here(name) => entry(name),
            Self::Handle(path) => {
                again(|| rustix::fs::open(path.as_c_str(), flags, rustix::fs::Mode::empty()))
            }
        }
    }

    /// Sets attribute `name`, replacing an old value.
    pub fn set(&self, name: &CStr, value: &[u8]) -> Result<(), Errno> {
        again(|| match self {
            Self::Fd(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Here(entry) => rustix::fs::lsetxattr(*entry, name, value, XattrFlags::empty()),
            Self::Path(path) => {
                rustix::fs::lsetxattr(path.as_c_str(), name, value, XattrFlags::empty())
            }
            Self::Handle(path) => {
                rustix::fs::setxattr(path.as_c_str(), name, value, XattrFlags::empty())
            }
        })
    }

    /// Removes attribute `name`; one that is not there is no error.
    pub fn remove(&self, name: &CStr) -> Result<(), Errno> {
        let result = again(|| match self {
            Self::Fd(fd) => rustix::fs::fremovexattr(fd, name),
            Self::Path(path) => rustix::fs::lremovexattr(path.as_c_str(), name),
            Self::Here(entry) => rustix::fs::lremovexattr(*entry, name),
            Self::Handle(path) => rustix::fs::removexattr(path.as_c_str(), name),
        });
        match result {
            Err(Errno::NODATA) => Ok(()),
            other => other,
        }
    }
}

/// Unshares the working directory of the calling thread, so that it is not shared with the rest of the process
/// (unshare(2), CLONE_FS). False where the kernel or a container's system call filter refuses.
fn own_working_directory() -> bool {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).is_ok()
}

/// How a thread names entries of a held directory to the xattr calls, which know no directory
/// descriptor before Linux 6.13. With a working directory of its own it turns there first and uses
/// the bare name: a third of what the way through /proc costs.
#[derive(Debug)]
pub struct XattrReach {
    own_directory: bool,
    /// Otherwise: `/proc/self/fd/N/`.
    through: Vec<u8>,
}

impl XattrReach {
    /// For a thread that needs its working directory for nothing else: it stops sharing it with the rest of
    /// the process, where the kernel (or a container's system call filter) lets it.
    pub fn of_this_thread() -> Self {
        Self { own_directory: own_working_directory(), through: Vec::new() }
    }

    /// For a thread that keeps its working directory.
    pub fn through_proc() -> Self {
        Self { own_directory: false, through: Vec::new() }
    }

    /// Turns to the entries of `dir`.
    pub fn enter(&mut self, dir: impl AsFd) {
        self.own_directory = self.own_directory && rustix::process::fchdir(&dir).is_ok();
        if !self.own_directory {
            self.through.clear();
            let path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd());
            self.through.extend_from_slice(path.as_bytes());
        }
    }

    /// The entry `name` of the directory that was entered last, not what it points to. To be used before the
    /// next is entered.
    pub fn entry<'a>(&self, name: &'a CStr) -> XattrTarget<'a> {
        if self.own_directory {
            return XattrTarget::Here(name);
        }
        let path = [&self.through, name.to_bytes()].concat();
        // A CStr has no inner NUL, so the default is never taken.
        XattrTarget::Path(CString::new(path).unwrap_or_default())
    }
}

fn split(list: &[u8]) -> Vec<CString> {
    list.split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| CString::new(name).ok())
        .collect()
}
