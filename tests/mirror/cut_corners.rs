//! What a fast or a careless copy would get wrong.

use std::fs::{metadata, read_to_string};
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::support::pair::{Pair, said};
use crate::support::tree::CAPABILITY;
use crate::support::{Case, Need, PROGRAM, test_case};

pub fn cases() -> Vec<Case> {
    let needs = crate::mirror::NEEDS;
    let traced: &[Need] = &[Need::Root, Need::Program("strace")];
    vec![
        test_case!(many_large_files_need_no_more_than_64_descriptors, needs),
        test_case!(what_equals_by_size_and_time_gets_no_set_id_bits, needs),
        test_case!(names_that_an_earlier_process_left_are_data, needs),
        test_case!(the_marker_of_the_snapshot_is_not_restored, needs),
        test_case!(a_file_mount_that_is_left_out_hides_no_surplus, needs),
        test_case!(a_sparse_file_costs_what_is_in_it, traced),
    ]
}

#[track_caller]
fn shell(pair: &Pair, script: &str) {
    let command = pair.command();
    let mut shell = Command::new("sh");
    let output = shell.args(["-ec", script, PROGRAM]).args(command.get_args()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

fn many_large_files_need_no_more_than_64_descriptors() {
    let pair = Pair::new();
    for number in 0..60 {
        pair.from().file(format!("file{number}"), vec![number; 8 << 20]);
    }
    shell(&pair, "ulimit -n 64; exec \"$0\" \"$@\" --jobs 1");
    pair.assert_equal_to_the_comparator();
}

fn what_equals_by_size_and_time_gets_no_set_id_bits() {
    let pair = Pair::new();
    for (tree, content) in [(pair.from(), "good"), (pair.to(), "evil")] {
        for name in ["su", "capable", "plain"] {
            tree.file(name, content).mtime(name, 5, 5);
        }
    }
    pair.from().mode("su", 0o4755).xattr("capable", "security.capability", CAPABILITY);
    for name in ["", "su", "capable", "plain"] {
        pair.to().owner(name, 1000, 1000);
    }
    pair.mirror();
    for (name, content) in [("su", "good"), ("capable", "good"), ("plain", "evil")] {
        assert_eq!(read_to_string(pair.to().path(name)).unwrap(), content, "{name}");
        pair.to().file(name, "good").mtime(name, 5, 5);
    }
    pair.mirror();
    pair.assert_equal();
}

fn names_that_an_earlier_process_left_are_data() {
    let pair = Pair::new();
    for number in 0..200 {
        pair.from().file(format!("file{number}"), format!("new {number}"));
        pair.to().file(format!("file{number}"), format!("the old {number}"));
    }
    // The shell becomes the program, so the names hold its process number.
    let script = "for n in $(seq 0 400); do \
        echo left $n > \"$8/tree/.molecule-tools.$$.$n\"; done; exec \"$0\" \"$@\"";
    shell(&pair, script);
    pair.assert_equal();
}

fn the_marker_of_the_snapshot_is_not_restored() {
    let pair = Pair::new();
    let marker = pair.source.join("configs/.restore-completed");
    std::fs::create_dir_all(marker.parent().unwrap()).unwrap();
    std::fs::write(&marker, "of the snapshot").unwrap();
    std::fs::write(pair.source.join("configs/kept"), "kept").unwrap();
    std::fs::write(pair.root.join("configs/surplus"), "goes").unwrap();
    let output = pair.expect(&["--path", "configs", "--dry-run"], 0);
    assert!(!said(&output).contains("restore-completed"), "{}", said(&output));
    let mut whole = pair.command();
    whole.args(["--path", "configs"]).env("MOLECULE_RESTORE_PATHS", "tree:configs");
    let output = whole.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(read_to_string(pair.marker()).unwrap().contains("\"status\": 0"));
    assert!(pair.root.join("configs/kept").exists());
    assert!(!pair.root.join("configs/surplus").exists());
}

fn a_file_mount_that_is_left_out_hides_no_surplus() {
    let pair = Pair::new();
    std::fs::write(pair.beside("other"), "of another tree").unwrap();
    pair.from().file("mounted", "");
    pair.to().file("surplus", "goes");
    let script = "mount --bind \"$(dirname \"$8\")/other\" \"$8/tree/mounted\"; exec \"$0\" \"$@\"";
    let command = pair.command();
    let mut shell = Command::new("unshare");
    shell.args(["-m", "sh", "-ec", script, PROGRAM]).args(command.get_args());
    let output = shell.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("left out"), "{}", said(&output));
    assert_eq!(std::fs::read_dir(pair.to().0).unwrap().count(), 0);
}

fn a_sparse_file_costs_what_is_in_it() {
    let pair = Pair::new();
    let file = std::fs::File::create(pair.from().path("file")).unwrap();
    file.set_len(1 << 42).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"in the middle", 1 << 41).unwrap();
    drop(file);
    // Seconds are no measure; calls are: far fewer than one for each 2 MiB of the hole.
    let command = pair.command();
    let log = pair.beside("log");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=lseek", "-o"]).arg(&log).arg(PROGRAM);
    let output = strace.args(command.get_args()).arg("--verify").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(read_to_string(log).unwrap().lines().count() < 10_000);
    let copy = metadata(pair.to().path("file")).unwrap();
    assert_eq!(copy.size(), 1 << 42);
    assert!(copy.blocks() < 1000);
}
