//! The daemon that the boot leaves behind, seen from a boot as the agent.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{SCRIPT, eventually, text};
use crate::support::sandbox::{PROGRAM_INSIDE, Run, Sandbox};
use crate::support::{Case, Need, test_case};

const LOG: &str = "/home/agent/.gh-token-refresh.log";

pub fn cases() -> Vec<Case> {
    const STRACE: &[Need] = &[Need::Root, Need::Program("strace")];
    let root = &[Need::Root];
    vec![
        test_case!(daemon_outlives_the_exec_and_logs_for_the_agent_alone, root),
        test_case!(daemon_inherits_what_nohup_would_give_it, root),
        test_case!(daemon_log_is_bounded, root),
        test_case!(daemon_needs_the_variable_to_be_true, root),
        test_case!(daemon_refreshes_by_itself_without_a_script_the_agent_may_execute, root),
        test_case!(daemon_log_that_is_no_file_means_a_warning_and_a_boot, root),
        test_case!(daemon_ends_with_its_descendants, root),
        test_case!(daemon_that_cannot_be_had_is_told, STRACE),
        test_case!(daemon_short_of_memory_goes_on, STRACE),
    ]
}

/// A sandbox with a refresh script, and a runtime that waits for /tmp/over.
fn sandbox(script: &str) -> Sandbox {
    let sandbox = super::sandbox(script);
    let runtime = "#!/bin/sh\nls /proc/$$/fd > /tmp/descriptors\necho up\n\
                   while [ ! -e /tmp/over ]; do sleep 0.1; done\nexit 42\n";
    sandbox.install("/usr/local/bin/molecule-runtime", runtime);
    sandbox
}

fn boot(sandbox: &Sandbox) -> Run {
    sandbox.program().arg("entrypoint").env("ENABLE_GITHUB_MIRROR_CREDENTIALS", "true")
}

fn over(sandbox: &Sandbox) {
    std::fs::write(sandbox.path("/tmp/over"), "").unwrap();
}

fn daemon_outlives_the_exec_and_logs_for_the_agent_alone() {
    let sandbox = sandbox("echo out; echo error >&2; exit 3");
    sandbox.sh(&format!("echo old > {LOG}; chown agent: {LOG}; chmod 644 {LOG}"));
    let started = boot(&sandbox).start();
    let said = "out\nerror\n[molecule-gh-token-refresh] daemon exited rc=3 — respawning in 30s\n";
    eventually("the log", || text(&sandbox, LOG) == said);
    assert_eq!(sandbox.sh(&format!("stat -c '%a %U %G' {LOG}")), "600 agent agent\n");
    let children = format!("/proc/{0}/task/{0}/children", started.child.id());
    let daemon = std::fs::read_to_string(children).unwrap();
    let daemon = daemon.split_whitespace().next().unwrap();
    let comm = std::fs::read_to_string(format!("/proc/{daemon}/comm")).unwrap();
    assert_eq!(comm, "token-refresh\n");
    over(&sandbox);
    let outcome = started.wait();
    assert_eq!(outcome.status, 42, "{outcome:?}");
    assert!(!outcome.stderr().contains("token-refresh"), "{outcome:?}");
    let descriptors = text(&sandbox, "/tmp/descriptors");
    let mut descriptors: Vec<u32> = descriptors.lines().map(|fd| fd.parse().unwrap()).collect();
    descriptors.retain(|fd| *fd < 10);
    assert_eq!(descriptors, [0, 1, 2], "the shell's own, from 10 on, apart");
    assert!(std::path::Path::new(&format!("/proc/{daemon}")).exists());
}

