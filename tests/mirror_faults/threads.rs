//! Machines that refuse threads: the calling one does it all.

use std::process::Command;

use crate::support::pair::{Pair, said};
use crate::support::{Case, Need, PROGRAM, test_case};

/// Options of strace(1) with which no thread can be started.
pub const NO_THREADS: [&str; 4] =
    ["-f", "-qq", "-etrace=clone,clone3", "-einject=clone,clone3:error=EPERM"];

pub fn cases() -> Vec<Case> {
    let traced = &[Need::Root, Need::Program("rsync"), Need::Program("strace")];
    vec![test_case!(where_no_thread_can_be_started_one_does_it_all, traced)]
}

fn where_no_thread_can_be_started_one_does_it_all() {
    let pair = Pair::new();
    pair.from().zoo(3).file("large", vec![5; 20 << 20]).sparse("sparse", 64 << 20, 30 << 20, b"x");
    for number in 0..2000 {
        pair.from().file(format!("many/file{number}"), format!("{number}"));
    }
    pair.to().zoo(1).file("surplus/deep/in", "x").file("large/in", "x").file("many/file7", "old");
    let run = |options: &[&str]| {
        let mut command = Command::new("strace");
        command.args(NO_THREADS).arg(PROGRAM).args(pair.command().get_args()).args(options);
        let output = command.output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(text.contains("(INJECTED)"), "{text}");
        assert!(text.contains("WARN one thread does all of the copy"), "{text}");
        assert!(text.contains(": Operation not permitted"), "{text}");
    };
    run(&[]);
    pair.assert_equal();
    run(&["--checksum"]);
    pair.assert_equal();
}
