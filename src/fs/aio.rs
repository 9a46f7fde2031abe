//! Many small reads in one system call.
//!
//! io_submit(2) hands the kernel a batch of reads and holds the device's queue back until all of
//! them are in it, so that blocks which lie side by side are fetched with one request though they
//! belong to different files. Each read is made with RWF_NOWAIT (preadv2(2)): it returns what the page
//! cache holds, has the rest fetched, and does not wait; a later pread(2) finds it there.
//!
//! No crate binds these calls; the structures are those of `linux/aio_abi.h`.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;
use rustix::io::Errno;

const COMMAND_PREAD: u16 = 0;
/// RWF_NOWAIT of `linux/fs.h`.
const NO_WAIT: u32 = 0x8;

/// `struct iocb`.
#[repr(C)]
#[derive(Default)]
struct ControlBlock {
    data: u64,
    #[cfg(target_endian = "little")]
    key: u32,
    flags: u32,
    #[cfg(target_endian = "big")]
    key: u32,
    command: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    length: u64,
    offset: i64,
    reserved: u64,
    notification: u32,
    notified: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Event {
    data: u64,
    control_block: u64,
    result: i64,
    result2: i64,
}

/// One read from the start of an open file.
#[derive(Debug)]
pub struct AsyncRead<'a> {
    /// The file.
    pub file: BorrowedFd<'a>,
    /// Where the bytes go; its length is how many are asked for.
    pub buffer: &'a mut [u8],
    /// How many bytes there are now; 0 where they are still to come, or cannot be read.
    pub done: usize,
}

/// A kernel context for batches of reads (io_setup(2)). Closing it takes tens of milliseconds, in
/// which the kernel makes sure that nobody else uses it.
#[derive(Debug)]
pub struct AioContext {
    id: libc::c_ulong,
    most: usize,
}

impl AioContext {
    /// A context for batches of at most `most` reads.
    ///
    /// # Errors
    ///
    /// ENOSYS or EPERM where the kernel or a system call filter does not have it, EAGAIN beyond
    /// `/proc/sys/fs/aio-max-nr`.
    pub fn new(most: usize) -> Result<Self, Errno> {
        let mut id: libc::c_ulong = 0;
        // SAFETY: io_setup writes the context's number through a pointer to a live, zeroed word.
        #[allow(unsafe_code)]
        let made = unsafe { libc::syscall(libc::SYS_io_setup, most as libc::c_long, &raw mut id) };
        check(made).map(|_| Self { id, most })
    }

    /// Makes all `reads` (no more than the context is for) and says in each how far it got. Reads
    /// that were not accepted are left alone.
    ///
    /// # Errors
    ///
    /// That of io_submit(2) when not even the first was accepted, as EOPNOTSUPP on a file system
    /// that only reads with waiting.
    pub fn read(&mut self, reads: &mut [AsyncRead<'_>]) -> Result<(), Errno> {
        let mut blocks: Vec<ControlBlock> = reads
            .iter_mut()
            .take(self.most)
            .zip(0..)
            .map(|(read, data)| ControlBlock {
                data,
                flags: NO_WAIT,
                command: COMMAND_PREAD,
                file: read.file.as_raw_fd().cast_unsigned(),
                buffer: read.buffer.as_mut_ptr() as u64,
                length: read.buffer.len() as u64,
                ..ControlBlock::default()
            })
            .collect();
        let pointers: Vec<*mut ControlBlock> =
            blocks.iter_mut().map(|block| block as *mut ControlBlock).collect();
        let (count, list) = (pointers.len() as libc::c_long, pointers.as_ptr());
        // SAFETY: the list and its blocks live until the call returns, which is all the kernel needs
        // of them. The buffers are borrowed mutably by `reads` for as long as this function runs,
        // and it does not return before every accepted read is over.
        #[allow(unsafe_code)]
        let accepted = unsafe { libc::syscall(libc::SYS_io_submit, self.id, count, list) };
        let mut waiting = usize::try_from(check(accepted)?).unwrap_or(0);
        let mut events = vec![Event::default(); waiting];
        while waiting > 0 {
            match self.wait(&mut events[..waiting]) {
                Ok(over) => {
                    for event in &events[..over] {
                        let read = usize::try_from(event.data).ok().and_then(|i| reads.get_mut(i));
                        if let Some(read) = read {
                            read.done = usize::try_from(event.result).unwrap_or(0);
                        }
                    }
                    waiting -= over;
                }
                Err(Errno::INTR) => {}
                Err(errno) => {
                    // Closing the context also waits for what is under way.
                    self.close();
                    return Err(errno);
                }
            }
        }
        Ok(())
    }

    /// Waits for as many events as `events` has places; returns how many there were.
    fn wait(&self, events: &mut [Event]) -> Result<usize, Errno> {
        let (count, place) = (events.len() as libc::c_long, events.as_mut_ptr());
        let forever = std::ptr::null::<libc::timespec>();
        // SAFETY: `place` has room for `count` events.
        #[allow(unsafe_code)]
        let over =
            unsafe { libc::syscall(libc::SYS_io_getevents, self.id, count, count, place, forever) };
        check(over).map(|over| usize::try_from(over).unwrap_or(0).min(events.len()))
    }

    fn close(&mut self) {
        if self.id != 0 {
            // SAFETY: the number is that of a context this value made and has not closed yet.
            #[allow(unsafe_code)]
            unsafe {
                libc::syscall(libc::SYS_io_destroy, self.id);
            }
            self.id = 0;
        }
    }
}

impl Drop for AioContext {
    fn drop(&mut self) {
        self.close();
    }
}

fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result >= 0 {
        return Ok(result);
    }
    let error = std::io::Error::last_os_error();
    Err(crate::error::os_errno(&error))
}
