//! Signals, and two restores at once.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::mirror_faults::threads::NO_THREADS;
use crate::support::compare::{Snapshot, snapshot};
use crate::support::device::{Device, Manners};
use crate::support::mounts::{Mounted, ext4_image};
use crate::support::pair::{Pair, said};
use crate::support::tree::Tree;
use crate::support::{Case, Need, PROGRAM, test_case};

pub fn cases() -> Vec<Case> {
    let disk = crate::mirror_faults::DISK_NEEDS;
    let traced = &[
        Need::Root,
        Need::Loop,
        Need::Program("rsync"),
        Need::Program("strace"),
        Need::Program("mkfs.ext4"),
        Need::Filesystem("ext4"),
        Need::Filesystem("fuse"),
    ];
    vec![
        test_case!(sigkill_at_50_moments_then_a_rerun_converges, crate::mirror_faults::NEEDS),
        test_case!(what_was_half_written_is_out_of_reach_until_mended, disk),
        test_case!(a_power_cut_leaves_nothing_that_only_looks_complete, disk),
        test_case!(sigterm_stops_soon_with_a_truthful_report_and_no_marker, disk),
        test_case!(sigint_does_the_same, disk),
        test_case!(sigterm_stops_the_only_thread_as_soon, traced),
        test_case!(of_two_restores_at_once_one_waits_or_refuses, disk),
        test_case!(many_restores_at_once_end_in_a_perfect_copy, crate::mirror_faults::NEEDS),
    ]
}

fn sigkill_at_50_moments_then_a_rerun_converges() {
    let pair = Pair::new();
    pair.from().zoo(3).file("big", vec![5; 6 << 20]);
    for number in 0..300 {
        pair.from().file(format!("many/file{number}"), format!("new {number}").repeat(100));
    }
    let start = Instant::now();
    pair.mirror();
    let whole = start.elapsed();
    let source = snapshot(&pair.from().0);
    let mut state = u64::from(std::process::id());
    for round in 0..50 {
        std::fs::remove_dir_all(pair.to().0).unwrap();
        pair.to().file("many/file7", "the old copy").file("surplus/in", "x").dir("big");
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let moment = whole.mul_f64((state >> 33) as f64 / f64::from(1_u32 << 31));
        let mut child = pair.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(moment);
        child.kill().unwrap();
        child.wait().unwrap();
        let now = pair.snapshot();
        for (path, entry) in &now {
            let Some(new) = source.get(path) else { continue };
            let file = entry.mode & new.mode & 0o170_000 == 0o100_000;
            let whole = (entry.size, entry.content) == (new.size, new.content);
            // What was there before is old or new; what was not is nobody else's until it is whole.
            let well = match path.ends_with("file7") && path.starts_with("many") {
                true => whole || entry.size == 12,
                false => whole || entry.mode & 0o7777 == 0o600 && is_closed_in(&now, path),
            };
            assert!(!file || well, "round {round}: {path:?} is half-written: {entry:?}");
        }
        pair.mirror();
        pair.assert_equal_to_the_comparator();
    }
    pair.assert_equal();
}

/// Whether a directory on the way to `path` lets nobody but root through, and is marked for that.
fn is_closed_in(tree: &Snapshot, path: &Path) -> bool {
    path.ancestors().skip(1).any(|directory| {
        let entry = &tree[directory];
        entry.owner.0 == 0 && entry.mode & 0o1777 == 0o1700
    })
}

/// What a killed run leaves half-written stays out of reach until another has mended it.
fn what_was_half_written_is_out_of_reach_until_mended() {
    let slow = Slow::new(400, 20);
    let to = slow.pair.to();
    // The last of its directory, and so the last to be mended.
    let half = "dir7/file367";
    let killed = || {
        to.file(half, "cont").mode(half, 0o600).owner(half, 1000, 1000);
        to.owner("dir7", 0, 0).mode("dir7", 0o1700);
    };
    let size = || {
        // The order matters: what was out of reach first may have been mended since.
        let directory = to.path("dir7").metadata().unwrap().mode() & 0o777;
        let file = to.path(half).metadata().unwrap();
        let closed = directory == 0o700 || file.mode() & 0o777 == 0o600 && file.uid() == 0;
        assert!(closed || file.len() == 8000, "{} bytes within reach", file.len());
        file.len()
    };
    killed();
    let mut stopped = slow.started(&["--jobs", "1"]);
    while std::fs::read_dir(to.path("dir7")).unwrap().count() < 3 {
        assert_eq!(stopped.try_wait().unwrap(), None, "it ended early");
    }
    kill(Pid::from_raw(stopped.id().cast_signed()), Signal::SIGTERM).unwrap();
    stopped.wait().unwrap();
    assert_eq!(size(), 4, "it came too far to show anything");
    let directory = to.path("dir7").metadata().unwrap();
    assert_eq!(directory.mode() & 0o777, 0o755, "the rest of it is kept from its users");
    killed();
    let mut child =
        slow.pair.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut seen = Vec::new();
    while child.try_wait().unwrap().is_none() {
        seen.push(size());
    }
    assert!(seen.contains(&4), "it was never seen half-written");
    assert_eq!(size(), 8000);
    slow.pair.assert_equal();
}

