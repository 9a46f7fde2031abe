//! Partition tables, read from the bytes of a disk: GPT with its backup, MBR with logical
//! partitions. Numbers are the kernel's.
#![forbid(unsafe_code)]

mod gpt;
mod kind;
mod mbr;
mod table;

pub use kind::PartitionKind;
pub use table::PartitionTable;
pub(in crate::volume) use table::{PartitionEntry, PartitionLayout};

use crate::volume::bytes::source::DeviceBytes;

/// Reads the table of a whole disk. A program that writes a GPT protects it by an MBR whose partition has
/// type 0xEE, alone or beside others (hybrid): then only the GPT counts.
pub(in crate::volume) fn read(source: &DeviceBytes<'_>) -> Option<PartitionLayout> {
    let boot = source.bytes(0, 512)?;
    let records = mbr::records(&boot)?;
    if records.iter().any(mbr::MbrRecord::protects_gpt) {
        return gpt::read(source);
    }
    mbr::read(source, &boot, &records)
}
