//! Destinations that keep times less well than the source.

use std::process::Command;

use serde_json::Value;

use crate::support::mounts::{Mounted, ext4_image};
use crate::support::pair::{Pair, said};
use crate::support::{Case, Need, PROGRAM, ok, test_case};

pub fn cases() -> Vec<Case> {
    const EXT4: &[Need] =
        &[Need::Root, Need::Loop, Need::Program("mkfs.ext4"), Need::Filesystem("ext4")];
    const XFS: &[Need] =
        &[Need::Root, Need::Loop, Need::Program("mkfs.xfs"), Need::Filesystem("xfs")];
    const STRACE: &[Need] = &[Need::Root, Need::Program("strace")];
    vec![
        test_case!(whole_seconds_are_no_difference, EXT4),
        test_case!(years_beyond_the_last_are_no_difference, XFS),
        test_case!(both_times_are_set, STRACE),
        test_case!(a_destination_that_keeps_no_times_is_told, STRACE),
    ]
}

/// Every kind of object with a time that few file systems can keep.
fn source(seconds: i64) -> Pair {
    let pair = Pair::new();
    let from = pair.from();
    from.file("file", "x").file("d/file", "y").symlink("link", "file").fifo("fifo");
    std::fs::hard_link(from.path("d/file"), from.path("d/second")).unwrap();
    for name in ["file", "d/file", "link", "fifo", "d", ""] {
        from.mtime(name, seconds, 123_456_789);
    }
    pair
}

/// Restores to `disk`, where another run and a verification must find nothing to do.
#[track_caller]
fn settles(pair: &Pair) {
    for (number, options) in [&["--verify"][..], &["--verify"], &["--checksum"]].iter().enumerate()
    {
        let output = pair.expect(&[options, &["--json"][..]].concat(), 0);
        let text = said(&output);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let path = &report["paths"][0];
        let changed = [&path["copied"], &path["touched"]].map(|value| value.as_u64().unwrap());
        let expected = if number == 0 { [5, 0] } else { [0, 0] };
        assert_eq!(changed, expected, "run {number}: {text}");
        assert!(path["mismatches"].as_u64().unwrap_or(0) == 0, "{text}");
        assert_eq!(text.matches("keeps times less well").count(), 1, "{text}");
    }
    let text = said(&pair.expect(&["--dry-run"], 0));
    assert!(!text.contains("....") && !text.contains("+++"), "{text}");
    // What is older or newer by a second is seen all the same.
    let (seconds, _) = times(pair, "file");
    pair.to().mtime("file", seconds - 1, 0);
    let text = said(&pair.expect(&["--verify"], 0));
    assert!(!text.contains("WARN"), "{text}");
    assert_eq!(times(pair, "file"), (seconds, 0));
}

fn times(pair: &Pair, name: &str) -> (i64, i64) {
    use std::os::unix::fs::MetadataExt as _;
    let data = pair.to().path(name).symlink_metadata().unwrap();
    (data.mtime(), data.mtime_nsec())
}

fn whole_seconds_are_no_difference() {
    let pair = source(1_600_000_001);
    let image = pair.beside("image");
    ext4_image(&image, 16, &["-I", "128"]);
    let _mounted = Mounted::image(&image, pair.to().0, "rw");
    std::fs::remove_dir(pair.to().path("lost+found")).unwrap();
    settles(&pair);
    assert_eq!(times(&pair, "d"), (1_600_000_001, 0));
}

fn years_beyond_the_last_are_no_difference() {
    let pair = source(4_102_444_800);
    let image = pair.beside("image");
    std::fs::File::create(&image).unwrap().set_len(300 << 20).unwrap();
    ok(Command::new("mkfs.xfs").args(["-q", "-m", "bigtime=0"]).arg(&image));
    let _mounted = Mounted::image(&image, pair.to().0, "rw");
    pair.expect(&["--verify"], 0);
    assert_eq!(times(&pair, "d"), (0x7fff_ffff, 0));
    let text = said(&pair.expect(&["--verify"], 0));
    assert!(!text.contains("WARN"), "{text}");
    let text = said(&pair.expect(&["--dry-run"], 0));
    assert!(!text.contains("....") && !text.contains("+++"), "{text}");
    assert!(text.contains("keeps times less well"), "{text}");
}

/// The run under strace(1) with `options`.
fn traced(pair: &Pair, options: &[&str]) -> (std::process::Output, String) {
    let trace = pair.beside("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(&trace).args(["-e", "trace=utimensat"]).args(options);
    command.arg(PROGRAM).args(pair.command().get_args());
    let output = command.output().unwrap();
    (output, std::fs::read_to_string(trace).unwrap())
}

fn both_times_are_set() {
    let pair = source(1_600_000_001);
    // Of what is there already some is mended in place.
    pair.to().file("file", "x").mtime("file", 1_600_000_001, 5).dir("d");
    let (output, trace) = traced(&pair, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let calls: Vec<&str> = trace.lines().filter(|line| line.contains("utimensat(")).collect();
    assert!(calls.len() >= 6, "{trace}");
    assert!(calls.iter().all(|call| !call.contains("UTIME_OMIT")), "{trace}");
}

fn a_destination_that_keeps_no_times_is_told() {
    let pair = source(1_600_000_001);
    let (output, _) = traced(&pair, &["-e", "inject=utimensat:retval=0"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(23), "{text}");
    assert_eq!(
        text.matches("the file system does not keep it; every restore").count(),
        1,
        "{text}"
    );
    assert!(pair.to().path("d/second").exists());
}
