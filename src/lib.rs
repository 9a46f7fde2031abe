//! The mechanisms behind the `molecule-tools` applets. No policy, no printing: what happens is
//! returned, or logged through `tracing` events that the applet's subscriber turns into lines.
//!
//! Each uses only those listed after it, and so it is inside each (`tests/layers.rs`):
//!
//! - [`mirror`]: tree to tree copy: walk, plan, copy, metadata, links, delete, report
//! - [`ownership`]: trees given to a user, changing only what differs
//! - [`volume`]: what lies on a device: superblocks, partition tables
//! - [`audit`]: what a boot log says of the container, names of variables only
//! - [`github`]: GitHub credentials from the platform, for git and others
//! - [`config`]: what a workspace image declares of its boot
//! - [`gitconfig`]: settings in a git configuration file of anybody's, through git
//! - [`process`]: what a process inherits, and handing it on through exec
//! - [`identity`]: user specs, passwd and group files, the verified drop of privileges
//! - [`record`]: the memory of a tree that a runtime has started over it
//! - [`log`]: the subscriber that prints log lines with their prefix, as text or JSON
//! - [`heartbeat`]: signs of life of work that is watched
//! - [`fs`]: directories held by descriptor; every step is one component that follows no link
//! - [`error`]: the one error type, and how untrusted text is shown on one line
//! - `queue`, [`lock`]: what threads share

pub mod audit;
pub mod config;
pub mod error;
pub mod fs;
pub mod gitconfig;
pub mod github;
pub mod heartbeat;
pub mod identity;
pub mod lock;
pub mod log;
pub mod mirror;
pub mod ownership;
pub mod process;
mod queue;
pub mod record;
pub mod volume;

pub use error::{Error, Result};
