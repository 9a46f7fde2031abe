//! The rest of a way after somebody moves directories of it.
#![forbid(unsafe_code)]

use std::path::Path;

use super::*;
use crate::error::LONGEST_SHOWN;
use crate::fs::Dir;

const DEEP: usize = 20;

/// A tree `top/d/d/...`, in each level also `a` and `b`, and the way down to its deepest `d`.
fn scene() -> (tempfile::TempDir, TreeDescent) {
    let place = tempfile::tempdir().unwrap();
    let root = Dir::open_operator_path(place.path()).unwrap();
    root.make_dir(c"top", 0o755).unwrap();
    let mut level = root.open_dir(c"top").unwrap();
    for _ in 0..DEEP {
        for name in [c"a", c"b", c"d"] {
            level.make_dir(name, 0o755).unwrap();
        }
        level = level.open_dir(c"d").unwrap();
    }
    let start = Arc::new(rustix::io::fcntl_dupfd_cloexec(&root, 3).unwrap());
    let mut descent = TreeDescent::new(start, c"top");
    enter(&mut descent);
    while descent.list(|_, _, kind| kind == Some(Kind::Dir)) == Ok(true) {}
    while descent.levels.len() <= DEEP {
        // Another order for each file system; "d" last, and the others wait.
        let level = descent.levels.last().unwrap().waiting as usize;
        descent.names.truncate(level);
        descent.names.extend_from_slice(b"a\0\x01b\0\x01d\0\x01");
        assert_eq!(descent.advance(), DescentNext::Name);
        assert_eq!(descent.name(), c"d");
        enter(&mut descent);
        assert_eq!(descent.list(|_, _, _| false), Ok(true));
    }
    (place, descent)
}

fn enter(descent: &mut TreeDescent) {
    let fd = at::open_dir(descent.here(), descent.name()).unwrap();
    let stat = at::stat_fd(&fd).unwrap();
    descent.enter(fd, &stat);
}

/// Goes on to the end; names met in order, and what was cut off.
fn rest(descent: &mut TreeDescent) -> (String, u64) {
    let (mut names, mut cut) = (String::new(), 0);
    while !descent.is_empty() {
        match descent.advance() {
            DescentNext::Name => {
                let stat = at::stat(descent.here(), descent.name());
                assert_eq!(stat.unwrap().kind, Kind::Dir);
                names += descent.name().to_str().unwrap();
                descent.skip();
            }
            DescentNext::Unread => assert_eq!(descent.list(|_, _, _| false), Ok(false)),
            DescentNext::Done => {
                assert!(descent.held.len() <= HELD);
                if let Err(CutOff { waiting }) = descent.leave() {
                    cut += waiting;
                }
            }
        }
    }
    (names, cut)
}

#[test]
fn the_way_back_is_found_with_few_descriptors() {
    let (_place, mut descent) = scene();
    assert_eq!(descent.held.len(), HELD);
    assert_eq!(rest(&mut descent), ("ba".repeat(DEEP), 0));
}

#[test]
fn what_waits_below_and_above_a_directory_that_moved_is_met() {
    let (place, mut descent) = scene();
    // The directory of the fifth level goes elsewhere, with all that is in it.
    let from = place.path().join("top/d/d/d/d");
    rename(&from.join("d"), &place.path().join("elsewhere"));
    // Up to it through "..", from there on from the start.
    assert_eq!(rest(&mut descent), ("ba".repeat(DEEP), 0));
}

#[test]
fn what_was_put_in_the_place_of_a_directory_is_not_entered() {
    let (place, mut descent) = scene();
    // The lower end hangs elsewhere, and where it was are new directories of the same names.
    let upper = place.path().join("top/d/d/d/d");
    let lower = upper.join("d/d/d/d");
    rename(&lower, &place.path().join("elsewhere"));
    rename(&upper, &place.path().join("old"));
    let make = Dir::open_operator_path(place.path()).unwrap();
    make.make_beneath(Path::new("top/d/d/d/d/d/d/d/d/a"), 0o755).unwrap();
    let (names, cut) = rest(&mut descent);
    // Of each level between, two names and the rest of its listing.
    assert!(cut > 0 && cut % 3 == 0, "{names} {cut}");
    assert_eq!(names.len() as u64 + cut / 3 * 2, 2 * DEEP as u64, "{names} {cut}");
}

fn rename(from: &Path, to: &Path) {
    let cwd = rustix::fs::CWD;
    rustix::fs::renameat(cwd, from, cwd, to).unwrap();
}

#[test]
fn long_paths_show_both_ends() {
    let (_place, descent) = scene();
    let path = descent.way().path(Path::new("/base"));
    assert_eq!(path, Path::new("/base/top").join(vec!["d"; DEEP].join("/")));
    let base = "/b".repeat(LONGEST_SHOWN);
    let path = descent.way().path(Path::new(&base));
    let shown = path.to_str().unwrap();
    assert!(shown.starts_with("/b/b") && shown.ends_with("d/d"), "{shown}");
    let mut end = Vec::new();
    descent.way().write_end(Path::new("/base"), c"next", &mut end);
    assert!(end.starts_with(b"/base/top/d/d") && end.ends_with(b"/d/d/next"), "{end:?}");
}
