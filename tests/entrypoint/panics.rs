//! A step that panics is told and the boot goes on.

use crate::entrypoint::boots;
use crate::support::runtime::sandbox;
use crate::support::sandbox::{PROGRAM_INSIDE, Run, Sandbox};
use crate::support::{Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    const STRACE: &[Need] = &[Need::Root, Need::Program("strace"), Need::Program("git")];
    vec![
        test_case!(steps_that_panic_are_told_and_the_boot_goes_on, STRACE),
        test_case!(a_boot_that_may_not_wait_goes_on, STRACE),
        test_case!(steps_are_done_where_the_end_of_the_boot_cannot_end_them, STRACE),
        test_case!(a_step_that_ends_anywhere_is_told_and_the_boot_goes_on, STRACE),
    ]
}

const HELPER: &str = "/app/scripts/molecule-git-token-helper.sh";
const REFRESH: &str = "/app/scripts/molecule-gh-token-refresh.sh";

fn scene() -> Sandbox {
    let sandbox = sandbox("echo > configs/c; echo > workspace/w; rm dev/urandom dev/random");
    sandbox.install(HELPER, "#!/bin/sh\n");
    // strace(1) stays with the daemon until that ends.
    sandbox.install(REFRESH, "#!/bin/sh\nkill $PPID\n");
    sandbox
}

/// The boot with system calls, only those on `path` if it is not empty, that strace has a hand in.
fn boot(sandbox: &Sandbox, path: &str, calls: &str) -> Run {
    let run = sandbox.command("/usr/bin/strace").args(["-f", "-qq", "-o", "/dev/null"]);
    let run = if path.is_empty() { run } else { run.args(["-P", path]) };
    run.args(["-e", &format!("inject={calls}"), PROGRAM_INSIDE, "entrypoint"])
        .env("ENABLE_GITHUB_MIRROR_CREDENTIALS", "true")
}

/// What std does where it can get no random numbers, not even from /dev/urandom: it panics.
fn steps_that_panic_are_told_and_the_boot_goes_on() {
    let sandbox = scene();
    let (outcome, view) = boots(&sandbox, boot(&sandbox, "", "getrandom:error=ENOSYS"));
    assert_eq!(view["Uid"], "1000 1000 1000 1000");
    let said = outcome.stderr();
    for step in ["audit", "restore", "ownership", "git credentials"] {
        let line =
            format!("entrypoint: WARN the {step} step was ended by SIGABRT; the boot goes on\n");
        assert!(said.contains(&line), "{said}");
    }
    let faults = said.lines().filter(|line| {
        line.starts_with("molecule-tools: a fault of this program at ")
            && line.contains("failed to generate random data")
    });
    assert!(faults.count() >= 5, "{said}");
}

/// The boot's own process waits for its steps by these calls; where they fail, it neither panics nor is
/// there a word to be said.
fn a_boot_that_may_not_wait_goes_on() {
    let sandbox = scene();
    for calls in ["poll,ppoll", "clock_nanosleep,nanosleep", "poll,ppoll,clock_nanosleep,nanosleep"]
    {
        let run = boot(&sandbox, "", &format!("{calls}:error=ENOMEM"));
        assert_eq!(boots(&sandbox, run).0.stderr(), "", "{calls}");
    }
}

/// A system call filter may forbid prctl(2).
fn steps_are_done_where_the_end_of_the_boot_cannot_end_them() {
    let sandbox = scene();
    sandbox.sh("rm -rf /home/agent/Downloads");
    let (outcome, _) = boots(&sandbox, boot(&sandbox, "", "prctl:error=EPERM"));
    let log = outcome.stdout();
    assert!(log.contains("MOLECULE-RESTORE: no /dev/xvdb"), "{log}");
    assert_eq!(sandbox.sh("stat -c %u /home/agent/Downloads"), "1000\n", "{log}");
}

/// The end that a panic gives a step, at a system call that each of them makes.
fn a_step_that_ends_anywhere_is_told_and_the_boot_goes_on() {
    for (step, path, calls) in [
        ("audit", "/configs", "getdents64"),
        ("restore", "/dev/xvdb", "openat,openat2,statx,newfstatat,readlink,readlinkat"),
        ("ownership", "/workspace", "getdents64"),
        ("git credentials", "", "memfd_create"),
        ("record", "", "setxattr,fsetxattr,?setxattrat,lsetxattr"),
    ] {
        let sandbox = scene();
        let run = boot(&sandbox, path, &format!("{calls}:signal=SIGABRT"));
        let (outcome, view) = boots(&sandbox, run);
        assert_eq!(view["Uid"], "1000 1000 1000 1000");
        let said = outcome.stderr();
        let line =
            format!("entrypoint: WARN the {step} step was ended by SIGABRT; the boot goes on\n");
        assert!(said.contains(&line), "{step}: {said}");
    }
}
