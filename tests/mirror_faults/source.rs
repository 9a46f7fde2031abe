//! Sources that cannot be read, or do not hold still.

use std::ops::Range;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::compare::snapshot;
use crate::support::device::{Device, Manners};
use crate::support::mounts::{Mounted, ext4_image};
use crate::support::pair::{Pair, said};
use crate::support::tree::Tree;
use crate::support::{Case, ok, test_case};

pub fn cases() -> Vec<Case> {
    let needs = crate::mirror_faults::NEEDS;
    let disk = crate::mirror_faults::DISK_NEEDS;
    vec![
        test_case!(unreadable_data_keeps_the_old_copy_and_deletes_nothing, disk),
        test_case!(unreadable_data_in_a_batch_costs_only_its_own_files, disk),
        test_case!(an_unreadable_end_leaves_no_half_written_file, disk),
        test_case!(an_unreadable_directory_keeps_all_that_was_there, disk),
        test_case!(a_full_destination_makes_no_room_by_an_unreadable_source, disk),
        test_case!(nor_by_one_that_is_unreadable_where_it_has_no_directory, disk),
        test_case!(nor_for_a_large_file_that_cannot_be_read, disk),
        test_case!(an_unreadable_inode_table_deletes_nothing, disk),
        test_case!(a_damaged_inode_deletes_nothing, disk),
        test_case!(a_damaged_directory_deletes_nothing, disk),
        test_case!(errors_in_one_path_leave_the_others_authoritative, disk),
        test_case!(files_that_grow_are_copied_as_a_clean_prefix, needs),
        test_case!(files_that_shrink_or_vanish_end_whole_or_absent, needs),
    ]
}

/// A source on an image: `tree` with files in directories, one of which will be bad.
struct Damaged {
    pair: Pair,
    image: std::path::PathBuf,
}

const BLOCK: u64 = 4096;

impl Damaged {
    fn new() -> Self {
        let pair = Pair::new();
        let image = pair.beside("image");
        ext4_image(&image, 48, &["-b", "4096", "-O", "^inline_data"]);
        let mounted = Mounted::image(&image, pair.beside("planting"), "rw");
        let tree = Tree::at(mounted.0.join("tree"));
        for number in 0..100_usize {
            let content: Vec<u8> = (0..20_000).map(|at| (at * 3 + number) as u8 | 1).collect();
            tree.file(format!("dir{}/file{number}", number % 5), content);
        }
        tree.file("dir3/big", vec![9; 3 << 20]).file("dir3/large", vec![8; 9 << 20]);
        mounted.put_away();
        let to = pair.to();
        to.file("dir1/file1", "the old copy").file("dir3/big", "the old copy");
        to.file("dir1/surplus", "x").file("dir4/surplus", "x").file("surplus/deep", "x");
        to.file("dir2/file2/was a directory", "x");
        Self { pair, image }
    }

    /// The answer of debugfs(8) to `request`.
    fn debugfs(&self, request: &str) -> String {
        ok(Command::new("debugfs").args(["-w", "-R", request]).arg(&self.image))
    }

    /// Byte ranges of the blocks of `path`.
    fn blocks(&self, path: &str) -> Vec<Range<u64>> {
        let said = self.debugfs(&format!("blocks {path}"));
        let numbers = said.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
        numbers.map(|block| block * BLOCK..(block + 1) * BLOCK).collect()
    }

    /// The byte range of the block of the inode table that has `path`'s inode.
    fn inode_block(&self, path: &str) -> Range<u64> {
        let said = self.debugfs(&format!("imap {path}"));
        let (_, after) = said.split_once("located at block ").unwrap();
        let block: u64 = after.split(',').next().unwrap().parse().unwrap();
        block * BLOCK..(block + 1) * BLOCK
    }

    /// Restores with the ranges `bad` failing; the run must end with 23 and say why.
    fn restore(&self, bad: Vec<Range<u64>>, reason: &str) -> Output {
        self.restore_from(Manners { bad, ..Manners::default() }, reason)
    }

    #[track_caller]
    fn restore_from(&self, manners: Manners, reason: &str) -> Output {
        let device = Device::of(&self.image, &self.pair.beside("disk"), manners);
        let _source = Mounted::node(device.node(), &self.pair.source, "ro,noload,errors=continue");
        let output = self.pair.expect(&["--json"], 23);
        let text = said(&output);
        assert!(text.contains("MOLECULE-RESTORE: WARN rsync to "), "{text}");
        assert!(text.contains(reason), "{text}");
        assert!(!text.contains("MOLECULE-RESTORE: ok "), "{text}");
        output
    }

