//! Tree to tree copy: what `rsync -aHAX --delete --numeric-ids --one-file-system` leaves behind,
//! with many requests in flight.
//!
//! Each of these calls only those below it, and gets an answer by `return`:
//!
//! - `passes`: how often the trees are walked, and what for
//! - `run`: one pass: its limits, its threads, and who does which task
//! - `walk`: listing the source and handing its entries out
//! - `entry`: everything that is no directory: keep, mend, link
//! - `directory`: making, mending and finishing directories
//! - `make`: new files, links and nodes, from creation to final name
//! - `purge`: when and where surplus names are removed
//! - `delete`: removing trees
//! - `large`: large files, by several threads
//! - `content`: bytes, holes, comparison
//! - `access`: who may work in a directory meanwhile
//! - `announce`: lines for the log, counts for the report, changes for the observer
//! - `engine`: what the threads share, what each of them owns, and their tasks
//!
//! and below the engine, which these know nothing of:
//!
//! - `chunks`, `file`: a large file on its way; objects that are being made, and their names
//! - `links`, `ledger`: hard-link groups in one pass and across passes
//! - `ahead`, `found`: small files, opened and asked for a batch at a time; what was found under a name
//! - `held`, `tree`: which directories hold descriptors; directories in work
//! - `threads`, `fetching`: how many threads there are, and whether a disk may be what they wait for
//! - `metadata`, `xattrs`, `times`: owner, mode, times, ACLs and the order in which they are given; what of a
//!   time the destination can keep
//! - `options`: what is wanted, and who watches
//! - `counters`, `report`, `keep`: what was done, what failed, what stays where a runtime has run already
//! - `fault`, `itemize`, `inode`, `limits`: what can fail, what differs, and how much there may be of
//!   everything
//!
//! Memory is bounded by the threads (a buffer each) and by what is held at once of directories in flight,
//! directories with surplus names, and groups of hard links. Where there are more, a directory is read in
//! portions, and further passes do the rest.
#![forbid(unsafe_code)]

mod access;
mod ahead;
mod announce;
mod chunks;
mod content;
mod counters;
mod delete;
mod directory;
mod engine;
mod entry;
mod fault;
mod fetching;
mod file;
mod found;
mod held;
mod inode;
mod itemize;
mod keep;
mod large;
mod ledger;
mod limits;
mod links;
mod make;
mod metadata;
mod options;
mod passes;
mod purge;
mod report;
mod run;
mod threads;
mod times;
mod tree;
mod walk;
mod xattrs;

pub use counters::log_bounded;
pub use fault::Side;
pub use itemize::{Change, Differences};
pub use keep::Keep;
pub use options::{Observer, Options, Progress};
pub use report::{Failure, Report, Stop};

use crate::error::Result;
use crate::fs::Dir;

/// Makes the tree at `dst` equal to the tree at `src`. `dst` is none only in a dry run, for a tree
/// that does not exist yet.
///
/// Failures on single entries are logged as warnings, counted in the report and do not end the run.
///
/// # Errors
///
/// When the top directories themselves cannot be examined.
pub fn mirror(
    src: &Dir,
    dst: Option<&Dir>,
    options: &Options,
    observer: &dyn Observer,
) -> Result<Report> {
    passes::all(&options::MirrorRequest { src, dst, options, observer })
}
