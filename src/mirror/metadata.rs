//! Owner, mode, ACLs, other xattrs and times: reading, comparing, applying.
//!
//! Order of applying: owner (which drops set-id bits and file capabilities), mode, ACLs, other
//! xattrs, times. Nothing is ever wider on the way than at the end.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Mode, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::itemize::Differences;
use crate::fs::xattr::Target;
use crate::fs::{Kind, Stat, at};

const ACCESS: &CStr = c"system.posix_acl_access";
const DEFAULT: &CStr = c"system.posix_acl_default";
const CAPABILITY: &CStr = c"security.capability";

/// A failed step: what was attempted and the kernel's reason.
pub(super) type Step = (&'static str, Errno);

/// The xattrs that are mirrored: POSIX ACLs and the user, trusted and security name spaces. Other
/// `system.*` names are views of the file system itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Xattrs {
    access: Option<Vec<u8>>,
    default: Option<Vec<u8>>,
    /// Sorted by name.
    others: Vec<(CString, Vec<u8>)>,
}

impl Xattrs {
    pub fn read(target: &Target<'_>) -> Result<Self, Errno> {
        let mut xattrs = Self::default();
        for name in target.list()? {
            let place = match name.as_c_str() {
                name if name == ACCESS => &mut xattrs.access,
                name if name == DEFAULT => &mut xattrs.default,
                name if is_mirrored(name) => {
                    if let Some(value) = target.get(name)? {
                        xattrs.others.push((name.to_owned(), value));
                    }
                    continue;
                }
                _ => continue,
            };
            *place = target.get(&name)?;
        }
        xattrs.others.sort();
        Ok(xattrs)
    }

    pub fn has_default_acl(&self) -> bool {
        self.default.is_some()
    }

    fn same_acls(&self, other: &Self) -> bool {
        self.access == other.access && self.default == other.default
    }
}

fn is_mirrored(name: &CStr) -> bool {
    let name = name.to_bytes();
    [&b"user."[..], b"trusted.", b"security."].iter().any(|space| name.starts_with(space))
}

