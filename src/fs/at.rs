//! System calls on one component relative to a descriptor, or on a descriptor itself, that follow no
//! link. Errors are bare numbers, for callers that build their own messages; [`super::Dir`] is the
//! form with messages. None changes owner, mode or attributes by a name: between the look at a name
//! and the change, a user who can write in the directory may link something of root's there.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RawDir, Timestamps, Uid};
use rustix::io::Errno;

use super::{Kind, Stat, mount_id};

/// Result of a bare system call.
pub type Result<T> = std::result::Result<T, Errno>;

/// Most attempts at a call that is interrupted. A signal interrupts a call once; only a file system in
/// user space can say so without end.
pub(super) const ATTEMPTS: usize = 1000;

/// Makes `call` again while a signal interrupts it (EINTR of signal(7)), at most 1,000 times in all.
pub fn again<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..ATTEMPTS {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
    call()
}

const OPEN_FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Attributes of entry `name`.
pub fn stat(dir: impl AsFd, name: &CStr) -> Result<Stat> {
    let found = again(|| rustix::fs::statx(&dir, name, Stat::FLAGS, Stat::MASK))?;
    if Stat::has_mount(&found) { Ok(found.into()) } else { stat_by_handle(dir.as_fd(), name) }
}

/// The same where statx(2) does not return the mount.
#[cold]
fn stat_by_handle(dir: BorrowedFd<'_>, name: &CStr) -> Result<Stat> {
    let stat = stat_fd(open_handle(dir, name)?)?;
    Ok(Stat { mount_root: stat.mount_id != again(|| mount_id(dir))?, ..stat })
}

/// Attributes of an open object (O_PATH will do).
///
/// # Errors
///
/// ENOSYS too, where it cannot be found out what mount it is on.
pub fn stat_fd(fd: impl AsFd) -> Result<Stat> {
    let flags = AtFlags::EMPTY_PATH | Stat::FLAGS;
    let found = again(|| rustix::fs::statx(&fd, c"", flags, Stat::MASK))?;
    match Stat::has_mount(&found) {
        true => Ok(found.into()),
        false => Ok(Stat { mount_id: again(|| mount_id(fd.as_fd()))?, ..found.into() }),
    }
}

/// Opens the directory `name`.
pub fn open_dir(dir: impl AsFd, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open(dir, name, flags)
}

fn open(dir: impl AsFd, name: &CStr, flags: OFlags) -> Result<OwnedFd> {
    again(|| rustix::fs::openat(&dir, name, flags, Mode::empty()))
}

/// Opens `name` for reading without ever blocking in the open; the caller checks the type. The
/// access time is left alone where the kernel allows it (owner or CAP_FOWNER).
pub fn open_read(dir: impl AsFd, name: &CStr) -> Result<OwnedFd> {
    match open(&dir, name, OPEN_FILE | OFlags::NOATIME) {
        Err(Errno::PERM) => open(&dir, name, OPEN_FILE),
        other => other,
    }
}

/// A handle of `name` for metadata only (O_PATH).
pub fn open_handle(dir: impl AsFd, name: &CStr) -> Result<OwnedFd> {
    open(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)
}

/// Opens `name` for reading and writing, and makes a regular file (0600) where nothing is. It never blocks in the
/// open; the caller checks the type.
pub fn open_or_create(dir: impl AsFd, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDWR
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    again(|| rustix::fs::openat(&dir, name, flags, Mode::RUSR | Mode::WUSR))
}

/// Creates the regular file `name`, which must not exist, for writing.
pub fn create(dir: impl AsFd, name: &CStr, mode: u32) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    again(|| rustix::fs::openat(&dir, name, flags, Mode::from_raw_mode(mode)))
}

/// Makes the directory `name`, narrowed by the umask.
pub fn make_dir(dir: impl AsFd, name: &CStr, mode: u32) -> Result<()> {
    again(|| rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(mode)))
}

/// Makes a device node, fifo or socket; `rdev` is (major, minor).
pub fn make_node(
    dir: impl AsFd,
    name: &CStr,
    kind: Kind,
    mode: u32,
    rdev: (u32, u32),
) -> Result<()> {
    let file_type = FileType::from_raw_mode(kind.bits());
    let device = rustix::fs::makedev(rdev.0, rdev.1);
    again(|| rustix::fs::mknodat(&dir, name, file_type, Mode::from_raw_mode(mode), device))
}

/// Makes a symbolic link `name` that holds `target`.
pub fn make_symlink(target: &CStr, dir: impl AsFd, name: &CStr) -> Result<()> {
    again(|| rustix::fs::symlinkat(target, &dir, name))
}

/// Makes `new` in `new_dir` another name of the entry `old` itself.
pub fn link(old_dir: impl AsFd, old: &CStr, new_dir: impl AsFd, new: &CStr) -> Result<()> {
    again(|| rustix::fs::linkat(&old_dir, old, &new_dir, new, AtFlags::empty()))
}

/// Renames `from` to `to` within `dir`, replacing what is there.
pub fn rename(dir: impl AsFd, from: &CStr, to: &CStr) -> Result<()> {
    again(|| rustix::fs::renameat(&dir, from, &dir, to))
}

