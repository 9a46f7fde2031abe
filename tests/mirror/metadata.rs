//! Owners, modes, times and special files.

use std::process::Command;

use rustix::fs::FileType;

use crate::support::compare::{snapshot, touched};
use crate::support::pair::{Pair, said};
use crate::support::{Case, PROGRAM, test_case};

pub fn cases() -> Vec<Case> {
    let needs = crate::mirror::NEEDS;
    vec![
        test_case!(set_id_and_sticky_bits_survive_whatever_the_umask, needs),
        test_case!(every_permission_set_is_kept_and_mended, needs),
        test_case!(owners_above_2_to_the_31_and_without_names_are_numbers, needs),
        test_case!(times_are_kept_to_the_nanosecond_before_1970_and_far_ahead, needs),
        test_case!(times_that_differ_below_the_second_are_mended, needs),
        test_case!(directory_times_come_after_their_children, needs),
        test_case!(symlinks_have_owner_times_and_xattrs_of_their_own, needs),
        test_case!(devices_fifos_and_sockets_are_made_and_mended, needs),
        test_case!(a_block_and_a_char_device_with_equal_numbers_are_told_apart, needs),
        test_case!(a_wrong_owner_or_mode_is_mended_without_new_inodes, needs),
        test_case!(a_zoo_is_copied_perfectly_and_again_no_inode_is_touched, needs),
        test_case!(a_destination_full_of_other_metadata_is_mended, needs),
        test_case!(the_source_is_only_read, needs),
    ]
}

