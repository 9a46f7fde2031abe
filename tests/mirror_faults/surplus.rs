//! Once the source has answered with an error, nothing is removed any more.

use std::process::{Command, Output};

use crate::support::pair::{Pair, said};
use crate::support::{Case, Need, PROGRAM, test_case};

pub fn cases() -> Vec<Case> {
    let traced = &[Need::Root, Need::Program("rsync"), Need::Program("strace")];
    vec![
        test_case!(a_source_that_fails_while_surplus_is_removed_ends_it, traced),
        test_case!(also_within_a_large_tree_that_another_thread_removes, traced),
        test_case!(after_an_error_no_full_directory_gives_way, traced),
        test_case!(interrupted_system_calls_are_made_again, traced),
    ]
}

fn traced(pair: &Pair, options: &[&str], jobs: &str) -> Output {
    Command::new("strace")
        .args(["-f", "-qq"])
        .args(options)
        .arg(PROGRAM)
        .args(pair.command().get_args())
        .args(["--jobs", jobs])
        .output()
        .unwrap()
}

#[track_caller]
fn failed(output: &Output) {
    let text = said(output);
    assert_eq!(output.status.code(), Some(23), "{text}");
    assert!(text.contains("(INJECTED)"), "{text}");
    assert!(text.contains("is deleted, because not everything at the source"), "{text}");
}

fn a_source_that_fails_while_surplus_is_removed_ends_it() {
    for errno in ["EPERM", "ENOMEM", "EIO", "ESTALE"] {
        let pair = Pair::new();
        for number in 0..30 {
            pair.from().file(format!("dir{number}/file"), "x");
            pair.to().file(format!("dir{number}/surplus/in"), "x");
            pair.to().file(format!("dir{number}/surplus file"), "x");
            pair.to().file(format!("dir{number}/unsure"), "x");
        }
        let inject = format!("--inject=statx:error={errno}");
        let output = traced(&pair, &["--trace-path=unsure", &inject], "1");
        failed(&output);
        let mut touched = 0;
        for number in 0..30 {
            let there = |name| pair.to().path(format!("dir{number}/{name}")).exists();
            assert!(there("file") && there("unsure"));
            touched += usize::from(!there("surplus/in") || !there("surplus file"));
        }
        // In the first one some names can come before the one that is not known.
        assert!(touched <= 1, "{touched} directories are not as they were, {errno}");
        pair.mirror();
        pair.assert_equal();
    }
}

fn also_within_a_large_tree_that_another_thread_removes() {
    const FILES: usize = 40_000;
    let pair = Pair::new();
    pair.from().file("dir/file", "x");
    pair.to().file("unsure", "x");
    for number in 0..FILES {
        let path = pair.to().path(format!("dir/surplus/sub{}", number % 4));
        if number < 4 {
            std::fs::create_dir_all(&path).unwrap();
        }
        std::fs::File::create(path.join(number.to_string())).unwrap();
    }
    let inject = "--inject=statx:error=EIO:delay_enter=30000:when=1";
    let output = traced(&pair, &["--trace-path=unsure", inject], "2");
    failed(&output);
    let left = walkdir::WalkDir::new(pair.to().path("dir/surplus")).into_iter().count();
    assert!(left > FILES / 10, "{left} are left");
}

fn after_an_error_no_full_directory_gives_way() {
    let pair = Pair::new();
    pair.from().file("unreadable", "x").file("dir/conflict", "x").file("dir/other", "x");
    pair.to().file("dir/conflict/in", "x").dir("dir/other");
    let output = traced(&pair, &["--trace-path=unreadable", "--inject=openat:error=EIO"], "1");
    failed(&output);
    assert!(pair.to().path("dir/conflict/in").exists(), "{}", said(&output));
    // An empty one holds nothing that could be lost.
    assert_eq!(std::fs::read(pair.to().path("dir/other")).unwrap(), b"x");
    pair.mirror();
    pair.assert_equal();
}

fn interrupted_system_calls_are_made_again() {
    const CALLS: &str = "openat,statx,getdents64,mkdirat,linkat,unlinkat,renameat,symlinkat,mknodat,\
                         readlinkat,fchownat,utimensat,fchmod,flistxattr,fgetxattr,fsetxattr,llistxattr,\
                         lgetxattr,lsetxattr,lseek,ftruncate,fallocate";
    for step in [2, 3] {
        let pair = Pair::new();
        pair.from().zoo(2);
        pair.to().file("cage0/surplus/in", "x").file("cage0/plain/sub/file1", "old");
        // Every call of its kind, but for those that are made again.
        let inject = format!("--inject={CALLS}:error=EINTR:when=20+{step}");
        let output = traced(&pair, &[&inject], "1");
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(said(&output).matches("(INJECTED)").count() > 100);
        pair.assert_equal();
    }
}
