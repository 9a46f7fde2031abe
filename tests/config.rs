//! `/etc/molecule-tools.json`: what an image declares, what is wrong in it, and whom it is believed.

mod examples;
mod hostile;
mod mistakes;

use crate::support::Case;

pub fn cases() -> Vec<Case> {
    [examples::cases(), mistakes::cases(), hostile::cases()].into_iter().flatten().collect()
}
