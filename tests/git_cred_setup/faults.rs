//! What a hostile file costs, what system calls that fail cost, and what killed runs leave.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{
    AGENTS, HELPER, SCRIPT, helper, is_set, setup, succeeded, text, values, warning, write,
};
use crate::support::sandbox::{LoopDevice, Outcome, PROGRAM_INSIDE, Run, Sandbox};
use crate::support::{Case, Need, ok, program, test_case, usage};

/// KiB that this program may take, and git.
const MEMORY: u64 = 64 << 10;

pub fn cases() -> Vec<Case> {
    const GIT: &[Need] = &[Need::Root, Need::Program("git")];
    const STRACE: &[Need] = &[Need::Root, Need::Program("git"), Need::Program("strace")];
    const DEBUGFS: &[Need] =
        &[Need::Root, Need::Loop, Need::Program("git"), Need::Program("debugfs")];
    vec![
        test_case!(a_file_of_long_names_takes_little_memory_and_time, GIT),
        test_case!(many_values_of_a_key_become_one, GIT),
        test_case!(a_file_that_would_outgrow_the_limit_is_left_alone, GIT),
        test_case!(a_caller_that_ignores_sigchld_is_served, GIT),
        test_case!(what_fails_is_told_in_the_kernels_words, STRACE),
        test_case!(a_copy_that_cannot_be_removed_is_told_and_removed_later, STRACE),
        test_case!(what_a_killed_run_has_left_is_removed_and_nothing_else, STRACE),
        test_case!(a_boot_without_credentials_removes_it_too, STRACE),
        test_case!(a_half_made_file_in_a_home_is_removed_and_nothing_else, DEBUGFS),
    ]
}

/// Runs it over the sandbox from outside; what it said, KiB at most, and processor time, git's included.
fn measured(sandbox: &Sandbox) -> (std::process::Output, u64, Duration) {
    let mut command = program();
    command.args(["git-cred-setup", "--root"]).arg(sandbox.path("/")).env("HOME", "/root");
    usage(&mut command)
}

/// Sets both files up within the memory; gives what the agent's has become.
#[track_caller]
fn within_bounds(own: &str) -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    write(&sandbox, AGENTS, own);
    let mut taken = Duration::ZERO;
    for _ in 0..2 {
        let (output, memory, time) = measured(&sandbox);
        taken += time;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(memory < MEMORY, "{memory} KiB: {said}");
    }
    for words in [["--get-all", HELPER].as_slice(), &["--replace-all", HELPER, "x"]] {
        let mut git = std::process::Command::new("git");
        git.args(["config", "--file"]).arg(sandbox.path(AGENTS)).args(words);
        let (_, memory, time) = usage(&mut git);
        taken += time;
        assert!(memory < MEMORY, "git: {memory} KiB");
    }
    succeeded(&setup(&sandbox).run());
    // git reads the file six times; a tenth of a second each is enough.
    assert!(taken.as_secs() < 20, "{taken:?}");
    is_set(&sandbox, "/home/agent");
    let edited = text(&sandbox, AGENTS);
    (sandbox, edited)
}

fn a_file_of_long_names_takes_little_memory_and_time() {
    // git has 62 GB to say about it, if asked for a list.
    let own = format!("[{}]\n{}", "s".repeat(500_000), "k\n".repeat(200_000));
    let (_sandbox, edited) = within_bounds(&own);
    assert!(edited.starts_with(&own));
    let own = format!("[s \"{}\"]\n{}", "\\\"".repeat(250_000), "k=v\n".repeat(125_000));
    let (_sandbox, edited) = within_bounds(&own);
    assert!(edited.starts_with(&own));
}

fn many_values_of_a_key_become_one() {
    let values = "helper\n".repeat(140_000);
    let (_sandbox, edited) =
        within_bounds(&format!("[credential \"https://github.com\"]\n{values}"));
    assert_eq!(edited.matches("helper = ").count(), 1, "{edited}");
    let value = "x".repeat(1_000_000);
    let own = format!("[credential \"https://github.com\"]\nhelper = {value}\n");
    assert!(within_bounds(&own).1.len() < 1000);
}

fn a_file_that_would_outgrow_the_limit_is_left_alone() {
    let sandbox = Sandbox::new();
    let own = format!("#{}\n", "x".repeat((1 << 20) - 2));
    write(&sandbox, AGENTS, &own);
    let said = warning(&setup(&sandbox).run());
    assert!(said.contains(AGENTS) && said.contains("larger than 1048576 bytes"), "{said}");
    assert_eq!(text(&sandbox, AGENTS), own);
}

