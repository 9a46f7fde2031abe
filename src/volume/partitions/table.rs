//! The content of a partition table, whatever its format.
#![forbid(unsafe_code)]

use super::kind::PartitionKind;

/// The kinds of table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionTable {
    /// GUID partition table (UEFI specification, chapter 5).
    Gpt,
    /// Master boot record with its logical partitions.
    Dos,
}

impl PartitionTable {
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
pub(in crate::volume) struct PartitionEntry {
    pub(in crate::volume) number: u32,
    pub(in crate::volume) kind: PartitionKind,
    pub(in crate::volume) name: Option<String>,
    pub(in crate::volume) start_bytes: u64,
    pub(in crate::volume) size_bytes: u64,
}

/// A table and its partitions by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::volume) struct PartitionLayout {
    pub(in crate::volume) table: PartitionTable,
    pub(in crate::volume) entries: Vec<PartitionEntry>,
}
