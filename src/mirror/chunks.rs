//! A large file on its way: its chunks, who has which, and how it ended.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::fault::{Fault, Step};
use super::file::NewFile;
use super::limits::buffer;
use super::tree::Pending;
use crate::lock::lock;

/// Bytes that one thread takes at a time; through the page cache it is asked for in one go, so that all its
/// requests are under way at once.
const CHUNK: u64 = 2 * 1024 * 1024;
/// Bytes of one read. The buffer is the thread's own, so this times the number of threads is memory.
const READ: usize = 512 * 1024;
/// The alignment that O_DIRECT may ask of addresses and offsets: the largest logical block of a disk.
const ALIGNMENT: usize = 4096;

/// Where copied bytes go.
#[derive(Clone, Copy)]
pub(super) struct ByteSink<'a> {
    pub fd: BorrowedFd<'a>,
    /// Held while writing, where there are several writers.
    pub turn: Option<&'a Mutex<()>>,
}

/// A large file that several threads copy.
#[derive(Debug)]
pub(super) struct LargeCopy {
    pub file: NewFile,
    pub src: OwnedFd,
    pending: Pending,
    /// Not in the page cache before.
    pub cold: bool,
    /// `src` is open with O_DIRECT.
    pub direct: AtomicBool,
    next: AtomicU64,
    failed: Mutex<Option<Fault>>,
    /// The kernel lets one writer at a time into a file, and the others would spin for it.
    turn: Mutex<()>,
}

/// A large file of which nothing more is copied.
#[derive(Debug)]
pub(super) struct FilledFile {
    pub file: NewFile,
    /// The file in its directory.
    pub pending: Pending,
    /// Whether all of it was copied.
    pub result: Step,
}

impl LargeCopy {
    pub fn new(file: NewFile, src: OwnedFd, pending: Pending, cold: bool, direct: bool) -> Self {
        Self {
            file,
            src,
            pending,
            cold,
            direct: AtomicBool::new(direct),
            next: AtomicU64::new(0),
            failed: Mutex::new(None),
            turn: Mutex::new(()),
        }
    }

    /// How many there are in all.
    pub fn chunks(&self) -> u64 {
        self.file.stat.size.div_ceil(CHUNK)
    }

    /// Start and end of a chunk that nobody has yet.
    pub fn take(&self) -> Option<(u64, u64)> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let start = index.checked_mul(CHUNK).filter(|_| index < self.chunks())?;
        Some((start, (start + CHUNK).min(self.file.stat.size)))
    }

    /// Takes no chunk that ends before `offset`: there is nothing in them. At the end, none.
    pub fn skip_to(&self, offset: u64) {
        let at_end = offset >= self.file.stat.size;
        let next = if at_end { self.chunks() } else { offset / CHUNK };
        self.next.fetch_max(next, Ordering::Relaxed);
    }

    /// Has nobody take more of it; the first reason counts.
    pub fn fail(&self, fault: Fault) {
        lock(&self.failed).get_or_insert(fault);
        self.next.store(self.chunks(), Ordering::Relaxed);
    }

    pub fn sink(&self) -> ByteSink<'_> {
        ByteSink { fd: self.file.dst.as_fd(), turn: Some(&self.turn) }
    }

    /// To be called by each of the threads that took chunks: the file, for the last of them.
    pub fn leave(self: Arc<Self>) -> Option<FilledFile> {
        let Self { file, pending, failed, .. } = Arc::into_inner(self)?;
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        Some(FilledFile { file, pending, result: failed.map_or(Ok(()), Err) })
    }
}

/// A buffer for reads of large files; no memory until the first.
#[derive(Debug, Default)]
pub(super) struct LargeBuffer(Vec<u8>);

impl LargeBuffer {
    /// `None` if there is no memory for it.
    pub fn aligned(&mut self) -> Option<&mut [u8]> {
        if self.0.is_empty() {
            self.0 = buffer(READ + ALIGNMENT)?;
        }
        let start = self.0.as_ptr().align_offset(ALIGNMENT);
        Some(&mut self.0[start..start + READ])
    }
}
