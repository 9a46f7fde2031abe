//! The reference script and the program boot equal sandboxes; what they leave is compared.
//!
//! `reference/entrypoint.sh` is the shell script that this program replaces, unchanged: the oracle.
//! What is meant to differ, and why, stands in `differential/intended.rs` and nowhere else.

pub mod compare;
mod intended;
pub mod observe;
mod scenarios;

use crate::support::{Case, Need, case};

const NEEDS: &[Need] = &[
    Need::Root,
    Need::Loop,
    Need::Program("rsync"),
    Need::Program("gosu"),
    Need::Program("git"),
    Need::Program("setfacl"),
    Need::Program("setfattr"),
];

pub fn cases() -> Vec<Case> {
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
