//! Partition tables, read from the bytes of a disk: GPT with its backup, MBR with logical
//! partitions. Numbers are the kernel's.
#![forbid(unsafe_code)]

mod gpt;
mod kind;
mod mbr;

pub use kind::Kind;

use crate::volume::bytes::source::Source;

/// The kinds of table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// GUID partition table (UEFI specification, chapter 5).
    Gpt,
    /// Master boot record with its logical partitions.
    Dos,
}

impl Table {
    /// blkid's PTTYPE.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpt => "gpt",
            Self::Dos => "dos",
        }
    }
}

/// One partition, as its entry describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    pub(crate) name: Option<String>,
    pub(crate) start_bytes: u64,
    pub(crate) size_bytes: u64,
}

/// A table and its partitions by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) table: Table,
    pub(crate) entries: Vec<Entry>,
}

/// Reads the table of a whole disk. Whoever wrote a GPT protects it by an MBR whose partition has
/// type 0xEE, alone or beside others (hybrid): then only the GPT counts.
pub(crate) fn read(source: &Source<'_>) -> Option<Layout> {
    let boot = source.bytes(0, 512)?;
    let records = mbr::records(&boot)?;
    if records.iter().any(mbr::Record::protects_gpt) {
        return gpt::read(source);
    }
    mbr::read(source, &boot, &records)
}
