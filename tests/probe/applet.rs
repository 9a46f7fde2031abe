//! `restore --probe` from outside.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use pretty_assertions::assert_eq;

use crate::probe::image::{Image, Loop, PATH};
use crate::support::{self, Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    vec![
        test_case!(probe_prints_one_json_object, &[Need::Program("mke2fs")]),
        test_case!(probe_tells_a_terminal_nothing_by_a_label, &[Need::Program("mke2fs")]),
        test_case!(probe_lists_partitions, &[Need::Program("sfdisk"), Need::Program("mke2fs")]),
        test_case!(
            probe_of_a_read_only_device_node,
            &[Need::Root, Need::Loop, Need::Program("mke2fs")]
        ),
        test_case!(probe_of_nothing_gives_nulls, &[]),
        test_case!(probe_of_what_is_no_volume_is_an_error, &[]),
        test_case!(
            probe_needs_less_than_64_mib,
            &[Need::Program("prlimit"), Need::Program("sfdisk"), Need::Program("mke2fs")]
        ),
    ]
}

fn probed(device: &Path) -> Value {
    let text = support::ok(support::program().args(["restore", "--probe", "--device"]).arg(device));
    serde_json::from_str(&text).unwrap()
}

const LABELLED: &[&str] =
    &["-q", "-F", "-t", "ext4", "-L", "root", "-U", "00112233-4455-6677-8899-aabbccddeeff"];

fn probe_prints_one_json_object() {
    let image = Image::made(16, "mke2fs", LABELLED);
    let before = std::fs::read(image.path()).unwrap();
    let expected = json!({
        "device": image.path().to_str(),
        "fstype": "ext4",
        "uuid": "00112233-4455-6677-8899-aabbccddeeff",
        "label": "root",
        "partition_table": null,
        "partitions": [],
    });
    assert_eq!(probed(&image.path()), expected);
    assert_eq!(std::fs::read(image.path()).unwrap(), before);
}

fn probe_tells_a_terminal_nothing_by_a_label() {
    const LABEL: &str = "\u{9b}2J\u{1b}\u{7f}\u{202e}\u{200e}é";
    let image = Image::made(16, "mke2fs", &["-q", "-F", "-t", "ext4", "-L", LABEL]);
    let mut command = support::program();
    let text = support::ok(command.args(["restore", "--probe", "--device"]).arg(image.path()));
    assert!(
        !text.contains(|c: char| c != '\n' && c != 'é' && (c.is_control() || !c.is_ascii())),
        "{text:?}"
    );
    assert!(text.contains(r#""\u009b2J\u001b\u007f\u202e\u200eé""#), "{text}");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["label"], LABEL);
}

fn probe_lists_partitions() {
    let image = Image::new(32);
    crate::probe::tables::sfdisk(&image.path(), "label: gpt\nsize=1M\nsize=16M\n");
    image.place(2 << 20, &Image::made(16, "mke2fs", LABELLED));
    let found = probed(&image.path());
    assert_eq!(found["fstype"], Value::Null);
    assert_eq!(found["partition_table"], "gpt");
    let expected = json!([
        { "number": 1, "fstype": null, "uuid": null, "label": null,
          "start_bytes": 1 << 20, "size_bytes": 1 << 20 },
        { "number": 2, "fstype": "ext4", "uuid": "00112233-4455-6677-8899-aabbccddeeff",
          "label": "root", "start_bytes": 2 << 20, "size_bytes": 16 << 20 },
    ]);
    assert_eq!(found["partitions"], expected);
}

fn probe_of_a_read_only_device_node() {
    let image = Image::made(16, "mke2fs", LABELLED);
    let mut command = Command::new("losetup");
    command.args(["--find", "--show", "--read-only"]).arg(image.path());
    let device = Loop::named(&mut command);
    let found = probed(Path::new(device.path()));
    assert_eq!((&found["fstype"], &found["label"]), (&json!("ext4"), &json!("root")));
    assert_eq!(found["device"], device.path());
}

fn probe_of_nothing_gives_nulls() {
    let image = Image::new(1);
    let expected = json!({
        "device": image.path().to_str(), "fstype": null, "uuid": null, "label": null,
        "partition_table": null, "partitions": [],
    });
    assert_eq!(probed(&image.path()), expected);
}

fn probe_of_what_is_no_volume_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    for (path, reason) in [
        (directory.path(), "it is neither a block device nor a regular file"),
        (Path::new("/dev/null"), "it is neither a block device nor a regular file"),
        (Path::new("/no/such/device"), "No such file or directory"),
    ] {
        let mut command = support::program();
        let output = command.args(["restore", "--probe", "--device"]).arg(path).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(output.stdout.is_empty());
        assert!(stderr.contains(reason) && stderr.lines().count() == 1, "{stderr}");
    }
}

/// The limit is on the address space, so that a large allocation fails even if it is never touched.
fn probe_needs_less_than_64_mib() {
    let image = Image::new(160);
    let script: String = (0..127).map(|_| "size=1M\n").collect();
    crate::probe::tables::sfdisk(&image.path(), &format!("label: gpt\n{script}size=16M\n"));
    image.place(128 << 20, &Image::made(16, "mke2fs", LABELLED));
    let mut command = Command::new("prlimit");
    command.args(["--as=67108864", support::PROGRAM, "restore", "--probe", "--device"]);
    let text = support::ok(command.arg(image.path()).env("PATH", PATH));
    let found: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(found["partitions"].as_array().unwrap().len(), 128);
    assert_eq!(found["partitions"][127]["label"], "root");
}
