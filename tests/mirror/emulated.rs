//! A kernel that does not say which mount an entry is on: qemu's emulation of system calls before version 8. What
//! is on another mount is known all the same.

use std::process::{Command, Output};

use crate::support::compare::{differences, snapshot, touched};
use crate::support::mounts::Mounted;
use crate::support::pair::{Pair, said};
use crate::support::tree::Tree;
use crate::support::{Case, Need, PROGRAM, test_case};

pub fn cases() -> Vec<Case> {
    const QEMU: &[Need] = &[Need::Root, Need::Program("qemu-x86_64")];
    vec![
        test_case!(emulated_a_source_mount_is_left_out, QEMU),
        test_case!(emulated_nothing_on_a_mount_in_the_destination_is_removed, QEMU),
    ]
}

fn emulated(pair: &Pair) -> Output {
    let command = pair.command();
    Command::new("qemu-x86_64").arg(PROGRAM).args(command.get_args()).output().expect("qemu-x86_64")
}

fn emulated_a_source_mount_is_left_out() {
    let pair = Pair::new();
    let elsewhere = Tree::at(pair.beside("elsewhere"));
    elsewhere.file("secret", "x").file("deep/secret", "x");
    pair.from()
        .file("beside", "x")
        .file("dir/in", "x")
        .file("file", "covered")
        .dir("mnt")
        .dir("tmpfs");
    let _mounts = [
        // The same device, where only the mount differs; and a file of it.
        Mounted::bind(&elsewhere.0, pair.from().path("mnt")),
        Mounted::bind(&elsewhere.path("secret"), pair.from().path("file")),
        Mounted::tmpfs(pair.from().path("tmpfs"), "1m"),
    ];
    pair.from().file("tmpfs/secret", "x");
    let output = emulated(&pair);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    for mount in ["tree/mnt", "tree/file", "tree/tmpfs"] {
        assert!(said(&output).contains(mount), "{mount}: {}", said(&output));
    }
    assert!(pair.to().path("beside").exists() && pair.to().path("dir/in").exists());
    let secrets = snapshot(&pair.to().0);
    assert!(!format!("{secrets:?}").contains("secret"), "{secrets:?}");
}

fn emulated_nothing_on_a_mount_in_the_destination_is_removed() {
    let pair = Pair::new();
    pair.from().file("kept", "x").file("z/late", "x");
    pair.to().dir("surplus/mnt").dir("surplus/bound").file("z/surplus", "goes");
    let elsewhere = Tree::at(pair.beside("elsewhere"));
    elsewhere.file("precious", "x").file("deep/precious", "x");
    let mounts = [
        Mounted::tmpfs(pair.to().path("surplus/mnt"), "1m"),
        Mounted::bind(&elsewhere.0, pair.to().path("surplus/bound")),
    ];
    pair.to().file("surplus/mnt/precious", "x");
    let before = [snapshot(&elsewhere.0), snapshot(&pair.to().path("surplus/mnt"))];
    let output = emulated(&pair);
    assert_eq!(output.status.code(), Some(23), "{}", said(&output));
    let after = [snapshot(&elsewhere.0), snapshot(&pair.to().path("surplus/mnt"))];
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(touched(before, after), Vec::<String>::new(), "{}", said(&output));
    }
    assert_eq!(differences(&pair.from().path("z"), &pair.to().path("z")), Vec::<String>::new());
    drop(mounts);
    let output = emulated(&pair);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    pair.assert_equal();
}
