//! Content: what is copied, what is left alone, what only is looked at.

use std::os::unix::fs::MetadataExt;

use serde_json::Value;

use crate::support::compare::{snapshot, touched};
use crate::support::pair::{Pair, said};
use crate::support::{Case, test_case};

pub fn cases() -> Vec<Case> {
    let needs = crate::mirror::NEEDS;
    vec![
        test_case!(equal_size_and_time_leave_the_content_alone, needs),
        test_case!(checksum_compares_the_content, needs),
        test_case!(an_older_source_wins_all_the_same, needs),
        test_case!(sizes_around_every_buffer_are_copied, needs),
        test_case!(sparse_files_stay_sparse, needs),
        test_case!(a_sparse_file_larger_than_the_disk_is_copied, needs),
        test_case!(blocks_beyond_the_end_do_not_hide_holes, needs),
        test_case!(zeros_that_were_written_need_not_become_a_hole, needs),
        test_case!(a_changed_file_is_replaced_never_rewritten, needs),
        test_case!(dry_run_itemizes_and_touches_nothing, needs),
        test_case!(verify_finds_what_the_quick_check_misses, needs),
        test_case!(verify_of_a_perfect_copy_is_content, needs),
    ]
}

/// Two files of equal size and time, and different content.
fn twins() -> Pair {
    let pair = Pair::new();
    for (tree, content) in [(pair.from(), "one"), (pair.to(), "two")] {
        tree.file("file", content).mtime("file", 1_600_000_000, 123).mtime("", 5, 5);
    }
    pair
}

fn equal_size_and_time_leave_the_content_alone() {
    let pair = twins();
    pair.from().owner("file", 5, 6).mode("file", 0o1711).xattr("file", "user.a", "1");
    pair.mirror();
    let path = pair.to().path("file");
    assert_eq!(std::fs::read(&path).unwrap(), b"two");
    let data = path.metadata().unwrap();
    assert_eq!((data.mode() & 0o7777, data.uid(), data.gid()), (0o1711, 5, 6));
    std::fs::write(pair.from().path("file"), "two").unwrap();
    pair.from().mode("file", 0o1711).mtime("file", 1_600_000_000, 123);
    pair.assert_equal();
}

fn checksum_compares_the_content() {
    let pair = twins();
    pair.expect(&["--checksum"], 0);
    pair.assert_equal();
}

fn an_older_source_wins_all_the_same() {
    let pair = Pair::new();
    pair.from().file("file", "older").mtime("file", 1000, 0);
    pair.to().file("file", "newer").mtime("file", 2_000_000_000, 0);
    pair.mirror();
    pair.assert_equal();
}

fn sizes_around_every_buffer_are_copied() {
    let pair = Pair::new();
    for power in [0, 12, 15, 16, 17, 18, 20, 21, 22] {
        for size in [(1_usize << power) - 1, 1 << power, (1 << power) + 1] {
            let content: Vec<u8> = (0..size).map(|at| (at * 31 + at / 251) as u8).collect();
            pair.from().file(format!("size{size}"), content);
        }
    }
    pair.mirror();
    pair.assert_equal();
}

fn sparse_files_stay_sparse() {
    let pair = Pair::new();
    let from = pair.from();
    from.sparse("tail", 64 << 20, 0, b"head").sparse("head", 64 << 20, (64 << 20) - 4, b"tail");
    from.sparse("middle", 64 << 20, 20 << 20, &[7; 300_000]).sparse("hole", 64 << 20, 0, b"");
    from.sparse("odd end", (1 << 20) + 777, 4096, b"x");
    for number in 1..30_u64 {
        use std::os::unix::fs::FileExt;
        let name = "many";
        if number == 1 {
            from.sparse(name, 40 << 20, 0, b"");
        }
        let file = std::fs::File::options().write(true).open(from.path(name)).unwrap();
        file.write_all_at(&[number as u8; 5000], number << 20).unwrap();
    }
    pair.to().file("middle", vec![1; 1 << 20]);
    pair.mirror();
    pair.assert_equal();
}

