//! `volume::probe` against real images, with blkid as the oracle.

mod applet;
mod crafted;
mod damaged;
mod image;
mod made;
mod mutated;
mod tables;

use crate::support::Case;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(made::cases());
    cases.extend(mutated::cases());
    cases.extend(tables::cases());
    cases.extend(applet::cases());
    cases.extend(crafted::cases());
    cases.extend(damaged::cases());
    cases
}
