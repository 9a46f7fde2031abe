//! Starts that wait for the restore of another one: for as long as it shows signs of life.

use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::entrypoint::{boots, entrypoint};
use crate::support::fuse::{FuseMount, Server};
use crate::support::runtime::sandbox;
use crate::support::sandbox::{LoopDevice, Outcome, Run, Sandbox};
use crate::support::{Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    const FUSE: &[Need] = &[Need::Root, Need::Fuse, Need::Loop];
    const LOOP: &[Need] = &[Need::Root, Need::Loop];
    vec![
        test_case!(a_restore_that_not_even_sigkill_ends_is_not_waited_for_long, FUSE),
        test_case!(a_holder_without_signs_of_life_is_overtaken_and_told, LOOP),
        test_case!(a_holder_that_shows_signs_of_life_is_waited_for, LOOP),
        test_case!(a_holder_that_never_shows_any_is_waited_for, LOOP),
        test_case!(a_long_restore_by_hand_shows_signs_of_life, LOOP),
        test_case!(a_restore_that_was_stopped_and_overtaken_takes_nothing_away, LOOP),
    ]
}

const MARKER: &str = "/configs/.restore-completed";
const TREE: &str = "/opt/tree";
const LOCK: &str = "/opt/tree/.molecule-lock";
const WAITING: &str = "another restore into /opt/tree is running, waiting";
const OVERTAKEN: &str = "WARN lock /opt/tree: Resource temporarily unavailable; the restore that is running \
    there shows no sign of life; nothing is restored at this start";

/// A snapshot with a tree that nothing else of the boot touches.
fn scene() -> (Sandbox, LoopDevice) {
    let volume = LoopDevice::ext4(
        16,
        "mkdir -p opt/tree/hung; echo x > opt/tree/hung/f; echo x > opt/tree/f",
    );
    let sandbox = sandbox("mkdir -p opt/tree/hung");
    sandbox.add_device("xvdb", &volume);
    (sandbox, volume)
}

/// A boot that waits two seconds for one that shows no sign of life.
fn boot(sandbox: &Sandbox) -> Run {
    let run = entrypoint(sandbox).env("MOLECULE_STEP_TIMEOUT", "1");
    run.env("MOLECULE_RESTORE_PATHS", TREE)
}

/// The lock, held as a restore holds it.
fn hold(sandbox: &Sandbox, mode: u32) -> File {
    let file = File::create(sandbox.path(LOCK)).unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    file
}

#[track_caller]
fn is_overtaken(outcome: &Outcome) {
    let log = outcome.stdout();
    assert_eq!((log.matches(WAITING).count(), log.matches(OVERTAKEN).count()), (1, 1), "{log}");
}

fn a_restore_that_not_even_sigkill_ends_is_not_waited_for_long() {
    let (sandbox, _volume) = scene();
    let mount = FuseMount::new(&sandbox, "/opt/tree/hung", Server::Silent);
    let outcome = boots(&sandbox, boot(&sandbox)).0;
    assert!(outcome.stderr().contains("the restore step has done nothing for 1 s"), "{outcome:?}");
    for _ in 0..2 {
        let begin = Instant::now();
        let outcome = boots(&sandbox, boot(&sandbox)).0;
        // Twice the limit, and what hangs below the record.
        assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
        is_overtaken(&outcome);
        assert!(!sandbox.path(MARKER).exists(), "{outcome:?}");
    }
    drop(mount);
    let until = Instant::now() + Duration::from_secs(10);
    while !sandbox.processes().is_empty() {
        assert!(Instant::now() < until, "{:?}", sandbox.processes());
        std::thread::sleep(Duration::from_millis(10));
    }
    sandbox.sh("umount -l /opt/tree/hung; echo agent > /opt/tree/made");
    let outcome = boots(&sandbox, boot(&sandbox)).0;
    assert!(sandbox.path(MARKER).exists(), "{outcome:?}");
    assert_eq!(
        sandbox.sh("cat /opt/tree/made /opt/tree/hung/f; ls -A /opt/tree"),
        "agent\nx\nf\nhung\nmade\n"
    );
}

fn a_holder_without_signs_of_life_is_overtaken_and_told() {
    let (sandbox, _volume) = scene();
    let file = hold(&sandbox, 0o700);
    let begin = Instant::now();
    let outcome = boots(&sandbox, boot(&sandbox)).0;
    assert!(begin.elapsed() >= Duration::from_secs(2), "{:?}", begin.elapsed());
    is_overtaken(&outcome);
    assert!(!sandbox.path(MARKER).exists() && !sandbox.path("/opt/tree/f").exists(), "{outcome:?}");
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o1700);
    // Whoever comes next takes care.
    let tree = molecule_tools::fs::Dir::open_operator_path(sandbox.path(TREE)).unwrap();
    assert!(molecule_tools::record::look(&tree).unwrap().is_some());
    // By hand it is ten seconds, and the holder is told nothing.
    file.set_permissions(std::fs::Permissions::from_mode(0o700)).unwrap();
    let begin = Instant::now();
    let outcome = sandbox.program().args(["restore", "--path", &TREE[1..]]).run();
    assert_eq!(outcome.status, 1, "{outcome:?}");
    assert!(begin.elapsed() >= Duration::from_secs(9), "{:?}", begin.elapsed());
    assert!(
        outcome.stdout().contains("another restore is running there; wait for it"),
        "{outcome:?}"
    );
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o700);
}

