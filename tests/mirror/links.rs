//! Hard links: which names share an inode, and which inodes are never reached.

use std::os::unix::fs::MetadataExt;

use rustix::fs::FileType;

use crate::support::pair::Pair;
use crate::support::tree::{ACCESS, DEFAULT, Tree, acl_of_user};
use crate::support::{Case, test_case};

pub fn cases() -> Vec<Case> {
    let needs = crate::mirror::NEEDS;
    vec![
        test_case!(groups_span_directories_and_all_kinds_of_entries, needs),
        test_case!(groups_whose_members_exist_with_other_content_or_links, needs),
        test_case!(links_that_leave_the_tree_are_ignored, needs),
        test_case!(names_wrongly_joined_are_separated, needs),
        test_case!(two_crossed_groups_are_uncrossed, needs),
        test_case!(content_never_reaches_an_inode_linked_outside, needs),
        test_case!(metadata_never_reaches_an_inode_linked_outside, needs),
        test_case!(a_follower_replaces_a_directory_that_has_an_acl, needs),
        test_case!(a_group_of_thousands_is_one_inode, needs),
        test_case!(many_groups_race_for_their_first_name, needs),
    ]
}

fn groups_span_directories_and_all_kinds_of_entries() {
    let pair = Pair::new();
    let from = pair.from();
    from.file("a/file", "content").link("b/file", "a/file").link("c/d/e/file", "a/file");
    from.symlink("a/sym", "file").link("z/sym", "a/sym");
    from.fifo("a/fifo").link("z/fifo", "a/fifo").socket("a/socket").link("0/socket", "a/socket");
    from.node("a/dev", FileType::CharacterDevice, 1, 3).link("z/dev", "a/dev");
    from.file("a/empty", "").link("z/empty", "a/empty").mode("a/empty", 0o4711);
    from.file("a/attr", "x").link("z/attr", "a/attr").xattr("a/attr", "user.a", "1");
    pair.mirror();
    pair.assert_equal();
}

fn groups_whose_members_exist_with_other_content_or_links() {
    let starts: [fn(&Tree); 7] = [
        |to| _ = to.file("one", "older").file("two", "other"),
        |to| _ = to.file("two", "linked").mtime("two", 5, 5),
        |to| _ = to.file("one", "x").link("two", "one").link("stranger", "one"),
        |to| _ = to.file("d/three", "linked").mtime("d/three", 5, 5).link("two", "d/three"),
        |to| _ = to.dir("one").file("two/inside", "x"),
        |to| _ = to.symlink("one", "two").fifo("two").dir("d/three"),
        |to| _ = to.file("one", "linked").file("two", "linked").mtime("one", 5, 5),
    ];
    for start in starts {
        let pair = Pair::new();
        pair.from().file("one", "linked").link("two", "one").link("d/three", "one");
        pair.from().mtime("one", 5, 5).file("stranger", "alone");
        start(&pair.to());
        pair.mirror();
        pair.assert_equal();
    }
}

fn links_that_leave_the_tree_are_ignored() {
    let pair = Pair::new();
    pair.from().file("inside", "x");
    Tree(pair.source.clone()).link("beside", "tree/inside");
    pair.mirror();
    pair.assert_equal();
    assert_eq!(std::fs::metadata(pair.to().path("inside")).unwrap().nlink(), 1);
}

fn names_wrongly_joined_are_separated() {
    let pair = Pair::new();
    for tree in [pair.from(), pair.to()] {
        tree.file("a", "same").symlink("s", "x");
    }
    pair.from().file("b", "same").symlink("t", "x").mtime("a", 5, 5).mtime("b", 5, 5);
    pair.to().mtime("a", 5, 5).link("b", "a").link("t", "s");
    pair.from().mtime("s", 5, 5).mtime("t", 5, 5);
    pair.to().mtime("s", 5, 5);
    pair.mirror();
    pair.assert_equal();
}

