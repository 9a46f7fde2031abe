//! Trees made to cost much: memory and time stay bounded.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::fs::{chownat, linkat, mkdirat, mknodat, openat, renameat};

use crate::fix_perms::{boot, warning, warnings};
use crate::support::sandbox::{Image, Sandbox};
use crate::support::{Case, Need, program, test_case, usage, usage_with};

/// KiB that a boot may take.
const MEMORY: u64 = 64 << 10;
/// How many times the processor time of `chown -R` it may take, and what both may differ by in any case.
const FACTOR: u32 = 3;
const NOISE: Duration = Duration::from_millis(300);

pub fn cases() -> Vec<Case> {
    const ROOT: &[Need] = &[Need::Root];
    const DISK: &[Need] =
        &[Need::Root, Need::Loop, Need::Program("mkfs.ext4"), Need::Program("debugfs")];
    vec![
        test_case!(twenty_thousand_nested_directories_take_no_longer_than_chown, ROOT),
        test_case!(directories_side_by_side_take_little_memory, ROOT),
        test_case!(a_deep_tree_that_is_broad_takes_little_memory, ROOT),
        test_case!(many_names_of_a_file_deep_down_take_little_memory, ROOT),
        test_case!(files_with_two_names_are_counted_up_to_a_bound, ROOT),
        test_case!(a_full_sessions_directory_takes_little_memory, ROOT),
        test_case!(a_chain_that_moves_does_not_keep_the_walk_from_its_end, ROOT),
        test_case!(files_changed_in_the_future_are_given_at_once, DISK),
    ]
}

