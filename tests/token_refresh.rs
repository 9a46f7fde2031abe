//! token-refresh: the command is started again, and ends with everything it started when its
//! supervisor is asked to end; and the daemon that the boot leaves behind.

mod daemon;

use std::time::Duration;

use crate::support::sandbox::{Run, Sandbox, Started, text};
use crate::support::{Case, Need, eventually, test_case};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SCRIPT: &str = "/app/scripts/molecule-gh-token-refresh.sh";

pub fn cases() -> Vec<Case> {
    let root = &[Need::Root];
    let mut cases = vec![
        test_case!(once_gives_the_status_a_shell_would_give, root),
        test_case!(once_ends_what_the_command_leaves_behind, root),
        test_case!(the_command_starts_again_after_30_seconds_with_a_line, root),
        test_case!(sigterm_ends_all_descendants_wherever_they_hide, root),
        test_case!(nobody_gets_sigterm_twice, root),
        test_case!(what_ignores_sigterm_is_killed, root),
        test_case!(sigterm_in_the_pause_ends_it, root),
        test_case!(sigterm_during_start_up_leaves_nothing, root),
        test_case!(sigint_sighup_and_sigquit_end_it_unless_ignored, root),
        test_case!(the_callers_group_gets_no_signal, root),
        test_case!(the_command_dies_with_a_killed_supervisor, root),
        test_case!(orphans_of_the_command_become_no_zombies, root),
        test_case!(the_command_gets_clean_signals_and_a_session, root),
    ];
    cases.extend(daemon::cases());
    cases
}

/// A sandbox whose refresh script is `script`.
fn sandbox(script: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.install(SCRIPT, &format!("#!/bin/sh\n{script}\n"));
    sandbox
}

fn refresh(sandbox: &Sandbox) -> Run {
    sandbox.program().arg("token-refresh")
}

/// The supervisor with its standard error in /tmp/err.
fn logged(sandbox: &Sandbox) -> Run {
    sandbox.command("/bin/sh").args(["-c", "exec molecule-tools token-refresh 2>/tmp/err"])
}

fn send(started: &Started, signal: Signal) {
    kill(Pid::from_raw(started.child.id().cast_signed()), signal).unwrap();
}

#[track_caller]
fn nothing_left(sandbox: &Sandbox) {
    let left = sandbox.processes();
    let shown = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
    assert!(left.is_empty(), "{:?}", left.iter().map(shown).collect::<Vec<_>>());
}

fn once_gives_the_status_a_shell_would_give() {
    for (script, status) in [
        ("#!/bin/sh\nexit 0", 0),
        ("#!/bin/sh\nexit 3", 3),
        ("#!/bin/sh\nkill -TERM $$", 143),
        ("#!/bin/sh\nkill -KILL $$", 137),
        ("exit 4", 4),
        ("#!/no/interpreter", 127),
    ] {
        let sandbox = Sandbox::new();
        sandbox.install(SCRIPT, script);
        let outcome = refresh(&sandbox).arg("--once").run();
        assert_eq!(outcome.status, status, "{script}\n{outcome:?}");
    }
    let sandbox = Sandbox::new();
    let absent = refresh(&sandbox).args(["--once", "--command", "/app/absent"]).run();
    assert_eq!(absent.status, 127);
    assert_eq!(absent.stderr(), "run /app/absent: No such file or directory\n");
    std::fs::write(sandbox.path("/tmp/plain"), "").unwrap();
    let plain = refresh(&sandbox).args(["--once", "--command", "/tmp/plain"]).run();
    assert_eq!((plain.status, plain.stderr()), (126, "run /tmp/plain: Permission denied\n".into()));
    let named = refresh(&sandbox).arg("--once").env("MOLECULE_REFRESH_COMMAND", "/bin/pwd").run();
    assert_eq!((named.status, named.stdout()), (0, "/\n".into()));
}

fn once_ends_what_the_command_leaves_behind() {
    let sandbox = sandbox("sleep 1000 & setsid sleep 1001 & (setsid setsid sleep 1002 &) ; exit 5");
    let outcome = refresh(&sandbox).arg("--once").run();
    assert_eq!(outcome.status, 5, "{outcome:?}");
    nothing_left(&sandbox);
}

