//! Steps that hang, crash or are interrupted: the boot goes on, or ends because it was asked to.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::entrypoint::{boots, entrypoint};
use crate::support::fuse::{FuseMount, Server};
use crate::support::runtime::{sandbox, take_view};
use crate::support::sandbox::{LoopDevice, PROGRAM_INSIDE, Run, Sandbox};
use crate::support::{Case, Need, case, test_case};

pub fn cases() -> Vec<Case> {
    const FUSE: &[Need] = &[Need::Root, Need::Fuse];
    const FUSE_LOOP: &[Need] = &[Need::Root, Need::Fuse, Need::Loop];
    const ROOT: &[Need] = &[Need::Root];
    vec![
        case("a_mount_that_never_answers_is_left_behind", FUSE, || hangs(Server::Absent)),
        case("one_that_not_even_sigkill_gets_out_of_is_left_too", FUSE, || hangs(Server::Silent)),
        test_case!(a_signal_ends_a_boot_that_hangs, FUSE),
        test_case!(a_caller_that_ignores_sigchld_boots, ROOT),
        test_case!(a_killed_ownership_step_is_told_and_the_boot_goes_on, FUSE),
        test_case!(a_step_timeout_that_is_no_number_is_told, ROOT),
        test_case!(a_restore_into_a_mount_that_never_answers_is_left, FUSE_LOOP),
        test_case!(a_signal_ends_a_restore_that_hangs, FUSE_LOOP),
        test_case!(a_record_that_hangs_costs_the_other_trees_nothing, FUSE),
        test_case!(what_a_cut_off_restore_has_half_made_stays_root_s, FUSE_LOOP),
    ]
}

/// A sandbox whose /workspace has something to give and, below, the mount.
fn scene(server: Server) -> (Sandbox, FuseMount) {
    let sandbox = sandbox(
        "mkdir -p workspace/a/hung; echo x > workspace/a/f; mkdir home/agent/Downloads; echo > configs/c",
    );
    let mount = FuseMount::new(&sandbox, "/workspace/a/hung", server);
    (sandbox, mount)
}

/// How long a step may do nothing where no limit is set: so long each would take that is held to no shorter one.
const UNSET: Duration = Duration::from_secs(60);
/// How long a step that was asked to end is waited for: so long it takes where one that shows no sign of life is.
const GOOD_ORDER: Duration = Duration::from_secs(5);

fn boot(sandbox: &Sandbox) -> Run {
    entrypoint(sandbox).env("MOLECULE_STEP_TIMEOUT", "1")
}

