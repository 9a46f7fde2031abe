//! One directory of a descent.
#![forbid(unsafe_code)]

use crate::fs::InodeId;

#[derive(Debug)]
pub(super) struct Level {
    pub id: InodeId,
    pub name: u32,
    pub waiting: u32,
    /// Bytes of the path to here, with a slash for each level.
    pub length: u32,
    pub unread: Unread,
}

/// The part of a directory that has not been listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    Nothing,
    /// From where its descriptor stands.
    Here,
    /// From this position.
    From(u64),
}
