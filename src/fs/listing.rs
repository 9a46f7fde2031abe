//! Directory entries straight from getdents64(2), with a buffer the caller sizes once.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::ops::ControlFlow;

use super::{Dir, Kind, at};
use crate::error::{Error, Result};

/// Bytes per getdents64 call; the kernel reads this much of the directory ahead of us.
const BUFFER: usize = 32 * 1024;

/// One name of a directory, with the type the directory itself records (none on file systems that
/// record no types).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name; never "." or "..".
    pub name: CString,
    /// The recorded type; a hint only, the object may have been replaced since.
    pub kind: Option<Kind>,
    /// The recorded inode number.
    pub ino: u64,
}

/// The entries of one directory in the order of the directory.
#[derive(Debug)]
pub struct DirListing;

impl DirListing {
    /// Calls `each` for every entry. Stops at the first error the kernel reports; entries seen until
    /// then have been handed over.
    pub fn for_each(dir: &Dir, each: impl FnMut(&CStr, Option<Kind>, u64)) -> Result<()> {
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        at::list(dir, &mut buffer, each).map_err(|errno| Error::os("list", dir.path(), errno))
    }

    /// The first `most` entries, or all if there are fewer.
    pub fn first(dir: &Dir, most: usize) -> Result<Vec<DirEntry>> {
        let (mut entries, mut buffer) = (Vec::new(), [MaybeUninit::uninit(); 2048]);
        at::list_until(dir, &mut buffer, |name, kind, ino| {
            entries.push(DirEntry { name: name.to_owned(), kind, ino });
            match entries.len() < most {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })
        .map_err(|errno| Error::os("list", dir.path(), errno))?;
        Ok(entries)
    }

    /// All entries, unsorted.
    pub fn read(dir: &Dir) -> Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        Self::for_each(dir, |name, kind, ino| {
            entries.push(DirEntry { name: name.to_owned(), kind, ino });
        })?;
        Ok(entries)
    }
}
