//! One mount: fsopen(2), fsconfig(2), fsmount(2), and mount(2) where those are missing or filtered.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ffi::CString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags};

use crate::error::Result;
use crate::fs::Dir;
use crate::volume::place::{self, MountPlace};

/// A mount option of a file system driver.
#[derive(Debug, Clone)]
pub struct MountOption {
    name: &'static str,
    value: Option<Cow<'static, str>>,
}

impl MountOption {
    /// An option without value.
    pub const fn flag(name: &'static str) -> Self {
        Self { name, value: None }
    }

    /// An option with a value that is always the same.
    pub const fn constant(name: &'static str, value: &'static str) -> Self {
        Self { name, value: Some(Cow::Borrowed(value)) }
    }

    /// An option with a value.
    pub fn value(name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        Self { name, value: Some(value.into()) }
    }
}

impl fmt::Display for MountOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            None => f.write_str(self.name),
            Some(value) => write!(f, "{}={value}", self.name),
        }
    }
}

/// An option that takes a choice from the volume, or from a default of the driver.
#[derive(Debug)]
pub struct MountGuard {
    /// The option.
    pub option: MountOption,
    /// Whether the mount is not to be made without it; if not, a driver that refuses it mounts
    /// without.
    pub needed: bool,
}

/// All options of one mount.
pub struct MountOptions<'a> {
    /// The option.
    pub wanted: &'a [MountOption],
    /// See [`MountGuard`].
    pub guards: &'a [MountGuard],
}

impl MountOptions<'_> {
    /// The options, each with whether the mount needs it; `all` includes those that it does not need.
    fn list(&self, all: bool) -> impl Iterator<Item = (&MountOption, bool)> {
        let guards = self.guards.iter().map(|guard| (&guard.option, guard.needed));
        let wanted = self.wanted.iter().map(|option| (option, true));
        guards.chain(wanted).filter(move |(_, needed)| all || *needed)
    }

    fn has_dispensable(&self) -> bool {
        self.guards.iter().any(|guard| !guard.needed)
    }
}

/// A mount and how it is held.
#[derive(Debug)]
pub enum OneMount {
    /// In no mount namespace; it ends with the descriptor unless it is moved to a directory.
    Detached(OwnedFd),
    /// On a directory.
    Attached(MountPlace),
}

impl OneMount {
    /// The root directory of the mounted file system; `shown` is its path in messages.
    pub fn open_root(&self, shown: &Path) -> Result<Dir> {
        match self {
            Self::Detached(fd) => place::open_root(fd, shown),
            Self::Attached(place) => place.open(),
        }
    }

    /// Ends the mount, also while directories in it are open: these stay usable.
    pub fn end(self) {
        // A detached mount ends with its descriptor.
        if let Self::Attached(place) = self {
            place.detach();
        }
    }
}

/// Mounts block device `source` read-only, `nosuid,nodev,noexec`. Falls back to mount(2) on
/// `fallback`, or next to it where that is a mount point, when the kernel knows no fsopen(2) (before
/// 5.2) or a filter refuses it.
pub fn mount(
    fstype: &str,
    source: &Path,
    options: &MountOptions<'_>,
    fallback: Option<&MountPlace>,
) -> Result<OneMount, Errno> {
    let try_with = |all| match (detached(fstype, source, options, all), fallback) {
        (Err(Errno::NOSYS | Errno::PERM), Some(place)) => {
            attached(fstype, source, options, all, place).map(OneMount::Attached)
        }
        (other, _) => other.map(OneMount::Detached),
    };
    match try_with(true) {
        // mount(2) and drivers of the old kind refuse all options at once.
        Err(Errno::INVAL) if options.has_dispensable() => try_with(false),
        other => other,
    }
}

fn detached(
    fstype: &str,
    source: &Path,
    options: &MountOptions<'_>,
    all: bool,
) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "source", source)?;
    rustix::mount::fsconfig_set_flag(&context, "ro")?;
    for (option, needed) in options.list(all) {
        let set = match &option.value {
            None => rustix::mount::fsconfig_set_flag(&context, option.name),
            Some(value) => {
                rustix::mount::fsconfig_set_string(&context, option.name, value.as_ref())
            }
        };
        match set {
            Err(Errno::INVAL) if !needed => {}
            other => other?,
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn attached(
    fstype: &str,
    source: &Path,
    options: &MountOptions<'_>,
    all: bool,
    place: &MountPlace,
) -> Result<MountPlace, Errno> {
    let errno = |error: crate::Error| error.errno().unwrap_or(Errno::IO);
    let place = match place.is_free().map_err(errno)? {
        true => place.try_clone().map_err(errno)?,
        false => place.next_free().map_err(errno)?,
    };
    let words: Vec<String> = options.list(all).map(|(option, _)| option.to_string()).collect();
    let data = CString::new(words.join(",")).map_err(|_| Errno::INVAL)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount(source, place.by_descriptor(), fstype, flags, data.as_c_str())?;
    place.make_private();
    Ok(place)
}
