//! A volume, from "which device is it" to a read-only mount. Nothing here writes to a device, but for
//! the journal replay that the kernel does when a file system with a dirty journal is mounted.
//!
//! - [`mount`]: the attempts to mount, what the kernel says, and where the mount is shown
//! - [`loopdev`]: loop devices over a device or a part of it
//! - [`btrfs`]: facts of a mounted file system that only btrfs itself has
//! - [`discover`]: which disk is meant: sysfs, the NVMe controller's own record, identifiers
//! - [`device`]: one open block device or image file
//! - [`nodes`]: device nodes, also where /dev has none
//! - [`place`]: a directory to mount on
//! - [`mountinfo`]: what is mounted where
//! - [`number`]: device numbers
//! - [`probe`]: file system types, read from a device's bytes
//! - [`partitions`]: GPT and MBR, read from a disk's bytes
//! - `bytes`: bounded reads, fields and checksums of a device's bytes
//! - `ioctl`: calls that have no other form; the only unsafe code here
//! - [`look`]: looks that are repeated before "cannot tell" is their answer

pub mod btrfs;
mod bytes;
pub mod device;
pub mod discover;
mod ioctl;
pub mod look;
pub mod loopdev;
pub mod mount;
pub mod mountinfo;
pub mod nodes;
pub mod number;
pub mod partitions;
pub mod place;
pub mod probe;
