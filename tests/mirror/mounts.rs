//! Mounts at either end.

use crate::support::compare::{differences, snapshot, touched};
use crate::support::mounts::Mounted;
use crate::support::pair::{Pair, said};
use crate::support::tree::Tree;
use crate::support::{Case, test_case};

pub fn cases() -> Vec<Case> {
    let needs = crate::mirror::NEEDS;
    vec![
        test_case!(a_destination_that_is_a_mount_point_is_filled, needs),
        test_case!(a_source_mount_below_the_tree_is_left_out_with_a_line, needs),
        test_case!(a_bind_mount_of_the_same_file_system_is_left_out_too, needs),
        test_case!(a_mount_inside_a_surplus_directory_is_no_disaster, needs),
        test_case!(a_mount_inside_a_kept_directory_is_restored_or_reported, needs),
    ]
}

fn a_destination_that_is_a_mount_point_is_filled() {
    let pair = Pair::new();
    pair.from().file("a/b", "x").symlink("s", "x").file("c", "y").link("d", "c");
    pair.from().mode("", 0o1777).owner("", 5, 6);
    let mounted = Mounted::tmpfs(pair.to().0, "16m");
    pair.to().file("surplus/deep", "goes");
    pair.mirror();
    pair.assert_equal();
    drop(mounted);
    assert!(!pair.to().path("c").exists(), "the copy went below the mount");
}

/// A source with a mount at `mnt`: `mnt`'s content is left out and a line names it.
#[track_caller]
fn left_out(pair: &Pair) {
    pair.from().file("beside", "x").file("mnt.d/in", "x");
    let output = pair.mirror();
    assert!(said(&output).contains("tree/mnt"), "{}", said(&output));
    assert!(pair.to().path("beside").exists());
    let below = pair.to().path("mnt");
    assert!(!below.exists() || below.read_dir().unwrap().next().is_none());
}

fn a_source_mount_below_the_tree_is_left_out_with_a_line() {
    let pair = Pair::new();
    let _mounted = Mounted::tmpfs(pair.from().path("mnt"), "1m");
    pair.from().file("mnt/secret", "x");
    left_out(&pair);
}

fn a_bind_mount_of_the_same_file_system_is_left_out_too() {
    let pair = Pair::new();
    let elsewhere = Tree::at(pair.beside("elsewhere"));
    elsewhere.file("secret", "x").file("deep/secret", "x");
    let _mounted = Mounted::bind(&elsewhere.0, pair.from().path("mnt"));
    left_out(&pair);
}

fn a_mount_inside_a_surplus_directory_is_no_disaster() {
    let pair = Pair::new();
    pair.from().file("kept", "x").file("z/late", "x");
    pair.to().dir("surplus/mnt").file("z/surplus", "goes");
    let mounted = Mounted::tmpfs(pair.to().path("surplus/mnt"), "1m");
    let output = pair.expect(&[], 23);
    assert!(said(&output).contains("surplus/mnt"), "{}", said(&output));
    let top = |tree: &Tree| differences(&pair.from().path("z"), &tree.path("z"));
    assert_eq!(top(&pair.to()), Vec::<String>::new());
    assert!(mounted.0.exists());
    drop(mounted);
    pair.mirror();
    pair.assert_equal();
}

fn a_mount_inside_a_kept_directory_is_restored_or_reported() {
    let pair = Pair::new();
    pair.from().file("dir/in", "x");
    let mounted = Mounted::tmpfs(pair.to().path("dir"), "1m");
    let output = pair.run(&[]);
    let restored = pair.to().path("dir/in").exists();
    match output.status.code() {
        Some(0) => assert!(restored, "{}", said(&output)),
        Some(23) => assert!(said(&output).contains("tree/dir"), "{}", said(&output)),
        _ => panic!("{}", said(&output)),
    }
    drop(mounted);
    let before = snapshot(&pair.to().path("dir"));
    assert_eq!(touched(&before, &snapshot(&pair.to().path("dir"))), Vec::<String>::new());
}
