//! Directory entries straight from getdents64(2), with a buffer the caller sizes once.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;

use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

use super::{Dir, Kind};
use crate::error::{Error, Result};

/// Bytes per getdents64 call; the kernel reads this much of the directory ahead of us.
const BUFFER: usize = 32 * 1024;

/// One name of a directory, with the type the directory itself records (none on file systems that
/// record no types).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name; never "." or "..".
    pub name: CString,
    /// The recorded type; a hint only, the object may have been replaced since.
    pub kind: Option<Kind>,
    /// The recorded inode number.
    pub ino: u64,
}

/// The entries of one directory in the order of the directory.
#[derive(Debug)]
pub struct Listing;

impl Listing {
    /// Calls `each` for every entry. Stops at the first error the kernel reports; entries seen until
    /// then have been handed over.
    pub fn for_each(dir: &Dir, mut each: impl FnMut(&CStr, Option<Kind>, u64)) -> Result<()> {
        let fail = |errno: Errno| Error::os("list", dir.path(), errno);
        rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0)).map_err(fail)?;
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        let mut raw = RawDir::new(dir, &mut buffer);
        while let Some(entry) = raw.next() {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                each(name, kind(entry.file_type()), entry.ino());
            }
        }
        Ok(())
    }

    /// All entries, unsorted.
    pub fn read(dir: &Dir) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        Self::for_each(dir, |name, kind, ino| {
            entries.push(Entry { name: name.to_owned(), kind, ino });
        })?;
        Ok(entries)
    }
}

fn kind(file_type: FileType) -> Option<Kind> {
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
