//! Volumes: what lies on a device, found by reading it.

pub mod partitions;
pub mod probe;