fn the_command_starts_again_after_30_seconds_with_a_line() {
    let sandbox = sandbox(
        "cut -d' ' -f1 /proc/uptime >> /tmp/starts; [ -e /tmp/second ] || exit 7; sleep 1000",
    );
    let started = logged(&sandbox).start();
    let line = "[molecule-gh-token-refresh] daemon exited rc=7 — respawning in 30s\n";
    eventually("the line", || text(&sandbox, "/tmp/err") == line);
    std::fs::write(sandbox.path("/tmp/second"), "").unwrap();
    eventually("the second start", || text(&sandbox, "/tmp/starts").lines().count() == 2);
    let starts = text(&sandbox, "/tmp/starts");
    let starts: Vec<f64> = starts.lines().map(|line| line.parse().unwrap()).collect();
    assert!(starts[1] - starts[0] >= 29.9, "{starts:?}");
    send(&started, Signal::SIGTERM);
    assert_eq!(started.wait().status, 143);
    assert_eq!(text(&sandbox, "/tmp/err"), line);
    nothing_left(&sandbox);
}

fn sigterm_ends_all_descendants_wherever_they_hide() {
    let sandbox = sandbox(
        "trap 'echo parent >> /tmp/ended; exit 9' TERM
         sh -c 'trap \"echo group >> /tmp/ended; exit\" TERM; touch /tmp/a; while :; do sleep 1; done' &
         setsid sh -c 'trap \"echo session >> /tmp/ended; exit\" TERM; touch /tmp/b; while :; do sleep 1; done' &
         (setsid setsid sleep 1003 &)
         while [ ! -e /tmp/a ] || [ ! -e /tmp/b ]; do sleep 0.1; done
         touch /tmp/ready; while :; do sleep 1; done",
    );
    let started = refresh(&sandbox).start();
    eventually("the command is up", || sandbox.path("/tmp/ready").exists());
    assert!(sandbox.processes().len() >= 5);
    send(&started, Signal::SIGTERM);
    assert_eq!(started.wait().status, 143);
    nothing_left(&sandbox);
    let ended = text(&sandbox, "/tmp/ended");
    let mut ended: Vec<&str> = ended.lines().collect();
    ended.sort_unstable();
    assert_eq!(ended, ["group", "parent", "session"]);
}

/// One of the command's group outlives it, and becomes the supervisor's child with the signal behind it.
fn nobody_gets_sigterm_twice() {
    let sandbox = sandbox(
        "trap 'sleep 0.3; exit' TERM
         sh -c 'trap \"echo term >> /tmp/terms\" TERM; touch /tmp/ready
                while [ ! -e /tmp/terms ]; do sleep 0.1; done; sleep 0.5; sleep 0.5' &
         wait",
    );
    let started = refresh(&sandbox).start();
    eventually("the command is up", || sandbox.path("/tmp/ready").exists());
    send(&started, Signal::SIGTERM);
    assert_eq!(started.wait().status, 143);
    nothing_left(&sandbox);
    assert_eq!(text(&sandbox, "/tmp/terms"), "term\n");
}

fn what_ignores_sigterm_is_killed() {
    let stubborn = "trap '' TERM INT HUP; touch /tmp/ready; while :; do sleep 1000; done";
    for patience in [true, false] {
        let sandbox = sandbox(stubborn);
        let started = refresh(&sandbox).start();
        eventually("the command is up", || sandbox.path("/tmp/ready").exists());
        send(&started, Signal::SIGTERM);
        if !patience {
            send(&started, Signal::SIGINT);
        }
        // Of two requests that wait, the kernel hands out the one with the lower number first.
        let status = started.wait().status;
        assert!(status == 143 || !patience && status == 130, "{status}");
        nothing_left(&sandbox);
    }
}

fn sigterm_in_the_pause_ends_it() {
    let sandbox = sandbox("setsid sleep 1004 & exit 0");
    let started = logged(&sandbox).start();
    eventually("the pause", || text(&sandbox, "/tmp/err").contains("daemon exited rc=0 — "));
    let before = text(&sandbox, "/tmp/err");
    send(&started, Signal::SIGTERM);
    assert_eq!(started.wait().status, 143);
    assert_eq!(text(&sandbox, "/tmp/err"), before);
    nothing_left(&sandbox);
}

fn sigterm_during_start_up_leaves_nothing() {
    let sandbox = sandbox("sleep 1005 & setsid sleep 1006 & wait");
    // The shell is in the group of what it starts: a signal to that group would end it.
    let caller = "for i in $(seq 60); do
            molecule-tools token-refresh & j=$((i * 200))
            while [ $j -gt 0 ]; do j=$((j - 1)); done; kill -TERM $!; wait $! || echo $?
        done";
    let outcome = sandbox.command("/usr/bin/setsid").args(["-w", "sh", "-c", caller]).run();
    assert_eq!((outcome.status, outcome.stdout()), (0, "143\n".repeat(60)), "{outcome:?}");
    nothing_left(&sandbox);
}

