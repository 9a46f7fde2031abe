//! [`Dir`]: a directory held by descriptor, and the verbs on its entries.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString, OsStr};
use std::hash::{BuildHasher as _, RandomState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::at::{self, owner};
use super::{Kind, Stat};
use crate::error::{Error, Result, os_errno};

/// A directory held by descriptor. The path is for messages only.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    /// Opens a directory that the operator named; links in this path are the operator's own and are
    /// followed.
    pub fn open_operator_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = at::again(|| rustix::fs::open(path, flags, Mode::empty()))
            .map_err(|errno| Error::os("open", path, errno))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Takes over an open directory descriptor, for instance of a detached mount.
    pub fn from_fd(fd: OwnedFd, path: impl Into<PathBuf>) -> Self {
        Self { fd, path: path.into() }
    }

    /// The same directory under another path in messages.
    #[must_use]
    pub fn shown_as(self, path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ..self }
    }

    /// A second descriptor of the same directory.
    pub fn try_clone(&self) -> Result<Self> {
        let fd = rustix::io::fcntl_dupfd_cloexec(&self.fd, 3)
            .map_err(|errno| self.error("duplicate the descriptor of", errno))?;
        Ok(Self { fd, path: self.path.clone() })
    }

    /// Where the directory was found, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of entry `name`, for messages.
    pub fn join(&self, name: &CStr) -> PathBuf {
        self.path.join(OsStr::from_bytes(name.to_bytes()))
    }

    fn error(&self, operation: &'static str, errno: Errno) -> Error {
        Error::os(operation, &self.path, errno)
    }

    /// An [`Error`] about entry `name`.
    pub fn entry_error(&self, operation: &'static str, name: &CStr, errno: Errno) -> Error {
        Error::os(operation, self.join(name), errno)
    }

    /// Attributes of the directory itself.
    pub fn stat(&self) -> Result<Stat> {
        at::stat_fd(&self.fd).map_err(|errno| self.error("stat", errno))
    }

    /// Attributes of entry `name`, not of what it points to; `None` if it does not exist.
    pub fn stat_entry(&self, name: &CStr) -> Result<Option<Stat>> {
        match at::stat(&self.fd, name) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.entry_error("stat", name, errno)),
        }
    }

    /// Opens the directory `name`; a link there is refused with a message that says so.
    pub fn open_dir(&self, name: &CStr) -> Result<Self> {
        let fd = at::open_dir(&self.fd, name)
            .map_err(|errno| self.refused("open directory", name, errno))?;
        Ok(Self { fd, path: self.join(name) })
    }

    /// Opens `path` (relative, no "..") component by component; `None` if a component is absent.
    pub fn open_beneath(&self, path: &Path) -> Result<Option<Self>> {
        let mut dir = self.try_clone()?;
        for name in components(path)? {
            dir = match dir.open_dir(&name) {
                Ok(next) => next,
                Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(error),
            };
        }
        Ok(Some(dir))
    }

    /// Like [`Dir::open_beneath`], making absent components with `mode`.
    pub fn make_beneath(&self, path: &Path, mode: u32) -> Result<Self> {
        let mut dir = self.try_clone()?;
        for name in components(path)? {
            dir = match dir.open_dir(&name) {
                Err(error) if error.errno() == Some(Errno::NOENT) => {
                    match dir.make_dir(&name, mode) {
                        Err(error) if error.errno() != Some(Errno::EXIST) => return Err(error),
                        _ => dir.open_dir(&name)?,
                    }
                }
                other => other?,
            };
        }
        Ok(dir)
    }

    /// Opens the regular file `name` for reading. Opening never blocks (fifos, devices) and never
    /// becomes the controlling terminal; what is no regular file is refused.
    pub fn open_file(&self, name: &CStr) -> Result<OwnedFd> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = at::again(|| rustix::fs::openat(&self.fd, name, flags, Mode::empty()))
            .map_err(|errno| self.refused("open", name, errno))?;
        let stat = at::stat_fd(&fd).map_err(|errno| self.entry_error("stat", name, errno))?;
        match stat.kind {
            Kind::File => Ok(fd),
            kind => Err(Error::on("open", self.join(name), format!("it is {}", kind.noun()))
                .hint("a regular file is needed there")),
        }
    }

    /// Reads the regular file `name` whole, at most `limit` bytes; `None` if it does not exist.
    pub fn read_file(&self, name: &CStr, limit: usize) -> Result<Option<Vec<u8>>> {
        use std::io::Read as _;
        let fd = match self.open_file(name) {
            Ok(fd) => fd,
            Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        std::fs::File::from(fd)
            .take(limit as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| self.entry_error("read", name, os_errno(&error)))?;
        match bytes.len() > limit {
            true => {
                Err(Error::on("read", self.join(name), format!("it is larger than {limit} bytes")))
            }
            false => Ok(Some(bytes)),
        }
    }

    /// A handle of entry `name` that allows metadata calls through its descriptor but no data
    /// (O_PATH); works for every type and has no side effect.
    pub fn open_handle(&self, name: &CStr) -> Result<OwnedFd> {
        at::open_handle(&self.fd, name).map_err(|errno| self.entry_error("open", name, errno))
    }

    /// Creates the regular file `name`, which must not exist, for writing.
    pub fn create_file(&self, name: &CStr, mode: u32) -> Result<OwnedFd> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        at::again(|| rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(mode)))
            .map_err(|errno| self.entry_error("create", name, errno))
    }

    /// Makes the directory `name`, narrowed by the umask.
    pub fn make_dir(&self, name: &CStr, mode: u32) -> Result<()> {
        at::make_dir(&self.fd, name, mode)
            .map_err(|errno| self.entry_error("make directory", name, errno))
    }

    /// Makes a symbolic link `name` that holds `target`.
    pub fn make_symlink(&self, target: &CStr, name: &CStr) -> Result<()> {
        at::make_symlink(target, &self.fd, name)
            .map_err(|errno| self.entry_error("make symbolic link", name, errno))
    }

    /// The target of the symbolic link `name`.
    pub fn read_symlink(&self, name: &CStr) -> Result<CString> {
        at::read_link(&self.fd, name)
            .map_err(|errno| self.entry_error("read symbolic link", name, errno))
    }

    /// Makes a device node, fifo or socket; `rdev` is (major, minor).
    pub fn make_node(&self, name: &CStr, kind: Kind, mode: u32, rdev: (u32, u32)) -> Result<()> {
        at::make_node(&self.fd, name, kind, mode, rdev)
            .map_err(|errno| self.entry_error("make node", name, errno))
    }

    /// Renames `from` to `to` within this directory, replacing what is there.
    pub fn rename(&self, from: &CStr, to: &CStr) -> Result<()> {
        at::rename(&self.fd, from, to).map_err(|errno| self.entry_error("rename to", to, errno))
    }

    /// Removes entry `name`, which is no directory.
    pub fn remove_file(&self, name: &CStr) -> Result<()> {
        at::unlink(&self.fd, name).map_err(|errno| self.entry_error("remove", name, errno))
    }

    /// Removes the empty directory `name`.
    pub fn remove_dir(&self, name: &CStr) -> Result<()> {
        at::remove_dir(&self.fd, name)
            .map_err(|errno| self.entry_error("remove directory", name, errno))
    }

    /// Removes entry `name` if it is the open object `made` that this process has put there, and not
    /// something that its owner has put in its place.
    pub fn remove_made(&self, name: &CStr, made: impl AsFd) -> Result<()> {
        let made = at::stat_fd(made).map_err(|errno| self.entry_error("stat", name, errno))?;
        match self.stat_entry(name)? {
            Some(stat) if stat.same_inode(&made) => self.remove_file(name),
            _ => Ok(()),
        }
    }

    /// Changes owner and group of the directory itself.
    pub fn chown(&self, uid: u32, gid: u32) -> Result<()> {
        let (uid, gid) = owner(uid, gid);
        at::again(|| rustix::fs::fchown(&self.fd, uid, gid))
            .map_err(|errno| self.error("change owner of", errno))
    }

    /// Changes the permission bits of the directory itself.
    pub fn chmod(&self, mode: u32) -> Result<()> {
        at::again(|| rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode)))
            .map_err(|errno| self.error("change mode of", errno))
    }

    /// Replaces the regular file `name` by a new inode with `bytes`: a temporary name, 0600 until
    /// complete, then owner, `mode`, rename. What stood there is kept whole until then.
    pub fn replace_file(
        &self,
        name: &CStr,
        bytes: &[u8],
        mode: u32,
        owner_ids: Option<(u32, u32)>,
    ) -> Result<()> {
        self.replace_prepared(name, bytes, mode, owner_ids, |_| ())
    }

    /// The same; `prepare` is given the new file before anybody can see it under its name.
    pub fn replace_prepared(
        &self,
        name: &CStr,
        bytes: &[u8],
        mode: u32,
        owner_ids: Option<(u32, u32)>,
        prepare: impl FnOnce(BorrowedFd<'_>),
    ) -> Result<()> {
        use std::io::Write as _;
        let temp = TempName::new();
        let mut file = std::fs::File::from(self.create_file(temp.as_cstr(), 0o600)?);
        let fill = || -> Result<()> {
            let fail = |operation, errno| self.entry_error(operation, name, errno);
            file.write_all(bytes).map_err(|error| fail("write", os_errno(&error)))?;
            if let Some((uid, gid)) = owner_ids {
                let (uid, gid) = owner(uid, gid);
                at::again(|| rustix::fs::fchown(&file, uid, gid))
                    .map_err(|e| fail("change owner of", e))?;
            }
            at::again(|| rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)))
                .map_err(|errno| fail("change mode of", errno))?;
            prepare(file.as_fd());
            self.rename(temp.as_cstr(), name)
        };
        let filled = fill();
        filled.inspect_err(|_| {
            // The first error is the one to report; the temporary file may be gone already.
            let _ = self.remove_made(temp.as_cstr(), &file);
        })
    }

    /// Says what stands in the way when the kernel refused `name` because it is a link or no
    /// directory (ELOOP, ENOTDIR).
    fn refused(&self, operation: &'static str, name: &CStr, errno: Errno) -> Error {
        if matches!(errno, Errno::LOOP | Errno::NOTDIR)
            && let Ok(Some(stat)) = self.stat_entry(name)
            && stat.kind == Kind::Symlink
        {
            return Error::on(operation, self.join(name), "it is a symbolic link, not followed")
                .hint("put a real directory or file there");
        }
        self.entry_error(operation, name, errno)
    }
}

