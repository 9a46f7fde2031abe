//! The file system that is to be mounted.
#![forbid(unsafe_code)]

use std::path::Path;

use crate::volume::device::Device;
use crate::volume::loopdev::ByteRange;
use crate::volume::nodes::DeviceNode;

/// One file system to be mounted.
#[derive(Debug)]
pub struct MountTarget<'a> {
    /// The device that it is on.
    pub device: &'a Device,
    /// Where on it.
    pub range: ByteRange,
    /// The block device that is exactly this range, with its kernel name, where there is one.
    pub node: Option<(String, DeviceNode)>,
    /// Type as blkid(8) names it.
    pub fstype: &'a str,
    /// Where a sound copy of the superblock is (ext2, ext3, ext4), in units of 1 KiB, if the first one
    /// is of no use.
    pub backup_superblock: Option<u64>,
    /// The name in log lines.
    pub shown: &'a Path,
}

impl MountTarget<'_> {
    /// Length in bytes; 0 if it is not known.
    pub(super) fn length(&self) -> u64 {
        match self.range.length {
            0 => self.device.size().unwrap_or(0).saturating_sub(self.range.offset),
            length => length,
        }
    }
}
