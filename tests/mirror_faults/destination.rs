//! Destinations that cannot take it: full, read-only, immutable.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::compare::{Snapshot, differences, snapshot, touched};
use crate::support::mounts::{Mounted, ext4_image};
use crate::support::pair::{Pair, said};
use crate::support::{Case, Need, PROGRAM, ok, test_case};

pub fn cases() -> Vec<Case> {
    let needs = crate::mirror_faults::NEEDS;
    let traced = &[
        Need::Root,
        Need::Loop,
        Need::Program("rsync"),
        Need::Program("strace"),
        Need::Program("mkfs.ext4"),
        Need::Filesystem("ext4"),
    ];
    let attributes = &[Need::Root, Need::Program("rsync"), Need::Program("chattr")];
    vec![
        test_case!(a_full_tmpfs_keeps_every_name_whole, needs),
        test_case!(a_full_ext4_keeps_every_name_whole, crate::mirror_faults::DISK_NEEDS),
        test_case!(a_destination_out_of_inodes_keeps_every_name_whole, needs),
        test_case!(surplus_that_fills_the_destination_makes_room, needs),
        test_case!(
            a_file_that_does_not_fit_takes_no_room_from_others,
            crate::mirror_faults::DISK_NEEDS
        ),
        test_case!(
            one_of_several_large_files_fits_and_all_small_ones,
            crate::mirror_faults::DISK_NEEDS
        ),
        test_case!(an_ext4_that_has_no_room_after_all_costs_one_file, traced),
        test_case!(an_ext4_that_cannot_allocate_is_written_all_the_same, traced),
        test_case!(surplus_makes_room_for_a_large_file, crate::mirror_faults::DISK_NEEDS),
        test_case!(a_read_only_destination_is_reported_and_untouched, needs),
        test_case!(a_read_only_destination_in_sync_is_no_failure, needs),
        test_case!(immutable_entries_are_reported_and_the_rest_is_done, attributes),
        test_case!(a_file_size_limit_costs_the_files_beyond_it, needs),
    ]
}

/// The run failed with a line that has `reason`, ended its path with a WARN line, and said no `ok`.
#[track_caller]
fn reported(output: &Output, reason: &str) {
    let text = said(output);
    assert!(matches!(output.status.code(), Some(1 | 23)), "{text}");
    assert!(text.contains(reason), "{text}");
    assert!(text.contains("MOLECULE-RESTORE: WARN rsync to "), "{text}");
    assert!(!text.contains("MOLECULE-RESTORE: ok "), "{text}");
}

/// Every regular file at the destination is one of the source or as it was, and has its own name.
#[track_caller]
fn whole(source: &Snapshot, before: &Snapshot, now: &Snapshot) {
    for (path, entry) in now.iter().filter(|(_, entry)| entry.mode & 0o170_000 == 0o100_000) {
        let (new, old) = (source.get(path), before.get(path));
        assert!(new.is_some() || old.is_some(), "{path:?} was left behind");
        let same = |other: &Option<_>| {
            other.is_some_and(|other: &crate::support::compare::Entry| {
                (other.size, other.content) == (entry.size, entry.content)
            })
        };
        assert!(same(&new) || same(&old), "{path:?} is half-written: {entry:?}");
    }
}

fn fill_source(pair: &Pair, files: usize, size: usize) {
    for number in 0..files {
        let content: Vec<u8> = (0..size).map(|at| (at * 7 + number) as u8 | 1).collect();
        pair.from().file(format!("dir{}/file{number}", number % 9), content);
    }
}

/// Fills the destination up and sees what is left; after more room the copy is completed.
fn overfill(pair: &Pair, more_room: impl FnOnce()) {
    for number in 0..10 {
        pair.to().file(format!("dir{}/file{number}", number % 9), "the old copy");
    }
    let (source, before) = (snapshot(&pair.from().0), pair.snapshot());
    reported(&pair.run(&[]), "No space left on device");
    whole(&source, &before, &pair.snapshot());
    more_room();
    pair.mirror();
    pair.assert_equal();
}

fn a_full_tmpfs_keeps_every_name_whole() {
    let pair = Pair::new();
    fill_source(&pair, 200, 30_000);
    let mounted = Mounted::tmpfs(pair.to().0, "2m");
    overfill(&pair, || {
        ok(Command::new("mount").args(["-o", "remount,size=64m"]).arg(&mounted.0));
    });
}

