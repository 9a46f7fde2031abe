//! Owner, mode, ACLs, other xattrs and times: reading, comparing, applying.
//!
//! Order of applying: owner (which drops set-id bits and file capabilities), mode, ACLs, other
//! xattrs, times. Nothing is ever wider on the way than at the end.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, Timestamps, Uid};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::fault::AttributeFaults;
use super::itemize::Differences;
use super::times::same_time;
use super::xattrs::Xattrs;
use crate::fs::xattr::XattrTarget;
use crate::fs::{Kind, Stat, at};

/// Where the metadata of one object is changed.
#[derive(Debug, Clone, Copy)]
pub(super) enum MetadataObject<'a> {
    /// An open file or directory.
    Open(BorrowedFd<'a>),
    /// An O_PATH handle.
    Handle(BorrowedFd<'a>),
    /// A symbolic link in a directory that this run has made (0700, root's, until it is complete): by
    /// its name, which nobody else can give to another object there. It saves opening a handle.
    Entry(BorrowedFd<'a>, &'a CStr),
}

impl MetadataObject<'_> {
    pub fn xattrs(&self) -> XattrTarget<'_> {
        match self {
            Self::Open(fd) => XattrTarget::Fd(*fd),
            Self::Handle(fd) => XattrTarget::handle(fd),
            Self::Entry(dir, name) => XattrTarget::entry(dir, name),
        }
    }

    fn chown(&self, stat: &Stat) -> Result<(), Errno> {
        match self {
            Self::Open(fd) | Self::Handle(fd) => at::chown_fd(fd, stat.uid, stat.gid),
            Self::Entry(dir, name) => {
                let (uid, gid) = (Uid::from_raw(stat.uid), Gid::from_raw(stat.gid));
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                at::again(|| rustix::fs::chownat(dir, *name, Some(uid), Some(gid), flags))
            }
        }
    }

    fn chmod(&self, mode: u32) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => at::again(|| rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))),
            Self::Handle(fd) => at::chmod_handle(fd, mode),
            // Symbolic links have no mode.
            Self::Entry(..) => Ok(()),
        }
    }

    fn set_times(&self, times: &Timestamps) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => at::again(|| rustix::fs::futimens(fd, times)),
            Self::Handle(fd) => at::set_times_fd(fd, times),
            Self::Entry(dir, name) => {
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                at::again(|| rustix::fs::utimensat(dir, *name, times, flags))
            }
        }
    }

    /// Sets all metadata of the source object on a new object. `made`: what it has already, where that
    /// is known and nobody else can have a hand in it. `inherited`: the directory it was made in may
    /// have a default ACL, which somebody else can give it at any time. Returns the steps that failed; the
    /// others were still taken.
    pub fn apply_new(
        &self,
        stat: &Stat,
        xattrs: &Xattrs,
        made: Option<&Stat>,
        inherited: bool,
    ) -> AttributeFaults {
        let mut faults = AttributeFaults::default();
        if inherited {
            match Xattrs::read(&self.xattrs()) {
                Ok(found) => faults
                    .append(self.change_xattrs(|| xattrs.remove_surplus(&self.xattrs(), &found))),
                Err(errno) => faults.add("list xattrs of", errno),
            }
        }
        let owned = made.is_some_and(|made| (made.uid, made.gid) == (stat.uid, stat.gid))
            || faults.check("change owner of", self.chown(stat));
        let mode = safe_mode(mode_before_acl(stat, xattrs), owned);
        // A change of owner drops set-id bits; no new object has any.
        if stat.kind != Kind::Symlink && made.is_none_or(|made| made.mode != mode) {
            faults.check("change mode of", self.chmod(mode));
        }
        faults.append(self.change_xattrs(|| xattrs.set(&self.xattrs(), None, owned)));
        faults.check("set times of", self.set_mtime(stat));
        faults
    }

    /// Changes what differs and nothing else; returns what failed, as [`MetadataObject::apply_new`] does.
    pub fn apply_differences(
        &self,
        differences: &Differences,
        stat: &Stat,
        xattrs: &Xattrs,
        found: &Xattrs,
    ) -> AttributeFaults {
        let mut faults = self.change_xattrs(|| xattrs.remove_surplus(&self.xattrs(), found));
        let owner = differences.owner || differences.group;
        let owned = !owner || faults.check("change owner of", self.chown(stat));
        let acl_changes = xattrs.access != found.access;
        if (owner || differences.mode || acl_changes) && stat.kind != Kind::Symlink {
            let mode = if acl_changes { mode_before_acl(stat, xattrs) } else { stat.mode };
            faults.check("change mode of", self.chmod(safe_mode(mode, owned)));
        }
        let there = Some((found, owner));
        faults.append(self.change_xattrs(|| xattrs.set(&self.xattrs(), there, owned)));
        if differences.time {
            faults.check("set times of", self.set_mtime(stat));
        }
        faults
    }

    /// Does `change`. The user name space goes by the permission to write (xattr(7)), which an owner
    /// who is refused grants himself for that long.
    fn change_xattrs(&self, change: impl Fn() -> AttributeFaults) -> AttributeFaults {
        let faults = change();
        if !faults.has_refusal() {
            return faults;
        }
        let mode = match self {
            Self::Open(fd) | Self::Handle(fd) => at::stat_fd(fd).ok().map(|stat| stat.mode),
            Self::Entry(..) => None,
        };
        let read_only = mode.filter(|mode| mode & 0o200 == 0);
        let allowed = read_only.filter(|mode| self.chmod(mode | 0o200).is_ok());
        let mut faults = change();
        if let Some(mode) = allowed {
            faults.check("change mode of", self.chmod(mode));
        }
        faults
    }

    /// Sets the modification time. The access time is not mirrored; it becomes the present one and is
    /// not left out (UTIME_OMIT), for there are file systems that then set neither.
    pub fn set_mtime(&self, stat: &Stat) -> Result<(), Errno> {
        let mut times = stat.times();
        times.last_access = clock_gettime(ClockId::RealtimeCoarse);
        self.set_times(&times)
    }
}

