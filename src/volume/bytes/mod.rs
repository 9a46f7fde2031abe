//! Bytes of a device: read within bounds, and taken apart without a panic whatever they are.
#![forbid(unsafe_code)]

pub mod checksum;
pub mod fields;
pub mod source;
