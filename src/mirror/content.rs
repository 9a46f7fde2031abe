//! The content of regular files.
//!
//! Files are read and written from front to back; those from [`LARGE`](super::limits::LARGE) bytes on by
//! several threads at once (`large`). Holes are found with SEEK_DATA (lseek(2)) and stay holes.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::chunks::ByteSink;
use super::counters::add;
use super::engine::{Engine, Worker};
use super::fault::{Fault, Step};
use super::file::NewFile;
use super::found::SourceFile;
use super::limits::BUFFER;
use crate::fs::{FsIds, Stat, at};
use crate::lock::lock;

/// The attributes of the file after a look for holes, which blocks allocated behind its end make up for in
/// their number. One of a single read is written in full: the look would cost more.
pub(super) fn with_holes_known(stat: Stat, file: impl AsFd) -> Stat {
    let look = stat.size > BUFFER as u64 && !stat.is_sparse();
    let hole =
        look && at::again(|| seek(&file, SeekFrom::Hole(0))).is_ok_and(|hole| hole < stat.size);
    if hole { Stat { blocks: 0, ..stat } } else { stat }
}

/// Fills a new file from `src`, from what was read ahead of it if that is all.
pub(super) fn fill(w: &mut Worker<'_>, file: &NewFile, src: &SourceFile) -> Step {
    let sink = ByteSink { fd: file.dst.as_fd(), turn: None };
    if src.read.is_empty() {
        return copy_range(w, &src.fd, Some(sink), &file.stat, 0, file.stat.size);
    }
    write(w.engine, &mut w.ids, sink, &w.ahead.bytes[src.read.clone()], 0)
}

/// Makes the hole at the end of a sparse file, which no write of data reaches. By a written zero, for
/// ftruncate(2) makes the new length durable before the data, and after a power cut the file
/// would look complete with nothing but zeros in it. One without data may.
pub(super) fn extend(ids: &mut FsIds, file: &NewFile) -> Result<(), Errno> {
    let size = file.stat.size;
    match at::stat_fd(&file.dst)?.size {
        0 => ids.attempt(|| at::again(|| rustix::fs::ftruncate(&file.dst, size))),
        now if now < size => ids.attempt(|| write_full(file.dst.as_fd(), &[0], size - 1)),
        _ => Ok(()),
    }
}

/// Reads the whole file and keeps nothing.
pub(super) fn read_through(w: &mut Worker<'_>, src: &OwnedFd, stat: &Stat) -> Step {
    copy_range(w, src, None, stat, 0, stat.size)
}

/// Copies the bytes from `start` to `end`, without a `sink` only reads them; holes are left out.
pub(super) fn copy_range(
    w: &mut Worker<'_>,
    src: impl AsFd,
    sink: Option<ByteSink<'_>>,
    stat: &Stat,
    start: u64,
    end: u64,
) -> Step {
    if !stat.is_sparse() {
        return copy_data(w, src.as_fd(), sink, start, end);
    }
    let mut offset = start;
    while offset < end {
        if w.engine.stopped() {
            return Err(Fault::Stopped);
        }
        let data = match at::again(|| seek(&src, SeekFrom::Data(offset))) {
            Ok(data) => data.min(end),
            // No data behind `offset`.
            Err(Errno::NXIO) => return unshrunk(src, stat),
            Err(errno) => return Err(Fault::source("seek in")(errno)),
        };
        if data >= end {
            return Ok(());
        }
        let hole = at::again(|| seek(&src, SeekFrom::Hole(data)))
            .map_err(Fault::source("seek in"))?
            .min(end);
        copy_data(w, src.as_fd(), sink, data, hole)?;
        offset = hole;
    }
    Ok(())
}

fn copy_data(
    w: &mut Worker<'_>,
    src: BorrowedFd<'_>,
    sink: Option<ByteSink<'_>>,
    start: u64,
    end: u64,
) -> Step {
    let mut offset = start;
    while offset < end {
        if w.engine.stopped() {
            return Err(Fault::Stopped);
        }
        let want = usize::try_from(end - offset).unwrap_or(usize::MAX).min(BUFFER);
        let count = match rustix::io::pread(src, &mut w.buffer[..want], offset) {
            Ok(0) => return Err(Fault::Shrunk),
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(Fault::source("read")(errno)),
        };
        if let Some(sink) = sink {
            write(w.engine, &mut w.ids, sink, &w.buffer[..count], offset)?;
        }
        offset += count as u64;
    }
    Ok(())
}

/// Writes `bytes` at `offset`.
pub(super) fn write(
    engine: &Engine<'_>,
    ids: &mut FsIds,
    sink: ByteSink<'_>,
    bytes: &[u8],
    offset: u64,
) -> Step {
    let turn = sink.turn.map(lock);
    let _writing = engine.pace.writing();
    let written = ids.attempt(|| write_full(sink.fd, bytes, offset));
    drop(turn);
    written.map_err(Fault::destination("write"))?;
    add(&engine.counters.bytes, bytes.len() as u64);
    Ok(())
}

/// Whether both files have the same `size` bytes.
pub(super) fn same_bytes(
    w: &mut Worker<'_>,
    src: impl AsFd,
    dst: impl AsFd,
    size: u64,
) -> Step<bool> {
    let mut other = vec![0; BUFFER];
    let mut offset = 0;
    while offset < size {
        if w.engine.stopped() {
            return Err(Fault::Stopped);
        }
        // A hole in both is equal.
        offset = next_data(&src, offset, size).min(next_data(&dst, offset, size));
        let want = usize::try_from(size - offset).unwrap_or(usize::MAX).min(BUFFER);
        let left = read_full(&src, &mut w.buffer[..want], offset).map_err(Fault::source("read"))?;
        let right =
            read_full(&dst, &mut other[..want], offset).map_err(Fault::destination("read"))?;
        if w.buffer[..left] != other[..right] {
            return Ok(false);
        }
        if left < want {
            return Err(Fault::Shrunk);
        }
        offset += want as u64;
    }
    Ok(true)
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
fn unshrunk(src: impl AsFd, stat: &Stat) -> Step {
    match at::stat_fd(src) {
        Ok(now) if now.size < stat.size => Err(Fault::Shrunk),
        Ok(_) => Ok(()),
        Err(errno) => Err(Fault::source("stat")(errno)),
    }
}

/// Where the next data at or behind `offset` begins; `size` where there is none. A file system that
/// does not know says "here".
pub(super) fn next_data(fd: impl AsFd, offset: u64, size: u64) -> u64 {
    match at::again(|| seek(&fd, SeekFrom::Data(offset))) {
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