/// With blocks behind its end a file has as many as its size needs, whatever holes are in it.
fn blocks_beyond_the_end_do_not_hide_holes() {
    use rustix::fs::{FallocateFlags, fallocate};
    let pair = Pair::new();
    for (name, size) in [("medium", 4 << 20), ("large", 16 << 20)] {
        pair.from().sparse(name, size, 1 << 20, b"island");
        let file = std::fs::File::options().write(true).open(pair.from().path(name)).unwrap();
        fallocate(&file, FallocateFlags::KEEP_SIZE, size, size).unwrap();
        assert!(file.metadata().unwrap().blocks() * 512 >= size, "{name}");
    }
    pair.mirror();
    pair.assert_equal();
    for name in ["medium", "large"] {
        let blocks = pair.to().path(name).metadata().unwrap().blocks();
        assert!(blocks * 512 <= 64 * 1024, "{name}: {blocks}");
    }
}

fn a_sparse_file_larger_than_the_disk_is_copied() {
    let pair = Pair::new();
    pair.from().sparse("huge", 2 << 40, 1 << 40, b"island");
    pair.mirror();
    let (from, to) = (pair.from().path("huge"), pair.to().path("huge"));
    let (from, to) = (from.metadata().unwrap(), to.metadata().unwrap());
    assert_eq!((from.size(), from.mtime_nsec()), (to.size(), to.mtime_nsec()));
    assert!(to.blocks() * 512 <= 1 << 20, "{}", to.blocks());
    let mut island = [0; 6];
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::open(pair.to().path("huge")).unwrap();
    file.read_exact_at(&mut island, 1 << 40).unwrap();
    assert_eq!(&island, b"island");
}

fn zeros_that_were_written_need_not_become_a_hole() {
    let pair = Pair::new();
    pair.from().file("zeros", vec![0; 3 << 20]);
    pair.mirror();
    pair.assert_equal();
}

fn a_changed_file_is_replaced_never_rewritten() {
    use std::io::{Read, Seek};
    let pair = Pair::new();
    pair.from().file("file", "new content");
    pair.to().file("file", "old");
    let mut reader = std::fs::File::open(pair.to().path("file")).unwrap();
    pair.mirror();
    let mut text = String::new();
    reader.rewind().unwrap();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old");
    pair.assert_equal();
}

fn dry_run_itemizes_and_touches_nothing() {
    let pair = Pair::new();
    pair.from().zoo(1).file("changed", "new").file("mode only", "x").mtime("mode only", 5, 5);
    pair.to().file("changed", "older").file("mode only", "x").mtime("mode only", 5, 5);
    pair.to().mode("mode only", 0o600).file("surplus/deep", "x");
    let before = snapshot(&pair.root);
    let output = pair.expect(&["--dry-run"], 0);
    assert_eq!(touched(&before, &snapshot(&pair.root)), Vec::<String>::new());
    let text = said(&output);
    for name in ["changed", "mode only", "surplus", "cage0/setuid", "cage0/plain/sub/file3"] {
        assert!(text.contains(name), "{name} is not itemized: {text}");
    }
    assert!(!pair.marker().exists());
    pair.mirror();
    let settled = said(&pair.expect(&["--dry-run"], 0));
    for name in ["changed", "mode only", "surplus", "cage0/setuid"] {
        assert!(!settled.contains(name), "{name} is itemized though nothing is to do: {settled}");
    }
}

fn verify_finds_what_the_quick_check_misses() {
    let pair = twins();
    let output = pair.run(&["--verify", "--json"]);
    assert_eq!(output.status.code(), Some(23), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("file"), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report.is_object(), "{report}");
}

fn verify_of_a_perfect_copy_is_content() {
    let pair = Pair::new();
    pair.from().zoo(1);
    pair.expect(&["--verify"], 0);
    pair.assert_equal();
}
