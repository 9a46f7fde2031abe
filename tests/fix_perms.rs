//! fix-perms: what the boot's ownership steps leave, and what nobody can make them do.

mod bounded;
mod differential;
mod hostile;
mod layers;
mod links;
mod options;
pub mod race;
mod sessions;

use crate::support::compare::{Snapshot, snapshot};
use crate::support::sandbox::{Outcome, Sandbox};

use crate::support::Case;

pub fn cases() -> Vec<Case> {
    let mut cases = differential::cases();
    cases.extend(bounded::cases());
    cases.extend(hostile::cases());
    cases.extend(layers::cases());
    cases.extend(links::cases());
    cases.extend(options::cases());
    cases.extend(race::cases());
    cases.extend(sessions::cases());
    cases
}

/// Runs the steps of the boot; the exit status must be `status`. Gives the log.
#[track_caller]
fn boot(sandbox: &Sandbox, status: i32) -> String {
    let outcome = sandbox.program().arg("fix-perms").run();
    assert_eq!(outcome.status, status, "{}", said(&outcome));
    assert_eq!(outcome.stderr(), "");
    outcome.stdout()
}

fn said(outcome: &Outcome) -> String {
    format!("{}\n{}", outcome.stdout(), outcome.stderr())
}

/// The only warning in `log` that has `words`; there must be exactly one.
#[track_caller]
fn warning<'a>(log: &'a str, words: &str) -> &'a str {
    let mut found = log
        .lines()
        .filter(|line| line.starts_with("MOLECULE-PERMS: WARN ") && line.contains(words));
    let line = found.next().unwrap_or_else(|| panic!("no warning with {words:?} in:\n{log}"));
    assert_eq!(found.next(), None, "{words:?} is said more than once:\n{log}");
    line
}

fn warnings(log: &str) -> usize {
    log.lines().filter(|line| line.starts_with("MOLECULE-PERMS: WARN ")).count()
}

/// Everything that the boot may change.
fn trees(sandbox: &Sandbox) -> Vec<Snapshot> {
    ["/configs", "/workspace", "/home", "/root"]
        .iter()
        .map(|path| sandbox.path(path))
        .filter(|path| path.symlink_metadata().is_ok())
        .map(|path| snapshot(&path))
        .collect()
}