/// What the disk has a second after a restore, its journal included. Content is not written yet, and
/// must not look as if it were, or no later restore would mend it; but what was replaced is, or is
/// still as it was.
fn a_power_cut_leaves_nothing_that_only_looks_complete() {
    let canary = Canary::new();
    let mut seen = Vec::new();
    for number in 0..20 {
        let words = canary.sits_down(number);
        let lost = lost_in_a_power_cut();
        if matches!(lost, Ok(51..)) {
            return;
        }
        // Somebody's sync(2), which writes all file systems, and this one's files with them.
        assert!(canary.is_gone(&words), "{lost:?}");
        seen.push(lost);
    }
    panic!("somebody calls sync(2) all the time: {seen:?}");
}

/// A file in a file system of its own that only memory has, until somebody has all of them written.
struct Canary {
    mounted: Mounted,
    image: PathBuf,
    _directory: tempfile::TempDir,
}

impl Canary {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        ext4_image(&image, 16, &["-O", "^inline_data"]);
        let mounted = Mounted::image(&image, directory.path().join("mounted"), "rw");
        Self { mounted, image, _directory: directory }
    }

    /// Puts one there; gives its words.
    fn sits_down(&self, number: usize) -> String {
        let words = format!("canary {number} has been written to the disk");
        std::fs::write(self.mounted.0.join(number.to_string()), &words).unwrap();
        words
    }

    /// Whether all file systems were written since, or soon are: one after the other.
    fn is_gone(&self, words: &str) -> bool {
        let is_on_disk = || {
            let disk = std::fs::read(&self.image).unwrap();
            disk.windows(words.len()).any(|bytes| bytes == words.as_bytes())
        };
        let end = Instant::now() + Duration::from_secs(5);
        while !is_on_disk() {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        true
    }
}

/// How many files were cut off, or which one looks wrong.
fn lost_in_a_power_cut() -> Result<usize, String> {
    let pair = Pair::new();
    pair.from().zoo(3).file("new/large", vec![5; 9 << 20]).file("many/large", vec![6; 20 << 20]);
    for number in 0..100 {
        pair.from().file(format!("many/file{number}"), format!("new {number}").repeat(100));
    }
    let image = pair.beside("image");
    ext4_image(&image, 128, &[]);
    let mounted = Mounted::image(&image, pair.to().0, "rw");
    pair.to().file("many/large", "the old copy");
    pair.mirror();
    std::fs::File::open(&mounted.0).unwrap().sync_all().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let cut = pair.beside("cut");
    std::fs::copy(&image, &cut).unwrap();
    drop(mounted);
    let _mounted = Mounted::image(&cut, pair.to().0, "rw");
    let source = snapshot(&pair.from().0);
    let mut lost = 0;
    for (path, entry) in pair.snapshot() {
        let Some(new) = source.get(&path) else { continue };
        if entry.mode & 0o170_000 == 0o100_000 && entry.content != new.content {
            lost += 1;
            let looks_complete = (entry.size, entry.mtime) == (new.size, new.mtime);
            if looks_complete {
                return Err(format!("{path:?} looks complete: {entry:?}"));
            }
            if path == Path::new("many/large") && entry.size != 12 {
                return Err(format!("the old copy is lost, the new one is not there: {entry:?}"));
            }
        }
    }
    pair.mirror();
    pair.assert_equal();
    Ok(lost)
}

/// A pair whose source takes its time for every read.
struct Slow {
    pair: Pair,
    _source: Mounted,
    _device: Device,
}

impl Slow {
    fn new(files: usize, delay: u64) -> Self {
        let pair = Pair::new();
        let image = pair.beside("image");
        ext4_image(&image, 64, &[]);
        let mounted = Mounted::image(&image, pair.beside("planting"), "rw");
        let tree = Tree::at(mounted.0.join("tree"));
        for number in 0..files {
            tree.file(format!("dir{}/file{number}", number % 40), "content ".repeat(1000));
        }
        mounted.put_away();
        let manners = Manners { delay: Duration::from_millis(delay), bad: Vec::new() };
        let device = Device::of(&image, &pair.beside("disk"), manners);
        let source = Mounted::node(device.node(), &pair.source, "ro,noload");
        Self { pair, _source: source, _device: device }
    }