/// The target of the symbolic link that the handle (O_PATH) stands for.
pub fn read_link_fd(handle: impl AsFd) -> Result<CString> {
    again(|| rustix::fs::readlinkat(&handle, c"", Vec::new()))
}

/// The target of the symbolic link `name`.
pub fn read_link(dir: impl AsFd, name: &CStr) -> Result<CString> {
    again(|| rustix::fs::readlinkat(&dir, name, Vec::new()))
}

/// Removes `name`, which is no directory.
pub fn unlink(dir: impl AsFd, name: &CStr) -> Result<()> {
    again(|| rustix::fs::unlinkat(&dir, name, AtFlags::empty()))
}

/// Removes the empty directory `name`.
pub fn remove_dir(dir: impl AsFd, name: &CStr) -> Result<()> {
    again(|| rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR))
}

/// Changes owner and group of an open object of any type (O_PATH will do).
pub fn chown_fd(fd: impl AsFd, uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = owner(uid, gid);
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    again(|| rustix::fs::chownat(&fd, c"", uid, gid, flags))
}

/// Changes the permission bits of an object held by an O_PATH handle, which fchmod(2) refuses; the
/// way through /proc jumps to the object itself. Symbolic links have no mode on Linux (EOPNOTSUPP).
pub fn chmod_handle(handle: impl AsFd, mode: u32) -> Result<()> {
    let path = format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd());
    again(|| rustix::fs::chmod(path.as_str(), Mode::from_raw_mode(mode)))
}

/// Sets the times of an open object of any type (O_PATH will do).
pub fn set_times_fd(fd: impl AsFd, times: &Timestamps) -> Result<()> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    again(|| rustix::fs::utimensat(&fd, c"", times, flags))
}

/// The form chown(2) takes.
pub(super) fn owner(uid: u32, gid: u32) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

/// Calls `each` with name, recorded type (`None` if the file system records none) and recorded
/// inode number of every entry but "." and ".."; `buffer` is what one getdents64(2) may fill.
/// Entries seen before an error have been handed over.
pub fn list(
    dir: impl AsFd,
    buffer: &mut [MaybeUninit<u8>],
    mut each: impl FnMut(&CStr, Option<Kind>, u64),
) -> Result<()> {
    list_until(dir, buffer, |name, kind, ino| {
        each(name, kind, ino);
        ControlFlow::Continue(())
    })
}

/// The same until `each` breaks off.
pub fn list_until(
    dir: impl AsFd,
    buffer: &mut [MaybeUninit<u8>],
    mut each: impl FnMut(&CStr, Option<Kind>, u64) -> ControlFlow<()>,
) -> Result<()> {
    set_position(&dir, 0)?;
    while list_portion(&dir, buffer, &mut each)?.is_continue() {}
    Ok(())
}

/// The same for the result of one getdents64(2) at the descriptor's position; breaks off at the end too.
pub fn list_portion(
    dir: impl AsFd,
    buffer: &mut [MaybeUninit<u8>],
    mut each: impl FnMut(&CStr, Option<Kind>, u64) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let mut raw = RawDir::new(&dir, buffer);
    let mut interrupted = 0;
    while let Some(entry) = raw.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Errno::INTR) if interrupted < ATTEMPTS => {
                interrupted += 1;
                continue;
            }
            Err(errno) => return Err(errno),
        };
        let name = entry.file_name();
        if name != c"."
            && name != c".."
            && each(name, kind(entry.file_type()), entry.ino()).is_break()
        {
            return Ok(ControlFlow::Break(()));
        }
        if raw.is_buffer_empty() {
            return Ok(ControlFlow::Continue(()));
        }
    }
    Ok(ControlFlow::Break(()))
}

/// Where in a directory its descriptor stands.
pub fn position(dir: impl AsFd) -> Result<u64> {
    again(|| rustix::fs::seek(&dir, rustix::fs::SeekFrom::Current(0)))
}

/// Sets its position to one that [`position`] has returned, of this descriptor or of another of the same directory.
pub fn set_position(dir: impl AsFd, position: u64) -> Result<()> {
    again(|| rustix::fs::seek(&dir, rustix::fs::SeekFrom::Start(position))).map(drop)
}

pub(super) fn kind(file_type: FileType) -> Option<Kind> {
    Some(match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        FileType::BlockDevice => Kind::Block,
        FileType::CharacterDevice => Kind::Char,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::Unknown => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_call_is_made_again_but_not_for_ever() {
        let mut calls = 0;
        let mut call = |interrupted: usize| {
            calls += 1;
            if calls > interrupted { Ok(calls) } else { Err(Errno::INTR) }
        };
        assert_eq!(again(|| call(3)), Ok(4));
        calls = 0;
        let mut call = || -> Result<()> {
            calls += 1;
            Err(Errno::INTR)
        };
        assert_eq!(again(&mut call), Err(Errno::INTR));
        assert_eq!(calls, ATTEMPTS);
    }
}