/// An ext4 of 16 MiB where the pair has its destination.
fn small_ext4(pair: &Pair) -> Mounted {
    let image = pair.beside("image");
    ext4_image(&image, 16, &[]);
    let mounted = Mounted::image(&image, pair.to().0, "rw");
    std::fs::remove_dir(mounted.0.join("lost+found")).unwrap();
    mounted
}

fn a_full_ext4_keeps_every_name_whole() {
    let pair = Pair::new();
    fill_source(&pair, 200, 100_000);
    let _mounted = small_ext4(&pair);
    overfill(&pair, || {
        for number in 40..200 {
            let name = format!("dir{}/file{number}", number % 9);
            std::fs::remove_file(pair.from().path(&name)).unwrap();
            let _ = std::fs::remove_file(pair.to().path(&name));
        }
    });
}

fn a_destination_out_of_inodes_keeps_every_name_whole() {
    let pair = Pair::new();
    fill_source(&pair, 300, 100);
    let mounted = Mounted::tmpfs(pair.to().0, "64m,nr_inodes=100");
    overfill(&pair, || {
        ok(Command::new("mount").args(["-o", "remount,nr_inodes=10000"]).arg(&mounted.0));
    });
}

fn surplus_that_fills_the_destination_makes_room() {
    let pair = Pair::new();
    fill_source(&pair, 120, 100_000);
    let _mounted = Mounted::tmpfs(pair.to().0, "20m");
    for number in 0..18 {
        pair.to().file(format!("dir{}/surplus{number}", number % 12), vec![7; 1 << 20]);
    }
    pair.mirror();
    pair.assert_equal();
}

fn a_file_that_does_not_fit_takes_no_room_from_others() {
    let pair = Pair::new();
    pair.from().file("dir0/large", vec![3; 40 << 20]).file("large", vec![4; 17 << 20]);
    fill_source(&pair, 200, 30_000);
    let _mounted = small_ext4(&pair);
    pair.to().file("large", "the old copy");
    let output = pair.run(&[]);
    reported(&output, "No space left on device");
    let text = said(&output);
    for large in ["tree/dir0/large", "tree/large"] {
        let line = format!("WARN allocate space for {}", pair.root.join(large).display());
        assert!(text.contains(&line), "{text}");
    }
    assert_eq!(std::fs::read(pair.to().path("large")).unwrap(), b"the old copy");
    for large in ["dir0/large", "large"] {
        std::fs::remove_file(pair.from().path(large)).unwrap();
    }
    std::fs::remove_file(pair.to().path("large")).unwrap();
    // All the others are there, and nothing else is.
    let left = differences(&pair.from().0, &pair.to().0);
    assert!(left.iter().all(|line| line.contains("mtime")), "{left:?}");
    pair.mirror();
    pair.assert_equal();
}

fn one_of_several_large_files_fits_and_all_small_ones() {
    let pair = Pair::new();
    for number in 0..6 {
        pair.from().file(format!("dir{number}/large"), vec![number; 9 << 20]);
    }
    fill_source(&pair, 200, 10_000);
    let _mounted = small_ext4(&pair);
    let output = pair.run(&[]);
    reported(&output, "No space left on device");
    let fit = |number: &u8| pair.to().path(format!("dir{number}/large")).exists();
    assert_eq!((0..6).filter(fit).count(), 1, "{}", said(&output));
    let left = differences(&pair.from().0, &pair.to().0);
    let unexpected = |line: &&String| !line.contains("mtime") && !line.contains("large");
    assert_eq!(left.iter().find(unexpected), None);
}

/// The restore of a large and a small file into an ext4 whose answer to fallocate(2) is `errno`.
fn allocated(pair: &Pair, errno: &str) -> Output {
    pair.from().file("large", vec![3; 9 << 20]).file("small", "x");
    Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=fallocate"])
        .args(["-e", &format!("inject=fallocate:error={errno}"), PROGRAM])
        .args(pair.command().get_args())
        .output()
        .unwrap()
}

fn an_ext4_that_has_no_room_after_all_costs_one_file() {
    let pair = Pair::new();
    let _mounted = small_ext4(&pair);
    let output = allocated(&pair, "ENOSPC");
    reported(&output, "WARN allocate space for ");
    // There is nothing to remove, so the source is not read again for it.
    assert!(!said(&output).contains("removed first"), "{}", said(&output));
    assert!(!pair.to().path("large").exists());
    assert_eq!(std::fs::read(pair.to().path("small")).unwrap(), b"x");
    pair.mirror();
    pair.assert_equal();
}

