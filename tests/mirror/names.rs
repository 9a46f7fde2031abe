//! Names, depth and breadth.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::{Mode, OFlags};

use crate::support::compare::names_where;
use crate::support::pair::{Pair, said};
use crate::support::{Case, PROGRAM, test_case};

pub fn cases() -> Vec<Case> {
    let needs = crate::mirror::NEEDS;
    vec![
        test_case!(names_of_every_byte_are_data, needs),
        test_case!(names_of_255_bytes_are_written_and_replaced, needs),
        test_case!(a_name_that_looks_temporary_is_data, needs),
        test_case!(paths_beyond_path_max_are_copied, needs),
        test_case!(a_surplus_tree_beyond_path_max_is_deleted, needs),
        test_case!(a_directory_of_100000_entries_is_copied, needs),
        test_case!(with_64_descriptors_are_enough, needs),
    ]
}

fn names_of_every_byte_are_data() {
    let pair = Pair::new();
    for byte in (1..=255).filter(|byte| *byte != b'/') {
        let name = OsString::from(OsStr::from_bytes(&[b'n', byte, byte]));
        pair.from().file(&name, [byte]);
        let mut inside = OsString::from(OsStr::from_bytes(&[byte, b'd']));
        inside.push("/in");
        pair.from().file(inside, "x");
    }
    for name in ["-", "--delete", "-rf", " ", "...", "~", "*", "$(reboot)", "a\\nb", "{}", "'\""] {
        pair.from().file(name, name).symlink(format!("{name}.link"), name);
        pair.to().file(format!("surplus{name}"), "goes");
    }
    pair.to().file(OsStr::from_bytes(b"\xff\xfe\n"), "goes");
    pair.mirror();
    pair.assert_equal();
}

fn names_of_255_bytes_are_written_and_replaced() {
    let pair = Pair::new();
    let (ascii, wide) = ("n".repeat(255), "\u{e9}".repeat(127));
    for name in [&ascii, &wide] {
        let inside = format!("{name}/{name}");
        pair.from().file(format!("new/{name}"), "new").file(&inside, "x");
        pair.from().file(format!("old/{name}"), "new content").symlink(format!("sym/{name}"), name);
        pair.from().fifo(format!("fifo/{name}")).link(format!("linked/{name}"), &inside);
        pair.to().file(format!("old/{name}"), "old").file(format!("sym/{name}"), "x");
        pair.to().file(format!("linked/{name}"), "x").dir(format!("fifo/{name}"));
    }
    pair.mirror();
    pair.assert_equal();
}

fn a_name_that_looks_temporary_is_data() {
    let pair = Pair::new();
    pair.mirror();
    let names = [".file.AbC123", ".file.tmp", ".~tmp~", ".molecule-tools.1", "file.part", ".#file"];
    for name in names {
        pair.from().file(name, "data").file("file", "data too");
        pair.to().file(format!("{name}.stale"), "goes");
    }
    pair.mirror();
    pair.assert_equal();
}

/// A chain of 30 directories with names of 200 bytes, a file in each: 6000 bytes of path.
fn chain(top: &Path) {
    let mut directory = File::open(top).unwrap();
    let name = "d".repeat(200);
    for number in 0..30 {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&directory, "file", flags, Mode::from(0o644)).unwrap();
        rustix::io::write(&file, format!("at depth {number}").as_bytes()).unwrap();
        rustix::fs::symlinkat("file", &directory, "sym").unwrap();
        rustix::fs::mkdirat(&directory, &name, Mode::from(0o755)).unwrap();
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        directory = rustix::fs::openat(&directory, &name, flags, Mode::empty()).unwrap().into();
    }
}

fn paths_beyond_path_max_are_copied() {
    let pair = Pair::new();
    chain(&pair.from().0);
    pair.mirror();
    pair.assert_equal_to_the_comparator();
    pair.mirror();
    pair.assert_equal_to_the_comparator();
}

fn a_surplus_tree_beyond_path_max_is_deleted() {
    let pair = Pair::new();
    pair.from().file("stays", "x");
    chain(&pair.to().dir("surplus").path("surplus"));
    pair.mirror();
    pair.assert_equal();
}

fn a_directory_of_100000_entries_is_copied() {
    let pair = Pair::new();
    pair.from().dir("broad");
    let directory = pair.from().path("broad");
    for number in 0..100_000_u32 {
        std::fs::write(directory.join(format!("entry-{number}")), "").unwrap();
    }
    pair.to().file("broad/entry-surplus", "goes");
    pair.mirror();
    pair.assert_equal();
}

fn with_64_descriptors_are_enough() {
    let pair = Pair::new();
    pair.from().zoo(2);
    for number in 0..60 {
        let path = format!("{}file{number}", "d/".repeat(number));
        pair.from().file(path, "x");
        pair.to().file(format!("surplus/{}file{number}", "d/".repeat(number)), "goes");
    }
    let inner = pair.command();
    let mut outer = Command::new("sh");
    outer.args(["-c", "ulimit -n 64; exec \"$@\"", "sh", PROGRAM]);
    let output = outer.args(inner.get_args()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    pair.assert_equal();
    let left = names_where(&pair.to().0, |name| name.to_string_lossy().contains("surplus"));
    assert!(left.is_empty(), "{left:?}");
}
