//! The sandbox itself: what other tests rely on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::sandbox::{LoopDevice, Sandbox};
use crate::support::{Case, Need, Stop, eventually, test_case};
use nix::sys::signal::Signal;

pub fn cases() -> Vec<Case> {
    vec![
        test_case!(a_root_of_its_own_with_user_agent, &[Need::Root]),
        test_case!(a_process_inside_gets_exactly_what_was_asked_for, &[Need::Root]),
        test_case!(a_loop_device_holds_a_snapshot_and_is_freed, &[Need::Root, Need::Loop]),
        test_case!(a_new_file_is_never_older_than_now, &[]),
        test_case!(what_was_installed_runs_while_other_threads_start_processes, &[Need::Root]),
        test_case!(nothing_inside_outlives_it, &[Need::Root]),
    ]
}

fn a_new_file_is_never_older_than_now() {
    use std::os::unix::fs::MetadataExt as _;
    let directory = tempfile::tempdir().unwrap();
    let time = |name: &str| {
        std::fs::write(directory.path().join(name), "").unwrap();
        let data = std::fs::metadata(directory.path().join(name)).unwrap();
        (data.mtime(), data.mtime_nsec())
    };
    for number in 0..100 {
        let now = crate::support::clock::now();
        let first = time(&format!("first{number}"));
        assert!(first >= (now.tv_sec, now.tv_nsec), "{first:?} {now:?}");
        crate::support::clock::tick();
        assert!(time(&format!("second{number}")) > first, "{first:?}");
    }
}

fn a_root_of_its_own_with_user_agent() {
    let sandbox = Sandbox::with("echo outside > configs/a; chown 1000:1000 configs/a");
    assert_eq!(
        sandbox.sh("id agent"),
        "uid=1000(agent) gid=1000(agent) groups=1000(agent),2375(docker),2376(extra)\n"
    );
    assert_eq!(
        sandbox.sh("stat -c %U /configs/a; ls -A /root /workspace /mnt"),
        "agent\n/mnt:\n\n/root:\n\n/workspace:\n"
    );
    assert_eq!(std::fs::read_to_string(sandbox.path("/configs/a")).unwrap(), "outside\n");
    sandbox.sh("mount -t tmpfs inside /mnt; touch /mnt/here; ! touch /usr/here 2>/dev/null");
    assert!(sandbox.path("/mnt/here").exists());
    assert!(!std::path::Path::new("/mnt/here").exists());
    assert!(sandbox.program().arg("--version").run().stdout().starts_with("molecule-tools "));
}

fn a_process_inside_gets_exactly_what_was_asked_for() {
    let sandbox = Sandbox::new();
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    drop(write);
    let outcome = sandbox
        .command("/bin/sh")
        .args(["-c", "umask; id -u; id -G; pwd; env; ls /proc/$$/fd; exit 7"])
        .env_clear()
        .env("A", "b")
        .umask(0o027)
        .identity(1000, 1001, &[5, 6])
        .directory("/tmp")
        .block(Signal::SIGUSR1)
        .ignore(Signal::SIGPIPE)
        .descriptor(9, read)
        .run();
    assert_eq!(outcome.status, 7);
    let expected = "0027\n1000\n1001 5 6\n/tmp\nA=b\nPWD=/tmp\n0\n1\n2\n9\n";
    assert_eq!(outcome.stdout(), expected, "{outcome:?}");
    // A shell would clear the mask.
    let status = sandbox.command("/bin/cat").arg("/proc/self/status");
    let status = status.block(Signal::SIGUSR1).ignore(Signal::SIGPIPE).run().stdout();
    assert!(status.contains("\nSigBlk:\t0000000000000200\n"), "{status}");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & 0xffff, 0x1000);
    let killed = sandbox.command("/bin/sh").args(["-c", "kill -TERM $$"]).run();
    assert_eq!(killed.status, 128 + 15);
    let powerless =
        sandbox.command("/bin/mount").args(["-t", "tmpfs", "x", "/mnt"]).drop_capability(21).run();
    assert_ne!(powerless.status, 0);
    let deaf = sandbox.command("/bin/sh").args(["-c", "echo x"]).close(1).run();
    assert_ne!(deaf.status, 0);
}

fn a_loop_device_holds_a_snapshot_and_is_freed() {
    let device = LoopDevice::ext4(16, "mkdir workspace; echo kept > workspace/file");
    let backing = |number: (u32, u32)| {
        std::path::PathBuf::from(format!("/sys/dev/block/{}:{}/loop", number.0, number.1))
    };
    let number = device.number();
    let sandbox = Sandbox::new();
    sandbox.add_device("xvdb", &device);
    assert_eq!(sandbox.sh("blkid -s TYPE -o value /dev/xvdb; mkdir /mnt/r; mount -o ro /dev/xvdb /mnt/r; cat /mnt/r/workspace/file"), "ext4\nkept\n");
    assert!(backing(number).exists());
    let before = std::fs::read_to_string(backing(number).join("backing_file")).unwrap();
    drop((device, sandbox));
    // A program that looks at all disks may have it open for a moment.
    eventually("the device is free", || {
        std::fs::read_to_string(backing(number).join("backing_file")).ok().as_ref() != Some(&before)
    });
}

fn what_was_installed_runs_while_other_threads_start_processes() {
    let sandbox = Sandbox::new();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    sandbox.command("/bin/true").run();
                }
            });
        }
        let _stop = Stop(&over);
        let mut busy = Vec::new();
        for number in 0..200 {
            sandbox.install("/tmp/script", &format!("#!/bin/sh\nexit {}\n", number % 7));
            // A shell, which tells of a failure to start it.
            let outcome = sandbox.command("/bin/sh").args(["-c", "exec /tmp/script"]).run();
            busy.extend((outcome.status != number % 7).then(|| outcome.stderr()));
        }
        assert!(busy.is_empty(), "{} of 200: {}", busy.len(), busy[0]);
    });
}

fn nothing_inside_outlives_it() {
    let sandbox = Sandbox::new();
    sandbox.sh("sleep 1000 & sleep 1000 & :");
    let pids = sandbox.processes();
    assert_eq!(pids.len(), 2);
    drop(sandbox);
    // A killed process is gone a moment after the signal, not with it.
    let deadline = Instant::now() + Duration::from_secs(30);
    for pid in pids {
        let state = || std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let gone = |state: &str| {
            state.is_empty() || state.contains("State:\tZ") || state.contains("State:\tX")
        };
        while !gone(&state()) {
            assert!(Instant::now() < deadline, "{}", state());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
