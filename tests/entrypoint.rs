//! The whole boot: what the runtime is given, what is attempted when things are missing or wrong.

mod bad_input;
mod hand_over;
mod identity;
mod json_lines;
mod limits;
mod matrix;
mod panics;
mod power_cut;
mod records;
mod steps;
mod system_calls;
mod waiting;

use crate::support::Case;
use crate::support::runtime::{self, View};
use crate::support::sandbox::{Outcome, Run, Sandbox};

pub fn cases() -> Vec<Case> {
    let of_this_file = [
        hand_over::cases(),
        bad_input::cases(),
        identity::cases(),
        limits::cases(),
        json_lines::cases(),
        matrix::cases(),
        panics::cases(),
        power_cut::cases(),
        records::cases(),
        steps::cases(),
    ];
    let others = system_calls::cases().into_iter().chain(waiting::cases());
    of_this_file.into_iter().flatten().chain(others).collect()
}

/// The boot of a sandbox, as a container's init does it.
fn entrypoint(sandbox: &Sandbox) -> Run {
    sandbox.program().arg("entrypoint")
}

/// Runs a boot that has to reach the runtime; gives how it ended and what the runtime saw.
#[track_caller]
fn boots(sandbox: &Sandbox, run: Run) -> (Outcome, View) {
    let outcome = run.run();
    let Some(view) = runtime::take_view(sandbox) else { panic!("no runtime\n{outcome:?}") };
    assert_eq!(outcome.status, runtime::STATUS, "{outcome:?}");
    (outcome, view)
}