/// The set-id bits of a regular file that give its owner's or group's rights to any user who runs it. Without
/// execution by the group, set-group-ID is none of them (inode(7)).
fn set_id_bits(stat: &Stat) -> u32 {
    let group = if stat.mode & 0o010 == 0 { 0 } else { 0o2000 };
    if stat.kind == Kind::File { stat.mode & (0o4000 | group) } else { 0 }
}

/// The same without them.
pub(super) fn without_set_id(stat: Stat) -> Stat {
    Stat { mode: stat.mode & !set_id_bits(&stat), ..stat }
}

/// Whether it is a program that runs with more rights than those of who runs it.
pub(super) fn is_privileged(stat: &Stat, xattrs: &Xattrs) -> bool {
    set_id_bits(stat) != 0 || stat.kind == Kind::File && xattrs.capability().is_some()
}

/// Set-id bits are for the owner they were made for: without it (`owned` false) they are dropped.
fn safe_mode(mode: u32, owned: bool) -> u32 {
    if owned { mode } else { mode & 0o1777 }
}

/// With an access ACL the group bits of the mode are its mask; they come with the ACL, for until
/// then they would be the permissions of the owning group.
fn mode_before_acl(stat: &Stat, xattrs: &Xattrs) -> u32 {
    if xattrs.access.is_some() { stat.mode & !0o070 } else { stat.mode }
}

/// Compares metadata of two objects of the same kind; `fd` is on the destination's file system.
pub(super) fn compare(
    src: &Stat,
    dst: &Stat,
    wanted: &Xattrs,
    found: &Xattrs,
    fd: impl AsFd,
) -> Differences {
    Differences {
        content: false,
        size: false,
        time: !same_time(src, dst, &fd),
        mode: src.kind != Kind::Symlink && src.mode != dst.mode,
        owner: src.uid != dst.uid,
        group: src.gid != dst.gid,
        acl: !wanted.same_acls(found),
        xattr: !wanted.same_others(found, fd),
    }
}

/// Whether mending would give a regular file set-id bits or file capabilities that count for more
/// than what it has now.
pub(super) fn raises(
    stat: &Stat,
    differences: &Differences,
    wanted: &Xattrs,
    found: &Xattrs,
) -> bool {
    let set_id = stat.mode & 0o6000 != 0;
    let owner = differences.owner || differences.group;
    let capability = wanted.capability();
    stat.kind == Kind::File
        && (set_id && (owner || differences.mode)
            || capability.is_some() && (owner || capability != found.capability()))
}
