//! Random lives of a workspace: starts, an agent at work, volumes that come, go and fail, trees that are
//! made anew, kills. Whatever happens, the content that the agent wrote last is there after each boot.
//!
//! `MOLECULE_SEQUENCES` says how many (200), `MOLECULE_SEED` is the seed of the first one, `MOLECULE_BINARY`
//! another program to judge. A failure prints its seed; with it and `MOLECULE_SEQUENCES=1` the same steps
//! run again, only the moments of kills differ.

mod life;
mod model;
mod workspace;

use crate::support::destination::Filesystem;

use crate::support::Case;

pub fn cases() -> Vec<Case> {
    Filesystem::cases("lives_lose_nothing", life::run)
}
