//! Files with several names.

use crate::fix_perms::{boot, warning, warnings};
use crate::support::sandbox::Sandbox;
use crate::support::{Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    const ROOT: &[Need] = &[Need::Root];
    vec![
        test_case!(a_group_whose_names_are_all_in_the_tree_is_given, ROOT),
        test_case!(a_file_with_a_name_outside_is_not_given_away, ROOT),
        test_case!(a_group_with_one_name_in_each_of_two_trees_is_not_given, ROOT),
        test_case!(the_users_own_links_to_outside_are_no_matter, ROOT),
        test_case!(a_name_reached_twice_through_a_bind_mount_counts_once, ROOT),
    ]
}

fn owners(sandbox: &Sandbox, paths: &str) -> String {
    sandbox.sh(&format!("stat -c %u:%g {paths}")).replace('\n', " ").trim_end().to_owned()
}

fn a_group_whose_names_are_all_in_the_tree_is_given() {
    let sandbox = Sandbox::with(
        "mkdir -p configs/a/b; echo x > configs/one; ln configs/one configs/a/two
         ln configs/one configs/a/b/three; mkfifo configs/f; ln configs/f configs/a/f
         for n in $(seq 200); do mkdir -p configs/store/$n; ln configs/one configs/store/$n/link; done",
    );
    let log = boot(&sandbox, 0);
    assert_eq!(warnings(&log), 0, "{log}");
    assert_eq!(
        owners(&sandbox, "/configs/one /configs/a/two /configs/a/b/three /configs/a/f"),
        "1000:1000 1000:1000 1000:1000 1000:1000"
    );
}

fn a_file_with_a_name_outside_is_not_given_away() {
    let sandbox = Sandbox::with(
        "echo secret > etc/secret; chmod 600 etc/secret
         mkdir configs/d; ln etc/secret configs/d/planted; ln etc/secret configs/again
         ln -s /x etc/link; ln etc/link home/agent/planted-link
         mkdir home/agent/.claude; ln etc/link home/agent/.claude/link; echo > configs/other",
    );
    let log = boot(&sandbox, 1);
    assert_eq!(owners(&sandbox, "/etc/secret /etc/link /configs/other"), "0:0 0:0 1000:1000");
    let line = warning(&log, "it has 3 names, and only 2 of them in this tree");
    assert!(line.contains("change owner of /configs/"), "{line}");
    assert!(line.ends_with("give it by hand if it is meant to be the user's"), "{line}");
    warning(&log, "it has 3 names, and only 1 of them in this tree");
    assert_eq!(warnings(&log), 2, "{log}");
}

fn a_group_with_one_name_in_each_of_two_trees_is_not_given() {
    let sandbox = Sandbox::with(
        "echo x > configs/one; mkdir home/agent/.claude; ln configs/one home/agent/.claude/two",
    );
    let log = boot(&sandbox, 1);
    assert_eq!(warnings(&log), 2, "{log}");
    assert_eq!(owners(&sandbox, "/configs/one"), "0:0");
}

fn the_users_own_links_to_outside_are_no_matter() {
    let sandbox = Sandbox::with(
        "echo x > home/agent/mine; chown 1000:5 home/agent/mine; chmod 4755 home/agent/mine
         ln home/agent/mine configs/mine",
    );
    assert_eq!(warnings(&boot(&sandbox, 0)), 0);
    assert_eq!(sandbox.sh("stat -c %u:%g:%a /configs/mine"), "1000:1000:755\n");
}

fn a_name_reached_twice_through_a_bind_mount_counts_once() {
    let sandbox = Sandbox::with(
        "mkdir -p configs/a configs/b; echo x > etc/secret; ln etc/secret configs/a/planted
         mount --bind configs/a configs/b",
    );
    let log = boot(&sandbox, 1);
    warning(&log, "it has 2 names, and only 1 of them in this tree");
    assert_eq!(owners(&sandbox, "/etc/secret"), "0:0");
}
