//! Small files that are asked for a batch at a time, as a slow source has them.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use molecule_tools::fs::aio::{AioContext, AsyncRead};

use crate::support::device::{Device, Manners};
use crate::support::mounts::{Mounted, ext4_image};
use crate::support::pair::{Pair, said};
use crate::support::tree::Tree;
use crate::support::{Case, Need, PROGRAM, test_case};

pub fn cases() -> Vec<Case> {
    let slow = &[Need::Root, Need::Loop, Need::Filesystem("fuse"), Need::Program("rsync")];
    let disk = &[Need::Root, Need::Loop, Need::Filesystem("ext4")];
    vec![
        test_case!(small_files_of_a_slow_source_share_requests, slow),
        test_case!(a_few_descriptors_are_enough_for_batches, slow),
        test_case!(a_batch_gives_what_is_cached_and_fetches_the_rest, disk),
        test_case!(a_context_takes_no_more_than_it_is_for, disk),
    ]
}

const FILES: usize = 1000;

/// A source of small files of all sizes, and what else stands between them, on a device that takes
/// 10 ms for each read.
fn slow_source(pair: &Pair) -> (Device, Mounted) {
    let image = pair.beside("image");
    ext4_image(&image, 96, &["-b", "4096", "-O", "^inline_data"]);
    let mounted = Mounted::image(&image, pair.beside("planting"), "rw");
    let tree = Tree::at(mounted.0.join("tree"));
    for number in 0..FILES {
        let size = [0, 1, 700, 4095, 4096, 4097, 9000, 21_000, 3, 12_000][number % 10];
        let content: Vec<u8> = (0..size).map(|at| (at * 7 + number) as u8).collect();
        tree.file(format!("dir{}/file{number}", number / 50), content);
    }
    for number in 0..20 {
        let hole = File::create(tree.path(format!("dir{number}/hole"))).unwrap();
        hole.set_len(50_000).unwrap();
        std::os::unix::fs::symlink("file0", tree.path(format!("dir{number}/link"))).unwrap();
        let first = tree.path(format!("dir{number}/file{}", number * 50 + 7));
        std::fs::hard_link(first, tree.path(format!("dir{}/twin{number}", 19 - number))).unwrap();
    }
    mounted.put_away();
    let manners = Manners { delay: Duration::from_millis(10), bad: Vec::new() };
    let device = Device::of(&image, &pair.beside("disk"), manners);
    let source = Mounted::node(device.node(), &pair.source, "ro,noload");
    (device, source)
}

fn small_files_of_a_slow_source_share_requests() {
    let pair = Pair::new();
    let (device, _source) = slow_source(&pair);
    let before = device.reads();
    pair.mirror();
    let reads = device.reads() - before;
    // One file after the other, each of the 900 that are not empty costs a read at least.
    assert!(reads < FILES as u64 / 3, "{reads} reads for {FILES} files");
    device.behave(Manners::default());
    pair.assert_equal();
}

fn a_few_descriptors_are_enough_for_batches() {
    let pair = Pair::new();
    let (device, _source) = slow_source(&pair);
    let before = device.reads();
    let output = Command::new("sh")
        .args(["-ec", "ulimit -n 200; exec \"$0\" \"$@\" --jobs 4", PROGRAM])
        .args(pair.command().get_args())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let reads = device.reads() - before;
    assert!(reads < FILES as u64 / 3, "{reads} reads for {FILES} files");
    device.behave(Manners::default());
    pair.assert_equal();
}

/// Files of those lengths in a fresh ext4 mounted at the first.
fn files(lengths: &[usize]) -> (Mounted, Vec<File>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    ext4_image(&image, 16, &["-b", "4096", "-O", "^inline_data"]);
    let mounted = Mounted::image(&image, directory.path().join("mounted"), "rw");
    let files = lengths
        .iter()
        .zip(1_u8..)
        .map(|(length, byte)| {
            let path = mounted.0.join(byte.to_string());
            std::fs::write(&path, vec![byte; *length]).unwrap();
            File::open(path).unwrap()
        })
        .collect();
    rustix::fs::syncfs(File::open(&mounted.0).unwrap()).unwrap();
    (mounted, files, directory)
}

/// What one batch over the whole files gives.
fn batch(context: &mut AioContext, files: &[File], buffers: &mut [Vec<u8>]) -> Vec<usize> {
    let mut reads: Vec<AsyncRead<'_>> = files
        .iter()
        .zip(buffers)
        .map(|(file, buffer)| AsyncRead { file: file.as_fd(), buffer, done: 0 })
        .collect();
    context.read(&mut reads).unwrap();
    reads.iter().map(|read| read.done).collect()
}

fn a_batch_gives_what_is_cached_and_fetches_the_rest() {
    let lengths = [10, 0, 5000, 4096];
    let (_mounted, files, _directory) = files(&lengths);
    let mut context = AioContext::new(4).unwrap();
    let mut buffers = vec![vec![0; 6000]; 4];
    assert_eq!(batch(&mut context, &files, &mut buffers), lengths);
    for ((buffer, length), byte) in buffers.iter().zip(lengths).zip(1..) {
        assert!(buffer[..length].iter().all(|found| *found == byte), "{byte}");
    }
    rustix::fs::fadvise(&files[2], 0, None, rustix::fs::Advice::DontNeed).unwrap();
    assert_eq!(batch(&mut context, &files, &mut buffers), [10, 0, 0, 4096]);
    // Nobody else reads it: the batch itself has it fetched.
    let start = std::time::Instant::now();
    while batch(&mut context, &files, &mut buffers) != lengths {
        assert!(start.elapsed() < Duration::from_secs(100), "it was not fetched");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn a_context_takes_no_more_than_it_is_for() {
    let (_mounted, files, _directory) = files(&[3, 3]);
    let mut context = AioContext::new(1).unwrap();
    let mut buffers = vec![vec![0; 3]; 2];
    assert_eq!(batch(&mut context, &files, &mut buffers), [3, 0]);
    assert_eq!(buffers, [vec![1; 3], vec![0; 3]]);
}