fn sigint_sighup_and_sigquit_end_it_unless_ignored() {
    let sandbox = sandbox("touch /tmp/ready; sleep 1007");
    let up = || {
        eventually("the command is up", || sandbox.path("/tmp/ready").exists());
        std::fs::remove_file(sandbox.path("/tmp/ready")).unwrap();
    };
    for signal in [Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        let started = refresh(&sandbox).start();
        up();
        send(&started, signal);
        assert_eq!(started.wait().status, 128 + signal as i32);
        nothing_left(&sandbox);
        let mut started = refresh(&sandbox).ignore(signal).start();
        up();
        send(&started, signal);
        send(&started, Signal::SIGCHLD);
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(started.child.try_wait().unwrap(), None, "{signal} was ignored");
        send(&started, Signal::SIGTERM);
        assert_eq!(started.wait().status, 143);
        nothing_left(&sandbox);
    }
}

fn the_callers_group_gets_no_signal() {
    let sandbox = sandbox("touch /tmp/ready; sleep 1008");
    let caller = "trap 'touch /tmp/hit' TERM INT HUP
        sh -c 'trap \"touch /tmp/hit\" TERM INT HUP; sleep 1; while [ ! -e /tmp/over ]; do sleep 0.1; done' &
        molecule-tools token-refresh & refresh=$!
        while [ ! -e /tmp/ready ]; do sleep 0.1; done
        kill -TERM $refresh; wait $refresh; echo $?
        touch /tmp/over; wait; [ ! -e /tmp/hit ]";
    let outcome = sandbox.command("/usr/bin/setsid").args(["-w", "sh", "-c", caller]).run();
    assert_eq!((outcome.status, outcome.stdout()), (0, "143\n".into()), "{outcome:?}");
    nothing_left(&sandbox);
}

fn the_command_dies_with_a_killed_supervisor() {
    let sandbox = sandbox("echo $$ > /tmp/pid; exec sleep 1009");
    let started = refresh(&sandbox).start();
    eventually("the command is up", || text(&sandbox, "/tmp/pid").ends_with('\n'));
    send(&started, Signal::SIGKILL);
    assert_eq!(started.wait().status, 137);
    eventually("the command is gone", || sandbox.processes().is_empty());
}

fn orphans_of_the_command_become_no_zombies() {
    let sandbox = sandbox(
        "for i in 1 2 3 4 5; do (setsid true &); done; sleep 0.3; touch /tmp/ready; sleep 1010",
    );
    let started = refresh(&sandbox).start();
    eventually("the command is up", || sandbox.path("/tmp/ready").exists());
    let children = format!("/proc/{0}/task/{0}/children", started.child.id());
    eventually("the command alone is left", || {
        std::fs::read_to_string(&children).unwrap().split_whitespace().count() == 1
    });
    send(&started, Signal::SIGTERM);
    assert_eq!(started.wait().status, 143);
}

fn the_command_gets_clean_signals_and_a_session() {
    let sandbox = sandbox(
        "[ \"$(cut -d' ' -f5,6 /proc/$$/stat)\" = \"$$ $$\" ] && echo alone; env | sort; pwd",
    );
    let run = || refresh(&sandbox).arg("--once").env_clear().env("PATH", "/usr/bin:/bin");
    let outcome = run().env("A", "b").directory("/tmp").run();
    let expected = "alone\nA=b\nPATH=/usr/bin:/bin\nPWD=/tmp\n/tmp\n";
    assert_eq!(outcome.stdout(), expected, "{outcome:?}");
    // A shell would clear the mask itself.
    sandbox.install(SCRIPT, "#!/bin/cat /proc/self/status\n");
    let run = || run().block(Signal::SIGUSR1).ignore(Signal::SIGHUP).ignore(Signal::SIGCHLD);
    let status = run().ignore(Signal::SIGPIPE).run().stdout();
    assert_eq!(signals(&status, "SigBlk"), [10]);
    assert_eq!(signals(&status, "SigIgn"), [1, 17], "SIGPIPE is not among them");
    sandbox.install(SCRIPT, "#!/bin/ls /proc/self/fd\n");
    let (read, _write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let descriptors = run().descriptor(7, read).run().stdout();
    let descriptors: Vec<&str> = descriptors.lines().skip_while(|line| *line != "0").collect();
    assert_eq!(descriptors, ["0", "1", "2", "3", "7"], "3 is of ls itself");
}

/// The signals below 32 in the mask that `status` (proc_pid_status(5)) has under `name`.
fn signals(status: &str, name: &str) -> Vec<u32> {
    let mask = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    let mask = u64::from_str_radix(mask.unwrap(), 16).unwrap();
    (1..32).filter(|number| mask >> (number - 1) & 1 == 1).collect()
}
