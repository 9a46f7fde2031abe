//! `restore` from a directory: its decisions, its lines, its exit status, its report and marker.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests lay out trees by path and fail loudly"
)]

#[path = "restore/decisions.rs"]
mod decisions;
#[path = "restore/lines.rs"]
mod lines;
#[path = "restore/newer.rs"]
mod newer;
#[path = "restore/report.rs"]
mod report;
#[path = "restore/scene.rs"]
mod scene;
mod support;

use std::process::ExitCode;

use support::Need;

const NEEDS: &[Need] = &[Need::Root];

fn main() -> ExitCode {
    support::mounts::leave_the_machine_alone();
    let mut cases = decisions::cases();
    cases.extend(lines::cases());
    cases.extend(newer::cases());
    cases.extend(report::cases());
    support::run(cases)
}
