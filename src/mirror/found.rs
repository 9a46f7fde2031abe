//! Names of the source and what is found under them.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::ops::Range;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::tree::DirPair;
use crate::fs::{Kind, Stat, at};

/// One listed name.
#[derive(Debug)]
pub(super) struct ListedName {
    pub name: CString,
    pub kind: Option<Kind>,
    pub ino: u64,
}

/// A source file opened for reading.
#[derive(Debug)]
pub(super) struct SourceFile {
    pub fd: OwnedFd,
    /// Where in the bytes that were read ahead (`ReadAhead::bytes`) its whole content stands; empty when it has
    /// to be read.
    pub read: Range<usize>,
}

impl From<OwnedFd> for SourceFile {
    fn from(fd: OwnedFd) -> Self {
        Self { fd, read: 0..0 }
    }
}

/// One name of the source and what was found under it.
#[derive(Debug)]
pub(super) struct FoundEntry {
    pub name: ListedName,
    pub stat: Result<Stat, Errno>,
    pub source: Option<SourceFile>,
}

/// Looks at one entry of the source directory; a regular file is opened on the way where its content
/// will be wanted (`open`).
pub(super) fn look(pair: &DirPair, name: ListedName, open: bool) -> FoundEntry {
    if !open || name.kind != Some(Kind::File) {
        let stat = at::stat(&pair.src, &name.name);
        return FoundEntry { name, stat, source: None };
    }
    let (stat, source) = match at::open_read(&pair.src, &name.name) {
        Ok(fd) => (at::stat_fd(&fd), Some(fd.into())),
        // Something else where the listing had a file: the source changes while it is read.
        Err(Errno::LOOP | Errno::NXIO) => (at::stat(&pair.src, &name.name), None),
        Err(errno) => (Err(errno), None),
    };
    FoundEntry { name, stat, source }
}