fn an_ext4_that_cannot_allocate_is_written_all_the_same() {
    let pair = Pair::new();
    let _mounted = small_ext4(&pair);
    let output = allocated(&pair, "EOPNOTSUPP");
    assert!(said(&output).contains("(INJECTED)"), "{}", said(&output));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    pair.assert_equal();
}

fn surplus_makes_room_for_a_large_file() {
    let pair = Pair::new();
    pair.from().file("dir/large", vec![3; 9 << 20]);
    let _mounted = small_ext4(&pair);
    pair.to().file("dir/surplus", vec![7; 5 << 20]).file("surplus/deep", vec![7; 1 << 20]);
    pair.mirror();
    pair.assert_equal();
}

fn a_read_only_destination_is_reported_and_untouched() {
    let pair = Pair::new();
    pair.from().file("dir/new", "x").file("changed", "new").symlink("sym", "x");
    pair.to().file("dir/old", "x").file("changed", "old");
    let mounted = Mounted::bind(&pair.to().0, pair.to().0);
    mounted.read_only(true);
    let before = pair.snapshot();
    reported(&pair.run(&[]), "Read-only file system");
    assert_eq!(touched(&before, &pair.snapshot()), Vec::<String>::new());
}

fn a_read_only_destination_in_sync_is_no_failure() {
    let pair = Pair::new();
    pair.from().zoo(1);
    pair.mirror();
    let mounted = Mounted::bind(&pair.to().0, pair.to().0);
    mounted.read_only(true);
    pair.mirror();
    pair.assert_equal();
}

/// Takes the immutable flag off everything, so that the temporary directory can go.
struct Immutable<'a>(&'a Path);

impl Drop for Immutable<'_> {
    fn drop(&mut self) {
        // chattr complains of symlinks below, which matters to nobody.
        let _ = Command::new("chattr").args(["-f", "-R", "-i", "-a"]).arg(self.0).output();
    }
}

fn immutable_entries_are_reported_and_the_rest_is_done() {
    let pair = Pair::new();
    let (from, to) = (pair.from(), pair.to());
    from.file("changed", "new").file("beside", "new").file("dir/in", "new").file("dir/new", "x");
    from.file("mode", "same").mode("mode", 0o600).mtime("mode", 5, 5).file("z/last", "x");
    // Of one size: made within one step of the clock, they would count as equal.
    for name in ["changed", "beside", "dir/in"] {
        to.file(name, "old").mtime(name, 5, 5);
    }
    to.file("surplus", "x");
    to.file("mode", "same").mtime("mode", 5, 5).file("surplus dir/stuck", "x");
    to.file("surplus dir/goes", "x").file("z/goes", "x");
    let stuck = ["changed", "mode", "surplus", "surplus dir/stuck", "dir"];
    let _guard = Immutable(&pair.root);
    for name in stuck {
        ok(Command::new("chattr").arg("+i").arg(to.path(name)));
    }
    let output = pair.expect(&[], 23);
    reported(&output, "Operation not permitted");
    for name in stuck {
        assert!(said(&output).contains(&format!("tree/{name}")), "{name}: {}", said(&output));
    }
    assert_eq!(std::fs::read(to.path("changed")).unwrap(), b"old");
    assert_eq!(std::fs::read(to.path("beside")).unwrap(), b"new");
    assert!(!to.path("surplus dir/goes").exists());
    assert_eq!(differences(&from.path("z"), &to.path("z")), Vec::<String>::new());
    drop(Immutable(&pair.root));
    pair.mirror();
    pair.assert_equal();
}

fn a_file_size_limit_costs_the_files_beyond_it() {
    let pair = Pair::new();
    pair.from().file("a/small", "x").file("big", vec![3; 3 << 20]).file("z/small", "x");
    pair.to().file("big", "the old copy").file("surplus", "");
    let (source, before) = (snapshot(&pair.from().0), pair.snapshot());
    let inner = pair.command();
    let mut outer = Command::new("sh");
    outer.args(["-c", "ulimit -f 1024; exec \"$@\"", "sh", crate::support::PROGRAM]);
    let output = outer.args(inner.get_args()).output().unwrap();
    let text = said(&output);
    assert!(text.contains("big: File too large"), "{text}");
    assert!(text.contains("exited 11"), "{text}");
    assert!(!text.contains("MOLECULE-RESTORE: ok "), "{text}");
    whole(&source, &before, &pair.snapshot());
    assert!(pair.to().path("a/small").exists() && pair.to().path("z/small").exists());
    // Not known to be gone: the large file was not read to its end.
    assert!(pair.to().path("surplus").exists());
    pair.mirror();
    pair.assert_equal();
}
