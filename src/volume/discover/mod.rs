//! Which disk is meant: by kernel name, by the name the cloud was asked to attach it under, by
//! identifier, or because it is the only one that can be.
//!
//! - `select`: the one disk that is meant, or why none is
//! - `nvme`: the record of an NVMe controller
//! - `sysfs`: disks and partitions
//! - `mounts`: which of them are mounted
#![forbid(unsafe_code)]

mod mounts;
mod nvme;
mod select;
mod sysfs;

pub use mounts::Mounts;
pub use nvme::{ControllerRecord, identify};
pub use select::{
    DiskSelection, SelectionReason, by_name, by_volume_id, describe_disk, human_size, is_relevant,
};
pub use sysfs::{DiskPartition, WholeDisk, device_number, disks, kernel_name};
