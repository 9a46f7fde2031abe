//! What is mounted inside a destination and cannot take it costs its own entries alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::compare::{differences, snapshot, touched};
use crate::support::mounts::Mounted;
use crate::support::pair::{Pair, said};
use crate::support::sandbox::LoopDevice;
use crate::support::{Case, Need, ok, test_case};

pub fn cases() -> Vec<Case> {
    let needs = crate::mirror_faults::NEEDS;
    let btrfs = &[
        Need::Root,
        Need::Loop,
        Need::Program("rsync"),
        Need::Program("mkfs.btrfs"),
        Need::Program("btrfs"),
        Need::Filesystem("btrfs"),
    ];
    vec![
        test_case!(a_read_only_directory_mounted_inside_costs_itself, needs),
        test_case!(a_read_only_file_mounted_inside_costs_itself, needs),
        test_case!(a_read_only_subvolume_inside_costs_itself, btrfs),
        test_case!(a_full_tmpfs_mounted_inside_costs_its_own_files, needs),
        test_case!(a_tmpfs_inside_without_inodes_costs_its_own_files, needs),
        test_case!(surplus_in_a_tmpfs_mounted_inside_makes_room_there, needs),
    ]
}

/// A pair with enough files around `guarded` that a run which ends at the first error shows it.
fn pair_around(guarded: &str) -> Pair {
    let pair = Pair::new();
    for number in 0..400 {
        pair.from().file(format!("dir{}/file{number}", number % 20), vec![1; 3000]);
        pair.to().file(format!("dir{}/surplus{number}", number % 20), "x");
    }
    pair.from().file(guarded, "the snapshot's").mtime(guarded, 5, 5);
    pair.to().file(guarded, "what stands there").mode(guarded, 0o640);
    pair
}

/// The run said why, and but for what `excused` names the copy is perfect.
#[track_caller]
fn all_others_arrived(pair: &Pair, output: &Output, reason: &str, excused: &str) {
    let text = said(output);
    assert!(text.contains(reason), "{text}");
    let line = format!("tree/{excused}");
    assert!(text.lines().any(|l| l.contains("WARN") && l.contains(&line)), "{text}");
    let left = differences(&pair.from().0, &pair.to().0);
    let others: Vec<&String> = left.iter().filter(|line| !line.contains(excused)).collect();
    assert_eq!(others, Vec::<&String>::new(), "{text}");
    assert!(!left.is_empty(), "nothing was in the way");
}

fn a_read_only_directory_mounted_inside_costs_itself() {
    let pair = pair_around("guarded/deep/file");
    pair.from().dir("guarded/new").owner("guarded", 5, 5);
    pair.to().file("guarded/deep/surplus", "x");
    let inside = Mounted::bind(&pair.to().path("guarded"), pair.to().path("guarded"));
    inside.read_only(true);
    let before = snapshot(&inside.0);
    let output = pair.expect(&[], 23);
    all_others_arrived(&pair, &output, "Read-only file system", "guarded");
    assert_eq!(touched(&before, &snapshot(&inside.0)), Vec::<String>::new());
    drop(inside);
    pair.mirror();
    pair.assert_equal();
}

fn a_read_only_file_mounted_inside_costs_itself() {
    let pair = pair_around("guarded");
    let file = pair.to().path("guarded");
    ok(Command::new("mount").arg("--bind").args([&file, &file]));
    let inside = Mounted(file);
    inside.read_only(true);
    let output = pair.expect(&[], 23);
    all_others_arrived(&pair, &output, "Device or resource busy", "guarded");
    // Content that is right, and a mode that is not, which cannot be mended in place.
    pair.from().file("guarded", "what stands there").mtime("guarded", 5, 5);
    let mtime = |seconds| {
        inside.read_only(false);
        pair.to().mtime("guarded", seconds, 5);
        inside.read_only(true);
    };
    mtime(5);
    for number in 0..400 {
        std::fs::remove_file(pair.to().path(format!("dir{}/file{number}", number % 20))).unwrap();
    }
    let output = pair.expect(&[], 23);
    all_others_arrived(&pair, &output, "Read-only file system", "guarded");
    drop(inside);
    pair.mirror();
    pair.assert_equal();
}

fn a_read_only_subvolume_inside_costs_itself() {
    let pair = Pair::new();
    let image = pair.beside("image");
    std::fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
    ok(Command::new("mkfs.btrfs").arg("-q").arg(&image));
    let device = LoopDevice::of(&image, &[]);
    let _mounted = Mounted::node(device.path(), pair.to().0, "rw");
    let subvolume = pair.to().path("guarded");
    ok(Command::new("btrfs").args(["subvolume", "create"]).arg(&subvolume));
    let property = |value: &str| {
        let mut command = Command::new("btrfs");
        ok(command.args(["property", "set"]).arg(&subvolume).args(["ro", value]));
    };
    for number in 0..400 {
        pair.from().file(format!("dir{}/file{number}", number % 20), vec![1; 3000]);
        pair.to().file(format!("dir{}/surplus{number}", number % 20), "x");
    }
    pair.from().file("guarded/file", "the snapshot's").file("guarded/new", "x");
    pair.to().file("guarded/file", "what stands there").file("guarded/surplus", "x");
    property("true");
    let before = snapshot(&subvolume);
    let output = pair.expect(&[], 23);
    all_others_arrived(&pair, &output, "Read-only file system", "guarded");
    assert_eq!(touched(&before, &snapshot(&subvolume)), Vec::<String>::new());
    property("false");
    pair.mirror();
    pair.assert_equal();
}

/// Several tmpfs with mount `options`, each with more files for it than it can take.
#[track_caller]
fn crowded(options: &str) -> (Pair, Vec<Mounted>) {
    let pair = pair_around("small0/other");
    std::fs::remove_file(pair.to().path("small0/other")).unwrap();
    let mounts = (0..8).map(|mount| {
        for number in 0..30 {
            pair.from().file(format!("small{mount}/file{number}"), vec![2; 100_000]);
        }
        Mounted::tmpfs(pair.to().path(format!("small{mount}")), options)
    });
    let mounts = mounts.collect();
    let output = pair.expect(&[], 23);
    assert!(said(&output).contains("exited 11"), "{}", said(&output));
    all_others_arrived(&pair, &output, "No space left on device", "small");
    (pair, mounts)
}

fn a_full_tmpfs_mounted_inside_costs_its_own_files() {
    let (pair, mounts) = crowded("1m");
    for inside in &mounts {
        let sizes = sizes(&inside.0);
        assert!(sizes.len() > 5, "{sizes:?}");
        assert!(sizes.iter().all(|size| [100_000, 14].contains(size)), "{sizes:?}");
        ok(Command::new("mount").args(["-o", "remount,size=64m"]).arg(&inside.0));
    }
    pair.mirror();
    pair.assert_equal();
}

fn a_tmpfs_inside_without_inodes_costs_its_own_files() {
    let (_pair, mounts) = crowded("64m,nr_inodes=10");
    for inside in &mounts {
        assert!(sizes(&inside.0).len() > 5);
    }
}

fn sizes(directory: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().metadata().unwrap().len()).collect()
}

fn surplus_in_a_tmpfs_mounted_inside_makes_room_there() {
    let pair = pair_around("small/file");
    pair.from().file("small/file", vec![2; 700_000]);
    std::fs::remove_file(pair.to().path("small/file")).unwrap();
    let inside: PathBuf = pair.to().path("small");
    let _mounted = Mounted::tmpfs(&inside, "1m");
    pair.to().file("small/surplus", vec![7; 600_000]);
    pair.mirror();
    pair.assert_equal();
}
