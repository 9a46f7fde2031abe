//! Objects of the destination that are being made.
//!
//! Where somebody else can look, an object is made complete under a temporary name and renamed; in a
//! directory of this run's own making (see [`Standing::New`](super::tree::Standing::New)) nobody can, and
//! small files get their final name at once, which saves a third of the system calls that change the
//! directory.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use rustix::io::Errno;

use super::tree::{DirNode, OpenDir};
use super::xattrs::Xattrs;
use crate::fs::{InodeId, Stat, TempName, at};

/// Attempts to find a temporary name that is not taken.
const TEMP_ATTEMPTS: usize = 100;

/// The name of something that is being made, which is removed again unless it is kept.
#[derive(Debug)]
pub(super) struct NewName {
    dir: OpenDir,
    name: CString,
    /// The name it has until it is kept; `None` when that is `name` itself.
    temp: Option<TempName>,
    settled: bool,
}

impl NewName {
    /// Calls `make` with the destination directory of `dir` and the name `name` in it, if `at_once`,
    /// otherwise with temporary names until one is free.
    pub fn make<T>(
        dir: &OpenDir,
        name: &CStr,
        at_once: bool,
        mut make: impl FnMut(&OwnedFd, &CStr) -> Result<T, Errno>,
    ) -> Result<(T, Self), Errno> {
        let dst = dir.pair.destination()?;
        let (made, temp) = match at_once {
            true => (make(dst, name)?, None),
            false => with_temp_name(|temp| make(dst, temp))?,
        };
        Ok((made, Self { dir: dir.clone(), name: name.to_owned(), temp, settled: false }))
    }

    pub fn dir(&self) -> &OpenDir {
        &self.dir
    }

    /// The name it shall have.
    pub fn wanted(&self) -> &CString {
        &self.name
    }

    /// The name it has.
    pub fn current(&self) -> &CStr {
        self.temp.as_ref().map_or(&self.name, TempName::as_cstr)
    }

    pub fn is_temporary(&self) -> bool {
        self.temp.is_some()
    }

    /// Renames it to its final name, in place of the object that has that.
    pub fn keep(&mut self) -> Result<(), Errno> {
        if let Some(temp) = &self.temp {
            at::rename(self.dir.pair.destination()?, temp.as_cstr(), &self.name)?;
        }
        self.settled = true;
        Ok(())
    }

    /// Removes it.
    pub fn discard(mut self) -> Result<(), Errno> {
        self.remove()
    }

    fn remove(&mut self) -> Result<(), Errno> {
        if std::mem::replace(&mut self.settled, true) {
            return Ok(());
        }
        match at::unlink(self.dir.pair.destination()?, self.current()) {
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }
}

impl Drop for NewName {
    fn drop(&mut self) {
        // A caller who wants to hear of an error calls `discard`.
        let _ = self.remove();
    }
}

fn with_temp_name<T>(
    mut make: impl FnMut(&CStr) -> Result<T, Errno>,
) -> Result<(T, Option<TempName>), Errno> {
    for _ in 0..TEMP_ATTEMPTS {
        let temp = TempName::new();
        match make(temp.as_cstr()) {
            Err(Errno::EXIST) => {}
            other => return other.map(|made| (made, Some(temp))),
        }
    }
    Err(Errno::EXIST)
}

/// A regular file under construction.
#[derive(Debug)]
pub(super) struct NewFile {
    pub name: NewName,
    pub dst: OwnedFd,
    /// Its attributes when it is complete.
    pub stat: Stat,
    pub xattrs: Xattrs,
    /// The object under the final name.
    pub old: Option<Stat>,
    /// The hard-link group it leads.
    pub group: Option<InodeId>,
    /// Made with its owner's ids in a directory of this run's own making.
    pub born: bool,
}

/// The attributes of a file that was made with its owner's ids. Whether all of that directory and owner
/// become the same is a matter of the directory and its mount.
#[derive(Debug)]
pub(super) struct BornFile {
    /// Not its inode number, which another may have had before.
    node: Weak<DirNode>,
    made: Stat,
}

impl BornFile {
    /// For a file that was found to have become `made`.
    pub fn new(file: &NewFile, made: Stat) -> Self {
        Self { node: Arc::downgrade(&file.name.dir.node), made }
    }

    /// The attributes of `file`, if it was made as this one was.
    pub fn tells_of(&self, file: &NewFile) -> Option<Stat> {
        let same = file.born
            && (self.made.uid, self.made.gid) == (file.stat.uid, file.stat.gid)
            && std::ptr::eq(self.node.as_ptr(), Arc::as_ptr(&file.name.dir.node));
        same.then_some(self.made)
    }
}
