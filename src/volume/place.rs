//! Where a mount is put: a directory made beneath a root, every step without following a link.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags};

use tracing::warn;

use crate::error::{Error, Result};
use crate::fs::{Dir, Stat};

/// How many directories are tried: DIR, DIR.1, DIR.2, ...
const CANDIDATES: u32 = 10;

/// A directory to mount on, and what is mounted there already.
#[derive(Debug)]
pub struct MountPlace {
    parent: Dir,
    name: CString,
    shown: PathBuf,
}

impl MountPlace {
    /// Makes the directory `path` beneath `root` (0755 narrowed by the umask, as mkdir -p does).
    pub fn prepare(root: &Dir, path: &Path) -> Result<Self> {
        let place = Self::find(root, path, true)?;
        place.ok_or_else(|| Error::os("make directory", path, Errno::NOENT))
    }

    fn find(root: &Dir, path: &Path, make: bool) -> Result<Option<Self>> {
        let refuse = || Error::on("mount at", path, "it names no directory");
        let name = path.file_name().ok_or_else(refuse)?;
        let name = CString::new(name.as_bytes()).map_err(|_| refuse())?;
        let above = path.parent().unwrap_or(Path::new(""));
        let parent = match make {
            true => root.make_beneath(above, 0o755)?,
            false => match root.open_beneath(above)? {
                Some(parent) => parent,
                None => return Ok(None),
            },
        };
        let shown = Path::new("/").join(path);
        let place = Self { parent, name, shown };
        if make {
            place.make()?;
        }
        Ok(Some(place))
    }

    fn make(&self) -> Result<()> {
        match self.parent.make_dir(&self.name, 0o755) {
            // Opening says what is in the way when it is no directory.
            Err(error) if error.errno() == Some(Errno::EXIST) => {
                self.parent.open_dir(&self.name).map(drop)
            }
            // A directory on a read-only file system is as good when it is there already.
            Err(error) if error.errno() == Some(Errno::ROFS) => {
                self.parent.open_dir(&self.name).map(drop).map_err(|_| error)
            }
            other => other,
        }
    }

    /// The path as it is seen from within the root.
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// The object at the place; the root of a mount if something is mounted there.
    pub fn stat(&self) -> Result<Option<Stat>> {
        self.parent.stat_entry(&self.name)
    }

    /// Whether nothing is mounted here.
    pub fn is_free(&self) -> Result<bool> {
        Ok(self.stat()?.is_none_or(|stat| !stat.mount_root))
    }

    /// The next directory on which nothing is mounted: DIR.1, DIR.2 and so on.
    pub fn next_free(&self) -> Result<Self> {
        for next in self.siblings()? {
            next.make()?;
            if next.is_free()? {
                return Ok(next);
            }
        }
        Err(Error::on("mount at", &self.shown, "it and its numbered siblings are mount points")
            .hint("unmount them"))
    }

    /// DIR.1, DIR.2 and so on, whether they exist or not.
    pub fn siblings(&self) -> Result<Vec<Self>> {
        let sibling = |number| {
            let suffix = format!(".{number}");
            let name = [self.name.to_bytes(), suffix.as_bytes()].concat();
            let mut shown = self.shown.clone().into_os_string();
            shown.push(&suffix);
            let name = CString::new(name).unwrap_or_default();
            Ok(Self { parent: self.parent.try_clone()?, name, shown: shown.into() })
        };
        (1..CANDIDATES).map(sibling).collect()
    }

    /// A second handle of the same place.
    pub fn try_clone(&self) -> Result<Self> {
        let parent = self.parent.try_clone()?;
        Ok(Self { parent, name: self.name.clone(), shown: self.shown.clone() })
    }

    /// Opens the directory, or the root of what is mounted on it.
    pub fn open(&self) -> Result<Dir> {
        Ok(self.parent.open_dir(&self.name)?.shown_as(&self.shown))
    }

    /// A path for calls that take no descriptor; it does not hold the mount itself, so that it can be
    /// unmounted.
    pub fn by_descriptor(&self) -> PathBuf {
        let name = std::ffi::OsString::from_vec(self.name.to_bytes().to_vec());
        Path::new("/proc/self/fd").join(self.parent.as_fd().as_raw_fd().to_string()).join(name)
    }

    /// Puts a detached mount here.
    pub fn attach(&self, mount: &OwnedFd) -> Result<()> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(mount, c"", &self.parent, self.name.as_c_str(), flags)
            .map_err(|errno| Error::os("mount at", &self.shown, errno))?;
        self.make_private();
        Ok(())
    }

    /// Keeps what is mounted here out of other mount namespaces from now on.
    pub fn make_private(&self) {
        // Without it the mount works as well, it is only seen by more processes.
        let _ = rustix::mount::mount_change(self.by_descriptor(), MountPropagationFlags::PRIVATE);
    }

    /// Moves what is mounted at `from` here.
    pub fn take(&self, from: &Self) -> Result<()> {
        rustix::mount::mount_move(from.by_descriptor(), self.by_descriptor())
            .map_err(|errno| Error::os("move the mount to", &self.shown, errno))
    }

    /// Takes what is mounted here out of the file tree; open directories in it stay usable.
    pub fn detach(&self) {
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        if let Err(errno) = rustix::mount::unmount(self.by_descriptor(), flags) {
            warn!("{}", Error::os("unmount", &self.shown, errno).hint("umount(8) it by hand"));
        }
    }

    /// Unmounts what is mounted here.
    pub fn unmount(&self) -> Result<()> {
        rustix::mount::unmount(self.by_descriptor(), UnmountFlags::NOFOLLOW).map_err(|errno| {
            let error = Error::os("unmount", &self.shown, errno);
            match errno {
                Errno::BUSY => error.hint("a process still has a file or its directory there"),
                _ => error,
            }
        })
    }
}

/// Unmounts what is mounted at `path` beneath `root` and at the numbered siblings that
/// [`MountPlace::next_free`] makes; returns the paths that were unmounted.
pub fn unmount(root: &Dir, path: &Path) -> Result<Vec<PathBuf>> {
    let mut done = Vec::new();
    for number in 0..CANDIDATES {
        let mut candidate = path.as_os_str().to_owned();
        if number > 0 {
            candidate.push(format!(".{number}"));
        }
        let Some(place) = MountPlace::find(root, Path::new(&candidate), false)? else { continue };
        if place.is_free()? {
            continue;
        }
        if !is_read_only(&place.open()?)? {
            return Err(Error::on("unmount", place.shown, "it is mounted for writing")
                .hint("that is not the mount of a restore; use umount(8)"));
        }
        place.unmount()?;
        done.push(place.shown);
    }
    Ok(done)
}

/// Whether the mount that `dir` is on allows no writing.
pub fn is_read_only(dir: &Dir) -> Result<bool> {
    rustix::fs::fstatvfs(dir)
        .map(|vfs| vfs.f_flag.contains(StatVfsMountFlags::RDONLY))
        .map_err(|errno| Error::os("look at the mount of", dir.path(), errno))
}

/// Opens the root of a detached mount as a directory that can be listed.
pub fn open_root(mount: &OwnedFd, shown: &Path) -> Result<Dir> {
    let flags = rustix::fs::OFlags::RDONLY
        | rustix::fs::OFlags::DIRECTORY
        | rustix::fs::OFlags::NOFOLLOW
        | rustix::fs::OFlags::CLOEXEC;
    let current: &CStr = c".";
    rustix::fs::openat(mount, current, flags, rustix::fs::Mode::empty())
        .map(|fd| Dir::from_fd(fd, shown))
        .map_err(|errno| Error::os("open", shown, errno))
}
