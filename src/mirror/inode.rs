//! Inodes as keys of tables.
#![forbid(unsafe_code)]

use std::sync::Mutex;

use crate::fs::InodeId;
use crate::lock::lock;

/// An [`InodeId`] with the device as its place in a [`DeviceList`].
pub(super) type InodeKey = (u32, u64);

/// Devices by their places in a list.
#[derive(Debug, Default)]
pub(super) struct DeviceList(Mutex<Vec<(u32, u32)>>);

impl DeviceList {
    pub fn key(&self, id: InodeId) -> InodeKey {
        let mut devices = lock(&self.0);
        let place = devices.iter().position(|device| *device == id.0).unwrap_or_else(|| {
            devices.push(id.0);
            devices.len() - 1
        });
        (place as u32, id.1)
    }

    pub fn at(&self, place: u32) -> Option<(u32, u32)> {
        lock(&self.0).get(place as usize).copied()
    }
}