fn a_caller_that_ignores_sigchld_is_served() {
    let sandbox = Sandbox::new();
    sandbox.install("/usr/local/bin/molecule-runtime", "#!/bin/sh\nexit 42\n");
    sandbox.install(SCRIPT, "#!/bin/sh\n");
    succeeded(&setup(&sandbox).ignore(Signal::SIGCHLD).run());
    is_set(&sandbox, "/root");
    is_set(&sandbox, "/home/agent");
    write(&sandbox, AGENTS, "[broken\n");
    // The failure of git is known, too, and so is that of its start.
    let said = warning(&setup(&sandbox).ignore(Signal::SIGCHLD).run());
    assert!(said.contains("bad config line 1"), "{said}");
    sandbox.install("/usr/local/bin/git", "#!/no/interpreter\n");
    let said = warnings(&setup(&sandbox).ignore(Signal::SIGCHLD).run());
    assert!(said[0].contains("run /usr/local/bin/git: No such file or directory"), "{said:?}");
    sandbox.sh(&format!("rm /usr/local/bin/git {AGENTS}"));
    let boot = sandbox.program().arg("entrypoint").ignore(Signal::SIGCHLD);
    let outcome = boot.env("ENABLE_GITHUB_MIRROR_CREDENTIALS", "true").run();
    assert_eq!(outcome.status, 42, "{outcome:?}");
    is_set(&sandbox, "/home/agent");
}

/// The run with system calls that strace answers in the kernel's place.
fn with_injection(sandbox: &Sandbox, calls: &[&str]) -> Run {
    let mut run = sandbox.command("/usr/bin/strace").args(["-f", "-qq", "-o", "/dev/null"]);
    for calls in calls {
        run = run.args(["-e", &format!("inject={calls}")]);
    }
    run.args([PROGRAM_INSIDE, "git-cred-setup"])
}

#[track_caller]
fn warnings(outcome: &Outcome) -> Vec<String> {
    assert_eq!((outcome.status, outcome.stderr()), (1, String::new()), "{outcome:?}");
    let stdout = outcome.stdout();
    let lines = stdout.lines().filter_map(|line| line.strip_prefix("MOLECULE-GIT: WARN "));
    lines.map(str::to_owned).collect()
}

fn what_fails_is_told_in_the_kernels_words() {
    for (calls, words) in [
        ("memfd_create:error=EMFILE", "make a file in memory: Too many open files"),
        ("fchown:error=EPERM", "change owner of /root/.gitconfig: Operation not permitted"),
        ("wait4:error=ECHILD", "wait for a child: No child processes"),
        ("wait4:error=EIO", "wait for a child: Input/output error"),
        ("clone,fork,vfork:error=EAGAIN", "start a process: Resource temporarily unavailable"),
        ("dup2,dup3:error=EBADF", "run /usr/bin/git: Bad file descriptor"),
    ] {
        let sandbox = Sandbox::new();
        let outcome = with_injection(&sandbox, &[calls]).run();
        let said = warnings(&outcome);
        assert!(said.iter().any(|line| line.contains(words)), "{calls}: {outcome:?}");
    }
}

/// Directories of ours below /run and /tmp.
fn private(sandbox: &Sandbox) -> String {
    sandbox.sh("find /run /tmp /var/tmp -name '.molecule-tools.*' -type d")
}

fn a_copy_that_cannot_be_removed_is_told_and_removed_later() {
    let sandbox = Sandbox::new();
    // Once is tried again, and nobody need know.
    succeeded(&with_injection(&sandbox, &["unlink,unlinkat:error=EIO:when=1"]).run());
    assert_eq!(private(&sandbox), "");
    is_set(&sandbox, "/home/agent");
    write(&sandbox, AGENTS, "[user]\n\ttoken = secret\n");
    let outcome = with_injection(&sandbox, &["unlink,unlinkat:error=EIO"]).run();
    let said = warning(&outcome);
    assert!(said.starts_with("remove /run/.molecule-tools."), "{said}");
    assert!(said.ends_with("Input/output error; it may hold a copy of a .gitconfig; remove it"));
    is_set(&sandbox, "/home/agent");
    assert_eq!(private(&sandbox).lines().count(), 1);
    succeeded(&setup(&sandbox).run());
    assert_eq!(private(&sandbox), "");
}

