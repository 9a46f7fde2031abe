//! The reference script and the program boot equal sandboxes; what they leave is compared.
//!
//! `reference/entrypoint.sh` is the shell script that this program replaces, unchanged: the oracle.
//! What is meant to differ, and why, stands in `differential/intended.rs` and nowhere else.
#![no_main]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests lay out trees by path and fail loudly"
)]

mod support;

#[path = "differential/compare.rs"]
mod compare;
#[path = "differential/intended.rs"]
mod intended;
#[path = "differential/observe.rs"]
mod observe;
#[path = "differential/scenarios.rs"]
mod scenarios;

use std::ffi::c_char;

use support::{Case, Need, case, runtime};

const NEEDS: &[Need] = &[
    Need::Root,
    Need::Loop,
    Need::Program("rsync"),
    Need::Program("gosu"),
    Need::Program("git"),
    Need::Program("setfacl"),
    Need::Program("setfattr"),
];

fn cases() -> Vec<Case> {
    let unknown = case("every_intended_difference_names_a_scenario", &[], || {
        for scenario in intended::TABLE.iter().flat_map(|row| row.scenarios) {
            let known = scenarios::ALL.iter().any(|known| known.name == *scenario);
            assert!(known || ["*", "restored"].contains(scenario), "{scenario}");
        }
    });
    let runs = scenarios::ALL.iter().map(|scenario| {
        case(scenario.name, NEEDS, || {
            let volume = scenario.volume.make();
            let reference = observe::boot(scenario, volume.as_ref(), observe::REFERENCE);
            let program = observe::boot(scenario, volume.as_ref(), observe::PROGRAM);
            let differences = compare::differences(&reference, &program);
            intended::judge(scenario.name, &reference, &differences);
        })
    });
    runs.chain([unknown]).collect()
}

#[allow(unsafe_code, reason = "the stand-in for the runtime needs a main without start-up code")]
#[unsafe(no_mangle)]
extern "C" fn main(argc: i32, argv: *const *const c_char) -> i32 {
    runtime::start(argc, argv, cases)
}
