//! Old destination entries that cannot be opened or read: what replaces them needs no look at them.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Output};

use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};

use crate::support::mounts::{Mounted, ext4_image};
use crate::support::pair::{Pair, said};
use crate::support::{Case, Need, PROGRAM, ok, test_case};

pub fn cases() -> Vec<Case> {
    let needs = crate::mirror_faults::NEEDS;
    let traced = &[Need::Root, Need::Program("rsync"), Need::Program("strace")];
    let damaged = &[
        Need::Root,
        Need::Loop,
        Need::Program("rsync"),
        Need::Program("mkfs.ext4"),
        Need::Program("debugfs"),
        Need::Filesystem("ext4"),
    ];
    vec![
        test_case!(leased_files_are_restored, needs),
        test_case!(a_leased_file_keeps_nobody_from_its_content, needs),
        test_case!(old_copies_that_cannot_be_opened_are_replaced, traced),
        test_case!(old_copies_that_cannot_be_read_are_replaced, traced),
        test_case!(a_directory_with_unknown_xattrs_costs_nothing_in_it, traced),
        test_case!(an_old_copy_with_damaged_xattrs_is_replaced, damaged),
    ]
}

/// A lease (fcntl(2)) on a file, that its holder never gives up.
struct Lease(#[allow(dead_code, reason = "the lease ends with the descriptor")] File);

impl Lease {
    #[track_caller]
    fn on(path: &std::path::Path) -> Self {
        // What asks for it back is this signal, which ends who does not expect it.
        // SAFETY: SIG_IGN installs no code.
        #[allow(unsafe_code)]
        unsafe { signal(Signal::SIGIO, SigHandler::SigIgn) }.unwrap();
        let file = File::open(path).unwrap();
        let raw = file.as_fd().as_raw_fd();
        // SAFETY: the call takes numbers only.
        #[allow(unsafe_code)]
        let taken = unsafe { libc::fcntl(raw, libc::F_SETLEASE, libc::F_WRLCK) };
        assert_eq!(taken, 0, "{path:?}: {}", std::io::Error::last_os_error());
        Self(file)
    }
}

/// Names of files that differ from the snapshot's in each way that is found out otherwise.
fn differing(pair: &Pair) -> Vec<&'static str> {
    let (from, to) = (pair.from(), pair.to());
    for tree in [&from, &to] {
        for name in ["equal", "nanoseconds", "content", "mode", "attributed", "dir/in"] {
            tree.file(name, "the same").mtime(name, 1_500_000_000, 5);
        }
        tree.file("size", "the same").mtime("size", 1_500_000_000, 5);
        tree.file("time", "the same").mtime("time", 1_500_000_000, 5);
    }
    to.mtime("nanoseconds", 1_500_000_000, 7).file("size", "shorter").mtime(
        "time",
        1_400_000_000,
        5,
    );
    to.file("content", "not same").mtime("content", 1_500_000_000, 9).mode("mode", 0o600);
    from.xattr("attributed", "user.colour", "blue");
    vec!["equal", "nanoseconds", "content", "mode", "attributed", "dir/in", "size", "time"]
}

fn leased_files_are_restored() {
    for options in [&[][..], &["--checksum"]] {
        let pair = Pair::new();
        let names = differing(&pair);
        let _leases: Vec<Lease> =
            names.iter().map(|name| Lease::on(&pair.to().path(name))).collect();
        pair.expect(options, 0);
        drop(_leases);
        pair.assert_equal();
    }
}

/// The lease is on the content: without a comparison of it, what is equal stays as it is.
fn a_leased_file_keeps_nobody_from_its_content() {
    use std::os::unix::fs::MetadataExt;
    let pair = Pair::new();
    let names = differing(&pair);
    let inode = |name: &str| pair.to().path(name).metadata().unwrap().ino();
    let before = names.iter().map(|name| inode(name)).collect::<Vec<_>>();
    let _leases: Vec<Lease> = names.iter().map(|name| Lease::on(&pair.to().path(name))).collect();
    pair.mirror();
    for (name, before) in names.iter().zip(before) {
        let kept = ["equal", "mode", "attributed", "dir/in"].contains(name);
        assert_eq!(inode(name) == before, kept, "{name}");
    }
}

/// A restore with content compared, under strace(1) with `options`.
fn traced(pair: &Pair, options: &[&str]) -> Output {
    Command::new("strace")
        .args(["-f", "-qq", "-y"])
        .args(options)
        .arg(PROGRAM)
        .args(pair.command().get_args())
        .args(["--checksum", "--jobs", "1"])
        .output()
        .unwrap()
}

/// Of the opens of that name the first is the source's, the second the old copy's.
fn old_copies_that_cannot_be_opened_are_replaced() {
    for errno in ["EAGAIN", "ETXTBSY", "EACCES", "ENXIO", "EIO", "ESTALE"] {
        let pair = Pair::new();
        differing(&pair);
        let inject = format!("--inject=openat:error={errno}:when=2");
        let output = traced(&pair, &["--trace-path=nanoseconds", &inject]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(0), "{errno}: {text}");
        let injected = text.lines().find(|line| line.contains("(INJECTED)")).unwrap();
        assert!(injected.contains("root/tree>, \"nanoseconds\", O_RDONLY"), "{injected}");
        pair.assert_equal();
    }
}

fn old_copies_that_cannot_be_read_are_replaced() {
    let pair = Pair::new();
    let names = differing(&pair);
    let path = |name: &&str| format!("--trace-path={}", pair.to().path(name).display());
    let paths: Vec<String> = names.iter().map(path).collect();
    let mut options: Vec<&str> = paths.iter().map(String::as_str).collect();
    options.push("--inject=pread64:error=EIO");
    let output = traced(&pair, &options);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("(INJECTED)"), "{}", said(&output));
    pair.assert_equal();
}

fn an_old_copy_with_damaged_xattrs_is_replaced() {
    let pair = Pair::new();
    let image = pair.beside("image");
    ext4_image(&image, 32, &["-I", "256"]);
    let mounted = Mounted::image(&image, pair.to().0, "rw");
    std::fs::remove_dir(mounted.0.join("lost+found")).unwrap();
    for tree in [pair.from(), pair.to()] {
        tree.file("file", "x").mtime("file", 5, 5).xattr("file", "user.large", [b'v'; 500]);
    }
    mounted.put_away();
    let said = ok(Command::new("debugfs").args(["-R", "stat /file"]).arg(&image));
    let block = said.split_once("File ACL: ").unwrap().1.split_whitespace().next().unwrap();
    assert_ne!(block, "0", "{said}");
    let zap = format!("zap_block -p 165 {block}");
    ok(Command::new("debugfs").args(["-w", "-R", &zap]).arg(&image));
    let _mounted = Mounted::image(&image, pair.to().0, "rw,errors=continue");
    pair.mirror();
    pair.assert_equal();
}

/// A directory cannot be replaced; what is in it is restored all the same.
fn a_directory_with_unknown_xattrs_costs_nothing_in_it() {
    let pair = Pair::new();
    pair.from().file("dir/in", "new").file("dir/sub/in", "new").mode("dir", 0o750);
    pair.to().file("dir/in", "o").file("dir/sub/in", "o").file("dir/surplus", "");
    let directory = format!("--trace-path={}", pair.to().path("dir").display());
    let output = traced(&pair, &[&directory, "--inject=flistxattr:error=EIO"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(23), "{text}");
    assert!(text.contains("tree/dir: Input/output error"), "{text}");
    pair.assert_equal();
}