fn directory(path: impl rustix::path::Arg) -> OwnedFd {
    openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

/// Makes directory `name` and opens it.
fn enter(parent: &OwnedFd, name: &str) -> OwnedFd {
    mkdirat(parent, name, Mode::from(0o755)).unwrap();
    openat(parent, name, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

fn make_file(parent: &OwnedFd, name: &str) {
    mknodat(parent, name, FileType::RegularFile, Mode::from(0o644), 0).unwrap();
}

/// The boot's ownership steps over the sandbox; their output, KiB at most, and processor time.
fn fix(sandbox: &Sandbox) -> (Output, u64, Duration) {
    let mut command = program();
    usage(command.args(["fix-perms", "--root"]).arg(sandbox.path("/")))
}

fn log(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn chown(path: &Path, owner: &str) -> Duration {
    let (output, _, time) = usage(Command::new("chown").args(["-R", owner]).arg(path));
    assert!(output.status.success(), "{output:?}");
    time
}

/// Gives /configs by this program and by chown in turns, as root's each time; within the bounds.
#[track_caller]
fn gives_within_bounds(sandbox: &Sandbox) {
    let configs = sandbox.path("/configs");
    let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
    for _ in 0..2 {
        let (output, memory, time) = fix(sandbox);
        assert_eq!(output.status.code(), Some(0), "{}", log(&output));
        assert!(memory < MEMORY, "{memory} KiB");
        ours = ours.min(time);
        assert_eq!(sandbox.sh("find /configs ! -user 1000 | head -n 3"), "");
        chown(&configs, "0:0");
        theirs = theirs.min(chown(&configs, "1000:1000"));
        println!("{memory} KiB, {time:?}, chown -R {theirs:?}");
        chown(&configs, "0:0");
    }
    assert!(ours < FACTOR * theirs + NOISE, "{ours:?}, chown -R {theirs:?}");
}

fn twenty_thousand_nested_directories_take_no_longer_than_chown() {
    let sandbox = Sandbox::new();
    let mut level = directory(sandbox.path("/configs"));
    for number in 0..20_000 {
        make_file(&level, "f");
        // Every tenth level has another directory, so that something waits there.
        if number % 10 == 0 {
            enter(&level, "b");
        }
        level = enter(&level, "d");
    }
    gives_within_bounds(&sandbox);
}

fn directories_side_by_side_take_little_memory() {
    let sandbox = Sandbox::new();
    let configs = directory(sandbox.path("/configs"));
    let long = "x".repeat(100);
    for number in 0..300_000 {
        mkdirat(&configs, format!("{number}{long}"), Mode::from(0o755)).unwrap();
    }
    gives_within_bounds(&sandbox);
}

fn a_deep_tree_that_is_broad_takes_little_memory() {
    let sandbox = Sandbox::new();
    let mut level = directory(sandbox.path("/configs"));
    let long = "x".repeat(245);
    for _ in 0..500 {
        for number in 0..200 {
            mkdirat(&level, format!("{number}{long}"), Mode::from(0o755)).unwrap();
        }
        level = enter(&level, &format!("z{long}"));
    }
    gives_within_bounds(&sandbox);
}

fn many_names_of_a_file_deep_down_take_little_memory() {
    let sandbox = Sandbox::new();
    let mut level = directory(sandbox.path("/configs"));
    for _ in 0..2000 {
        level = enter(&level, "directory");
    }
    make_file(&level, "f");
    for number in 1..4000 {
        linkat(&level, "f", &level, number.to_string(), AtFlags::empty()).unwrap();
    }
    gives_within_bounds(&sandbox);
}

fn files_with_two_names_are_counted_up_to_a_bound() {
    const COUNTED: u32 = 400_000;
    const FILES: u32 = COUNTED + 5000;
    let sandbox = Sandbox::new();
    let configs = directory(sandbox.path("/configs"));
    for top in 0..FILES / 1000 {
        let here = enter(&configs, &top.to_string());
        for number in 0..1000 {
            let (one, two) = (format!("{number}"), format!("{number}b"));
            make_file(&here, &one);
            linkat(&here, one, &here, two, AtFlags::empty()).unwrap();
        }
    }
    let given = || sandbox.sh("find /configs -type f -user 1000 | wc -l").trim().to_owned();
    let (output, memory, _) = fix(&sandbox);
    println!("{memory} KiB");
    assert!(memory < MEMORY, "{memory} KiB");
    assert_eq!(output.status.code(), Some(1));
    let said = log(&output);
    // Both names of a file are met in one directory, so no file is half counted.
    let line = warning(&said, "change owner of 10000 names below ");
    assert!(line.contains("more than 400000 such files") && line.contains("again"), "{line}");
    assert_eq!((given(), warnings(&said)), ((2 * COUNTED).to_string(), 1), "{said}");
    let (output, _, _) = fix(&sandbox);
    assert_eq!(output.status.code(), Some(0), "{}", log(&output));
    assert_eq!(given(), (2 * FILES).to_string());
}

fn a_full_sessions_directory_takes_little_memory() {
    let sandbox = Sandbox::with("mkdir -p root/.claude/sessions home/agent/.claude/sessions");
    let sessions = directory(sandbox.path("/home/agent/.claude/sessions"));
    for number in 0..300_000 {
        make_file(&sessions, &format!("session-{number:0>40}"));
    }
    let (output, memory, _) = fix(&sandbox);
    println!("{memory} KiB");
    assert!(memory < MEMORY / 2, "{memory} KiB");
    warning(&log(&output), "the directory is not empty and stays");
}

/// A chain of directories of which somebody moves the upper half below the lower whenever the walk has
/// come to the lower, so that there is always more below.
fn a_chain_that_moves_does_not_keep_the_walk_from_its_end() {
    const HALF: usize = 500;
    // A disk's journal would hold the moves up while other tests write.
    let sandbox = Sandbox::with("mount -t tmpfs tmpfs configs");
    let configs = directory(sandbox.path("/configs"));
    let mut chain = vec![enter(&configs, "n")];
    while chain.len() < 2 * HALF {
        let next = enter(&chain[chain.len() - 1], "n");
        chain.push(next);
    }
    // Only what is moved is root's from here on, so the walk changes no other owner.
    assert_eq!(fix(&sandbox).0.status.code(), Some(0));
    let set_owner = |dir: &OwnedFd, uid| {
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(uid));
        chownat(dir, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH).unwrap();
    };
    // The second and the last directory of each: the walk must have entered the first.
    let [mut upper, mut lower] =
        [0, HALF].map(|first| (&chain[first + 1], &chain[first + HALF - 1]));
    set_owner(lower.0, 0);
    let mut moves = 0;
    let mut fix = program();
    fix.args(["fix-perms", "--root"]).arg(sandbox.path("/"));
    let (output, memory, time) = usage_with(&mut fix, || {
        // The walk gives a directory when it comes there.
        if rustix::fs::fstat(lower.0).unwrap().st_uid != 0 {
            renameat(upper.1, "n", &configs, "m").unwrap();
            renameat(&configs, "n", lower.1, "n").unwrap();
            renameat(&configs, "m", &configs, "n").unwrap();
            set_owner(upper.0, 0);
            (upper, lower) = (lower, upper);
            moves += 1;
        }
    });
    assert_eq!(output.status.code(), Some(1), "{moves} moves\n{output:?}");
    assert!(log(&output).contains("that there is no end; at least "), "{moves} moves\n{output:?}");
    assert!(memory < MEMORY, "{memory} KiB");
    assert!(time < Duration::from_secs(5), "{time:?}");
    assert_eq!(warnings(&boot(&sandbox, 0)), 0);
    assert_eq!(sandbox.sh("find /configs ! -user 1000 | wc -l"), "0\n");
}

/// 400 files with two names each on a disk that was written when the clock was ahead.
fn files_changed_in_the_future_are_given_at_once() {
    let tree = tempfile::tempdir().unwrap();
    let script = tree.path().join("script");
    let top = tree.path().join("top");
    std::fs::create_dir(&top).unwrap();
    let mut commands = String::new();
    for number in 0..400 {
        let [one, two] = ["", "b"].map(|end| top.join(format!("{number}{end}")));
        std::fs::write(&one, "x").unwrap();
        std::fs::hard_link(&one, &two).unwrap();
        commands += &format!("set_inode_field /{number} ctime 20370101000000\n");
    }
    std::fs::write(&script, commands).unwrap();
    let image = Image::new(32 << 20).make("mkfs.ext4", ["-q", "-d", top.to_str().unwrap()]);
    let mut debugfs = Command::new("/sbin/debugfs");
    debugfs.args(["-w", "-f"]).arg(&script).arg(image.path());
    crate::support::ok(&mut debugfs);
    let device = image.attach();
    let sandbox = Sandbox::with(&format!("mount {} configs", device.path().display()));
    assert_eq!(sandbox.sh("find /configs -name '*b' -newerct 2036-01-01 | wc -l"), "400\n");
    // Given to root all over, which keeps their times: nothing has been changed.
    let begin = Instant::now();
    let log = boot(&sandbox, 0);
    let time = begin.elapsed();
    // A pause of 50 ms for each file would make it 20 s.
    assert!(time < Duration::from_secs(10), "{time:?}");
    assert_eq!(warnings(&log), 0, "{log}");
    assert_eq!(sandbox.sh("find /configs -type f -user 1000 | wc -l"), "800\n");
}