fn daemon_inherits_what_nohup_would_give_it() {
    // The list goes to a file: with a pipe the shell has an end of it open while the list is made.
    let sandbox = sandbox(
        "id -u; id -g; echo $HOME; pwd; umask; readlink /proc/$$/fd/0
         ls /proc/$$/fd > /tmp/fds; tr '\\n' ' ' < /tmp/fds
         cat /proc/$$/status; echo end; sleep 1000",
    );
    // Other tests start processes meanwhile, which must not hold it.
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let run = boot(&sandbox).umask(0o027).directory("/tmp").descriptor(7, write);
    let started = run.start();
    eventually("the log", || text(&sandbox, LOG).ends_with("end\n"));
    let log = text(&sandbox, LOG);
    let start = "1000\n1000\n/home/agent\n/tmp\n0027\n/dev/null\n0 1 10 11 2 Name:";
    assert!(log.starts_with(start), "10 and 11 are the shell's own\n{log}");
    assert_eq!(super::signals(&log, "SigIgn"), [1, 2, 3]);
    over(&sandbox);
    assert_eq!(started.wait().status, 42);
    // The runtime has ended; would the daemon hold the descriptor, this would wait for it.
    assert_eq!(nix::unistd::read(&read, &mut [0]).unwrap(), 0);
    assert!(!sandbox.processes().is_empty());
}

fn daemon_log_is_bounded() {
    let sandbox = sandbox("seq 1000000; touch /tmp/done; sleep 1000");
    let started = boot(&sandbox).start();
    eventually("the end of the output", || text(&sandbox, LOG).ends_with("\n1000000\n"));
    let size = |path: &str| std::fs::metadata(sandbox.path(path)).unwrap().len();
    let older = format!("{LOG}.1");
    assert!(size(LOG) <= 1 << 20 && size(&older) <= 1 << 20);
    let kept = text(&sandbox, &older) + &text(&sandbox, LOG);
    let kept: Vec<&str> = kept.lines().skip(1).collect();
    let first: usize = kept[0].parse().unwrap();
    assert!(kept.iter().enumerate().all(|(index, line)| *line == (first + index).to_string()));
    assert_eq!(sandbox.sh(&format!("stat -c '%a %U' {LOG} {older}")), "600 agent\n600 agent\n");
    over(&sandbox);
    assert_eq!(started.wait().status, 42);
}

fn daemon_needs_the_variable_to_be_true() {
    for value in ["TRUE", "1", "true ", "yes", ""] {
        let sandbox = sandbox("touch /tmp/ran; sleep 1000");
        over(&sandbox);
        let run = boot(&sandbox).env("ENABLE_GITHUB_MIRROR_CREDENTIALS", value);
        assert_eq!(run.run().status, 42);
        assert!(sandbox.processes().is_empty(), "{value:?}");
        assert!(!sandbox.path(LOG).exists(), "{value:?}");
    }
}

fn daemon_refreshes_by_itself_without_a_script_the_agent_may_execute() {
    for change in ["rm", "chmod 644", "chmod 700"] {
        let sandbox = sandbox("touch /tmp/ran; sleep 1000");
        sandbox.sh(&format!("{change} {SCRIPT}"));
        over(&sandbox);
        assert_eq!(boot(&sandbox).run().status, 42);
        eventually("its plan", || text(&sandbox, LOG).contains(" the next refresh is in "));
        assert!(!sandbox.path("/tmp/ran").exists(), "{change}");
    }
}

fn daemon_log_that_is_no_file_means_a_warning_and_a_boot() {
    for (make, reason) in [
        ("echo canary > /home/agent/canary; ln -s canary", "symbolic link"),
        ("mkfifo", "No such device or address"),
        ("mkdir", "Is a directory"),
        ("ln -s /dev/zero", "symbolic link"),
        ("chmod 500 /home/agent; chown root /home/agent; :", "Permission denied"),
    ] {
        let sandbox = sandbox("sleep 1000");
        sandbox.sh(&format!("{make} {LOG}; chown -h agent: {LOG} || :"));
        over(&sandbox);
        let outcome = boot(&sandbox).identity(1000, 1000, &[]).env("HOME", "/home/agent").run();
        assert_eq!(outcome.status, 42, "{make}\n{outcome:?}");
        assert!(sandbox.processes().is_empty(), "{make}");
        let stderr = outcome.stderr();
        let warnings: Vec<&str> = stderr.lines().collect();
        assert_eq!(warnings.len(), 1, "{make}\n{outcome:?}");
        assert!(warnings[0].starts_with("token-refresh: WARN not started: "), "{stderr}");
        assert!(warnings[0].contains(reason), "{make}: {stderr}");
        if make.contains("canary") {
            assert_eq!(text(&sandbox, "/home/agent/canary"), "canary\n");
        }
    }
}

