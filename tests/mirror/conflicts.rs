//! What stands in the way at the destination: other types, surplus entries, links.

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::FileType;

use crate::support::compare::{snapshot, touched};
use crate::support::pair::{Pair, said};
use crate::support::tree::Tree;
use crate::support::{Case, test_case};

pub fn cases() -> Vec<Case> {
    let needs = crate::mirror::NEEDS;
    vec![
        test_case!(every_pair_of_types_is_resolved, needs),
        test_case!(surplus_entries_of_every_kind_are_deleted, needs),
        test_case!(no_delete_keeps_surplus_entries_and_does_the_rest, needs),
        test_case!(a_surplus_link_is_deleted_not_its_target, needs),
        test_case!(a_destination_that_is_a_link_is_refused, needs),
        test_case!(a_parent_of_the_destination_that_is_a_link_is_refused, needs),
        test_case!(a_source_that_is_a_link_is_refused, needs),
        test_case!(a_link_where_a_directory_belongs_is_replaced, needs),
        test_case!(a_running_program_is_replaced, needs),
        test_case!(missing_parents_of_the_destination_are_made, needs),
        test_case!(directories_nobody_may_enter_are_entered_and_restored, needs),
    ]
}

/// A type of entry and how one is made at a name.
type Kind = (&'static str, fn(&Tree, &str));

const KINDS: &[Kind] = &[
    ("file", |tree, name| _ = tree.file(name, "content")),
    ("empty", |tree, name| _ = tree.dir(name)),
    ("dir", |tree, name| _ = tree.file(format!("{name}/a/b"), "x").fifo(format!("{name}/p"))),
    ("symlink", |tree, name| _ = tree.symlink(name, "file-over-dir")),
    ("fifo", |tree, name| _ = tree.fifo(name)),
    ("socket", |tree, name| _ = tree.node(name, FileType::Socket, 0, 0)),
    ("char", |tree, name| _ = tree.node(name, FileType::CharacterDevice, 1, 7)),
    ("block", |tree, name| _ = tree.node(name, FileType::BlockDevice, 7, 200)),
];

fn every_pair_of_types_is_resolved() {
    let pair = Pair::new();
    for (new, make_new) in KINDS {
        for (old, make_old) in KINDS {
            let name = format!("{new}-over-{old}");
            make_new(&pair.from(), &name);
            make_old(&pair.to(), &name);
        }
    }
    pair.mirror();
    pair.assert_equal();
}

fn surplus_entries_of_every_kind_are_deleted() {
    let pair = Pair::new();
    pair.from().file("dir/kept", "x").file("top", "x");
    for (kind, make) in KINDS {
        make(&pair.to(), &format!("surplus-{kind}"));
        make(&pair.to(), &format!("dir/surplus-{kind}"));
    }
    pair.to().file(format!("{}leaf", "deep/".repeat(150)), "goes").zoo(2);
    pair.mirror();
    pair.assert_equal();
}

fn no_delete_keeps_surplus_entries_and_does_the_rest() {
    let pair = Pair::new();
    pair.from().file("dir/new", "x").file("file", "new").mtime("dir", 5, 5);
    pair.to().file("dir/surplus/deep", "stays").file("file", "old").fifo("pipe");
    // Of one size: made within one step of the clock, they would count as equal.
    pair.to().mtime("file", 5, 5);
    pair.expect(&["--no-delete"], 0);
    assert_eq!(std::fs::read(pair.to().path("dir/surplus/deep")).unwrap(), b"stays");
    assert!(pair.to().path("pipe").symlink_metadata().is_ok());
    std::fs::remove_file(pair.to().path("pipe")).unwrap();
    std::fs::remove_dir_all(pair.to().path("dir/surplus")).unwrap();
    pair.to().mtime("dir", 5, 5);
    let top = pair.from().0.metadata().unwrap();
    use std::os::unix::fs::MetadataExt;
    pair.to().mtime("", top.mtime(), top.mtime_nsec());
    pair.assert_equal();
}

fn a_surplus_link_is_deleted_not_its_target() {
    let pair = Pair::new();
    let outside = Tree::at(pair.beside("outside"));
    outside.file("precious", "x");
    let before = snapshot(&outside.0);
    let target = outside.0.to_str().unwrap();
    pair.to().symlink("link", target).symlink("dir/link", target);
    pair.from().dir("dir");
    pair.mirror();
    pair.assert_equal();
    assert_eq!(touched(&before, &snapshot(&outside.0)), Vec::<String>::new());
}

/// Runs a restore that has to refuse its only path and leave `outside` alone.
#[track_caller]
fn refused(pair: &Pair, outside: &Tree, path: &str) {
    let before = snapshot(&outside.0);
    let mut command = pair.command();
    // The last --path of several adds to the set, so the command is laid out anew.
    let mut arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let at = arguments.iter().position(|argument| argument == "tree").unwrap();
    arguments[at] = path.into();
    command = crate::support::program();
    let output = command.args(arguments).output().unwrap();
    assert!(matches!(output.status.code(), Some(1 | 23)), "{}", said(&output));
    assert!(said(&output).contains("WARN"), "{}", said(&output));
    assert!(!said(&output).contains("MOLECULE-RESTORE: ok "), "{}", said(&output));
    assert_eq!(touched(&before, &snapshot(&outside.0)), Vec::<String>::new());
}

fn a_destination_that_is_a_link_is_refused() {
    let pair = Pair::new();
    let outside = Tree::at(pair.beside("outside"));
    outside.file("precious", "x");
    pair.from().file("new", "x");
    Tree(pair.root.clone()).symlink("tree", outside.0.to_str().unwrap());
    refused(&pair, &outside, "tree");
    assert_eq!(std::fs::read_link(pair.root.join("tree")).unwrap(), outside.0);
}

fn a_parent_of_the_destination_that_is_a_link_is_refused() {
    let pair = Pair::new();
    let outside = Tree::at(pair.beside("outside"));
    outside.file("c/precious", "x");
    Tree(pair.source.clone()).file("a/b/c/new", "x");
    Tree(pair.root.clone()).dir("a").symlink("a/b", outside.0.to_str().unwrap());
    refused(&pair, &outside, "a/b/c");
}

fn a_source_that_is_a_link_is_refused() {
    let pair = Pair::new();
    let outside = Tree::at(pair.beside("outside"));
    outside.file("secret", "x");
    pair.to().file("old", "stays");
    std::fs::remove_dir(pair.from().0).unwrap();
    Tree(pair.source.clone()).symlink("tree", outside.0.to_str().unwrap());
    refused(&pair, &outside, "tree");
    assert!(!pair.root.join("tree/secret").exists());
    assert_eq!(std::fs::read(pair.to().path("old")).unwrap(), b"stays");
}

fn a_link_where_a_directory_belongs_is_replaced() {
    let pair = Pair::new();
    let outside = Tree::at(pair.beside("outside"));
    outside.file("file", "x").dir("sub");
    let before = snapshot(&outside.0);
    pair.from().file("dir/file", "new").file("dir/sub/file", "new").mode("dir", 0o777);
    pair.to().symlink("dir", outside.0.to_str().unwrap());
    pair.mirror();
    pair.assert_equal();
    assert_eq!(touched(&before, &snapshot(&outside.0)), Vec::<String>::new());
}

fn a_running_program_is_replaced() {
    let pair = Pair::new();
    pair.from().file("sleep", "another program").mode("sleep", 0o755);
    crate::support::copy_program("/bin/sleep", pair.to().path("sleep"));
    let mut child = Command::new(pair.to().path("sleep")).arg0("sleep").arg("600").spawn().unwrap();
    let output = pair.run(&[]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    pair.assert_equal();
}

fn missing_parents_of_the_destination_are_made() {
    let pair = Pair::new();
    Tree(pair.source.clone()).file("home/agent/.claude/settings.json", "{}");
    let mut command = crate::support::program();
    command.args(["restore", "--path", "home/agent/.claude", "--source"]).arg(&pair.source);
    let output = command.arg("--root").arg(&pair.root).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let below = |top: &std::path::Path| top.join("home/agent/.claude");
    let lines = crate::support::compare::differences(&below(&pair.source), &below(&pair.root));
    assert!(lines.is_empty(), "{lines:?}");
}

fn directories_nobody_may_enter_are_entered_and_restored() {
    let pair = Pair::new();
    for (tree, mode) in [(pair.from(), 0o000), (pair.to(), 0o100)] {
        tree.file("closed/in/file", format!("{mode}")).mode("closed/in", mode).mode("closed", mode);
    }
    pair.mirror();
    pair.assert_equal();
}
