//! A volume, from "which device is it" to a read-only mount. Nothing here writes to a device, but for
//! the journal replay that the kernel does when a file system with a dirty journal is mounted.
//!
//! - [`btrfs`]: what only btrfs itself tells of a mounted file system
//! - `bytes`: bounded reads, fields and checksums of a device's bytes
//! - [`device`]: one open block device or image file, and device nodes made where /dev has none
//! - [`discover`]: which disk is meant: sysfs, the NVMe controller's own record, identifiers
//! - [`look`]: looks that are repeated before "cannot tell" is their answer
//! - [`loopdev`]: loop devices over a device or a part of it
//! - [`mount`]: the attempts to mount, what the kernel says, and where the mount is put
//! - [`partitions`]: GPT and MBR, read from a disk's bytes
//! - [`probe`]: file system types, told from a device's bytes

pub mod btrfs;
mod bytes;
pub mod device;
pub mod discover;
mod ioctl;
pub mod look;
pub mod loopdev;
pub mod mount;
pub mod partitions;
pub mod probe;