/// Boots while the lock is held for five seconds, during which `sign` is given often.
#[track_caller]
fn waits(mode: u32, sign: impl Fn(&File) + Sync) {
    let (sandbox, _volume) = scene();
    let file = hold(&sandbox, mode);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while begin.elapsed() < Duration::from_secs(5) {
                sign(&file);
                std::thread::sleep(Duration::from_millis(300));
            }
            std::fs::remove_file(sandbox.path(LOCK)).unwrap();
            rustix::fs::flock(&file, rustix::fs::FlockOperation::Unlock).unwrap();
        });
        let outcome = boots(&sandbox, boot(&sandbox)).0;
        assert!(begin.elapsed() >= Duration::from_secs(5), "{outcome:?}");
        assert!(outcome.stdout().contains(WAITING), "{outcome:?}");
        assert!(
            sandbox.path(MARKER).exists() && sandbox.path("/opt/tree/f").exists(),
            "{outcome:?}"
        );
    });
}

fn a_holder_that_shows_signs_of_life_is_waited_for() {
    waits(0o700, |file| file.set_modified(SystemTime::now()).unwrap());
}

fn a_holder_that_never_shows_any_is_waited_for() {
    waits(0o600, |_| ());
}

/// A restore by hand of `directories` with 100 files each that has begun and will take a while.
#[track_caller]
fn long(sandbox: &Sandbox, directories: u32, options: &[&str]) -> crate::support::sandbox::Started {
    sandbox.sh(&format!(
        "mkdir -p /snapshot/opt/tree; cd /snapshot/opt/tree; for d in $(seq {directories})
        do mkdir $d; cd $d; for f in $(seq 100); do echo snapshot > $f; done; cd ..; done"
    ));
    let run = sandbox.program().args(["restore", "--source", "/snapshot", "--path", &TREE[1..]]);
    let started = run.args(["--jobs", "1"]).args(options.iter().copied()).start();
    let until = Instant::now() + Duration::from_secs(20);
    while !sandbox.path("/opt/tree/1").exists() && !sandbox.path("/opt/tree/100").exists() {
        assert!(Instant::now() < until, "it has not begun");
        std::thread::sleep(Duration::from_millis(1));
    }
    started
}

fn a_long_restore_by_hand_shows_signs_of_life() {
    let (sandbox, _volume) = scene();
    let lock: PathBuf = sandbox.path(LOCK);
    let started = long(&sandbox, 800, &["--verify"]);
    let held = lock.metadata().unwrap();
    assert_eq!(held.mode() & 0o7777, 0o700);
    let ended = AtomicBool::new(false);
    let signs = std::thread::scope(|scope| {
        let signs = scope.spawn(|| {
            let mut signs = std::collections::BTreeSet::new();
            while !ended.load(Ordering::Relaxed) {
                signs.extend(lock.metadata().map(|lock| (lock.mtime(), lock.mtime_nsec())));
                std::thread::sleep(Duration::from_millis(20));
            }
            signs.len()
        });
        let begin = Instant::now();
        assert_eq!(started.wait().status, 0);
        ended.store(true, Ordering::Relaxed);
        (signs.join().unwrap(), begin.elapsed().as_secs())
    });
    assert!(signs.0 as u64 >= signs.1 && signs.0 > 1, "{signs:?}");
    assert!(!lock.exists());
}

fn a_restore_that_was_stopped_and_overtaken_takes_nothing_away() {
    let (sandbox, _volume) = scene();
    let started = long(&sandbox, 200, &[]);
    let pid = Pid::from_raw(started.child.id().cast_signed());
    kill(pid, Signal::SIGSTOP).unwrap();
    let outcome = boots(&sandbox, boot(&sandbox)).0;
    is_overtaken(&outcome);
    sandbox.sh("cd /opt/tree; for d in $(seq 200); do mkdir -p $d; for f in $(seq 100); do echo agent > $d/$f; done; done");
    kill(pid, Signal::SIGCONT).unwrap();
    let outcome = started.wait();
    assert_eq!(outcome.status, 20, "{outcome:?}");
    let line = "WARN another start has gone on without this restore, which showed no sign of life; no marker is \
        dropped";
    assert!(outcome.stdout().contains(line), "{outcome:?}");
    assert!(!sandbox.path(MARKER).exists());
    assert_eq!(sandbox.sh("ls -A /opt/tree | grep -c molecule-lock || :"), "0\n");
    let kept =
        sandbox.sh("cd /opt/tree; grep -rl agent [0-9]* | wc -l").trim().parse::<u32>().unwrap();
    // Not what the only thread was about to do when it was stopped.
    assert!(kept + 1 >= 200 * 100, "only {kept} files of the agent's are left\n{outcome:?}");
}