/// Where the metadata of one object is changed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Object<'a> {
    /// An open file or directory.
    Open(BorrowedFd<'a>),
    /// An O_PATH handle.
    Handle(BorrowedFd<'a>),
    /// A symbolic link in a directory that nobody else can reach.
    Entry(BorrowedFd<'a>, &'a CStr),
}

impl Object<'_> {
    pub fn xattrs(&self) -> Target<'_> {
        match self {
            Self::Open(fd) => Target::Fd(*fd),
            Self::Handle(fd) => Target::handle(fd),
            Self::Entry(dir, name) => Target::entry(dir, name),
        }
    }

    fn chown(&self, stat: &Stat) -> Result<(), Errno> {
        match self {
            Self::Open(fd) | Self::Handle(fd) => at::chown_fd(fd, stat.uid, stat.gid),
            Self::Entry(dir, name) => at::chown(dir, name, stat.uid, stat.gid),
        }
    }

    fn chmod(&self, mode: u32) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => rustix::fs::fchmod(fd, Mode::from_raw_mode(mode)),
            Self::Handle(fd) => at::chmod_handle(fd, mode),
            // Symbolic links have no mode.
            Self::Entry(..) => Ok(()),
        }
    }

    fn set_times(&self, times: &Timestamps) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => rustix::fs::futimens(fd, times),
            Self::Handle(fd) => at::set_times_fd(fd, times),
            Self::Entry(dir, name) => {
                rustix::fs::utimensat(dir, *name, times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            }
        }
    }

    /// Gives a new object all metadata of the source object. `inherited`: the directory it was made
    /// in has a default ACL.
    pub fn apply_new(&self, stat: &Stat, xattrs: &Xattrs, inherited: bool) -> Result<(), Step> {
        if inherited {
            let found = Xattrs::read(&self.xattrs()).map_err(|errno| ("list xattrs of", errno))?;
            self.remove_surplus(xattrs, &found)?;
        }
        self.chown(stat).map_err(|errno| ("change owner of", errno))?;
        if stat.kind != Kind::Symlink {
            self.chmod(mode_before_acl(stat, xattrs)).map_err(|e| ("change mode of", e))?;
        }
        self.set_xattrs(xattrs, None)?;
        self.set_mtime(stat)
    }

    /// Changes what differs and nothing else.
    pub fn apply_differences(
        &self,
        differences: &Differences,
        stat: &Stat,
        xattrs: &Xattrs,
        found: &Xattrs,
    ) -> Result<(), Step> {
        self.remove_surplus(xattrs, found)?;
        let owner = differences.owner || differences.group;
        if owner {
            self.chown(stat).map_err(|errno| ("change owner of", errno))?;
        }
        let acl_changes = xattrs.access != found.access;
        if (owner || differences.mode || acl_changes) && stat.kind != Kind::Symlink {
            let mode = if acl_changes { mode_before_acl(stat, xattrs) } else { stat.mode };
            self.chmod(mode).map_err(|errno| ("change mode of", errno))?;
        }
        self.set_xattrs(xattrs, Some((found, owner)))?;
        if differences.time { self.set_mtime(stat) } else { Ok(()) }
    }

    fn remove_surplus(&self, wanted: &Xattrs, found: &Xattrs) -> Result<(), Step> {
        let target = self.xattrs();
        let remove = |name: &CStr| target.remove(name).map_err(|errno| ("remove xattr of", errno));
        if wanted.access.is_none() && found.access.is_some() {
            remove(ACCESS)?;
        }
        if wanted.default.is_none() && found.default.is_some() {
            remove(DEFAULT)?;
        }
        for (name, _) in &found.others {
            if !wanted.others.iter().any(|(wanted, _)| wanted == name) {
                remove(name)?;
            }
        }
        Ok(())
    }

    /// `found`: what is there already and need not be set, and whether a change of owner has just
    /// dropped the file capabilities.
    fn set_xattrs(&self, wanted: &Xattrs, found: Option<(&Xattrs, bool)>) -> Result<(), Step> {
        let target = self.xattrs();
        if let Some(acl) = &wanted.access
            && found.is_none_or(|(found, _)| found.access != wanted.access)
        {
            target.set(ACCESS, acl).map_err(|errno| ("set ACL of", errno))?;
        }
        if let Some(acl) = &wanted.default
            && found.is_none_or(|(found, _)| found.default != wanted.default)
        {
            target.set(DEFAULT, acl).map_err(|errno| ("set default ACL of", errno))?;
        }
        for entry in &wanted.others {
            let there = found.is_some_and(|(found, owner_changed)| {
                found.others.contains(entry) && !(owner_changed && entry.0.as_c_str() == CAPABILITY)
            });
            if !there {
                target.set(&entry.0, &entry.1).map_err(|errno| ("set xattr of", errno))?;
            }
        }
        Ok(())
    }

    /// Sets the modification time; the access time is not mirrored.
    pub fn set_mtime(&self, stat: &Stat) -> Result<(), Step> {
        let mut times = stat.times();
        times.last_access.tv_nsec = UTIME_OMIT;
        self.set_times(&times).map_err(|errno| ("set times of", errno))
    }
}

/// With an access ACL the group bits of the mode are its mask; they come with the ACL, for until
/// then they would be the permissions of the owning group.
fn mode_before_acl(stat: &Stat, xattrs: &Xattrs) -> u32 {
    if xattrs.access.is_some() { stat.mode & !0o070 } else { stat.mode }
}

/// Compares metadata of two objects of the same kind.
pub(super) fn compare(src: &Stat, dst: &Stat, wanted: &Xattrs, found: &Xattrs) -> Differences {
    Differences {
        content: false,
        size: false,
        time: src.mtime != dst.mtime,
        mode: src.kind != Kind::Symlink && src.mode != dst.mode,
        owner: src.uid != dst.uid,
        group: src.gid != dst.gid,
        acl: !wanted.same_acls(found),
        xattr: wanted.others != found.others,
    }
}

/// The xattrs of entry `name`, or of what `fd` holds open where there is one.
pub(super) fn entry_xattrs(
    dir: impl AsFd,
    name: &CStr,
    fd: Option<BorrowedFd<'_>>,
) -> Result<Xattrs, Errno> {
    match fd {
        Some(fd) => Xattrs::read(&Target::Fd(fd)),
        None => Xattrs::read(&Target::entry(dir, name)),
    }
}