#[track_caller]
fn under_umask(pair: &Pair, umask: &str) {
    let inner = pair.command();
    let mut outer = Command::new("sh");
    outer.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh", PROGRAM]);
    let output = outer.args(inner.get_args()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

fn set_id_and_sticky_bits_survive_whatever_the_umask() {
    for umask in ["000", "077", "777"] {
        let pair = Pair::new();
        let from = pair.from();
        for mode in [0o4755, 0o2755, 0o6711, 0o1644, 0o7777, 0o2640, 0o4000] {
            let (file, dir) = (format!("f{mode:o}"), format!("d{mode:o}"));
            from.file(&file, "x").owner(&file, 1000, 1000).mode(&file, mode);
            from.file(format!("{dir}/child"), "y").owner(&dir, 1000, 2375).mode(&dir, mode);
        }
        from.fifo("pipe").owner("pipe", 7, 8).mode("pipe", 0o666);
        from.mode("", 0o3777);
        under_umask(&pair, umask);
        pair.assert_equal();
    }
}

fn every_permission_set_is_kept_and_mended() {
    let pair = Pair::new();
    let (from, to) = (pair.from(), pair.to());
    for mode in (0..0o10_000).step_by(7) {
        let name = format!("{mode:04o}");
        from.file(&name, "").mode(&name, mode).mtime(&name, 1_000, 0);
        if mode % 2 == 0 {
            to.file(&name, "").mode(&name, !mode & 0o7777).mtime(&name, 1_000, 0);
        }
    }
    pair.mirror();
    pair.assert_equal();
}

fn owners_above_2_to_the_31_and_without_names_are_numbers() {
    let pair = Pair::new();
    for (number, id) in [0, 1000, 65_534, 65_536, 1 << 31, u32::MAX - 1].into_iter().enumerate() {
        let (file, dir, link) = (format!("f{number}"), format!("d{number}"), format!("l{number}"));
        pair.from().file(&file, "x").owner(&file, id, u32::MAX - 1 - id);
        pair.from().file(format!("{dir}/in"), "x").owner(&dir, id, id);
        pair.from().symlink(&link, &file).owner(&link, id, id);
    }
    pair.from().owner("", 3_000_000_000, 4_000_000_000);
    pair.mirror();
    pair.assert_equal();
}

fn times_are_kept_to_the_nanosecond_before_1970_and_far_ahead() {
    let pair = Pair::new();
    let instants = [
        (0, 0),
        (-1, 999_999_999),
        (-2_000_000_000, 1),
        (1, 1),
        (2_147_483_648, 999_999_999),
        (4_294_967_296, 500_000_000),
        (15_000_000_000, 7),
    ];
    for (number, (seconds, nanoseconds)) in instants.into_iter().enumerate() {
        let (file, dir, link) = (format!("f{number}"), format!("d{number}"), format!("l{number}"));
        let from = pair.from();
        from.file(&file, "x").mtime(&file, seconds, nanoseconds);
        from.file(format!("{dir}/in"), "x").mtime(&dir, seconds, nanoseconds);
        from.symlink(&link, &file).mtime(&link, seconds, nanoseconds);
    }
    pair.mirror();
    pair.assert_equal();
}

fn times_that_differ_below_the_second_are_mended() {
    let pair = Pair::new();
    for tree in [pair.from(), pair.to()] {
        tree.file("file", "same").file("dir/in", "same").symlink("link", "file").fifo("fifo");
    }
    for (nanoseconds, tree) in [(500, pair.from()), (501, pair.to())] {
        for name in ["file", "dir/in", "dir", "link", "fifo"] {
            tree.mtime(name, 1_600_000_000, nanoseconds);
        }
    }
    pair.mirror();
    pair.assert_equal();
}

fn directory_times_come_after_their_children() {
    let pair = Pair::new();
    let from = pair.from();
    let mut path = String::from("top");
    for depth in 0..20 {
        from.file(format!("{path}/file"), "x")
            .link(format!("{path}/other"), &format!("{path}/file"));
        path = format!("{path}/{depth}");
    }
    from.dir(&path);
    let mut directory = path.as_str();
    for number in 0..=20 {
        from.mtime(directory, 1_000_000 + number, 123_456_789);
        directory = directory.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    from.mtime("", 42, 42);
    pair.to().file("top/0/1/surplus/deep", "goes").dir("top/0/1/2/empty");
    pair.mirror();
    pair.assert_equal();
}

fn symlinks_have_owner_times_and_xattrs_of_their_own() {
    let pair = Pair::new();
    let (from, to) = (pair.from(), pair.to());
    for (tree, number) in [(&from, 1), (&to, 2)] {
        tree.symlink("a", "target").owner("a", 100 * number, 7).mtime("a", 99, number.into());
        tree.xattr("a", "trusted.of", number.to_string());
    }
    to.xattr("a", "trusted.surplus", "goes").symlink("b", "elsewhere");
    from.symlink("b", &"long/".repeat(800)).owner("b", 5, 6).xattr("b", "trusted.x", "");
    from.symlink("absolute", "/etc/passwd").symlink("up", "../../../..");
    pair.mirror();
    pair.assert_equal();
}

fn devices_fifos_and_sockets_are_made_and_mended() {
    let pair = Pair::new();
    let (from, to) = (pair.from(), pair.to());
    from.fifo("fifo").owner("fifo", 9, 9).mode("fifo", 0o622).mtime("fifo", 77, 77);
    from.socket("socket").mode("socket", 0o755).owner("socket", 9, 9);
    from.node("zero", FileType::CharacterDevice, 1, 5).mode("zero", 0o666);
    from.node("big", FileType::BlockDevice, 4095, 1_048_575).owner("big", 0, 6);
    from.node("moved", FileType::CharacterDevice, 10, 200).xattr("moved", "trusted.a", "1");
    to.node("moved", FileType::CharacterDevice, 10, 201).fifo("fifo").mode("fifo", 0o600);
    pair.mirror();
    pair.assert_equal();
}

fn a_block_and_a_char_device_with_equal_numbers_are_told_apart() {
    let pair = Pair::new();
    for (tree, kind) in
        [(pair.from(), FileType::BlockDevice), (pair.to(), FileType::CharacterDevice)]
    {
        tree.node("node", kind, 8, 1).mtime("node", 5, 5);
    }
    pair.mirror();
    pair.assert_equal();
}

fn a_wrong_owner_or_mode_is_mended_without_new_inodes() {
    let pair = Pair::new();
    for tree in [pair.from(), pair.to()] {
        tree.file("file", "same").dir("dir").mtime("file", 5, 5);
    }
    pair.from().owner("file", 12, 13).mode("file", 0o1750);
    pair.from().owner("dir", 12, 13).mode("dir", 0o1770);
    let before = pair.snapshot();
    pair.mirror();
    pair.assert_equal();
    for (path, entry) in pair.snapshot() {
        assert_eq!(entry.inode, before[&path].inode, "{path:?}");
    }
}

fn a_zoo_is_copied_perfectly_and_again_no_inode_is_touched() {
    let pair = Pair::new();
    pair.from().zoo(3);
    pair.mirror();
    pair.assert_equal();
    let before = pair.snapshot();
    pair.mirror();
    // The lock comes and goes as a name of the top directory, whose time of last change tells so.
    let mut touched = touched(&before, &pair.snapshot());
    touched.retain(|line| !line.starts_with("ctime: \"\":"));
    assert_eq!(touched, Vec::<String>::new());
}

fn a_destination_full_of_other_metadata_is_mended() {
    let pair = Pair::new();
    pair.from().zoo(2);
    pair.to().zoo(3);
    let to = pair.to();
    for cage in ["cage0", "cage1"] {
        let at = |name: &str| format!("{cage}/{name}");
        to.owner(at("setuid"), 5, 5).mode(at("attributed"), 0o777).mode(at("empty"), 0o7777);
        to.file(at("plain/sub/file3"), "other").mtime(at("plain/sub/file4"), 1, 1);
        to.xattr(at("inheriting"), "user.surplus", "goes").owner(at("sym"), 0, 0);
        std::fs::remove_file(to.path(at("links/one"))).unwrap();
        to.file(at("links/one"), "linked").link(at("links/surplus"), &at("fifo"));
        to.dir(at("socket.d")).mode(at("sticky"), 0o700);
    }
    to.xattr("", "user.surplus", "goes").mode("", 0o700).owner("", 0, 0);
    pair.mirror();
    pair.assert_equal();
}

fn the_source_is_only_read() {
    let pair = Pair::new();
    pair.from().zoo(1);
    let before = snapshot(&pair.source);
    pair.mirror();
    pair.expect(&["--checksum", "--verify"], 0);
    assert_eq!(touched(&before, &snapshot(&pair.source)), Vec::<String>::new());
}