fn two_crossed_groups_are_uncrossed() {
    let pair = Pair::new();
    pair.from().file("a1", "same").link("a2", "a1").file("b1", "same").link("b2", "b1");
    pair.to().file("a1", "same").link("b1", "a1").file("a2", "same").link("b2", "a2");
    for tree in [pair.from(), pair.to()] {
        for name in ["a1", "a2", "b1", "b2"] {
            tree.mtime(name, 5, 5);
        }
    }
    pair.mirror();
    pair.assert_equal();
}

fn content_never_reaches_an_inode_linked_outside() {
    let pair = Pair::new();
    pair.from().file("file", "new").file("truncated", "").file("longer", "old and more");
    pair.to().file("file", "old").file("truncated", "old").file("longer", "old");
    let outside = Tree(pair.root.clone());
    for name in ["file", "truncated", "longer"] {
        outside.link(format!("outside/{name}"), &format!("tree/{name}"));
    }
    pair.expect(&["--checksum"], 0);
    pair.assert_equal();
    for name in ["file", "truncated", "longer"] {
        assert_eq!(std::fs::read(outside.path(format!("outside/{name}"))).unwrap(), b"old");
    }
}

fn metadata_never_reaches_an_inode_linked_outside() {
    let pair = Pair::new();
    let outside = Tree(pair.root.clone());
    for (name, spoil) in [
        ("mode", (|to, name| _ = to.mode(name, 0o600)) as fn(&Tree, &str)),
        ("owner", |to, name| _ = to.owner(name, 55, 55)),
        ("time", |to, name| _ = to.mtime(name, 6, 6)),
        ("below", |to, name| _ = to.mtime(name, 5, 6)),
        ("xattr", |to, name| _ = to.xattr(name, "user.a", "1")),
        ("acl", |to, name| _ = to.xattr(name, ACCESS, acl_of_user(3))),
    ] {
        for tree in [pair.from(), pair.to()] {
            tree.file(name, "same").mode(name, 0o644).mtime(name, 5, 5);
        }
        spoil(&pair.to(), name);
        outside.link(format!("outside/{name}"), &format!("tree/{name}"));
    }
    pair.to().symlink("sym", "same").owner("sym", 55, 55).mtime("sym", 5, 5);
    pair.from().symlink("sym", "same").mtime("sym", 5, 5);
    outside.link("outside/sym", "tree/sym");
    let before = crate::support::compare::snapshot(&outside.path("outside"));
    pair.mirror();
    pair.assert_equal();
    let after = crate::support::compare::snapshot(&outside.path("outside"));
    for (path, entry) in &before {
        // An unlinked neighbour moves the change time; everything else has to stay.
        let mut now = after[path].clone();
        now.ctime = entry.ctime;
        assert_eq!(&now, entry, "{path:?}");
    }
}

fn a_follower_replaces_a_directory_that_has_an_acl() {
    let pair = Pair::new();
    pair.from().file("a", "x").link("b", "a").link("c/d", "a");
    for name in ["b", "c/d"] {
        pair.to().dir(name).xattr(name, DEFAULT, acl_of_user(7));
        pair.to().xattr(name, ACCESS, acl_of_user(8)).file(format!("{name}/in"), "x");
    }
    pair.mirror();
    pair.assert_equal();
}

fn a_group_of_thousands_is_one_inode() {
    let pair = Pair::new();
    pair.from().file("d0/first", "x");
    for number in 0..3000 {
        pair.from().link(format!("d{}/name{number}", number % 37), "d0/first");
    }
    pair.mirror();
    pair.assert_equal();
}

fn many_groups_race_for_their_first_name() {
    let pair = Pair::new();
    for group in 0..400 {
        let first = format!("d{}/g{group}", group % 20);
        pair.from().file(&first, format!("content of {group}"));
        for member in 1..4 {
            let name = format!("d{}/g{group}-{member}", (group + member * 7) % 20);
            pair.from().link(name, &first);
        }
    }
    pair.expect(&["--jobs", "16"], 0);
    pair.assert_equal();
}
