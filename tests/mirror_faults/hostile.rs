//! A destination in which somebody swaps directories and files for links while the mirror runs.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, ResolveFlags, openat, openat2,
    renameat_with, statat,
};

use crate::support::compare::{snapshot, touched};
use crate::support::pair::Pair;
use crate::support::tree::{ACCESS, Tree, acl_of_user};
use crate::support::{Case, test_case};

pub fn cases() -> Vec<Case> {
    let needs = crate::mirror_faults::NEEDS;
    vec![
        test_case!(with_10000_swaps_of_directories_for_links_touch_nothing_outside, needs),
        test_case!(with_10000_swaps_of_files_for_links_touch_nothing_outside, needs),
    ]
}

const RACES: usize = 10_000;
const RUNS: usize = 12;
/// No run may take longer, whatever is done to it; a guard against hangs.
const LIMIT: Duration = Duration::from_secs(100);

/// Source and destination with the same directories, three deep, that differ in everything; and
/// outside a directory in which every name of the source is a canary.
fn scene() -> (Pair, Tree) {
    let pair = Pair::new();
    let outside = Tree::at(pair.beside("outside"));
    for number in 0..40 {
        for (top, depth) in [("a", 1), ("a/b", 2), ("a/b/c", 3)] {
            let name = format!("{top}/file{number}");
            pair.from().file(&name, format!("{number} ").repeat(depth * 100)).owner(&name, 1, 2);
            pair.from().mode(&name, 0o4711).xattr(&name, "user.of", "source");
            outside.file(format!("file{number}"), "canary").dir("b/c");
            outside.file(format!("b/file{number}"), "canary");
            outside.file(format!("b/c/file{number}"), "canary");
        }
        let name = format!("a/b/d{number}");
        pair.from().dir(&name).mode(&name, 0o2777).xattr(&name, ACCESS, acl_of_user(3));
        outside.file(format!("b/d{number}/precious"), "canary").file(format!("d{number}/x"), "x");
    }
    pair.from().mode("a", 0o777).owner("a/b", 5, 5).xattr("a/b/c", "user.of", "source");
    outside.file("surplus", "canary").file("b/surplus", "canary").file("b/c/surplus", "canary");
    (pair, outside)
}

/// Swaps what is at `inside`, a path below `top`, with a link to `target` as fast as it goes, and
/// counts.
struct Saboteur<'a> {
    top: OwnedFd,
    inside: PathBuf,
    attic: PathBuf,
    target: PathBuf,
    done: &'a AtomicBool,
    running: &'a AtomicBool,
    races: &'a AtomicUsize,
}

impl Saboteur<'_> {
    fn work(&self) {
        let mut spare = 0;
        while !self.done.load(Ordering::Relaxed) {
            // The other saboteurs' links must not lead this one outside.
            let (parent, name) = (self.inside.parent().unwrap(), self.inside.file_name().unwrap());
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let how = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
            let Ok(parent) = openat2(&self.top, parent, flags, Mode::empty(), how) else {
                continue;
            };
            let link = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
            if !self.attic.is_symlink() && !link {
                // The mirror replaced the link: what is in the attic makes room for another.
                spare += 1;
                let _ = std::fs::rename(&self.attic, self.attic.with_extension(spare.to_string()));
                let _ = symlink(&self.target, &self.attic);
            }
            let swapped = renameat_with(&parent, name, CWD, &self.attic, RenameFlags::EXCHANGE);
            if swapped.is_ok() && self.running.load(Ordering::Relaxed) {
                self.races.fetch_add(1, Ordering::Relaxed);
            }
            // Long enough to be met in either state.
            for _ in 0..self.races.load(Ordering::Relaxed) % 400 {
                std::hint::spin_loop();
            }
        }
    }
}

#[track_caller]
fn finished(mut child: Child) -> i32 {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap();
        }
        if start.elapsed() > LIMIT {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Mirrors over and over while the saboteurs swap each of `swapped` for a link to its `target`.
#[track_caller]
fn sabotage(pair: &Pair, outside: &Tree, swapped: &[(&str, PathBuf)]) {
    let before = snapshot(&outside.0);
    let attic = pair.root.join("attic");
    std::fs::create_dir(&attic).unwrap();
    let (done, running) = (AtomicBool::new(false), AtomicBool::new(false));
    let races = AtomicUsize::new(0);
    pair.mirror();
    std::thread::scope(|scope| {
        for (number, (name, target)) in swapped.iter().enumerate() {
            let saboteur = Saboteur {
                top: File::open(pair.root.join("tree")).unwrap().into(),
                inside: name.into(),
                attic: attic.join(format!("link{number}")),
                target: target.clone(),
                done: &done,
                running: &running,
                races: &races,
            };
            scope.spawn(move || saboteur.work());
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut runs = 0;
            while runs < RUNS || races.load(Ordering::Relaxed) < RACES {
                spoil(&pair.root.join("tree"), runs);
                let mut command = pair.command();
                command.arg("--checksum").stdout(Stdio::null()).stderr(Stdio::null());
                running.store(true, Ordering::Relaxed);
                let status = finished(command.spawn().unwrap());
                running.store(false, Ordering::Relaxed);
                assert!([0, 1, 23].contains(&status), "status {status}");
                runs += 1;
                assert!(runs < 500, "only {races:?} races");
            }
        }));
        done.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert!(races.load(Ordering::Relaxed) >= RACES);
    assert_eq!(touched(&before, &snapshot(&outside.0)), Vec::<String>::new());
    pair.expect(&["--checksum"], 0);
    pair.assert_equal();
    assert_eq!(touched(&before, &snapshot(&outside.0)), Vec::<String>::new());
}

/// Gives the mirror something to do in every directory, through descriptors that no link diverts.
fn spoil(top: &Path, run: usize) {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(mut directory) = rustix::fs::open(top, flags, Mode::empty()) else { return };
    for name in ["a", "b", "c"] {
        let Ok(inner) = openat(&directory, name, flags, Mode::empty()) else { return };
        directory = inner;
        let create = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for number in [run % 40, (run + 13) % 40] {
            let name = format!("file{number}");
            if let Ok(file) = openat(&directory, name, create | OFlags::TRUNC, Mode::RUSR) {
                let _ = rustix::io::write(&file, b"spoilt");
            }
        }
        let _ = openat(&directory, "surplus", create, Mode::RUSR);
        let _ = rustix::fs::fchmod(&directory, Mode::from(0o750));
    }
}

fn with_10000_swaps_of_directories_for_links_touch_nothing_outside() {
    let (pair, outside) = scene();
    let below = |name: &str| outside.path(name);
    let swapped =
        [("a", below("")), ("a/b", below("b")), ("a/b/c", below("b/c")), ("a/b/d7", below("b/d7"))];
    sabotage(&pair, &outside, &swapped);
}

fn with_10000_swaps_of_files_for_links_touch_nothing_outside() {
    let (pair, outside) = scene();
    let mut swapped: Vec<(&str, PathBuf)> = Vec::new();
    for (name, target) in [
        ("a/file3", "file3"),
        ("a/b/file5", "b/file5"),
        ("a/b/c/file9", "b/c/file9"),
        ("a/b/d9", "b/d9/precious"),
    ] {
        swapped.push((name, outside.path(target)));
    }
    let canary = outside.path("file3").metadata().unwrap();
    sabotage(&pair, &outside, &swapped);
    let now = outside.path("file3").metadata().unwrap();
    assert_eq!(now.permissions().mode(), canary.permissions().mode());
    assert_eq!((now.uid(), now.ctime_nsec()), (canary.uid(), canary.ctime_nsec()));
}
