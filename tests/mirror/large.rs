//! Large files that are not in the page cache.

use std::io::IoSliceMut;
use std::path::Path;
use std::process::Command;

use rustix::io::{Errno, ReadWriteFlags};

use crate::support::mounts::{Mounted, ext4_image};
use crate::support::pair::{Pair, said};
use crate::support::tree::Tree;
use crate::support::{Case, Need, PROGRAM, case, ok, test_case};

pub fn cases() -> Vec<Case> {
    let disk = &[Need::Root, Need::Loop, Need::Program("rsync"), Need::Filesystem("ext4")];
    let traced = &[
        Need::Root,
        Need::Loop,
        Need::Program("rsync"),
        Need::Program("strace"),
        Need::Filesystem("ext4"),
    ];
    let xfs = &[
        Need::Root,
        Need::Loop,
        Need::Program("rsync"),
        Need::Program("mkfs.xfs"),
        Need::Filesystem("xfs"),
    ];
    vec![
        case("cold_large_files_are_copied_past_the_page_cache", disk, || {
            past_the_cache(&|image| ext4_image(image, 160, &[]), "ro,noload");
        }),
        test_case!(a_source_that_refuses_such_reads_is_copied_all_the_same, traced),
        case("cold_large_files_of_an_xfs_with_small_blocks_are_copied", xfs, || {
            past_the_cache(
                &|image| {
                    std::fs::File::create(image).unwrap().set_len(400 << 20).unwrap();
                    let mut mkfs = Command::new("mkfs.xfs");
                    ok(mkfs.args(["-q", "-b", "size=1024"]).arg(image));
                },
                "ro,norecovery",
            );
        }),
    ]
}

/// Sizes around a chunk, a read and a block.
const SIZES: [u64; 7] = [
    8 << 20,
    (8 << 20) + 1,
    (8 << 20) + 511,
    (10 << 20) - 1,
    (12 << 20) + 4096,
    (13 << 20) + 512 * 1024 + 4095,
    (9 << 20) + 513,
];

/// A source on an image that nothing has in the page cache, mounted where the pair has its source.
fn cold_source(pair: &Pair, make: &dyn Fn(&Path), options: &str) -> Mounted {
    let image = pair.beside("image");
    make(&image);
    let mounted = Mounted::image(&image, pair.beside("planting"), "rw");
    let tree = Tree::at(mounted.0.join("tree"));
    for (number, size) in SIZES.into_iter().enumerate() {
        let content: Vec<u8> = (0..size).map(|at| (at % 251 + at / 4096) as u8 | 1).collect();
        tree.file(format!("dir{}/{size}", number % 2), content);
    }
    tree.sparse("dir0/sparse", 20 << 20, (5 << 20) + 7, b"data");
    mounted.put_away();
    // What wrote it, and so has it in the cache, may be kept mounted by others.
    std::fs::copy(&image, pair.beside("copy")).unwrap();
    Mounted::image(&pair.beside("copy"), &pair.source, options)
}

#[track_caller]
fn past_the_cache(make: &dyn Fn(&Path), options: &str) {
    let pair = Pair::new();
    let _source = cold_source(&pair, make, options);
    pair.mirror();
    for (number, size) in SIZES.into_iter().enumerate() {
        let file = std::fs::File::open(pair.from().path(format!("dir{}/{size}", number % 2)));
        let mut bytes = [0; 1];
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        let read =
            rustix::io::preadv2(file.unwrap(), &mut buffers, size / 2, ReadWriteFlags::NOWAIT);
        assert_eq!(read, Err(Errno::AGAIN), "{size} is in the page cache");
    }
    pair.assert_equal();
}

/// The third read of a file is refused, in the middle of a chunk.
fn a_source_that_refuses_such_reads_is_copied_all_the_same() {
    let pair = Pair::new();
    let _source = cold_source(&pair, &|image| ext4_image(image, 160, &[]), "ro,noload");
    let refused = pair.from().path(format!("dir1/{}", SIZES[3]));
    let output = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=fcntl,pread64", "-P", refused.to_str().unwrap()])
        .args(["-e", "inject=pread64:error=EINVAL:when=3", PROGRAM])
        .args(pair.command().arg("--jobs").arg("1").get_args())
        .output()
        .unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let set: Vec<bool> = text
        .lines()
        .filter(|line| line.contains("F_SETFL"))
        .map(|line| line.contains("O_DIRECT"))
        .collect();
    assert_eq!(set, [true, false], "{text}");
    assert!(text.contains("(INJECTED)"), "{text}");
    pair.assert_equal();
}
