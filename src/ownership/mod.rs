//! Giving trees to a user: owner and group are changed only where they differ.
//!
//! The trees belong to a user who may rename, link and replace entries while they are walked. So
//! nothing is reached by a path of more than one component, no link is followed, and an entry that
//! needs a change is opened first (`O_PATH`), judged by what that handle shows, and changed through
//! the same handle. Files with more than one name are given last, see `links`.
//!
//! Mounts below a tree are entered, as `chown -R` does: volumes are mounted below the workspace.
//!
//! - `walk`: one tree: its two passes, its threads
//! - `worker`: one thread's way through the tree
//! - `entries`: one directory or entry: look at it, give it
//! - `shared`: what the threads of a walk share
//! - `links`: files with several names
//! - `bounds`: when a walk has to end
//! - [`acl`]: an entry in an access ACL
//! - `give`: to whom, and the change of an owner
//!
//! Failures are warnings (`tracing`), counted in the [`Tally`]; the walk goes on.
#![forbid(unsafe_code)]

pub mod acl;
mod bounds;
mod entries;
mod give;
mod links;
mod shared;
mod walk;
mod worker;

use std::ffi::CStr;

pub use give::{Mode, Owner, Privileges, Tally, give_directory};

use crate::fs::Dir;
use crate::heartbeat::Heartbeat;
use shared::WalkPlan;

/// Gives entry `name` of `parent` and everything below it. A link is given itself and not followed.
/// An absent entry is nothing to do. `heart` beats with every directory and knows where the threads are.
pub fn give_tree(
    parent: &Dir,
    name: &CStr,
    owner: Owner,
    privileges: Privileges,
    mode: Mode,
    heart: &Heartbeat,
) -> Tally {
    walk::run(parent, name, WalkPlan { owner, privileges, mode, heart })
}
