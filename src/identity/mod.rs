//! Who a process is to be: `USER[:GROUP]` specs, the passwd and group files of any root, and the
//! change of identity, verified.
//!
//! Look-ups read the two files and nothing else: no NSS module is ever loaded, so the answer is the
//! same in a static binary, in a sandbox and in an image without a C library.
//!
//! - `agent`: the specs that a boot takes, where root must be asked for by name
//! - `spec`: `USER[:GROUP]`
//! - `privileges`: the change of identity and its proof
//! - `database`: passwd and group files
#![forbid(unsafe_code)]

mod agent;
mod database;
mod privileges;
mod spec;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;

pub use agent::{AgentSpec, DEFAULT_AGENT};
pub use database::UserDatabase;
pub use privileges::{UnsetGroups, give_up_capabilities, refuse_set_id};
pub use spec::UserSpec;

/// The identity that a process takes: ids, exactly these supplementary groups, and a home directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Login name; `None` for a uid without a passwd entry.
    pub name: Option<OsString>,
    /// Real, effective and saved user id.
    pub uid: u32,
    /// Real, effective and saved group id.
    pub gid: u32,
    /// Supplementary groups in the order of the group file; `gid` only if the file says so.
    pub groups: Vec<u32>,
    /// Value for HOME: as in the passwd file, "/" without an entry. Never holds a NUL byte.
    pub home: PathBuf,
}
