//! The mirror's fidelity: every copy is judged by rsync in dry-run and by a comparator of our own.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests lay out trees by path and fail loudly"
)]

#[path = "mirror/comparator.rs"]
mod comparator;
mod support;

use std::process::ExitCode;

use support::Need;

const NEEDS: &[Need] = &[Need::Root, Need::Program("rsync")];

fn main() -> ExitCode {
    support::mounts::leave_the_machine_alone();
    support::run(comparator::cases())
}
