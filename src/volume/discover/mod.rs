//! Which disk is meant: by kernel name, by the name the cloud was asked to attach it under, by
//! identifier, or because it is the only one that can be.
#![forbid(unsafe_code)]

mod mounts;
mod nvme;
mod select;
mod sysfs;

pub use mounts::Mounts;
pub use nvme::{Identify, identify};
pub use select::{Selection, Why, by_name, by_volume_id, describe, is_relevant, size};
pub use sysfs::{Disk, Partition, disks, name, number};
