//! One directory of a descent.
#![forbid(unsafe_code)]

use crate::fs::InodeId;

#[derive(Debug)]
pub(super) struct DescentLevel {
    pub id: InodeId,
    pub name: u32,
    pub waiting: u32,
    /// Bytes of the path to here, with a slash for each level.
    pub length: u32,
    pub unread: UnreadPart,
}

/// The part of a directory that has not been listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnreadPart {
    Nothing,
    /// From where its descriptor stands.
    Here,
    /// From this position.
    From(u64),
}