#[track_caller]
fn hangs(server: Server) {
    let (sandbox, mount) = scene(server);
    let begin = Instant::now();
    let (outcome, view) = boots(&sandbox, boot(&sandbox));
    // The limit, an eighth, a second for SIGKILL, and a slow machine.
    assert!(begin.elapsed() < UNSET, "{:?}", begin.elapsed());
    assert_eq!(view["Uid"], "1000 1000 1000 1000", "{view:?}");
    let stderr = outcome.stderr();
    let line = "entrypoint: WARN the ownership step has done nothing for 1 s in /workspace/a";
    assert_eq!(stderr.matches(line).count(), 1, "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert_eq!(sandbox.sh("stat -c %u /configs/c"), "1000\n");
    drop(mount);
    // What was left behind ends once its request does.
    let until = Instant::now() + Duration::from_secs(100);
    while !sandbox.processes().is_empty() {
        assert!(Instant::now() < until, "{:?}", sandbox.processes());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn a_signal_ends_a_boot_that_hangs() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (sandbox, _mount) = scene(Server::Absent);
        let started = entrypoint(&sandbox).start();
        wait_for_step(&sandbox, started.child.id());
        let begin = Instant::now();
        kill(nix::unistd::Pid::from_raw(started.child.id().cast_signed()), signal).unwrap();
        let outcome = started.wait();
        assert_eq!(outcome.status, 128 + signal as i32, "{outcome:?}");
        assert!(begin.elapsed() < GOOD_ORDER, "{:?}", begin.elapsed());
        assert!(take_view(&sandbox).is_none(), "the runtime was started");
        assert_eq!(sandbox.processes(), [] as [u32; 0]);
    }
    // As PID 1 of a container, for whom no signal has a default action.
    let (sandbox, _mount) = scene(Server::Absent);
    let inits = sandbox.command("/usr/bin/unshare").args(["--pid", "--fork", PROGRAM_INSIDE]);
    let started = inits.arg("entrypoint").start();
    let step = wait_for_step(&sandbox, started.child.id());
    let status = std::fs::read_to_string(format!("/proc/{step}/status")).unwrap();
    let init = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap();
    kill(nix::unistd::Pid::from_raw(init.parse().unwrap()), Signal::SIGTERM).unwrap();
    let outcome = started.wait();
    assert_eq!(outcome.status, 128 + Signal::SIGTERM as i32, "{outcome:?}");
    assert!(take_view(&sandbox).is_none(), "the runtime was started");
    // Ignored by whoever started the boot, it is nobody's.
    let (sandbox, _mount) = scene(Server::Absent);
    let started = boot(&sandbox).ignore(Signal::SIGINT).start();
    wait_for_step(&sandbox, started.child.id());
    kill(nix::unistd::Pid::from_raw(started.child.id().cast_signed()), Signal::SIGINT).unwrap();
    let outcome = started.wait();
    assert!(take_view(&sandbox).is_some(), "{outcome:?}");
}

fn a_caller_that_ignores_sigchld_boots() {
    let sandbox = sandbox("echo > configs/c");
    let run = entrypoint(&sandbox).ignore(Signal::SIGCHLD).block(Signal::SIGTERM);
    let (outcome, view) = boots(&sandbox, run);
    assert_eq!(outcome.stderr(), "");
    let bit = |signal: Signal| 1_u64 << (signal as i32 - 1);
    let mask = |name: &str| u64::from_str_radix(view[name].trim(), 16).unwrap();
    assert_eq!(mask("SigIgn") & 0x7fff_ffff, bit(Signal::SIGCHLD), "{view:?}");
    assert_eq!(mask("SigBlk"), bit(Signal::SIGTERM), "{view:?}");
    assert_eq!(sandbox.sh("stat -c %u /configs/c"), "1000\n");
}

fn a_killed_ownership_step_is_told_and_the_boot_goes_on() {
    let (sandbox, _mount) = scene(Server::Absent);
    let started = entrypoint(&sandbox).start();
    let step = wait_for_step(&sandbox, started.child.id());
    kill(nix::unistd::Pid::from_raw(step.cast_signed()), Signal::SIGKILL).unwrap();
    let outcome = started.wait();
    assert!(take_view(&sandbox).is_some(), "{outcome:?}");
    let said = outcome.stderr();
    assert!(
        said.starts_with("entrypoint: WARN the ownership step was ended by SIGKILL;"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// A sandbox with a snapshot at /dev/xvdb that has something for each tree, and the mount at `place`.
fn restoring(place: &str, server: Server) -> (Sandbox, FuseMount, LoopDevice) {
    let volume = LoopDevice::ext4(
        16,
        "mkdir -p configs workspace/a/hung workspace/new
         echo x > configs/c; echo x > workspace/a/hung/f; echo x > workspace/new/f",
    );
    let sandbox = sandbox("mkdir -p workspace/a/hung");
    sandbox.add_device("xvdb", &volume);
    let mount = FuseMount::new(&sandbox, place, server);
    (sandbox, mount, volume)
}

const MARKER: &str = "/configs/.restore-completed";

fn a_restore_into_a_mount_that_never_answers_is_left() {
    for server in [Server::Absent, Server::Silent] {
        for place in ["/workspace/a/hung", "/workspace"] {
            let (sandbox, mount, _volume) = restoring(place, server);
            let begin = Instant::now();
            let (outcome, view) = boots(&sandbox, boot(&sandbox));
            // Two audits, restore, ownership and record: each the limit, an eighth, a second for SIGKILL.
            assert!(begin.elapsed() < UNSET, "{:?}", begin.elapsed());
            assert_eq!(view["Uid"], "1000 1000 1000 1000", "{view:?}");
            let stderr = outcome.stderr();
            let line = "entrypoint: WARN the restore step has done nothing for 1 s in /workspace; ";
            assert_eq!(stderr.matches(line).count(), 1, "{stderr}");
            assert!(!sandbox.path(MARKER).exists(), "{stderr}");
            drop(mount);
            let until = Instant::now() + Duration::from_secs(100);
            while !sandbox.processes().is_empty() {
                assert!(Instant::now() < until, "{:?}", sandbox.processes());
                std::thread::sleep(Duration::from_millis(10));
            }
            assert!(!sandbox.path(MARKER).exists(), "it went on when it was answered");
        }
    }
}

fn a_signal_ends_a_restore_that_hangs() {
    // As PID 1 of a container.
    let (sandbox, _mount, _volume) = restoring("/workspace/a/hung", Server::Absent);
    let inits = sandbox.command("/usr/bin/unshare").args(["--pid", "--fork", PROGRAM_INSIDE]);
    let started = inits.arg("entrypoint").start();
    let step = wait_for_step(&sandbox, started.child.id());
    let status = std::fs::read_to_string(format!("/proc/{step}/status")).unwrap();
    let init = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap();
    let begin = Instant::now();
    kill(nix::unistd::Pid::from_raw(init.parse().unwrap()), Signal::SIGTERM).unwrap();
    let outcome = started.wait();
    assert_eq!(outcome.status, 128 + Signal::SIGTERM as i32, "{outcome:?}");
    assert!(begin.elapsed() < GOOD_ORDER, "{:?}", begin.elapsed());
    assert!(take_view(&sandbox).is_none(), "the runtime was started");
    assert!(!sandbox.path(MARKER).exists(), "{outcome:?}");
}

fn a_record_that_hangs_costs_the_other_trees_nothing() {
    let sandbox = sandbox("mkdir -p home/agent/.claude");
    let _mount = FuseMount::new(&sandbox, "/configs", Server::Absent);
    let (outcome, _) = boots(&sandbox, boot(&sandbox));
    let stderr = outcome.stderr();
    assert!(
        stderr.contains("WARN the record step has done nothing for 1 s in /configs;"),
        "{stderr}"
    );
    for tree in ["/workspace", "/home/agent/.claude"] {
        let tree = molecule_tools::fs::Dir::open_operator_path(sandbox.path(tree)).unwrap();
        let record = molecule_tools::record::look(&tree).unwrap().unwrap();
        assert!(record.since.0 > 1_700_000_000, "{record:?}");
    }
}

fn what_a_cut_off_restore_has_half_made_stays_root_s() {
    // As a killed restore leaves it: half a file in a directory that nobody else could enter.
    let volume = LoopDevice::ext4(16, "mkdir -p opt/tree/hung; echo x > opt/tree/hung/f");
    let sandbox = sandbox(
        "mkdir -p opt/tree/hung workspace/half/made
         echo x > workspace/half/made/f; echo x > workspace/g; chmod 1700 workspace/half",
    );
    sandbox.add_device("xvdb", &volume);
    let mount = FuseMount::new(&sandbox, "/opt/tree/hung", Server::Absent);
    let boot = || boots(&sandbox, boot(&sandbox).env("MOLECULE_RESTORE_PATHS", "opt/tree")).0;
    let owner = |path: &str| sandbox.sh(&format!("stat -c %u {path}"));
    let outcome = boot();
    assert!(outcome.stderr().contains("the restore step has done nothing"), "{outcome:?}");
    assert_eq!(owner("/workspace/g"), "1000\n", "{outcome:?}");
    assert_eq!(owner("/workspace/half"), "0\n", "{outcome:?}");
    assert_eq!(owner("/workspace/half/made/f"), "0\n", "{outcome:?}");
    let line = "WARN give /workspace/half: a restore was cut off while it made it; ";
    assert_eq!(outcome.stdout().matches(line).count(), 1, "{outcome:?}");
    // After one that came to its end it is a directory like any other.
    sandbox.sh("umount -l /opt/tree/hung; chown -R 0:0 /workspace");
    drop(mount);
    let outcome = boot();
    assert_eq!(owner("/workspace/half/made/f"), "1000\n", "{outcome:?}");
}

fn a_step_timeout_that_is_no_number_is_told() {
    let sandbox = sandbox("");
    for wrong in ["0", "1h", "-1"] {
        let run = entrypoint(&sandbox).env("MOLECULE_STEP_TIMEOUT", wrong);
        let said = boots(&sandbox, run).0.stderr();
        let line =
            format!("entrypoint: WARN MOLECULE_STEP_TIMEOUT {wrong} is no number of seconds");
        assert!(said.contains(&line), "{said}");
    }
}

/// Waits until a child of the boot waits for the mount; gives it.
#[track_caller]
fn wait_for_step(sandbox: &Sandbox, boot: u32) -> u32 {
    let until = Instant::now() + Duration::from_secs(100);
    loop {
        let hung = |pid: &u32| {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok();
            let place =
                |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("wchan"));
            tasks.is_some_and(|mut tasks| {
                tasks.any(|task| task.and_then(place).is_ok_and(|place| place.contains("fuse")))
            })
        };
        let processes = sandbox.processes();
        if let Some(pid) = processes.into_iter().find(|pid| *pid != boot && hung(pid)) {
            return pid;
        }
        assert!(Instant::now() < until, "no step hangs");
        std::thread::sleep(Duration::from_millis(5));
    }
}
