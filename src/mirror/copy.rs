//! The content of regular files.
//!
//! Small files are read and written whole. From [`LARGE`] bytes on, a file is cut into [`CHUNK`]s
//! that several threads copy at once: a slow volume answers one reader at the pace of one request.
//! Holes are found with SEEK_DATA (lseek(2)) and stay holes.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Advice, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};

use super::ahead::Source;
use super::make::NewFile;
use super::report::{Side, add};
use super::{Engine, Worker};
use crate::fs::{Stat, at};

/// Bytes of one read: what read-ahead fetches at once by default. Each thread has its own buffer.
pub(super) const BUFFER: usize = 128 * 1024;
/// Size from which a file is cut.
const LARGE: u64 = 8 * 1024 * 1024;
/// What one thread takes at a time; asked of the kernel in one go, which then has all its requests
/// under way at once.
const CHUNK: u64 = 2 * 1024 * 1024;
/// Threads on one file.
const HELPERS: u64 = 16;

/// Why the content could not be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyError {
    Os(Side, &'static str, Errno),
    /// The source ended before its size.
    Shrunk,
    Stopped,
}

/// A large file on its way.
#[derive(Debug)]
pub(super) struct BigCopy {
    pub file: NewFile,
    src: OwnedFd,
    /// Not in the page cache before: what is copied is dropped from it again, for the machine has
    /// better use for the memory.
    cold: bool,
    chunks: u64,
    next: AtomicU64,
    failed: Mutex<Option<CopyError>>,
    /// Held while writing: the kernel lets one writer at a time into a file, and the others would
    /// spin for it.
    turn: Mutex<()>,
}

/// Where copied bytes go.
#[derive(Clone, Copy)]
struct Sink<'a> {
    fd: BorrowedFd<'a>,
    /// See [`BigCopy::turn`].
    turn: Option<&'a Mutex<()>>,
}

pub(super) fn is_sparse(stat: &Stat) -> bool {
    stat.blocks.saturating_mul(512) < stat.size
}

