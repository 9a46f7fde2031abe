//! A block device with bad manners: every read takes its time, and chosen ranges cannot be read.
//!
//! An image file is served through FUSE (the kernel's own protocol, linux/fuse.h, version 7.31) as
//! the one file of a mount, and a loop device with direct I/O stands on it. Requests are answered by
//! many threads, so N reads in flight take the time of one: see [`Device::prove_concurrent`].

use std::fs::File;
use std::io::{Read, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::sandbox::LoopDevice;

/// Reads that are answered at once; an EBS volume takes about as many.
const IN_FLIGHT: u16 = 128;
/// Pages of the largest read: 256 KiB, the largest one that EBS does in one go.
const LARGEST_READ_PAGES: u16 = 64;
/// Bytes of a request: header, arguments and the smallest write the protocol allows.
const REQUEST: usize = 64 * 1024;

const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const FORGET: u32 = 2;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

/// What the device does to its reader.
#[derive(Debug, Clone, Default)]
pub struct Manners {
    /// Time that each read takes.
    pub delay: Duration,
    /// Byte ranges whose reading fails with EIO.
    pub bad: Vec<Range<u64>>,
}

/// A read-only block device of bad manners. It needs a mount namespace of the process's own.
pub struct Device {
    node: Option<LoopDevice>,
    file: PathBuf,
    manners: Arc<RwLock<Manners>>,
    reads: Arc<AtomicU64>,
}

impl Device {
    /// Serves `image`; `place` is made as the file that the loop device stands on.
    pub fn of(image: &Path, place: &Path, manners: Manners) -> Self {
        let image = Arc::new(File::open(image).unwrap());
        let manners = Arc::new(RwLock::new(manners));
        let reads = Arc::new(AtomicU64::new(0));
        let channel = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        File::create(place).unwrap();
        let options = format!("fd={},rootmode=100000,user_id=0,group_id=0", channel.as_raw_fd());
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("slow"), place, Some("fuse"), flags, Some(options.as_str())).unwrap();
        for _ in 0..IN_FLIGHT {
            let server = Server {
                channel: channel.try_clone().unwrap(),
                image: Arc::clone(&image),
                manners: Arc::clone(&manners),
                reads: Arc::clone(&reads),
            };
            let builder = std::thread::Builder::new().stack_size(256 * 1024);
            builder.spawn(move || server.run()).unwrap();
        }
        let node = LoopDevice::of(place, &["--read-only", "--direct-io=on"]);
        Self { node: Some(node), file: place.into(), manners, reads }
    }

    /// Its node.
    pub fn node(&self) -> &Path {
        self.node.as_ref().unwrap().path()
    }

    /// Reads it has been asked for so far.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// From here on it behaves like this.
    pub fn behave(&self, manners: Manners) {
        *self.manners.write().unwrap() = manners;
    }

    /// How many times longer 32 cold reads at once take than one: about 1 when they overlap. The
    /// device must have a delay.
    pub fn prove_concurrent(&self) -> f64 {
        let read = |at: u64| {
            let mut sector = [0; 4096];
            File::open(self.node()).unwrap().read_exact_at(&mut sector, at).unwrap();
        };
        let cold = || std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        let stride = std::fs::metadata(&self.file).unwrap().len() / 40 / 4096 * 4096;
        cold();
        let start = Instant::now();
        read(stride * 35);
        let one = start.elapsed();
        cold();
        let start = Instant::now();
        std::thread::scope(|scope| {
            for number in 1..=32_u64 {
                scope.spawn(move || read(number * stride));
            }
        });
        start.elapsed().as_secs_f64() / one.as_secs_f64()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.node = None;
        // Gone already is fine; the threads end with the mount.
        let _ = umount2(&self.file, MntFlags::MNT_DETACH);
    }
}

struct Server {
    channel: File,
    image: Arc<File>,
    manners: Arc<RwLock<Manners>>,
    reads: Arc<AtomicU64>,
}

/// Little-endian or big, the protocol speaks the machine's own order.
fn number<const N: usize>(request: &[u8], at: usize) -> [u8; N] {
    request[at..at + N].try_into().unwrap()
}

impl Server {
    fn run(mut self) {
        let mut request = vec![0; REQUEST];
        loop {
            match self.channel.read(&mut request) {
                Ok(length) => self.answer(&request[..length]),
                Err(error) if error.raw_os_error() == Some(19) => return,
                // Interrupted or taken back before it was read.
                Err(_) => {}
            }
        }
    }

    fn answer(&mut self, request: &[u8]) {
        let arguments = &request[40..];
        let reply = match u32::from_ne_bytes(number(request, 4)) {
            FORGET | INTERRUPT | BATCH_FORGET => return,
            INIT => Ok(initialization(arguments)),
            GETATTR => Ok(self.attributes()),
            OPEN => Ok(vec![0; 16]),
            STATFS => Ok(vec![0; 80]),
            READ => self.read(arguments),
            RELEASE | FLUSH => Ok(Vec::new()),
            _ => Err(38),
        };
        let (error, payload) = match reply {
            Ok(payload) => (0, payload),
            Err(error) => (-error, Vec::new()),
        };
        let mut message = Vec::with_capacity(16 + payload.len());
        message.extend((16 + payload.len() as u32).to_ne_bytes());
        message.extend(i32::to_ne_bytes(error));
        message.extend_from_slice(&request[8..16]);
        message.extend(payload);
        // A reader that was killed no longer waits for it.
        let _ = self.channel.write(&message);
    }

    /// `struct fuse_attr_out`.
    fn attributes(&self) -> Vec<u8> {
        let size = self.image.metadata().unwrap().len();
        let mut out = Vec::new();
        out.extend(3600_u64.to_ne_bytes());
        out.extend([0; 8]);
        for word in [1, size, size / 512, 0, 0, 0] {
            out.extend(u64::to_ne_bytes(word));
        }
        for word in [0, 0, 0, 0o100_600, 1, 0, 0, 0, 4096, 0] {
            out.extend(u32::to_ne_bytes(word));
        }
        out
    }

    fn read(&self, arguments: &[u8]) -> Result<Vec<u8>, i32> {
        let start = u64::from_ne_bytes(number(arguments, 8));
        let size = u32::from_ne_bytes(number(arguments, 16)) as usize;
        let end = start + size as u64;
        self.reads.fetch_add(1, Ordering::Relaxed);
        let manners = self.manners.read().unwrap().clone();
        std::thread::sleep(manners.delay);
        if manners.bad.iter().any(|bad| bad.start < end && start < bad.end) {
            return Err(5);
        }
        let mut bytes = vec![0; size];
        let length = self.image.read_at(&mut bytes, start).map_err(|_| 5)?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// `struct fuse_init_out`: of what the kernel offers, only what lets direct reads overlap.
fn initialization(arguments: &[u8]) -> Vec<u8> {
    const ASYNC_READ: u32 = 1;
    const ASYNC_DIO: u32 = 1 << 15;
    const MAX_PAGES: u32 = 1 << 22;
    let offered = u32::from_ne_bytes(number(arguments, 12));
    let mut out = Vec::new();
    for word in [7, 31, 0, offered & (ASYNC_READ | ASYNC_DIO | MAX_PAGES)] {
        out.extend(u32::to_ne_bytes(word));
    }
    out.extend(IN_FLIGHT.to_ne_bytes());
    out.extend(IN_FLIGHT.to_ne_bytes());
    out.extend(4096_u32.to_ne_bytes());
    out.extend(1_u32.to_ne_bytes());
    out.extend(LARGEST_READ_PAGES.to_ne_bytes());
    out.extend([0; 34]);
    out
}