    /// Starts a restore and waits until it has restored something.
    fn started(&self, options: &[&str]) -> Child {
        self.waited_for(self.pair.command(), options)
    }

    #[track_caller]
    fn waited_for(&self, mut command: Command, options: &[&str]) -> Child {
        command.args(options).stdout(Stdio::piped()).stderr(Stdio::piped());
        let before = self.files().len();
        let mut child = command.spawn().unwrap();
        while self.files().len() == before {
            assert_eq!(child.try_wait().unwrap(), None, "it ended before it restored anything");
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }

    /// The regular files that the destination has.
    fn files(&self) -> Vec<PathBuf> {
        let to = self.pair.root.join("tree");
        let entries = walkdir::WalkDir::new(to).into_iter().filter_map(Result::ok);
        entries.filter(|entry| entry.file_type().is_file()).map(|entry| entry.into_path()).collect()
    }
}

#[track_caller]
fn interrupted(signal: Signal) {
    let mut waited = Vec::new();
    for _ in 0..3 {
        let slow = Slow::new(1500, 40);
        let child = slow.started(&["--json", "--jobs", "2"]);
        let start = Instant::now();
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        waited.push(start.elapsed());
        truthful(&slow, &output);
        // Another process may have had the processor; the best of three counts.
        if waited[waited.len() - 1] < Duration::from_secs(1) {
            return;
        }
    }
    panic!("it took {waited:?} to stop");
}

#[track_caller]
fn truthful(slow: &Slow, output: &Output) {
    let text = said(output);
    assert!(output.status.code().is_none_or(|code| code != 0), "{text}");
    assert!(!slow.pair.marker().exists(), "a marker was dropped: {text}");
    assert!(!text.contains("MOLECULE-RESTORE: ok "), "{text}");
    assert!(!text.contains("complete — marker"), "{text}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{text}"));
    let files = slow.files();
    assert!(files.len() < 1500, "it was not interrupted at all");
    assert_eq!(report["result"], "interrupted", "{report}");
    let made = walkdir::WalkDir::new(slow.pair.root.join("tree")).min_depth(1).into_iter().count();
    assert_eq!(report["paths"][0]["copied"], made, "{report}");
    for file in files {
        assert_eq!(std::fs::read(&file).unwrap(), "content ".repeat(1000).as_bytes(), "{file:?}");
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name.starts_with("file"), "{name} is temporary");
    }
}

fn sigterm_stops_soon_with_a_truthful_report_and_no_marker() {
    interrupted(Signal::SIGTERM);
}

fn sigterm_stops_the_only_thread_as_soon() {
    let slow = Slow::new(1500, 20);
    let mut command = Command::new("strace");
    command.args(NO_THREADS).args(["-o", "/dev/null", PROGRAM]);
    command.args(slow.pair.command().get_args());
    let tracer = slow.waited_for(command, &["--json"]);
    let children = format!("/proc/{0}/task/{0}/children", tracer.id());
    let child = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
    let start = Instant::now();
    kill(Pid::from_raw(child), Signal::SIGTERM).unwrap();
    let output = tracer.wait_with_output().unwrap();
    let waited = start.elapsed();
    truthful(&slow, &output);
    assert!(said(&output).contains("one thread does all"), "{}", said(&output));
    // It has 1500 reads of 20 ms each before it.
    assert!(waited < Duration::from_secs(10), "{waited:?}");
}

fn sigint_does_the_same() {
    interrupted(Signal::SIGINT);
}

fn of_two_restores_at_once_one_waits_or_refuses() {
    let slow = Slow::new(150, 20);
    let first = slow.started(&["--jobs", "2"]);
    let second = slow.pair.run(&["--jobs", "2"]);
    let first = first.wait_with_output().unwrap();
    assert_eq!(first.status.code(), Some(0), "{}", said(&first));
    match second.status.code() {
        Some(0) => {}
        Some(1 | 23) => assert!(said(&second).contains("another restore"), "{}", said(&second)),
        _ => panic!("{}", said(&second)),
    }
    slow.pair.assert_equal();
}

fn many_restores_at_once_end_in_a_perfect_copy() {
    let pair = Pair::new();
    pair.from().zoo(4).file("big", vec![5; 6 << 20]);
    pair.to().zoo(2).file("cage1/plain/sub/file1", "other");
    let spawn = || pair.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let children: Vec<Child> = (0..6).map(|_| spawn()).collect();
    let outputs = children.into_iter().map(|child| child.wait_with_output().unwrap());
    let done = outputs.filter(|output| output.status.code() == Some(0)).count();
    assert!(done >= 1);
    pair.assert_equal();
}
