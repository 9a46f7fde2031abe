//! One open block device or image file.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::bytes::source::ReadAt as _;
use super::ioctl;
use super::look;
use super::nodes::{DeviceNode, DeviceNodes, open_node};
use super::number::{self, DeviceNumber};
use crate::error::{Error, Result};
use crate::fs::Kind;

/// A block device or an image file, open for reading.
#[derive(Debug)]
pub struct Device {
    file: File,
    shown: PathBuf,
    node: Option<DeviceNode>,
}

/// The kinds of file that may be opened as a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptedDevice {
    /// A block device.
    Block,
    /// The same, or a regular file.
    BlockOrImage,
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Device {
    /// Opens what the operator named, links followed; `None` if it does not exist. Anything else than what is
    /// accepted is refused (no errno).
    pub fn open(path: &Path, accepted: AcceptedDevice) -> Result<Option<Self>> {
        let fail = |errno| Error::os("open", path, errno);
        let image = accepted == AcceptedDevice::BlockOrImage;
        // Stat before open: opening a character device or a fifo can have effects.
        let kind = match look::again(|| rustix::fs::stat(path)) {
            Ok(stat) => Kind::from_mode(stat.st_mode),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(fail(errno)),
        };
        let refuse = |kind: Kind| match accepted {
            AcceptedDevice::Block => Error::on("use", path, format!("it is {}", kind.noun()))
                .hint("a block device is needed"),
            AcceptedDevice::BlockOrImage => {
                Error::on("open", path, "it is neither a block device nor a regular file")
            }
        };
        if kind != Kind::Block && !(image && kind == Kind::File) {
            return Err(refuse(kind));
        }
        let file = File::from(open_node(path, OFlags::RDONLY).map_err(fail)?);
        let stat = rustix::fs::fstat(&file).map_err(fail)?;
        let node = match Kind::from_mode(stat.st_mode) {
            Kind::Block => {
                Some(DeviceNode { number: number::from_stat(stat.st_rdev), path: path.to_owned() })
            }
            Kind::File if image => None,
            kind => return Err(refuse(kind)),
        };
        Ok(Some(Self { file, shown: path.to_owned(), node }))
    }

    /// Opens the block device that sysfs lists as `name` with `number`: through its node in /dev if
    /// that is the right one, else through a node made in `nodes`.
    pub fn open_number(nodes: &DeviceNodes, name: &str, number: DeviceNumber) -> Result<Self> {
        let usual = Path::new("/dev").join(name.replace('!', "/"));
        if let Ok(Some(device)) = Self::open(&usual, AcceptedDevice::Block)
            && device.number() == Some(number)
        {
            return Ok(device);
        }
        let node = nodes.make(name, Kind::Block, number)?;
        let fd = node.open(OFlags::RDONLY).map_err(|errno| Error::os("open", &usual, errno))?;
        Ok(Self { file: File::from(fd), shown: usual, node: Some(node) })
    }

    /// The open file, for reading.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The name for messages: the path given, or the one it would have in /dev.
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// The block device; `None` for an image file.
    pub fn node(&self) -> Option<&DeviceNode> {
        self.node.as_ref()
    }

    /// Device number; `None` for an image file.
    pub fn number(&self) -> Option<DeviceNumber> {
        self.node.as_ref().map(|node| node.number)
    }

    /// Size in bytes; `None` if it is not known.
    pub fn size(&self) -> Option<u64> {
        self.file.as_fd().size().ok()
    }

    /// See [`DeviceNode::is_claimed`]; an image file never is.
    pub fn is_claimed(&self) -> Result<bool> {
        self.node.as_ref().map_or(Ok(false), DeviceNode::is_claimed)
    }

    /// Whether the kernel refuses writes to the block device (BLKROGET), as far as it answers. Always
    /// so for an image file, which is never opened for writing.
    pub fn read_only(&self) -> bool {
        match self.node {
            Some(_) => ioctl::is_block_read_only(&self.file).unwrap_or(false),
            None => true,
        }
    }
}