impl Engine<'_> {
    /// Fills `file` from `src` and completes it or gives it up: at once, or for a large file when the
    /// last of the threads on it is done.
    pub(super) fn fill(&self, worker: &mut Worker, file: NewFile, src: Source) {
        let stat = file.stat;
        if is_sparse(&stat) {
            // Also gives the hole at the end, which no write reaches.
            if let Err(errno) = rustix::fs::ftruncate(&file.dst, stat.size) {
                return self.give_up(&file, CopyError::Os(Side::Destination, "extend", errno));
            }
        }
        if stat.size < LARGE {
            let sink = Sink { fd: file.dst.as_fd(), turn: None };
            let copied = if src.read.is_empty() {
                self.copy_range(worker, &src.fd, Some(sink), &stat, 0, stat.size)
            } else {
                self.write(sink, &worker.ahead.bytes[src.read], 0)
            };
            return match copied {
                Ok(()) => self.complete(&file),
                Err(error) => self.give_up(&file, error),
            };
        }
        let chunks = stat.size.div_ceil(CHUNK);
        let cold = is_cold(&src.fd);
        let big = Arc::new(BigCopy {
            file,
            src: src.fd,
            cold,
            chunks,
            next: AtomicU64::new(0),
            failed: Mutex::new(None),
            turn: Mutex::new(()),
        });
        big.file.node.expect(1);
        for _ in 1..chunks.min(HELPERS).min(self.queue.threads() as u64 * 2) {
            // Only who works on the file keeps it, and so its descriptors, open.
            if self.queue.push(super::pool::Task::Chunks(Arc::downgrade(&big))).is_err() {
                break;
            }
        }
        self.copy_chunks(worker, big);
    }

    /// Copies chunks of a large file until none is left; the last thread completes the file.
    pub(super) fn copy_chunks(&self, worker: &mut Worker, big: Arc<BigCopy>) {
        loop {
            let index = big.next.fetch_add(1, Ordering::Relaxed);
            if index >= big.chunks {
                break;
            }
            let start = index * CHUNK;
            let end = (start + CHUNK).min(big.file.stat.size);
            let length = std::num::NonZeroU64::new(end - start);
            let file = &big.file;
            if is_sparse(&file.stat) {
                // A file can be a million times larger than what is in it. No reading ahead: that
                // fills the page cache with zeros.
                let data = next_data(&big.src, start, file.stat.size);
                let next = if data == file.stat.size { big.chunks } else { data / CHUNK };
                big.next.fetch_max(next, Ordering::Relaxed);
            } else {
                // Only advice: without it the copy is slower, not wrong.
                let _ = rustix::fs::fadvise(&big.src, start, length, Advice::WillNeed);
            }
            let sink = Sink { fd: file.dst.as_fd(), turn: Some(&big.turn) };
            if let Err(error) =
                self.copy_range(worker, &big.src, Some(sink), &file.stat, start, end)
            {
                big.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                big.next.store(big.chunks, Ordering::Relaxed);
                break;
            }
            if big.cold {
                let _ = rustix::fs::fadvise(&big.src, start, length, Advice::DontNeed);
            }
        }
        // Exactly one of the threads on it is the last.
        let Some(big) = Arc::into_inner(big) else { return };
        let failed = big.failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        match failed {
            None => self.complete(&big.file),
            Some(error) => self.give_up(&big.file, error),
        }
        self.release(big.file.node);
    }

    /// Reads the whole file and keeps nothing.
    pub(super) fn read_through(
        &self,
        worker: &mut Worker,
        src: &OwnedFd,
        stat: &Stat,
    ) -> Result<(), CopyError> {
        self.copy_range(worker, src, None, stat, 0, stat.size)
    }

    /// Copies the bytes from `start` to `end`, without a `sink` only reads them; holes are left out.
    fn copy_range(
        &self,
        worker: &mut Worker,
        src: impl AsFd,
        sink: Option<Sink<'_>>,
        stat: &Stat,
        start: u64,
        end: u64,
    ) -> Result<(), CopyError> {
        if !is_sparse(stat) {
            return self.copy_data(worker, src.as_fd(), sink, start, end);
        }
        let mut offset = start;
        while offset < end {
            if self.counters.stopped() {
                return Err(CopyError::Stopped);
            }
            let data = match rustix::fs::seek(&src, SeekFrom::Data(offset)) {
                Ok(data) => data.min(end),
                // No data behind `offset`.
                Err(Errno::NXIO) => return unshrunk(src, stat),
                Err(errno) => return Err(CopyError::Os(Side::Source, "seek in", errno)),
            };
            if data >= end {
                return Ok(());
            }
            let hole = rustix::fs::seek(&src, SeekFrom::Hole(data))
                .map_err(|errno| CopyError::Os(Side::Source, "seek in", errno))?
                .min(end);
            self.copy_data(worker, src.as_fd(), sink, data, hole)?;
            offset = hole;
        }
        Ok(())
    }

    fn copy_data(
        &self,
        worker: &mut Worker,
        src: BorrowedFd<'_>,
        sink: Option<Sink<'_>>,
        start: u64,
        end: u64,
    ) -> Result<(), CopyError> {
        let mut offset = start;
        while offset < end {
            if self.counters.stopped() {
                return Err(CopyError::Stopped);
            }
            let want = usize::try_from(end - offset).unwrap_or(usize::MAX).min(BUFFER);
            let count = match rustix::io::pread(src, &mut worker.buffer[..want], offset) {
                Ok(0) => return Err(CopyError::Shrunk),
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(CopyError::Os(Side::Source, "read", errno)),
            };
            if let Some(sink) = sink {
                self.write(sink, &worker.buffer[..count], offset)?;
            }
            offset += count as u64;
        }
        Ok(())
    }

    fn write(&self, sink: Sink<'_>, bytes: &[u8], offset: u64) -> Result<(), CopyError> {
        let turn = sink.turn.map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner));
        let written = write_full(sink.fd, bytes, offset);
        drop(turn);
        written.map_err(|errno| CopyError::Os(Side::Destination, "write", errno))?;
        add(&self.counters.bytes, bytes.len() as u64);
        Ok(())
    }

    /// Whether both files have the same `size` bytes.
    pub(super) fn same_bytes(
        &self,
        worker: &mut Worker,
        src: impl AsFd,
        dst: impl AsFd,
        size: u64,
    ) -> Result<bool, CopyError> {
        let mut other = vec![0; BUFFER];
        let mut offset = 0;
        while offset < size {
            if self.counters.stopped() {
                return Err(CopyError::Stopped);
            }
            // What is a hole in both is equal.
            offset = next_data(&src, offset, size).min(next_data(&dst, offset, size));
            let want = usize::try_from(size - offset).unwrap_or(usize::MAX).min(BUFFER);
            let left = read_full(&src, &mut worker.buffer[..want], offset)
                .map_err(|errno| CopyError::Os(Side::Source, "read", errno))?;
            let right = read_full(&dst, &mut other[..want], offset)
                .map_err(|errno| CopyError::Os(Side::Destination, "read", errno))?;
            if worker.buffer[..left] != other[..right] {
                return Ok(false);
            }
            if left < want {
                return Err(CopyError::Shrunk);
            }
            offset += want as u64;
        }
        Ok(true)
    }
}

/// Whether the start of the file would have to be waited for, as far as the file system can tell
/// (RWF_NOWAIT of preadv2(2)).
fn is_cold(file: impl AsFd) -> bool {
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    let read = rustix::io::preadv2(file, &mut buffers, 0, ReadWriteFlags::NOWAIT);
    read == Err(Errno::AGAIN)
}

fn write_full(fd: BorrowedFd<'_>, bytes: &[u8], offset: u64) -> Result<(), Errno> {
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::pwrite(fd, &bytes[written..], offset + written as u64) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(more) => written += more,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// A file that became shorter has no data at its former end either.
fn unshrunk(src: impl AsFd, stat: &Stat) -> Result<(), CopyError> {
    match at::stat_fd(src) {
        Ok(now) if now.size < stat.size => Err(CopyError::Shrunk),
        Ok(_) => Ok(()),
        Err(errno) => Err(CopyError::Os(Side::Source, "stat", errno)),
    }
}

/// Where the next data at or behind `offset` begins; `size` where there is none. A file system that
/// does not know says "here".
fn next_data(fd: impl AsFd, offset: u64, size: u64) -> u64 {
    match rustix::fs::seek(fd, SeekFrom::Data(offset)) {
        Ok(data) => data.min(size),
        Err(Errno::NXIO) => size,
        Err(_) => offset,
    }
}

fn read_full(fd: impl AsFd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::pread(&fd, &mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(filled)
}
