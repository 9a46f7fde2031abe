//! What a tree of somebody's can make a restore say and keep.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::support::pair::{Pair, said};
use crate::support::{Case, case, peak_memory};

/// Most memory that a restore may have, in KiB.
const MEMORY: u64 = 64 * 1024;

pub fn cases() -> Vec<Case> {
    let needs = crate::NEEDS;
    vec![case("failures_far_down_are_told_in_few_words", needs, far_down)]
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

fn far_down() {
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
