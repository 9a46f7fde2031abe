//! The whole boot: what the runtime is given, what is attempted when things are missing or wrong.
#![no_main]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests lay out trees by path and fail loudly"
)]

mod support;

#[path = "entrypoint/bad_input.rs"]
mod bad_input;
#[path = "entrypoint/hand_over.rs"]
mod hand_over;
#[path = "entrypoint/identity.rs"]
mod identity;
#[path = "entrypoint/json_lines.rs"]
mod json_lines;
#[path = "entrypoint/limits.rs"]
mod limits;
#[path = "entrypoint/matrix.rs"]
mod matrix;
#[path = "entrypoint/panics.rs"]
mod panics;
#[path = "entrypoint/power_cut.rs"]
mod power_cut;
#[path = "entrypoint/records.rs"]
mod records;
#[path = "entrypoint/steps.rs"]
mod steps;
#[path = "entrypoint/system_calls.rs"]
mod system_calls;
#[path = "entrypoint/waiting.rs"]
mod waiting;

use std::ffi::c_char;

use support::Case;
use support::runtime::{self, View};
use support::sandbox::{Outcome, Run, Sandbox};

fn cases() -> Vec<Case> {
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

#[allow(unsafe_code, reason = "the stand-in for the runtime needs a main without start-up code")]
#[unsafe(no_mangle)]
extern "C" fn main(argc: i32, argv: *const *const c_char) -> i32 {
    runtime::start(argc, argv, cases)
}