/// The components of a relative path; "..", an absolute path and NUL are refused.
fn components(path: &Path) -> Result<Vec<CString>> {
    let refuse = |reason: &'static str| Error::on("use path", path, reason);
    path.components()
        .filter(|component| !matches!(component, Component::CurDir | Component::RootDir))
        .map(|component| match component {
            Component::Normal(name) => {
                CString::new(name.as_bytes()).map_err(|_| refuse("it has a NUL byte"))
            }
            _ => Err(refuse("it has a \"..\" component")),
        })
        .collect()
}

/// A name for a file under construction: `.molecule-tools.RANDOM.N`, recognisable to anybody who finds one
/// after a crash. The random part, one per process, keeps it apart from what earlier processes left
/// (in a container they have the same number) and from what others can foresee.
#[derive(Debug)]
pub struct TempName(CString);

impl TempName {
    /// The start of every temporary name.
    pub const PREFIX: &'static str = ".molecule-tools.";

    /// The next name.
    #[allow(clippy::new_without_default, reason = "each one is different")]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static RANDOM: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{:016x}.{number}", Self::PREFIX, *RANDOM);
        Self(CString::new(name).unwrap_or_default())
    }

    /// Whether `name` has the form of one.
    pub fn is_one(name: &CStr) -> bool {
        let parts = || {
            let rest = name.to_str().ok()?.strip_prefix(Self::PREFIX)?;
            let (random, number) = rest.split_once('.')?;
            let digits = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.is_empty();
            let hex = random.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            Some(digits && hex && random.len() == 16)
        };
        parts().unwrap_or(false)
    }

    /// The name.
    pub fn as_cstr(&self) -> &CStr {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_name_is_known_and_no_other() {
        assert!(TempName::is_one(TempName::new().as_cstr()));
        for other in [
            c".molecule-tools.",
            c".molecule-tools.0123456789abcdef",
            c".molecule-tools.0123456789abcdef.",
            c".molecule-tools.0123456789abcdef.1x",
            c".molecule-tools.0123456789ABCDEF.1",
            c".molecule-tools.123456789abcdef.1",
            c"x.molecule-tools.0123456789abcdef.1",
            c".molecule-tools.notes",
        ] {
            assert!(!TempName::is_one(other), "{other:?}");
        }
    }
}