fn a_boot_without_credentials_removes_it_too() {
    const RENAME: &str = "rename,renameat,renameat2:error=EIO:signal=SIGKILL";
    let sandbox = Sandbox::new();
    sandbox.install("/usr/local/sbin/molecule-runtime", "#!/bin/sh\nexit 42\n");
    let boot = || sandbox.program().arg("entrypoint").run();
    write(&sandbox, AGENTS, "[user]\n\ttoken = secret\n");
    assert_eq!(with_injection(&sandbox, &[RENAME]).run().status, 128 + 9);
    assert_eq!(private(&sandbox).lines().count(), 1);
    let outcome = boot();
    assert_eq!((outcome.status, outcome.stderr()), (42, String::new()), "{outcome:?}");
    assert!(!outcome.stdout().contains("MOLECULE-GIT"), "{outcome:?}");
    assert_eq!(private(&sandbox), "");
    sandbox
        .sh("mkdir -m 700 /run/.molecule-tools.other; touch /run/.molecule-tools.other/precious");
    let outcome = boot();
    assert_eq!(outcome.status, 42, "{outcome:?}");
    let line =
        "MOLECULE-GIT: WARN remove directory /run/.molecule-tools.other: Directory not empty";
    assert_eq!(outcome.stdout().matches(line).count(), 1, "{outcome:?}");
}

fn a_half_made_file_in_a_home_is_removed_and_nothing_else() {
    // Left: 0 and 5. Not so: 1 is young, 2 the agent's, 3 wider, 4 has two names, 6 and 7 are no files.
    let home = LoopDevice::ext4(
        8,
        "n=.molecule-tools.0123456789abcdef; for i in 0 1 2 3 4 5; do echo $i > $n.$i; done; chmod 600 $n.*
         chown 1000:1000 $n.2; chmod 644 $n.3; ln $n.4 other; mkdir -m 600 $n.6; ln -s other $n.7
         echo 8 > .molecule-tools.notes; chmod 600 .molecule-tools.notes; chown 1000:1000 .",
    );
    for number in [0, 2, 3, 4, 5, 6, 7] {
        let field =
            format!("set_inode_field /.molecule-tools.0123456789abcdef.{number} ctime 20010101");
        ok(Command::new("debugfs").args(["-w", "-R", &field]).arg(home.path()));
    }
    let notes = "set_inode_field /.molecule-tools.notes ctime 20010101";
    ok(Command::new("debugfs").args(["-w", "-R", notes]).arg(home.path()));
    let sandbox = Sandbox::new();
    sandbox.add_device("home", &home);
    sandbox.sh("mount /dev/home /home/agent");
    let there = || sandbox.sh("cd /home/agent; ls -Ad .molecule-tools.* | sed 's/.*[.]//'");
    succeeded(&setup(&sandbox).run());
    is_set(&sandbox, "/home/agent");
    assert_eq!(there(), "1\n2\n3\n4\n6\n7\nnotes\n");
}

fn what_a_killed_run_has_left_is_removed_and_nothing_else() {
    let sandbox = Sandbox::new();
    succeeded(&setup(&sandbox).run());
    // When it removes the copy, and when it has half made it.
    const RENAME: &str = "rename,renameat,renameat2:error=EIO:signal=SIGKILL";
    for calls in ["unlink,unlinkat:signal=SIGKILL:when=1", RENAME] {
        write(&sandbox, AGENTS, "[user]\n\ttoken = secret\n");
        let outcome = with_injection(&sandbox, &[calls]).run();
        assert_eq!(outcome.status, 128 + 9, "{outcome:?}");
        assert_eq!(private(&sandbox).lines().count(), 1, "{calls}");
        succeeded(&setup(&sandbox).run());
        assert_eq!(private(&sandbox), "", "{calls}");
    }
    // What is another user's, holds something else or is in use stays.
    sandbox.sh("mkdir -m 700 /tmp/.molecule-tools.agents /run/.molecule-tools.other /run/.molecule-tools.used
        touch /tmp/.molecule-tools.agents/config /run/.molecule-tools.used/config /run/.molecule-tools.other/precious
        touch /run/.molecule-tools.file; chown -R agent /tmp/.molecule-tools.agents
        mkdir /run/target; touch /run/target/config; ln -s target /run/.molecule-tools.link");
    let lock = std::fs::File::open(sandbox.path("/run/.molecule-tools.used")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let there = || sandbox.sh("find /run /tmp | sort");
    let before = there();
    let said = warning(&setup(&sandbox).run());
    assert!(said.contains("/run/.molecule-tools.other: Directory not empty"), "{said}");
    assert_eq!(there(), before);
    // By name: a process that another thread is just starting has a copy of the descriptor.
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::Unlock).unwrap();
    sandbox.sh("rm /run/.molecule-tools.other/precious");
    succeeded(&setup(&sandbox).run());
    assert_eq!(private(&sandbox), "/tmp/.molecule-tools.agents\n");
    assert_eq!(values(&sandbox, "/home/agent", HELPER), [helper(&sandbox)]);
}
