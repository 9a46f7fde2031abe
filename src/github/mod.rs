//! GitHub credentials from the platform: a token that lives for an hour at most, for git, gh and others.
//!
//! - [`schedule`]: when the next token is fetched
//! - [`credential`]: git's protocol for credential helpers
//! - [`gh`]: programs that take a token
//! - [`broker`]: one token for many who want it
//! - [`cache`]: the files that hold it
//! - [`platform`]: the request for one
//! - `http`, `tls`, `stream`, `url`: one GET request
//! - `clock`: times
//! - [`secret`]: bytes that nobody may see

pub mod broker;
pub mod cache;
mod clock;
pub mod credential;
pub mod gh;
mod http;
pub mod platform;
pub mod schedule;
pub mod secret;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod url;
