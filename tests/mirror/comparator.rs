//! The comparator itself: a perfect copy gives no line, and each kind of deviation gives its own.

use std::process::Command;

use rustix::fs::FileType;

use crate::support::compare::{differences, snapshot, touched};
use crate::support::tree::{ACCESS, Tree, acl_of_user};
use crate::support::{Case, ok, test_case};

pub fn cases() -> Vec<Case> {
    vec![
        test_case!(the_comparator_names_every_deviation_by_its_kind, crate::mirror::NEEDS),
        test_case!(the_comparator_sees_a_touched_inode, crate::mirror::NEEDS),
    ]
}

type Mutation = (&'static str, fn(&Tree));

const MUTATIONS: &[Mutation] = &[
    ("absent", |to| std::fs::remove_file(to.path("cage0/fifo")).unwrap()),
    ("surplus", |to| _ = to.file("cage0/new", "")),
    ("type", |to| {
        std::fs::remove_file(to.path("cage0/block")).unwrap();
        to.node("cage0/block", FileType::CharacterDevice, 259, 70_000);
    }),
    ("mode", |to| _ = to.mode("cage0/setuid", 0o2755)),
    ("mode", |to| _ = to.mode("cage0/sticky", 0o2775)),
    ("owner", |to| _ = to.owner("cage0/attributed", 1, 0)),
    ("owner", |to| _ = to.owner("cage0/sym", 1234, 0)),
    ("mtime", |to| _ = to.mtime("cage0/plain/sub/file1", 1_500_000_001, 123_456_788)),
    ("mtime", |to| _ = to.mtime("cage0/dangling", 1_300_000_000, 6)),
    ("mtime", |to| _ = to.mtime("", 1_400_000_000, 0)),
    ("size", |to| _ = to.file("cage0/empty", "x")),
    ("content", |to| _ = to.file("cage0/attributed", "y")),
    ("rdev", |to| {
        std::fs::remove_file(to.path("cage0/null")).unwrap();
        to.node("cage0/null", FileType::CharacterDevice, 1, 5);
    }),
    ("target", |to| {
        std::fs::remove_file(to.path("cage0/dangling")).unwrap();
        to.symlink("cage0/dangling", "/no/such\nplacE");
    }),
    ("xattrs", |to| _ = to.xattr("cage0/attributed", "user.colour", "red")),
    ("xattrs", |to| _ = to.xattr("cage0/attributed", "user.extra", "")),
    ("xattrs", |to| _ = to.xattr("cage0/attributed", "trusted.rank", "3")),
    ("xattrs", |to| _ = to.xattr("cage0/attributed", ACCESS, acl_of_user(7999))),
    ("xattrs", |to| {
        rustix::fs::lremovexattr(to.path("cage0/setuid"), "security.capability").unwrap();
    }),
    ("links", |to| {
        std::fs::remove_file(to.path("cage0/plain/two")).unwrap();
        to.file("cage0/plain/two", "linked");
    }),
    ("links", |to| _ = to.link("cage0/links/four", "cage0/links/one")),
    ("links", |to| {
        std::fs::remove_file(to.path("cage0/links/fifo")).unwrap();
        to.fifo("cage0/links/fifo");
    }),
    ("holes", |to| {
        let mut whole = vec![0; 8 << 20];
        whole[3 << 20..(3 << 20) + 6].copy_from_slice(b"island");
        to.file("cage0/sparse", whole);
    }),
];

fn the_comparator_names_every_deviation_by_its_kind() {
    let directory = tempfile::tempdir().unwrap();
    let from = Tree::at(directory.path().join("from"));
    from.zoo(1);
    for (number, (kind, mutate)) in MUTATIONS.iter().enumerate() {
        let to = Tree::at(directory.path().join(format!("to{number}")));
        std::fs::remove_dir(&to.0).unwrap();
        ok(Command::new("cp").arg("-a").args([&from.0, &to.0]));
        assert_eq!(differences(&from.0, &to.0), Vec::<String>::new());
        mutate(&to);
        let lines = differences(&from.0, &to.0);
        let prefix = format!("{kind}: ");
        assert!(lines.iter().any(|line| line.starts_with(&prefix)), "{number} {kind}: {lines:?}");
    }
}

fn the_comparator_sees_a_touched_inode() {
    let directory = tempfile::tempdir().unwrap();
    let tree = Tree::at(directory.path().join("tree"));
    tree.file("a", "same").mtime("a", 5, 5);
    let before = snapshot(&tree.0);
    assert_eq!(touched(&before, &snapshot(&tree.0)), Vec::<String>::new());
    tree.mode("a", 0o600).mode("a", before[std::path::Path::new("a")].mode & 0o7777);
    let lines = touched(&before, &snapshot(&tree.0));
    assert!(matches!(&lines[..], [line] if line.starts_with("ctime: \"a\"")), "{lines:?}");
    std::fs::copy(tree.path("a"), tree.path("b")).unwrap();
    std::fs::rename(tree.path("b"), tree.path("a")).unwrap();
    tree.mtime("a", 5, 5);
    let lines = touched(&before, &snapshot(&tree.0));
    assert!(lines.iter().any(|line| line.starts_with("inode: \"a\"")), "{lines:?}");
}
