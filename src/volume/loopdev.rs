//! Loop devices over a device, a part of it, or an image file (drivers/block/loop.c, loop(4)).
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::device::Device;
use super::discover;
use super::ioctl::{LoopConfig, LoopInfo64, configure_loop, free_loop, loop_status};
use super::nodes::{DeviceNode, DeviceNodes, open_node};
use super::number::{self, DeviceNumber};
use crate::error::{Error, Result};
use crate::fs::Kind;

const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;

/// Others take loop devices too: between asking for a free one and taking it, it may be gone.
const TRIES: usize = 100;

/// A part of a device: first byte and length; a length of 0 is "to the end".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Length in bytes, 0 for all that follows.
    pub length: u64,
}

/// A loop device that the kernel frees when nothing uses it any more: neither this value nor a mount.
#[derive(Debug)]
pub struct LoopDevice {
    _file: File,
    node: DeviceNode,
    name: String,
}

impl LoopDevice {
    /// Sets one up over `range` of `backing`. It is read-only unless `backing` is open for writing
    /// and `writable` is set.
    pub fn attach(
        backing: impl AsFd,
        range: ByteRange,
        writable: bool,
        nodes: &DeviceNodes,
    ) -> Result<Self> {
        let control = open(nodes, "loop-control", Path::new("/dev/loop-control"), OFlags::RDWR)
            .map_err(with_hint)?
            .0;
        let flags = if writable { AUTOCLEAR } else { AUTOCLEAR | READ_ONLY };
        let config = LoopConfig {
            fd: u32::try_from(backing.as_fd().as_raw_fd()).unwrap_or(u32::MAX),
            info: LoopInfo64 {
                offset: range.offset,
                sizelimit: range.length,
                flags,
                ..LoopInfo64::default()
            },
            ..LoopConfig::default()
        };
        let mut last = Errno::BUSY;
        for _ in 0..TRIES {
            let index = free_loop(&control).map_err(|errno| {
                Error::os("ask for a loop device at", "/dev/loop-control", errno)
            })?;
            let name = format!("loop{index}");
            let path = Path::new("/dev").join(&name);
            let mode = if writable { OFlags::RDWR } else { OFlags::RDONLY };
            let (file, node) = match open(nodes, &name, &path, mode) {
                Ok(opened) => opened,
                Err(error) if error.errno() == Some(Errno::NOENT) => continue,
                Err(error) => return Err(with_hint(error)),
            };
            match configure_loop(&file, config) {
                Ok(()) => return Ok(Self { _file: file, node, name }),
                Err(errno @ (Errno::BUSY | Errno::AGAIN | Errno::NXIO)) => last = errno,
                Err(errno) => return Err(Error::os("set up loop device", path, errno)),
            }
        }
        Err(Error::failed("find a free loop device", last))
    }

    /// The block device.
    pub fn node(&self) -> &DeviceNode {
        &self.node
    }

    /// `loopN`, which is how the kernel's messages name it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The backing of a loop device: a device or file, and which range of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopBacking {
    /// DeviceNumber of the block device; (0, 0) for a file.
    device: DeviceNumber,
    /// Device and inode number of the file; only for a file.
    file: Option<(DeviceNumber, u64)>,
    range: ByteRange,
}

impl LoopBacking {
    /// `range` of `device`.
    pub fn of(device: &Device, range: ByteRange) -> Result<Self> {
        let stat =
            rustix::fs::fstat(device).map_err(|errno| Error::os("stat", device.shown(), errno))?;
        let dev = number::from_stat(stat.st_dev);
        Ok(match device.number() {
            Some(number) => Self { device: number, file: None, range },
            None => Self { device: (0, 0), file: Some((dev, stat.st_ino)), range },
        })
    }
}

/// The backing of loop device `number`; `None` if it is no loop device in use.
pub fn backing(number: DeviceNumber, nodes: &DeviceNodes) -> Result<Option<LoopBacking>> {
    const LOOP_MAJOR: u32 = 7;
    if number.0 != LOOP_MAJOR {
        return Ok(None);
    }
    let fail = |errno| Error::os("look at", format!("/dev/loop {}:{}", number.0, number.1), errno);
    let node = nodes.make("loop-in-use", Kind::Block, number)?;
    let device = node.open(OFlags::RDONLY).map_err(fail)?;
    let info = match loop_status(&device) {
        Ok(info) => info,
        Err(Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(fail(errno)),
    };
    let [rdevice, file] = [info.rdevice, info.device].map(number::from_kernel);
    // For a file on a file system without a block device, older kernels give its device twice.
    let is_file = rdevice == (0, 0) || info.rdevice == info.device;
    Ok(Some(LoopBacking {
        device: if is_file { (0, 0) } else { rdevice },
        file: is_file.then_some((file, info.inode)),
        range: ByteRange { offset: info.offset, length: info.sizelimit },
    }))
}

/// Says what to do where a loop device is out of reach.
fn with_hint(error: Error) -> Error {
    match error.errno() {
        // The permissions of the node, or the device cgroup of the container.
        Some(Errno::PERM | Errno::ACCESS) => error.hint(
            "the container may not use loop devices: docker run --privileged, or --device \
             /dev/loop-control --device-cgroup-rule='b 7:* rwm'",
        ),
        Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => {
            error.hint("load the kernel's loop module")
        }
        _ => error,
    }
}

/// Opens the device node at `usual`, or one made from what sysfs says about `name`: /dev of a
/// container has only the loop devices of the moment it was started.
fn open(nodes: &DeviceNodes, name: &str, usual: &Path, mode: OFlags) -> Result<(File, DeviceNode)> {
    let class = if name == "loop-control" { "misc" } else { "block" };
    let mut path = PathBuf::from(usual);
    let opened = match open_node(usual, mode) {
        Err(errno @ (Errno::NOENT | Errno::NXIO | Errno::NODEV | Errno::ACCESS)) => {
            let kind = if class == "misc" { Kind::Char } else { Kind::Block };
            let number = discover::device_number(Path::new("/sys"), class, name)?;
            let number = number.ok_or_else(|| Error::os("open", usual, errno))?;
            path = nodes.make(name, kind, number)?.path;
            open_node(&path, mode)
        }
        other => other,
    };
    let file = File::from(opened.map_err(|errno| Error::os("open", usual, errno))?);
    let stat = rustix::fs::fstat(&file).map_err(|errno| Error::os("stat", usual, errno))?;
    let number = number::from_stat(stat.st_rdev);
    Ok((file, DeviceNode { number, path }))
}
