//! `restore --probe`: says as JSON what is on a device or in an image file, and changes nothing.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;

use molecule_tools::error::Error;
use molecule_tools::log::{self, LogStream};
use molecule_tools::volume::device::{AcceptedDevice, Device};
use molecule_tools::volume::partitions::PartitionTable;
use molecule_tools::volume::probe::{self, Probe, ProbedPartition};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::exit::{Exit, Status};

/// Prints one JSON object.
pub fn run(device: &OsStr) -> Result<Status, Exit> {
    let path = Path::new(device);
    let device = Device::open(path, AcceptedDevice::BlockOrImage)?.ok_or_else(|| {
        Error::os("open", path, Errno::NOENT).hint("name the node that the kernel made, see lsblk")
    })?;
    let found = probe::probe(&device.as_fd())?;
    log::write_line(LogStream::Stdout, &log::json_text(&object(path, &found), true));
    Ok(Status::Done)
}

fn object(device: &Path, found: &Probe) -> Value {
    let mut object = json!({
        "device": device.to_string_lossy(),
        "fstype": found.fstype,
        "uuid": found.uuid,
        "label": found.label,
        "partition_table": found.table.map(PartitionTable::name),
        "partitions": found.partitions.iter().map(partition).collect::<Vec<_>>(),
    });
    if let (false, Some(object)) = (found.ambivalent.is_empty(), object.as_object_mut()) {
        object.insert("ambivalent".into(), found.ambivalent.clone().into());
    }
    object
}

fn partition(found: &ProbedPartition) -> Value {
    json!({
        "number": found.number,
        "fstype": found.fstype,
        "uuid": found.uuid,
        "label": found.label,
        "start_bytes": found.start_bytes,
        "size_bytes": found.size_bytes,
    })
}
