//! Extended attributes: too many to hold, too many to list, and those of one file system only.

use std::path::Path;
use std::process::Command;

use rustix::fs::XattrFlags;

use crate::support::mounts::Mounted;
use crate::support::pair::{Pair, said};
use crate::support::{Case, Need, ok, peak_memory, test_case};

pub fn cases() -> Vec<Case> {
    const XFS: &[Need] =
        &[Need::Root, Need::Loop, Need::Program("mkfs.xfs"), Need::Filesystem("xfs")];
    const BTRFS: &[Need] = &[
        Need::Root,
        Need::Loop,
        Need::Program("mkfs.btrfs"),
        Need::Filesystem("btrfs"),
        Need::Program("strace"),
    ];
    vec![
        test_case!(xattrs_are_not_held_all_at_once, XFS),
        test_case!(a_list_of_xattrs_that_cannot_be_read_costs_the_attributes, XFS),
        test_case!(compression_is_mirrored_between_btrfs_trees, BTRFS),
    ]
}

/// The source tree and the root on one fresh file system that `mkfs` makes.
fn on(pair: &Pair, mkfs: &[&str], mebibytes: u64) -> Mounted {
    let image = pair.beside("image");
    std::fs::File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
    ok(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&image));
    let mounted = Mounted::image(&image, pair.beside("disk"), "rw");
    for (place, name) in [(&pair.source, "source"), (&pair.root, "root")] {
        let inside = mounted.0.join(name);
        std::fs::create_dir(&inside).unwrap();
        std::fs::remove_dir_all(place).unwrap();
        std::os::unix::fs::symlink(&inside, place).unwrap();
    }
    std::fs::create_dir_all(pair.source.join("tree")).unwrap();
    std::fs::create_dir_all(pair.root.join("configs")).unwrap();
    mounted
}

fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn get(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 65536];
    let length = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
    value.truncate(length);
    Some(value)
}

fn xattrs_are_not_held_all_at_once() {
    const COUNT: usize = 1500;
    const MEMORY: u64 = 64 * 1024;
    let pair = Pair::new();
    let _disk = on(&pair, &["mkfs.xfs", "-q"], 600);
    pair.from().file("file", "x").dir("directory").symlink("link", "file");
    let (from, to) = (pair.from().path("file"), pair.to().path("file"));
    let value = |number: usize| vec![number as u8; 65536];
    for number in 0..COUNT {
        set(&from, &format!("user.{number}"), &value(number));
    }
    for number in 0..3 {
        set(&pair.from().path("directory"), &format!("user.{number}"), &value(number));
        let link = pair.from().path("link");
        let name = format!("trusted.{number}");
        rustix::fs::lsetxattr(link, name, &value(number), XattrFlags::empty()).unwrap();
    }
    let run = |status| {
        let (output, memory) = peak_memory(pair.command().arg("--json"));
        assert_eq!(output.status.code(), Some(status), "{}", said(&output));
        assert!(memory < MEMORY, "{memory} KiB");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        [&report["paths"][0]["copied"], &report["paths"][0]["touched"]].map(|n| n.as_u64().unwrap())
    };
    let same = |path: &Path| {
        (0..COUNT).all(|number| get(path, &format!("user.{number}")) == Some(value(number)))
    };
    assert_eq!(run(0), [3, 0]);
    assert!(same(&to));
    for number in 0..3 {
        let directory = get(&pair.to().path("directory"), &format!("user.{number}"));
        assert_eq!(directory, Some(value(number)));
        let link = get(&pair.to().path("link"), &format!("trusted.{number}"));
        assert_eq!(link, Some(value(number)));
    }
    assert_eq!(run(0), [0, 0], "nothing differs");
    set(&to, "user.1234", &value(1));
    set(&to, "user.7", b"short");
    set(&to, "user.surplus", &value(1));
    rustix::fs::removexattr(&to, "user.99").unwrap();
    set(&pair.to().path("directory"), "user.2", &value(1));
    assert_eq!(run(0), [0, 2]);
    assert!(same(&to) && get(&to, "user.surplus").is_none());
    assert_eq!(get(&pair.to().path("directory"), "user.2"), Some(value(2)));
    assert_eq!(run(0), [0, 0], "nothing differs");
}

fn a_list_of_xattrs_that_cannot_be_read_costs_the_attributes() {
    let pair = Pair::new();
    let _disk = on(&pair, &["mkfs.xfs", "-q"], 600);
    let from = pair.from();
    from.file("file", "content").mode("file", 0o640).owner("file", 5, 6).file("other", "y");
    for number in 0..400 {
        set(&from.path("file"), &format!("user.{number}.{}", "n".repeat(230)), b"");
    }
    for _ in 0..2 {
        let text = said(&pair.expect(&[], 23));
        assert!(text.contains("WARN copy all xattrs to "), "{text}");
        assert!(text.contains("tree/file: Argument list too long"), "{text}");
        let data = pair.to().path("file").metadata().unwrap();
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!((data.mode() & 0o7777, data.uid(), data.gid()), (0o640, 5, 6));
        assert_eq!(std::fs::read(pair.to().path("file")).unwrap(), b"content");
        assert!(pair.to().path("other").exists());
    }
}

fn compression_is_mirrored_between_btrfs_trees() {
    let pair = Pair::new();
    let disk = on(&pair, &["mkfs.btrfs", "-q"], 300);
    let from = pair.from();
    from.file("file", "x").dir("directory").file("directory/within", "x").file("plain", "x");
    set(&from.path("file"), "btrfs.compression", b"zstd");
    set(&from.path("directory"), "btrfs.compression", b"lzo");
    let unchanged = |pair: &Pair| {
        let output = pair.expect(&["--dry-run"], 0);
        let text = said(&output);
        assert!(!text.contains("tree/file") && !text.contains("directory"), "{text}");
    };
    let seen = |pair: &Pair, name: &str| get(&pair.to().path(name), "btrfs.compression");
    pair.mirror();
    let both = || [seen(&pair, "file"), seen(&pair, "directory")];
    assert_eq!(both(), [Some(b"zstd".to_vec()), Some(b"lzo".to_vec())]);
    unchanged(&pair);
    set(&pair.to().path("file"), "btrfs.compression", b"zlib");
    set(&pair.to().path("plain"), "btrfs.compression", b"zlib");
    pair.mirror();
    assert_eq!(both(), [Some(b"zstd".to_vec()), Some(b"lzo".to_vec())]);
    assert_eq!(seen(&pair, "plain"), None);
    // It is not taken for another file system's only because this one cannot be asked.
    std::process::Command::new("setfattr")
        .args(["-x", "btrfs.compression"])
        .arg(pair.to().path("file"))
        .status()
        .unwrap();
    assert_eq!(seen(&pair, "file"), None);
    let output = std::process::Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=fstatfs:error=EIO"])
        .arg(crate::support::PROGRAM)
        .args(pair.command().get_args())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(seen(&pair, "file"), Some(b"zstd".to_vec()), "{}", said(&output));
    // Elsewhere it is no error and no difference.
    let other = Pair::new();
    std::fs::remove_dir_all(&other.source).unwrap();
    std::os::unix::fs::symlink(disk.0.join("source"), &other.source).unwrap();
    let text = said(&other.mirror());
    assert!(!text.contains("WARN"), "{text}");
    unchanged(&other);
    let text = said(&other.mirror());
    assert!(!text.contains("WARN"), "{text}");
}
