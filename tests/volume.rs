//! Volumes as clouds attach them, on loop devices: what the log says and what lands.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests lay out trees by path and fail loudly"
)]

#[path = "volume/again.rs"]
mod again;
#[path = "volume/asks.rs"]
mod asks;
#[path = "volume/damaged.rs"]
mod damaged;
#[path = "volume/discovery.rs"]
mod discovery;
#[path = "volume/disk.rs"]
mod disk;
#[path = "volume/journals.rs"]
mod journals;
#[path = "volume/named.rs"]
mod named;
#[path = "volume/partitioned.rs"]
mod partitioned;
#[path = "volume/place.rs"]
mod place;
#[path = "volume/spread.rs"]
mod spread;
mod support;
#[path = "volume/unclear.rs"]
mod unclear;
#[path = "volume/unusable.rs"]
mod unusable;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cases = [
        journals::cases(),
        asks::cases(),
        again::cases(),
        spread::cases(),
        unclear::cases(),
        damaged::cases(),
        partitioned::cases(),
        unusable::cases(),
        discovery::cases(),
        named::cases(),
        place::cases(),
    ];
    support::run(cases.into_iter().flatten().collect())
}