    /// Nothing was deleted, nothing half-written or temporary stays, and of the source all that the
    /// predicate does not excuse is there.
    #[track_caller]
    fn check(&self, excused: impl Fn(&Path) -> bool) {
        let to = self.pair.to();
        for name in ["dir1/surplus", "dir4/surplus", "surplus/deep"] {
            assert!(to.path(name).exists(), "{name} was deleted");
        }
        let mounted = Mounted::image(&self.image, self.pair.beside("whole"), "ro,noload");
        let whole = snapshot(&mounted.0.join("tree"));
        let now = self.pair.snapshot();
        for (path, entry) in &now {
            let file = entry.mode & 0o170_000 == 0o100_000;
            let ours = whole.get(path).map(|source| (source.size, source.content));
            let known = ours == Some((entry.size, entry.content))
                || path.to_str().unwrap().contains("surplus")
                || path.ends_with("was a directory")
                || std::fs::read(to.path(path)).is_ok_and(|bytes| bytes == b"the old copy");
            assert!(!file || known, "{path:?} is half-written or temporary");
        }
        // A directory with something in it gives way only as long as the source has shown no error.
        let stays = to.path("dir2/file2/was a directory").exists();
        let stays = |path: &Path| stays && path == Path::new("dir2/file2");
        for (path, entry) in whole.iter().filter(|(path, _)| !excused(path) && !stays(path)) {
            let copy = now.get(path).unwrap_or_else(|| panic!("{path:?} was not restored"));
            assert_eq!((copy.mode, copy.content), (entry.mode, entry.content), "{path:?}");
            assert_eq!(copy.mtime, entry.mtime, "{path:?}");
        }
    }
}

fn unreadable_data_in_a_batch_costs_only_its_own_files() {
    let damaged = Damaged::new();
    let bad = ["dir0/file5", "dir0/file50", "dir0/file95"];
    let ranges = bad.iter().flat_map(|file| damaged.blocks(&format!("tree/{file}"))).collect();
    let manners = Manners { bad: ranges, delay: std::time::Duration::from_millis(10) };
    let output = damaged.restore_from(manners, "Input/output error");
    for file in bad {
        assert!(said(&output).contains(file), "{file} is not named");
        assert!(!damaged.pair.to().path(file).exists(), "{file} is half-written");
    }
    damaged.check(|path| bad.iter().any(|file| path == Path::new(file)));
}

fn unreadable_data_keeps_the_old_copy_and_deletes_nothing() {
    let damaged = Damaged::new();
    let bad = ["/tree/dir1/file1", "/tree/dir0/file10"].map(|path| damaged.blocks(path));
    let output = damaged.restore(bad.concat(), "Input/output error");
    for name in ["tree/dir1/file1", "tree/dir0/file10"] {
        assert!(said(&output).contains(name), "{name}: {}", said(&output));
    }
    let to = damaged.pair.to();
    assert_eq!(std::fs::read(to.path("dir1/file1")).unwrap(), b"the old copy");
    assert!(!to.path("dir0/file10").exists(), "a file that cannot be read appeared");
    let names = ["dir1/file1", "dir0/file10", "dir0", "dir1"];
    damaged.check(|path| names.iter().any(|name| path == Path::new(name)));
}

fn an_unreadable_end_leaves_no_half_written_file() {
    let damaged = Damaged::new();
    let last = |path| {
        let blocks = damaged.blocks(path);
        blocks[blocks.len() - 1].clone()
    };
    let bad = vec![last("/tree/dir3/big"), last("/tree/dir3/large")];
    let output = damaged.restore(bad, "Input/output error");
    let kept = std::fs::read(damaged.pair.to().path("dir3/big")).unwrap();
    assert_eq!(kept, b"the old copy");
    assert!(said(&output).contains("dir3/large"), "{}", said(&output));
    assert!(!damaged.pair.to().path("dir3/large").exists());
    damaged.check(|path| {
        path.starts_with("dir3") && path.components().count() == 1
            || path.ends_with("big")
            || path.ends_with("large")
    });
}

