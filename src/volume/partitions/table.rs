//! What a partition table says, whatever its format.
#![forbid(unsafe_code)]

use super::kind::Kind;

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
