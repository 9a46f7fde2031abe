//! Volumes as clouds attach them, on loop devices: what the log says and what lands.

mod again;
mod asks;
mod damaged;
mod discovery;
mod disk;
mod journals;
mod named;
mod partitioned;
mod place;
mod spread;
mod unclear;
mod unusable;

use crate::support::Case;

pub fn cases() -> Vec<Case> {
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
    cases.into_iter().flatten().collect()
}
