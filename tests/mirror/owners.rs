//! Files that are born with their owner, and what must not come of it.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};

use molecule_tools::fs::{FsIds, KeepDumpable};
use rustix::process::{DumpableBehavior, dumpable_behavior};

use crate::support::mounts::{Mounted, ext4_image};
use crate::support::pair::{Pair, said};
use crate::support::{Case, Need, PROGRAM, ok, test_case};

pub fn cases() -> Vec<Case> {
    const LIMITED: &[Need] = &[Need::Root, Need::Program("rsync"), Need::Program("setpriv")];
    const DISK: &[Need] = &[
        Need::Root,
        Need::Loop,
        Need::Program("rsync"),
        Need::Program("setpriv"),
        Need::Filesystem("ext4"),
    ];
    const TRACED: &[Need] = &[Need::Root, Need::Program("rsync"), Need::Program("strace")];
    vec![
        test_case!(files_of_a_new_directory_are_born_with_their_owner, TRACED),
        test_case!(what_is_reserved_for_root_is_there_for_every_file, DISK),
        test_case!(a_destination_that_gives_files_its_own_group_is_mended, DISK),
        test_case!(only_some_directories_give_files_their_group, crate::mirror::NEEDS),
        test_case!(fewer_capabilities_make_it_slower_not_wrong, LIMITED),
        test_case!(a_thread_takes_ids_keeps_its_power_and_gives_them_back, &[Need::Root]),
    ]
}

/// A new directory in which the owner changes from file to file.
fn mixed(pair: &Pair) {
    let owners = [(1000, 1000), (0, 0), (1000, 33), (3_000_000_000, 4_294_967_294), (0, 1000)];
    for number in 0..60 {
        let name = format!("new/dir{}/file{number}", number % 3);
        let (uid, gid) = owners[number % owners.len()];
        let mode = [0o644, 0o600, 0o4755, 0o2711, 0o440, 0, 0o666][number % 7];
        let tree = pair.from();
        tree.file(&name, "x".repeat(number * 300)).owner(&name, uid, gid).mode(&name, mode);
        if number % 11 == 0 {
            tree.xattr(&name, "user.a", "value").xattr(&name, "trusted.b", "value");
        }
    }
}

fn files_of_a_new_directory_are_born_with_their_owner() {
    let pair = Pair::new();
    mixed(&pair);
    let trace = pair.beside("trace");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=fchownat,fchown,chown,lchown", "-o"])
        .args([trace.to_str().unwrap(), PROGRAM])
        .args(pair.command().get_args())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    pair.assert_equal();
    let changes = std::fs::read_to_string(trace).unwrap();
    let changes = changes.lines().filter(|line| line.contains("chown")).count();
    assert!(changes < 20, "{changes} changes of owner for 60 files");
}

/// Restores with these capabilities missing from the bounding set.
#[track_caller]
fn without(pair: &Pair, capabilities: &str) -> Output {
    let output = Command::new("setpriv")
        .args(["--bounding-set", capabilities, PROGRAM])
        .args(pair.command().get_args())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    output
}

fn what_is_reserved_for_root_is_there_for_every_file() {
    let pair = Pair::new();
    let image = pair.beside("image");
    ext4_image(&image, 64, &["-m", "40"]);
    let mounted = Mounted::image(&image, pair.to().0, "rw");
    std::fs::remove_dir(mounted.0.join("lost+found")).unwrap();
    let space = || {
        let space = rustix::fs::statvfs(&mounted.0).unwrap();
        (space.f_bavail * space.f_frsize, space.f_bfree * space.f_frsize)
    };
    let (for_all, for_root) = space();
    let wanted = for_all.midpoint(for_root);
    for number in 0..wanted / 40_960 {
        // Names so long that directories grow on the way.
        let name = format!("dir{}/{}{number}", number % 5, "long".repeat(50));
        pair.from().file(&name, vec![number as u8; 40_000]).owner(&name, 1000, 1000);
    }
    // With CAP_SYS_RESOURCE anybody may have it.
    without(&pair, "-sys_resource");
    rustix::fs::syncfs(std::fs::File::open(&pair.to().0).unwrap()).unwrap();
    assert_eq!(space().0, 0, "it did not come to the reserve");
    pair.assert_equal();
}

fn a_destination_that_gives_files_its_own_group_is_mended() {
    for (options, mode) in [("rw,grpid", 0o755), ("rw", 0o2777)] {
        let pair = Pair::new();
        let image = pair.beside("image");
        ext4_image(&image, 32, &[]);
        let _mounted = Mounted::image(&image, pair.to().0, options);
        std::fs::remove_dir(pair.to().path("lost+found")).unwrap();
        pair.to().dir("zoo").owner("", 5, 77).mode("", mode).owner("zoo", 5, 77).mode("zoo", mode);
        mixed(&pair);
        pair.from().zoo(2);
        pair.mirror();
        pair.assert_equal();
    }
}

/// One thread goes from a directory that gives its own group to one that does not, and back.
fn only_some_directories_give_files_their_group() {
    let pair = Pair::new();
    for top in ["a", "b", "c"] {
        for number in 0..30 {
            let name = format!("{top}/new{}/{number}", number % 3);
            pair.from().file(&name, "x").owner(&name, 1000, 1000);
        }
    }
    for tree in [pair.from(), pair.to()] {
        tree.dir("a").dir("b").dir("c").owner("b", 5, 77).mode("b", 0o2777);
    }
    pair.expect(&["--jobs", "1"], 0);
    pair.assert_equal();
}

fn fewer_capabilities_make_it_slower_not_wrong() {
    // CAP_SETPCAP is for keeping the others, CAP_SETUID and CAP_SETGID are for the ids themselves.
    for missing in ["-setpcap", "-setuid", "-setgid", "-setuid,-setgid", "-setpcap,-sys_resource"] {
        let pair = Pair::new();
        mixed(&pair);
        pair.from().zoo(1);
        without(&pair, missing);
        pair.assert_equal();
    }
}

fn a_thread_takes_ids_keeps_its_power_and_gives_them_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("closed"), "secret").unwrap();
    ok(Command::new("chmod").arg("0").arg(path("closed")));
    let owner = |name: &str| {
        std::fs::write(path(name), "x").unwrap();
        let data = path(name).metadata().unwrap();
        (data.uid(), data.gid())
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let kept = KeepDumpable::note();
            assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::Dumpable));
            let mut ids = FsIds::of_this_thread();
            assert!(!ids.reset());
            ids.take(1000, 33);
            assert_eq!(owner("theirs"), (1000, 33));
            assert_eq!(std::fs::read(path("closed")).unwrap(), b"secret");
            assert!(ids.reset());
            assert_eq!(owner("ours"), (0, 0));
            ids.take(1000, 33);
            // An id that cannot be: not that of the file before either.
            ids.take(u32::MAX, 44);
            assert_eq!(owner("nobody's"), (0, 0));
            ids.take(1000, 1000);
            drop(ids);
            assert_eq!(owner("ours again"), (0, 0));
            assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
            drop(kept);
            assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::Dumpable));
        });
    });
    assert_eq!(owner("of another thread"), (0, 0));
}
