//! What a tree of somebody's can make a restore say and keep.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::support::mounts::Mounted;
use crate::support::pair::{Pair, said};
use crate::support::{Case, peak_memory, test_case};

/// Most memory that a restore may have, in KiB.
const MEMORY: u64 = 64 * 1024;

pub fn cases() -> Vec<Case> {
    let needs = crate::mirror_faults::NEEDS;
    vec![
        test_case!(failures_far_down_are_told_in_few_words, needs),
        test_case!(with_300000_hard_link_groups_fit_into_64_mib, needs),
        test_case!(with_300000_directories_side_by_side_fit_into_64_mib, needs),
        test_case!(with_400000_surplus_names_fit_into_64_mib, needs),
        test_case!(surplus_in_100000_directories_fits_into_64_mib, needs),
        test_case!(with_20000_hard_link_groups_in_directories_of_their_own_fit, needs),
    ]
}

/// A directory `levels` below `top`, each level with a name of 255 bytes.
fn deep(top: &Path, levels: usize) -> OwnedFd {
    let name = CString::new(vec![b'd'; 255]).unwrap();
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut directory = rustix::fs::open(top, flags, Mode::empty()).unwrap();
    for _ in 0..levels {
        rustix::fs::mkdirat(&directory, &name, Mode::from(0o755)).unwrap();
        directory = rustix::fs::openat(&directory, &name, flags, Mode::empty()).unwrap();
    }
    directory
}

/// A pair on a tmpfs, for trees of many inodes.
struct Roomy {
    pair: Pair,
    _room: [Mounted; 2],
}

impl Roomy {
    fn new() -> Self {
        let pair = Pair::new();
        let room = |path: &Path| Mounted::tmpfs(path, "6g,nr_inodes=3m");
        let room = [room(&pair.source), room(&pair.root)];
        std::fs::create_dir(pair.from().0).unwrap();
        std::fs::create_dir(pair.root.join("configs")).unwrap();
        Self { pair, _room: room }
    }

    /// Restores it; it takes no more memory than it may.
    #[track_caller]
    fn restore(&self) {
        let mut command = self.pair.command();
        let (output, memory) = peak_memory(&mut command);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(memory < MEMORY, "{memory} KiB");
    }
}

fn empty(path: std::path::PathBuf) {
    drop(std::fs::File::create(path).unwrap());
}

fn with_300000_hard_link_groups_fit_into_64_mib() {
    use std::os::unix::fs::MetadataExt;
    const GROUPS: usize = 300_000;
    let roomy = Roomy::new();
    let (from, to) = (roomy.pair.from(), roomy.pair.to());
    from.dir("a").dir("b");
    let elsewhere = roomy.pair.source.join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    for number in 0..GROUPS {
        let (a, b) = (from.path(format!("a/{number}")), from.path(format!("b/{number}")));
        empty(a.clone());
        std::fs::hard_link(&a, b).unwrap();
        // One that is not restored, so that no group is ever known to be met in full.
        std::fs::hard_link(&a, elsewhere.join(number.to_string())).unwrap();
    }
    for _ in 0..2 {
        roomy.restore();
        let inode = |name: String| to.path(name).symlink_metadata().unwrap().ino();
        let torn = (0..GROUPS).filter(|n| inode(format!("a/{n}")) != inode(format!("b/{n}")));
        assert_eq!(torn.count(), 0);
    }
}

/// A name of 200 bytes.
fn long(number: usize) -> String {
    format!("{number:0>200}")
}

fn with_300000_directories_side_by_side_fit_into_64_mib() {
    let roomy = Roomy::new();
    let from = roomy.pair.from();
    for number in 0..300_000 {
        std::fs::create_dir(from.path(long(number))).unwrap();
    }
    from.file(format!("{}/file", long(299_999)), "x");
    roomy.restore();
    assert_eq!(std::fs::read_dir(roomy.pair.to().0).unwrap().count(), 300_000);
    assert!(roomy.pair.to().path(long(299_999)).join("file").exists());
}

