//! `restore` from a directory: its decisions, its lines, its exit status, its report and marker.

mod decisions;
mod lines;
mod newer;
mod report;
mod scene;

use crate::support::Case;
use crate::support::Need;

const NEEDS: &[Need] = &[Need::Root];

pub fn cases() -> Vec<Case> {
    let mut cases = decisions::cases();
    cases.extend(lines::cases());
    cases.extend(newer::cases());
    cases.extend(report::cases());
    cases
}