fn an_unreadable_directory_keeps_all_that_was_there() {
    let damaged = Damaged::new();
    let bad = damaged.blocks("/tree/dir1");
    let output = damaged.restore(bad, "Input/output error");
    assert!(said(&output).contains("tree/dir1"), "{}", said(&output));
    let kept = std::fs::read(damaged.pair.to().path("dir1/file1")).unwrap();
    assert_eq!(kept, b"the old copy");
    damaged.check(|path| path.starts_with("dir1"));
}

fn a_full_destination_makes_no_room_by_an_unreadable_source() {
    for path in ["/tree/dir1", "/tree/dir4/file99"] {
        let damaged = Damaged::new();
        let bad = damaged.blocks(path);
        let to = damaged.pair.to();
        let _mounted = Mounted::tmpfs(&to.0, "4m");
        let surplus = ["dir1/surplus", "dir4/surplus", "surplus/deep"];
        for name in surplus {
            to.file(name, vec![1; 1 << 20]);
        }
        damaged.restore(bad, "exited");
        for name in surplus {
            assert!(to.path(name).exists(), "{name} was deleted, {path} unreadable");
        }
    }
}

/// No inode is left for the directory of a file that cannot be read.
fn nor_by_one_that_is_unreadable_where_it_has_no_directory() {
    let damaged = Damaged::new();
    let to = damaged.pair.to();
    let mounted = Mounted::tmpfs(&to.0, "64m");
    let surplus: Vec<String> = (0..50).map(|number| format!("dir1/surplus{number}")).collect();
    for name in &surplus {
        to.file(name, "x");
    }
    let used = walkdir::WalkDir::new(&to.0).into_iter().count();
    let options = format!("remount,nr_inodes={used}");
    ok(Command::new("mount").args(["-o", &options]).arg(&mounted.0));
    let bad = damaged.blocks("/tree/dir0/file10");
    let output = damaged.restore(bad, "Input/output error");
    assert!(said(&output).contains("No space left on device"), "{}", said(&output));
    for name in &surplus {
        assert!(to.path(name).exists(), "{name} was deleted");
    }
}

/// A large file fits only when the surplus is gone, and cannot be read to its end.
fn nor_for_a_large_file_that_cannot_be_read() {
    let damaged = Damaged::new();
    let bad = damaged.blocks("/tree/dir3/large");
    let to = damaged.pair.to();
    let image = damaged.pair.beside("small");
    ext4_image(&image, 18, &[]);
    let _mounted = Mounted::image(&image, &to.0, "rw");
    let surplus = ["dir1/surplus", "dir4/surplus", "surplus/deep"];
    for name in surplus {
        to.file(name, vec![1; 3 << 20]);
    }
    let output = damaged.restore(vec![bad[bad.len() - 1].clone()], "exited 11");
    let text = said(&output);
    assert!(text.contains("WARN allocate space for "), "{text}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let path = &report["paths"][0];
    assert_eq!(path["deletion_withheld"], true, "{report}");
    assert!(path["failures"].to_string().contains("read: Input/output error"), "{report}");
    assert!(!to.path("dir3/large").exists());
    for name in surplus {
        assert!(to.path(name).exists(), "{name} was deleted");
    }
}

fn an_unreadable_inode_table_deletes_nothing() {
    let damaged = Damaged::new();
    let bad = damaged.inode_block("/tree/dir2/file52");
    let output = damaged.restore(vec![bad.clone()], "Input/output error");
    assert!(said(&output).contains("tree/dir2/file52"), "{}", said(&output));
    let lost = |path: &Path| damaged.inode_block(&format!("/tree/{}", path.display())) == bad;
    damaged.check(|path| path.ancestors().any(lost) || path == Path::new("dir2"));
}

fn a_damaged_inode_deletes_nothing() {
    let damaged = Damaged::new();
    let pristine = damaged.pair.beside("pristine");
    std::fs::copy(&damaged.image, &pristine).unwrap();
    damaged.debugfs("clri /tree/dir2/file52");
    let output = damaged.restore(Vec::new(), "tree/dir2/file52");
    assert!(said(&output).contains("WARN"), "{}", said(&output));
    std::fs::rename(pristine, &damaged.image).unwrap();
    damaged.check(|path| path.ends_with("file52") || path.ends_with("dir2"));
}

fn a_damaged_directory_deletes_nothing() {
    let damaged = Damaged::new();
    let pristine = damaged.pair.beside("pristine");
    std::fs::copy(&damaged.image, &pristine).unwrap();
    let block = damaged.blocks("/tree/dir4")[0].start / BLOCK;
    damaged.debugfs(&format!("zap_block -p 165 {block}"));
    damaged.restore(Vec::new(), "tree/dir4");
    std::fs::rename(pristine, &damaged.image).unwrap();
    damaged.check(|path| path.starts_with("dir4"));
}

fn errors_in_one_path_leave_the_others_authoritative() {
    let damaged = Damaged::new();
    let mounted = Mounted::image(&damaged.image, damaged.pair.beside("planting"), "rw");
    Tree::at(mounted.0.join("good")).file("dir/file", "x");
    mounted.put_away();
    Tree::at(damaged.pair.root.join("good")).file("surplus", "goes");
    let manners = Manners { bad: damaged.blocks("/tree/dir1/file1"), ..Manners::default() };
    let device = Device::of(&damaged.image, &damaged.pair.beside("disk"), manners);
    let source = Mounted::node(device.node(), &damaged.pair.source, "ro,noload,errors=continue");
    let output = damaged.pair.expect(&["--path", "good"], 23);
    let text = said(&output);
    let good = damaged.pair.root.join("good");
    assert!(text.contains(&format!("MOLECULE-RESTORE: ok {}\n", good.display())), "{text}");
    let lines = crate::support::compare::differences(&source.0.join("good"), &good);
    assert_eq!(lines, Vec::<String>::new());
    assert!(damaged.pair.to().path("dir1/surplus").exists());
    assert!(text.contains("no marker is dropped"), "{text}");
}

/// Runs the mirror over and over while `disturb` works on the source in another thread.
#[track_caller]
fn disturbed(pair: &Pair, disturb: impl Fn(usize) + Sync, check: impl Fn(&Output)) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let disturber = scope.spawn(|| {
            let mut turn = 0;
            while !done.load(Ordering::Relaxed) {
                disturb(turn);
                turn += 1;
            }
            turn
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..15 {
                check(&pair.run(&["--checksum"]));
            }
        }));
        done.store(true, Ordering::Relaxed);
        assert!(disturber.join().unwrap() > 0);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    pair.expect(&["--checksum"], 0);
    pair.assert_equal();
}

