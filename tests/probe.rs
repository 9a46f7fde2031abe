//! `volume::probe` against real images, with blkid as the oracle.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests lay out trees by path and fail loudly"
)]

#[path = "probe/applet.rs"]
mod applet;
#[path = "probe/crafted.rs"]
mod crafted;
#[path = "probe/damaged.rs"]
mod damaged;
#[path = "probe/image.rs"]
mod image;
#[path = "probe/made.rs"]
mod made;
#[path = "probe/mutated.rs"]
mod mutated;
mod support;
#[path = "probe/tables.rs"]
mod tables;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut cases = Vec::new();
    cases.extend(made::cases());
    cases.extend(mutated::cases());
    cases.extend(tables::cases());
    cases.extend(applet::cases());
    cases.extend(crafted::cases());
    cases.extend(damaged::cases());
    support::run(cases)
}
