//! The content of regular files.
//!
//! Files are read and written from front to back; those from [`LARGE`] bytes on by several threads
//! at once (`large`). Holes are found with SEEK_DATA (lseek(2)) and stay holes.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::ahead::Source;
use super::large::LARGE;
use super::make::NewFile;
use super::report::{Side, add};
use super::{Engine, Worker};
use crate::fs::{FsIds, Stat, at};

/// Bytes of one read: what read-ahead fetches at once by default. Each thread has its own buffer.
pub(super) const BUFFER: usize = 128 * 1024;

/// Why the content could not be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyError {
    Os(Side, &'static str, Errno),
    /// The source ended before its size.
    Shrunk,
    /// It is larger than what the destination has left, or (EFBIG) than a file may be there.
    TooLarge(Errno),
    Stopped,
}

impl CopyError {
    /// The destination did not take it.
    pub fn at_destination(operation: &'static str, errno: Errno) -> Self {
        match errno {
            Errno::FBIG => Self::TooLarge(errno),
            _ => Self::Os(Side::Destination, operation, errno),
        }
    }
}

/// Where copied bytes go.
#[derive(Clone, Copy)]
pub(super) struct Sink<'a> {
    pub fd: BorrowedFd<'a>,
    /// Held while writing, where there are several writers.
    pub turn: Option<&'a Mutex<()>>,
}

/// Whether the file is known to have holes.
pub(super) fn is_sparse(stat: &Stat) -> bool {
    stat.blocks.saturating_mul(512) < stat.size
}

/// What is known of the file after a look for holes, which blocks allocated behind its end make up for in
/// their number. One of a single read is written in full: the look would cost more.
pub(super) fn with_holes_known(stat: Stat, file: impl AsFd) -> Stat {
    let look = stat.size > BUFFER as u64 && !is_sparse(&stat);
    let hole = look
        && at::again(|| rustix::fs::seek(&file, SeekFrom::Hole(0)))
            .is_ok_and(|hole| hole < stat.size);
    if hole { Stat { blocks: 0, ..stat } } else { stat }
}

impl Engine<'_> {
    /// Fills `file` from `src` and completes it or gives it up: at once, or for a large file when the
    /// last of the threads on it is done.
    pub(super) fn fill(&self, worker: &mut Worker, file: NewFile, src: Source) {
        let stat = file.stat;
        if stat.size < LARGE {
            let sink = Sink { fd: file.dst.as_fd(), turn: None };
            let copied = if src.read.is_empty() {
                self.copy_range(worker, &src.fd, Some(sink), &stat, 0, stat.size)
            } else {
                self.write(&mut worker.ids, sink, &worker.ahead.bytes[src.read], 0)
            };
            if !file.has_plain_metadata() {
                worker.ids.reset();
            }
            return match copied {
                Ok(()) => self.complete(worker, &file),
                Err(error) => self.give_up(&file, error),
            };
        }
        self.copy_large(worker, file, src.fd);
    }

    /// Gives a sparse file the hole at its end, which no write of data reaches. By a written zero, for
    /// ftruncate(2) makes the new length durable before the data, and after a power cut the file
    /// would look complete with nothing but zeros in it. One without data may.
    pub(super) fn extend(&self, ids: &mut FsIds, file: &NewFile) -> Result<(), Errno> {
        let size = file.stat.size;
        match at::stat_fd(&file.dst)?.size {
            0 => ids.attempt(|| at::again(|| rustix::fs::ftruncate(&file.dst, size))),
            now if now < size => ids.attempt(|| write_full(file.dst.as_fd(), &[0], size - 1)),
            _ => Ok(()),
        }
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
    pub(super) fn copy_range(
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
            if self.stopped() {
                return Err(CopyError::Stopped);
            }
            let data = match at::again(|| rustix::fs::seek(&src, SeekFrom::Data(offset))) {
                Ok(data) => data.min(end),
                // No data behind `offset`.
                Err(Errno::NXIO) => return unshrunk(src, stat),
                Err(errno) => return Err(CopyError::Os(Side::Source, "seek in", errno)),
            };
            if data >= end {
                return Ok(());
            }
            let hole = at::again(|| rustix::fs::seek(&src, SeekFrom::Hole(data)))
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
            if self.stopped() {
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
                self.write(&mut worker.ids, sink, &worker.buffer[..count], offset)?;
            }
            offset += count as u64;
        }
        Ok(())
    }

    pub(super) fn write(
        &self,
        ids: &mut FsIds,
        sink: Sink<'_>,
        bytes: &[u8],
        offset: u64,
    ) -> Result<(), CopyError> {
        let turn = sink.turn.map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner));
        let _writing = self.queue.writing();
        let written = ids.attempt(|| write_full(sink.fd, bytes, offset));
        drop(turn);
        written.map_err(|errno| CopyError::at_destination("write", errno))?;
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
            if self.stopped() {
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
pub(super) fn next_data(fd: impl AsFd, offset: u64, size: u64) -> u64 {
    match at::again(|| rustix::fs::seek(&fd, SeekFrom::Data(offset))) {
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
