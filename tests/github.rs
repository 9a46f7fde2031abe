//! GitHub credentials without a shell: real git, a real HTTP server, and whatever a home may hold.

mod answers;
mod cache;
mod clone;
mod daemon;
mod hostile;
mod names;
mod protocol;
mod secrecy;
mod simulation;

use crate::support::Case;
use crate::support::platform::Platform;
use crate::support::sandbox::{Outcome, Run, Sandbox, text};

pub fn cases() -> Vec<Case> {
    let mut cases = answers::cases();
    cases.extend(cache::cases());
    cases.extend(clone::cases());
    cases.extend(daemon::cases());
    cases.extend(hostile::cases());
    cases.extend(names::cases());
    cases.extend(protocol::cases());
    cases.extend(secrecy::cases());
    cases.extend(simulation::cases());
    cases
}

/// A token of the older kind, and one as they are since 2026.
const SHORT: &str = "ghs_0123456789abcdefghijABCDEFGHIJ012345";
const BEARER: &str = "bearer-CANARY-0123456789";
const CACHE: &str = "/home/agent/.molecule-token-cache";
const TOKEN: &str = "/home/agent/.molecule-token-cache/gh_installation_token";
const EXPIRY: &str = "/home/agent/.molecule-token-cache/gh_installation_token_expiry";

/// A token as they are since 2026: 520 characters with dots, dashes and underscores.
fn long_token() -> String {
    format!(
        "ghs_123456_eyJ{}.{}-{}_{}",
        "a".repeat(150),
        "B".repeat(170),
        "c".repeat(100),
        "9".repeat(83)
    )
}

/// A sandbox with a bearer in /configs, the agent's.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.sh(&format!("echo ' {BEARER} ' > /configs/.auth_token; chown -R agent: /configs"));
    sandbox
}

/// The program as the agent of workspace `w-1` runs it.
fn agent(sandbox: &Sandbox, platform: &Platform) -> Run {
    let run = sandbox.program().identity(1000, 1000, &[]).env("HOME", "/home/agent");
    run.env("WORKSPACE_ID", "w-1").env("PLATFORM_URL", platform.url())
}

/// `git-credential-molecule get` as git asks for github.com.
fn get(sandbox: &Sandbox, platform: &Platform) -> Run {
    let run = agent(sandbox, platform).args(["git-credential-molecule", "get"]);
    run.stdin(input("protocol=https\nhost=github.com\n\n"))
}

/// A file with `text`, to be read.
fn input(text: &str) -> std::fs::File {
    use std::io::{Seek as _, Write as _};
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).and_then(|()| file.rewind()).unwrap();
    file
}

/// The password in an answer that is well formed, and when it ends.
#[track_caller]
fn password(outcome: &Outcome) -> (String, i64) {
    assert_eq!(outcome.status, 0, "{outcome:?}");
    let text = outcome.stdout();
    let lines: Vec<&str> = text.lines().collect();
    let ["username=x-access-token", password, expiry] = lines[..] else { panic!("{outcome:?}") };
    let password = password.strip_prefix("password=").expect("a password").to_owned();
    (password, expiry.strip_prefix("password_expiry_utc=").expect("an end").parse().unwrap())
}

/// The one line on standard error of a `get` that had no token to give.
#[track_caller]
fn refusal(outcome: &Outcome) -> String {
    assert_eq!((outcome.status, outcome.stdout()), (1, String::new()), "{outcome:?}");
    let stderr = outcome.stderr();
    assert_eq!(stderr.lines().count(), 1, "{outcome:?}");
    let line = stderr.trim_end().strip_prefix("git-credential-molecule: ");
    line.unwrap_or_else(|| panic!("{outcome:?}")).to_owned()
}

fn now() -> i64 {
    crate::support::clock::now().tv_sec
}
