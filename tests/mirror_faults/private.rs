//! Files of the agent's in directories that only root can enter: whose they are after a restore that
//! does not replace them.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};

use crate::support::pair::{Pair, said};
use crate::support::{Case, PROGRAM, test_case};

pub fn cases() -> Vec<Case> {
    let needs = crate::mirror_faults::NEEDS;
    vec![
        test_case!(a_private_file_that_no_run_made_keeps_its_owner, needs),
        test_case!(what_a_killed_run_left_half_written_becomes_root_s, needs),
    ]
}

/// A directory of root's with `mode`, and in it files of the agent's: one that only the destination
/// has, one that the source has too and that will not be replaced.
fn pair_of(mode: u32) -> Pair {
    let pair = Pair::new();
    let (from, to) = (pair.from(), pair.to());
    from.file("dir/large", vec![1; 3 << 20]).file("dir/beside", "new").mode("dir", 0o755);
    for name in ["dir/own", "dir/large"] {
        to.file(name, "the agent's").mode(name, 0o600).owner(name, 1000, 1000);
    }
    to.mode("dir", mode);
    pair
}

/// A restore under a limit that keeps the large file from being replaced.
fn limited(pair: &Pair, options: &[&str]) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 1024; exec \"$@\"", "sh", PROGRAM]);
    shell.args(pair.command().get_args()).args(options).output().unwrap()
}

/// Restores without deletion, and with deletion withheld; gives the owners of both files.
#[track_caller]
fn owners(mode: u32) -> Vec<(u32, u32)> {
    [&["--no-delete"][..], &[]]
        .iter()
        .map(|options| {
            let pair = pair_of(mode);
            let output = limited(&pair, options);
            assert!(said(&output).contains("exited 11"), "{}", said(&output));
            let to = pair.to();
            assert_eq!(to.path("dir").metadata().unwrap().mode() & 0o7777, 0o755);
            assert_eq!(std::fs::read(to.path("dir/beside")).unwrap(), b"new");
            for name in ["dir/own", "dir/large"] {
                assert_eq!(std::fs::read(to.path(name)).unwrap(), b"the agent's");
            }
            let owner = |name| to.path(name).metadata().unwrap().uid();
            (owner("dir/own"), owner("dir/large"))
        })
        .collect()
}

fn a_private_file_that_no_run_made_keeps_its_owner() {
    assert_eq!(owners(0o700), [(1000, 1000); 2]);
}

fn what_a_killed_run_left_half_written_becomes_root_s() {
    // A directory in the making; the name that the source does not have is none of this run's.
    assert_eq!(owners(0o1700), [(1000, 0); 2]);
}
