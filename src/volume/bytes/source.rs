//! Bounded reading of hostile bytes: what is read from a device is read once, counted and capped.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Something that can be read at any position without being changed.
pub trait ReadAt {
    /// Reads at byte `offset` into `buffer`; returns the number of bytes read, 0 at the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Size in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Size of a logical sector in bytes, the unit of partition tables.
    fn sector_size(&self) -> u64 {
        512
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..)).unwrap_or(&[]);
        let count = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(count)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl ReadAt for BorrowedFd<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::pread(self, &mut *buffer, offset))?)
    }

    /// Works for regular files and for block devices (lseek(2)).
    fn size(&self) -> io::Result<u64> {
        Ok(rustix::fs::seek(self, SeekFrom::End(0))?)
    }

    fn sector_size(&self) -> u64 {
        rustix::fs::ioctl_blksszget(self).map_or(512, u64::from)
    }
}

impl ReadAt for OwnedFd {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.as_fd().read_at(offset, buffer)
    }

    fn size(&self) -> io::Result<u64> {
        self.as_fd().size()
    }

    fn sector_size(&self) -> u64 {
        self.as_fd().sector_size()
    }
}

const BLOCK: u64 = 512;

/// A device and what has been read of it. Each byte is read at most once, and less than
/// [`DeviceBytes::LIMIT`] bytes in all, which bounds the memory too.
pub struct DeviceBytes<'a> {
    device: &'a dyn ReadAt,
    size: u64,
    sector_size: u64,
    blocks: RefCell<BTreeMap<u64, Box<[u8]>>>,
    used: Cell<u64>,
    exhausted: Cell<bool>,
    failure: Cell<Option<Errno>>,
}

impl<'a> DeviceBytes<'a> {
    /// A probe reads less than this, in bytes.
    pub const LIMIT: u64 = 1024 * 1024;

    pub fn new(device: &'a dyn ReadAt) -> Self {
        let size = device.size().map_err(|error| crate::error::os_errno(&error));
        Self {
            device,
            // Nothing can be found then, and the probe fails.
            size: size.unwrap_or(0),
            sector_size: device.sector_size().clamp(512, 65536),
            blocks: RefCell::default(),
            used: Cell::new(0),
            exhausted: Cell::new(false),
            failure: Cell::new(size.err()),
        }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn sector_size(&self) -> u64 {
        self.sector_size
    }

    /// The first error of the device, if reading ever failed.
    pub fn failure(&self) -> Option<Errno> {
        self.failure.get()
    }

    /// Whether a read was refused because of the limit.
    pub fn exhausted(&self) -> bool {
        self.exhausted.get()
    }

    /// The `length` bytes at `offset`; `None` if they are not all there.
    pub fn bytes(&self, offset: u64, length: u64) -> Option<Vec<u8>> {
        let end = offset.checked_add(length).filter(|end| *end <= self.size)?;
        if length >= Self::LIMIT {
            self.exhausted.set(true);
            return None;
        }
        let (first, last) = (offset / BLOCK, end.div_ceil(BLOCK));
        self.load(first, last)?;
        let blocks = self.blocks.borrow();
        let mut bytes = Vec::with_capacity(usize::try_from((last - first) * BLOCK).ok()?);
        for index in first..last {
            bytes.extend_from_slice(blocks.get(&index)?);
        }
        bytes.drain(..usize::try_from(offset - first * BLOCK).ok()?.min(bytes.len()));
        bytes.truncate(usize::try_from(length).ok()?);
        (bytes.len() as u64 == length).then_some(bytes)
    }

    /// Fetches the blocks of `first..last` that are not yet there, one read for each run.
    fn load(&self, first: u64, last: u64) -> Option<()> {
        let mut at = first;
        while at < last {
            if self.blocks.borrow().contains_key(&at) {
                at += 1;
                continue;
            }
            let run_end = (at..last).find(|i| self.blocks.borrow().contains_key(i)).unwrap_or(last);
            let length = (run_end * BLOCK).min(self.size).checked_sub(at * BLOCK)?;
            if self.used.get() + length >= Self::LIMIT {
                self.exhausted.set(true);
                return None;
            }
            self.used.set(self.used.get() + length);
            let mut buffer = vec![0; usize::try_from(length).ok()?];
            self.fill(at * BLOCK, &mut buffer)?;
            let mut blocks = self.blocks.borrow_mut();
            for (index, chunk) in (at..).zip(buffer.chunks(BLOCK as usize)) {
                blocks.insert(index, chunk.into());
            }
            at = run_end;
        }
        Some(())
    }

    fn fill(&self, mut offset: u64, mut buffer: &mut [u8]) -> Option<()> {
        while !buffer.is_empty() {
            match self.device.read_at(offset, buffer) {
                Ok(0) => return None,
                Ok(count) => {
                    offset = offset.checked_add(count as u64)?;
                    buffer = buffer.get_mut(count..)?;
                }
                Err(error) => {
                    let errno = crate::error::os_errno(&error);
                    self.failure.set(self.failure.get().or(Some(errno)));
                    return None;
                }
            }
        }
        Some(())
    }
}

/// The part of a device that a file system would be in: the whole of it, or a partition.
pub struct ByteExtent<'a> {
    source: &'a DeviceBytes<'a>,
    start: u64,
    size: u64,
    /// (start, size) in bytes of the partitions of the whole disk that this is.
    covered: &'a [(u64, u64)],
}

impl<'a> ByteExtent<'a> {
    /// The whole device; `covered` are its partitions, (start, size) in bytes.
    pub fn whole(source: &'a DeviceBytes<'a>, covered: &'a [(u64, u64)]) -> Self {
        Self { source, start: 0, size: source.size(), covered }
    }

    /// A partition of it; what lies beyond the end of the device is cut off.
    pub fn part(source: &'a DeviceBytes<'a>, start: u64, size: u64) -> Self {
        let size = size.min(source.size().saturating_sub(start));
        Self { source, start, size, covered: &[] }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The `length` bytes at `offset`; `None` if they are not all within the extent or unreadable.
    pub fn bytes(&self, offset: u64, length: u64) -> Option<Vec<u8>> {
        offset.checked_add(length).filter(|end| *end <= self.size)?;
        self.source.bytes(self.start.checked_add(offset)?, length)
    }

    /// Whether the bytes `offset..offset + length` lie within one partition of this disk, so that a
    /// signature there is the partition's, not the disk's. A table that does not fit on the disk
    /// proves nothing.
    pub fn is_covered(&self, offset: u64, length: u64) -> bool {
        let ends = |(start, size): &(u64, u64)| start.saturating_add(*size) / 512;
        if self.covered.iter().any(|part| ends(part) > self.size / 512) {
            return false;
        }
        let (first, last) = (offset / 512, offset.saturating_add(length) / 512);
        self.covered.iter().any(|part| first >= part.0 / 512 && last <= ends(part))
    }
}