fn with_400000_surplus_names_fit_into_64_mib() {
    let roomy = Roomy::new();
    let to = roomy.pair.to();
    to.dir("files").dir("surplus/directories");
    roomy.pair.from().file("files/stays", "x");
    for number in 0..400_000 {
        empty(to.path("files").join(long(number)));
        std::fs::create_dir(to.path("surplus/directories").join(long(number))).unwrap();
    }
    roomy.restore();
    assert_eq!(std::fs::read_dir(to.path("files")).unwrap().count(), 1);
    assert!(!to.path("surplus").exists());
}

/// How many of what is in `tree` have this name.
fn named(tree: &Path, name: &str) -> usize {
    let entries = walkdir::WalkDir::new(tree).into_iter().map(Result::unwrap);
    entries.filter(|entry| entry.file_name() == name).count()
}

fn surplus_in_100000_directories_fits_into_64_mib() {
    let roomy = Roomy::new();
    let (from, to) = (roomy.pair.from(), roomy.pair.to());
    for number in 0..100_000 {
        let name = format!("{}/directory{number}", number % 100);
        from.dir(&name);
        to.dir(&name);
        empty(to.path(format!("{name}/surplus")));
    }
    roomy.restore();
    assert_eq!(named(&to.0, "surplus"), 0);
}

fn with_20000_hard_link_groups_in_directories_of_their_own_fit() {
    use std::os::unix::fs::MetadataExt;
    const GROUPS: usize = 20_000;
    let roomy = Roomy::new();
    let (from, to) = (roomy.pair.from(), roomy.pair.to());
    for number in 0..GROUPS {
        let name = format!("a/{}/{}/{number}", number % 10, number % 100);
        from.file(format!("{name}/first"), number.to_string());
        from.dir(format!("b/{number}"))
            .link(format!("b/{number}/second"), &format!("{name}/first"));
        to.file(format!("{name}/surplus"), "x").file(format!("{name}/first"), "old");
    }
    for _ in 0..2 {
        roomy.restore();
        for number in 0..GROUPS {
            let first = to.path(format!("a/{}/{}/{number}/first", number % 10, number % 100));
            let [first, second] = [first, to.path(format!("b/{number}/second"))];
            assert_eq!(std::fs::read_to_string(&first).unwrap(), number.to_string());
            assert_eq!(first.metadata().unwrap().ino(), second.metadata().unwrap().ino());
        }
        assert_eq!(named(&to.0, "surplus"), 0);
        assert_eq!(named(&to.0, "first"), GROUPS);
    }
}

fn failures_far_down_are_told_in_few_words() {
    const LEVELS: usize = 3000;
    const FILES: usize = 1500;
    let pair = Pair::new();
    let bottom = deep(&pair.from().0, LEVELS);
    for number in 0..FILES {
        let name = CString::new(format!("file{number}")).unwrap();
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&bottom, &name, flags, Mode::from(0o644)).unwrap();
        rustix::fs::ftruncate(&file, 5 << 20).unwrap();
    }
    let inner = pair.command();
    let mut command = std::process::Command::new("bash");
    command.args(["-c", "ulimit -f 4096; exec \"$@\"", "bash", crate::support::PROGRAM]);
    let (output, memory) = peak_memory(command.args(inner.get_args()).arg("--json"));
    let text = said(&output);
    let head = text.chars().take(3000).collect::<String>();
    assert!(text.contains("exited 11"), "{head}");
    let longest = text.lines().map(str::len).max();
    assert!(longest < Some(1500), "{longest:?}");
    let lines = || text.lines().filter(|line| line.contains("WARN write "));
    assert_eq!(lines().count(), 1000, "{head}");
    assert!(
        lines().all(|line| line.contains(" bytes ...]/ddd") && line.contains("/file")),
        "{head}"
    );
    assert_eq!(text.matches("\"reason\": \"write: File too large\"").count(), 100, "{head}");
    assert!(text.contains("further errors are counted, not listed"), "{head}");
    assert!(output.stdout.len() < 200_000, "a report of {} bytes", output.stdout.len());
    assert!(memory < MEMORY, "{memory} KiB");
}
