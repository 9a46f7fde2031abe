//! Directories held by descriptor. Every step is one component, opened relative to a held
//! descriptor, and follows no link; so a user who can rename entries below a directory can make an
//! operation fail, but not make it land elsewhere.
//!
//! - `half_made`: leftovers of files that a killed run was replacing
//! - `listing`: the entries of a directory, in memory
//! - `dir`: one directory and what is done with its entries, with errors for messages
//! - [`descent`]: the way down a tree of any depth with few descriptors
//! - [`xattr`]: extended attributes
//! - [`aio`]: many reads in one system call
//! - `ids`: the user that a thread makes files as
//! - `patience`: calls that are tried again for a while
//! - [`at`]: the system calls, one component each
//! - `mount_id`: the mount of an object, where statx(2) does not return it
//! - `stat`: attributes of one object

pub mod aio;
pub mod at;
pub mod descent;
mod dir;
mod half_made;
mod ids;
mod listing;
mod mount_id;
mod patience;
mod stat;
pub mod xattr;

pub use dir::{Dir, TempName};
pub use half_made::clear_half_made;
pub use ids::{FsIds, KeepDumpable};
pub use listing::{DirEntry, DirListing};
pub use mount_id::mount_id;
pub use patience::{patiently, pause};
pub use stat::{FileTime, InodeId, Kind, Stat};

/// Permission bits of a directory that a restore is making. The sticky bit distinguishes those that a killed run has
/// left from private directories of root's.
pub const MAKING: u32 = 0o1700;
