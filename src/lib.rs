//! The mechanisms behind the `molecule-tools` applets. No policy, no printing: what happens is
//! returned, or told through `tracing` events that the applet's subscriber turns into lines.
//!
//! - [`audit`]: what a boot log says of the container, names of variables only
//! - [`error`]: the one error type, and how untrusted text is shown on one line
//! - [`fs`]: directories held by descriptor; every step is one component that follows no link
//! - [`gitconfig`]: settings in a git configuration file of anybody's, through git
//! - [`heartbeat`]: signs of life of work that is watched
//! - [`identity`]: user specs, passwd and group files, the verified drop of privileges
//! - `lock`, `queue`: what threads share
//! - [`log`]: the subscriber that prints log lines with their prefix, as text or JSON
//! - [`ownership`]: trees given to a user, changing only what differs
//! - [`mirror`]: tree to tree copy: walk, plan, copy, metadata, links, delete, report
//! - [`process`]: what a process inherits, and handing it on through exec
//! - [`record`]: the memory of a tree that a runtime has started over it
//! - [`volume`]: what lies on a device: superblocks, partition tables

pub mod audit;
pub mod error;
pub mod fs;
pub mod gitconfig;
pub mod heartbeat;
pub mod identity;
mod lock;
pub mod log;
pub mod mirror;
pub mod ownership;
pub mod process;
mod queue;
pub mod record;
pub mod volume;

pub use error::{Error, Result};