/// The byte that belongs at `offset` of a growing file.
fn pattern(offset: u64) -> u8 {
    (offset / 7 + offset / 4096) as u8 | 1
}

fn files_that_grow_are_copied_as_a_clean_prefix() {
    use std::os::unix::fs::FileExt;
    let pair = Pair::new();
    pair.from().zoo(1).file("growing", "");
    let file = std::fs::File::options().write(true).open(pair.from().path("growing")).unwrap();
    disturbed(
        &pair,
        |turn| {
            let start = (turn % 2000) as u64 * 3000;
            if start == 0 {
                file.set_len(0).unwrap();
            }
            let bytes: Vec<u8> = (start..start + 3000).map(pattern).collect();
            file.write_all_at(&bytes, start).unwrap();
        },
        |output| {
            assert!(matches!(output.status.code(), Some(0 | 23)), "{}", said(output));
            // One that began anew while it was copied for the first time is not there yet.
            let copy = match std::fs::read(pair.to().path("growing")) {
                Err(_) if output.status.code() == Some(23) => return,
                copy => copy.unwrap(),
            };
            let wrong = (0..).zip(&copy).find(|(offset, byte)| pattern(*offset) != **byte);
            assert_eq!(wrong, None, "of {} bytes", copy.len());
        },
    );
}

fn files_that_shrink_or_vanish_end_whole_or_absent() {
    let pair = Pair::new();
    pair.from().zoo(1);
    let names = |turn: usize| format!("moving{}/file{}", turn % 7, turn % 61);
    for turn in 0..61 * 7 {
        pair.from().file(names(turn), format!("{turn} ").repeat(2000));
    }
    disturbed(
        &pair,
        |turn| {
            let path = pair.from().path(names(turn));
            match turn % 3 {
                0 => drop(std::fs::remove_file(path)),
                1 => drop(std::fs::write(path, format!("{turn} ").repeat(turn % 4000))),
                _ => {
                    let directory = pair.from().path(format!("moving{}", turn / 100 % 7));
                    let aside = pair.from().path("aside");
                    let _ = std::fs::rename(&directory, &aside);
                    let _ = std::fs::rename(&aside, &directory);
                }
            }
        },
        |output| {
            assert!(matches!(output.status.code(), Some(0 | 23)), "{}", said(output));
            assert!(pair.to().path("cage0/setuid").exists());
        },
    );
}