fn daemon_ends_with_its_descendants() {
    let sandbox = sandbox("echo $PPID > /tmp/daemon; setsid sleep 1001 & sleep 1002");
    let mut started = boot(&sandbox).start();
    eventually("the command is up", || text(&sandbox, "/tmp/daemon").ends_with('\n'));
    let daemon = Pid::from_raw(text(&sandbox, "/tmp/daemon").trim().parse().unwrap());
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        kill(daemon, signal).unwrap();
    }
    kill(daemon, Signal::SIGTERM).unwrap();
    let sleeping = || {
        sandbox.processes().iter().any(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.starts_with(b"sleep\x00100"))
        })
    };
    eventually("its descendants are gone", || !sleeping());
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{daemon}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().and_then(|rest| rest.chars().next())
    };
    // Its parent, the runtime, does not reap it in this test.
    eventually("it has ended", || matches!(state(), None | Some('Z')));
    assert_eq!(started.child.try_wait().unwrap(), None, "the runtime goes on");
    over(&sandbox);
    assert_eq!(started.wait().status, 42);
}

/// A boot as the agent, with system calls that strace answers in the kernel's place.
fn injected(sandbox: &Sandbox, calls: &str) -> Run {
    sandbox
        .command("/usr/bin/strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("inject={calls}")])
        .args([PROGRAM_INSIDE, "entrypoint"])
        .identity(1000, 1000, &[])
        .env("HOME", "/home/agent")
        .env("ENABLE_GITHUB_MIRROR_CREDENTIALS", "true")
}

fn daemon_that_cannot_be_had_is_told() {
    for (calls, reason) in [
        ("signalfd,signalfd4:error=EMFILE", "take over signals: Too many open files"),
        ("signalfd,signalfd4:error=EPERM", "take over signals: Operation not permitted"),
        ("pipe2:error=ENFILE", "make a pipe: Too many open files in system"),
        ("fork,clone:error=EAGAIN", "start a process: Resource temporarily unavailable"),
    ] {
        let sandbox = sandbox("touch /tmp/ran; sleep 1000");
        over(&sandbox);
        let outcome = injected(&sandbox, calls).run();
        assert_eq!(outcome.status, 42, "{outcome:?}");
        let line = format!("token-refresh: WARN not started: {reason}\n");
        assert!(outcome.stderr().contains(&line), "{calls}: {outcome:?}");
        assert!(sandbox.processes().is_empty() && !sandbox.path("/tmp/ran").exists(), "{calls}");
    }
}

/// The daemon's process.
fn daemon_of(sandbox: &Sandbox) -> Option<Pid> {
    let comm = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    let mut processes = sandbox.processes().into_iter();
    let pid = processes.find(|pid| comm(pid).as_deref() == Some("token-refresh\n"))?;
    Some(Pid::from_raw(pid.cast_signed()))
}

fn daemon_short_of_memory_goes_on() {
    const LOOK: &str = "look whether it may be executed: /app/scripts/molecule-gh-token-refresh.sh: \
        Input/output error; going on as if it may\n";
    for (calls, said) in [
        ("poll,ppoll:error=ENOMEM", ""),
        ("signalfd,signalfd4:error=ENOMEM:when=1", ""),
        ("access,faccessat,?faccessat2:error=EIO", LOOK),
        ("access,faccessat,?faccessat2:error=EIO:when=1", ""),
    ] {
        let sandbox = sandbox("echo up; sleep 1; exit 3");
        let started = injected(&sandbox, calls).start();
        let line = "up\n[molecule-gh-token-refresh] daemon exited rc=3 — respawning in 30s\n";
        eventually("the log", || text(&sandbox, LOG) == line);
        kill(daemon_of(&sandbox).unwrap(), Signal::SIGTERM).unwrap();
        over(&sandbox);
        let outcome = started.wait();
        assert_eq!(outcome.status, 42, "{outcome:?}");
        let stderr = outcome.stderr();
        match said {
            // The steps need the same calls, and may say so.
            "" => assert!(!stderr.contains("token-refresh"), "{calls}: {stderr}"),
            said => assert!(stderr.contains(&format!("entrypoint: WARN {said}")), "{stderr}"),
        }
    }
}
