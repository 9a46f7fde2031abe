//! Run by an ordinary user over a tree of the user's own: what rsync manages, the restore manages too.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::compare::differences;
use crate::support::pair::{Pair, said};
use crate::support::tree::Tree;
use crate::support::{Case, ok, test_case};

const USER: u32 = 12_345;

pub fn cases() -> Vec<Case> {
    let needs = crate::mirror::NEEDS;
    vec![
        test_case!(an_ordinary_user_gets_read_only_files_with_xattrs, needs),
        test_case!(an_ordinary_user_gets_files_in_read_only_directories, needs),
        test_case!(an_ordinary_user_s_closed_directories_are_mended, needs),
        test_case!(an_ordinary_user_s_unreadable_files_are_replaced, needs),
        test_case!(an_ordinary_user_s_read_only_surplus_is_removed, needs),
    ]
}

fn own(path: &Path) {
    for entry in walkdir::WalkDir::new(path) {
        std::os::unix::fs::lchown(entry.unwrap().path(), Some(USER), Some(USER)).unwrap();
    }
}

/// Runs rsync and the restore as the user over equal trees; both have to succeed.
#[track_caller]
fn compared(source: impl FnOnce(&Tree), destination: impl Fn(&Tree)) {
    let pair = Pair::new();
    source(&pair.from());
    let by_rsync = Tree::at(pair.beside("rsync"));
    destination(&pair.to());
    destination(&by_rsync);
    let top = pair.source.parent().unwrap();
    own(top);
    std::fs::set_permissions(top, std::fs::Permissions::from_mode(0o700)).unwrap();
    let as_user = |mut command: Command| -> Output {
        command.uid(USER).gid(USER).current_dir("/").output().unwrap()
    };
    let mut rsync = Command::new("rsync");
    rsync.args(["-aHAX", "--delete", "--numeric-ids", "--one-file-system"]);
    rsync.arg(format!("{}/", pair.from().0.display())).arg(&by_rsync.0);
    let output = as_user(rsync);
    assert!(output.status.success(), "{}", said(&output));
    let program = pair.beside("program");
    crate::support::copy_program(crate::support::PROGRAM, &program);
    for options in [&[][..], &["--checksum"]] {
        let mut restore = Command::new(&program);
        restore.args(pair.command().get_args()).args(options);
        let output = as_user(restore);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert_eq!(differences(&pair.from().0, &pair.to().0), Vec::<String>::new());
    }
    // So that the temporary directory can be removed whoever removes it.
    ok(Command::new("chmod").args(["-R", "u+rwX"]).arg(top));
}

fn an_ordinary_user_gets_read_only_files_with_xattrs() {
    compared(
        |from| {
            for name in ["new", "touched", "dir/replaced", "mode", "less"] {
                from.file(name, "content").xattr(name, "user.colour", "blue").mtime(name, 5, 5);
                from.mode(name, 0o444);
            }
            from.dir("attributed")
                .xattr("attributed", "user.colour", "blue")
                .mode("attributed", 0o555);
            from.dir("fresh/in").xattr("fresh/in", "user.colour", "blue").mode("fresh/in", 0o555);
        },
        |to| {
            for name in ["touched", "less"] {
                to.file(name, "content").xattr(name, "user.colour", "red").mtime(name, 5, 5);
                to.xattr(name, "user.surplus", "x").mode(name, 0o444);
            }
            to.file("mode", "content").mtime("mode", 5, 5).mode("mode", 0o400);
            to.file("dir/replaced", "other").mode("dir/replaced", 0o444);
            to.dir("attributed").xattr("attributed", "user.surplus", "x").mode("attributed", 0o555);
        },
    );
}

fn an_ordinary_user_gets_files_in_read_only_directories() {
    compared(
        |from| {
            from.file("there/new", "x").file("there/deep/new", "x").file("fresh/new", "x");
            from.file("there/changed", "new").symlink("there/sym", "x").fifo("there/fifo");
            from.link("there/linked", "there/new").file("mended/new", "x").dir("there/fresh/deep");
            for name in ["there/deep", "there/fresh/deep", "there/fresh", "there", "fresh", ""] {
                from.mtime(name, 5, 5).mode(name, 0o555);
            }
        },
        |to| {
            to.file("there/changed", "old!").dir("there/deep").file("mended/old", "x");
            for name in ["there/deep", "there", "mended", ""] {
                to.mode(name, 0o555);
            }
        },
    );
}

fn an_ordinary_user_s_closed_directories_are_mended() {
    compared(
        |from| {
            from.file("none/in", "x").file("none/deep/in", "x").file("write/in", "x");
            from.file("stays/in", "x").mtime("stays", 5, 5).mode("stays", 0o500);
        },
        |to| {
            to.file("none/old", "x").file("none/deep/in", "yy").file("write/old", "x");
            to.file("stays/in", "yy").mode("stays", 0o000);
            to.mode("none/deep", 0o000).mode("none", 0o000).mode("write", 0o200);
        },
    );
}

fn an_ordinary_user_s_unreadable_files_are_replaced() {
    compared(
        |from| {
            from.file("changed", "new").mtime("changed", 5, 5);
            from.file("same", "same").mtime("same", 5, 5);
            from.file("nanoseconds", "same").mtime("nanoseconds", 5, 7);
        },
        |to| {
            to.file("changed", "old").mtime("changed", 5, 6).mode("changed", 0o000);
            to.file("same", "same").mtime("same", 5, 5).mode("same", 0o000);
            to.file("nanoseconds", "same").mtime("nanoseconds", 5, 6).mode("nanoseconds", 0o000);
        },
    );
}

fn an_ordinary_user_s_read_only_surplus_is_removed() {
    compared(
        |from| {
            from.file("dir/file", "x").file("replaced", "x").mode("dir", 0o555);
        },
        |to| {
            to.file("dir/file", "x").file("dir/surplus", "x").file("dir/deep/surplus/in", "x");
            to.file("surplus/in/deep", "x").file("replaced/in/deep", "x");
            for name in ["dir/deep/surplus", "dir/deep", "dir", "surplus/in", "surplus"] {
                to.mode(name, 0o555);
            }
            to.mode("replaced/in", 0o555).mode("replaced", 0o500);
        },
    );
}
