//! Somebody who renames, links and replaces entries all the time while root gives the tree away.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::support::compare::{snapshot, touched};
use crate::support::sandbox::{Outcome, PROGRAM_INSIDE, Sandbox};
use crate::support::{Case, Need, Stop, test_case};

/// Swaps that must have happened; a few thousand take less than a second.
const SWAPS: u64 = 4000;
const RUNS: usize = 150;

pub fn cases() -> Vec<Case> {
    const ROOT: &[Need] = &[Need::Root];
    const STRACE: &[Need] = &[Need::Root, Need::Program("strace")];
    vec![
        test_case!(directories_that_become_links_lead_nowhere, ROOT),
        test_case!(files_that_become_links_to_roots_files_stay_roots, ROOT),
        test_case!(a_planted_name_that_moves_about_counts_once, ROOT),
        test_case!(a_planted_name_in_a_directory_that_moves_counts_once, ROOT),
        test_case!(what_takes_the_place_of_the_new_sessions_link_is_not_given, STRACE),
        test_case!(what_takes_the_place_of_a_failed_file_is_not_removed, STRACE),
    ]
}

pub fn exchange(a: &Path, b: &Path) {
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
}

/// Runs the boot again and again while `attack` goes on, until both have had their share.
#[track_caller]
pub fn besiege(sandbox: &Sandbox, attack: impl Fn(u64) + Sync) {
    let (swaps, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                attack(swaps.load(Ordering::Relaxed));
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _stop = Stop(&stop);
        let mut runs = 0;
        while runs < RUNS || swaps.load(Ordering::Relaxed) < SWAPS {
            let outcome = sandbox.program().arg("fix-perms").run();
            assert!(outcome.status <= 1, "{}", crate::fix_perms::said(&outcome));
            runs += 1;
        }
    });
}

fn directories_that_become_links_lead_nowhere() {
    let sandbox = Sandbox::with(
        "mkdir -p canary/sub; echo x > canary/f; echo x > canary/sub/f
         mkdir -p configs/top/d/sub; echo x > configs/top/d/f; echo x > configs/top/d/sub/f",
    );
    let top = sandbox.path("/configs/top");
    symlink("/canary", top.join("l")).unwrap();
    let before = snapshot(&sandbox.path("/canary"));
    let (directory, link) = (top.join("d"), top.join("l"));
    besiege(&sandbox, |swap| {
        exchange(&directory, &link);
        // There must always be something to give, under both names.
        for path in [&directory, &link] {
            let inside = path.join("f");
            if swap % 2 == 1 && path.symlink_metadata().unwrap().is_dir() {
                std::os::unix::fs::chown(&inside, Some(0), Some(0)).unwrap();
            }
        }
    });
    let after = snapshot(&sandbox.path("/canary"));
    assert_eq!(touched(&before, &after), Vec::<String>::new());
    assert_eq!(sandbox.sh("stat -c %u /configs/top/[dl]"), "1000\n1000\n");
}

fn files_that_become_links_to_roots_files_stay_roots() {
    let sandbox = Sandbox::with(
        "mkdir canary; echo x > canary/f; echo x > canary/g; mkdir configs/top
         ln canary/g configs/top/g; echo x > configs/top/f",
    );
    let top = sandbox.path("/configs/top");
    symlink("/canary/f", top.join("l")).unwrap();
    let (file, link, hard) = (top.join("f"), top.join("l"), top.join("g"));
    let before = snapshot(&sandbox.path("/canary/f"));
    besiege(&sandbox, |swap| {
        match swap % 2 {
            0 => exchange(&file, &link),
            _ => exchange(&file, &hard),
        }
        for path in [&file, &link, &hard] {
            let data = path.symlink_metadata().unwrap();
            if std::os::unix::fs::MetadataExt::nlink(&data) == 1 {
                std::os::unix::fs::lchown(path, Some(0), Some(0)).unwrap();
            }
        }
    });
    let after = snapshot(&sandbox.path("/canary/f"));
    assert_eq!(touched(&before, &after), Vec::<String>::new());
    assert_eq!(sandbox.sh("stat -c %u:%g /canary/g"), "0:0\n");
}

fn a_planted_name_that_moves_about_counts_once() {
    let sandbox = Sandbox::with(
        "mkdir canary configs/a configs/b; echo x > canary/f; ln canary/f configs/a/x",
    );
    let (here, there) = (sandbox.path("/configs/a/x"), sandbox.path("/configs/b/y"));
    besiege(&sandbox, |swap| match swap % 2 {
        0 => std::fs::rename(&here, &there).unwrap(),
        _ => std::fs::rename(&there, &here).unwrap(),
    });
    assert_eq!(sandbox.sh("stat -c %u:%g:%h /canary/f"), "0:0:2\n");
}

fn a_planted_name_in_a_directory_that_moves_counts_once() {
    let sandbox = Sandbox::with(
        "mkdir -p canary configs/a/x; echo x > canary/f; ln canary/f configs/a/x/f
         mkdir configs/b",
    );
    let (here, there) = (sandbox.path("/configs/a/x"), sandbox.path("/configs/b/y"));
    besiege(&sandbox, |swap| match swap % 2 {
        0 => std::fs::rename(&here, &there).unwrap(),
        _ => std::fs::rename(&there, &here).unwrap(),
    });
    assert_eq!(sandbox.sh("stat -c %u:%g:%h /canary/f"), "0:0:2\n");
}

/// Runs the boot with `calls` injected by strace, and `swap` as soon as `path` is there as `kind` (a
/// character of ls(1)). The delay of the calls lets it win its race each time.
#[track_caller]
fn ambush(sandbox: &Sandbox, calls: &str, path: &Path, link: bool, swap: impl FnOnce()) -> Outcome {
    let run = sandbox.command("/usr/bin/strace").args(["-f", "-qq", "-o", "/dev/null"]);
    let run = run.args(["-e", &format!("inject={calls}"), PROGRAM_INSIDE, "fix-perms"]);
    let run = run.start();
    let there = || path.symlink_metadata().is_ok_and(|data| data.is_symlink() == link);
    let start = std::time::Instant::now();
    while !there() {
        assert!(start.elapsed().as_secs() < 60, "{} never came", path.display());
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    swap();
    run.wait()
}

fn what_takes_the_place_of_the_new_sessions_link_is_not_given() {
    const DELAY: &str = "symlink,symlinkat:delay_exit=500000";
    for (what, plant) in [
        ("a file of root's", "ln canary/shadow home/agent/.claude/planted"),
        (
            "a link of root's with another name",
            "ln -s /root/.claude/sessions canary/link; ln canary/link home/agent/.claude/planted",
        ),
        ("another link of root's", "ln -s /nowhere home/agent/.claude/planted"),
        ("a directory of root's", "mkdir home/agent/.claude/planted"),
        ("nothing", ":"),
    ] {
        let sandbox = Sandbox::with(&format!(
            "mkdir -p canary root/.claude/sessions home/agent/.claude
             echo secret > canary/shadow; chmod 600 canary/shadow; {plant}"
        ));
        let claude = sandbox.path("/home/agent/.claude");
        let (link, planted) = (claude.join("sessions"), claude.join("planted"));
        let outcome = ambush(&sandbox, DELAY, &link, true, || {
            std::fs::remove_file(&link).unwrap();
            if planted.symlink_metadata().is_ok() {
                // What the walk before gave is root's again, and has not been looked at since.
                std::os::unix::fs::lchown(&planted, Some(0), Some(0)).unwrap();
                std::fs::rename(&planted, &link).unwrap();
            }
        });
        assert_eq!(outcome.status, 1, "{what}: {outcome:?}");
        let owners = "find /canary /home/agent/.claude/sessions -printf '%U:%G ' 2> /dev/null || :";
        let owners = sandbox.sh(owners);
        assert!(owners.split_whitespace().all(|owner| owner == "0:0"), "{what}: {owners}");
        let log = outcome.stdout();
        assert!(!log.contains("linked /home/agent/.claude/sessions"), "{what}: {log}");
        let words = match what {
            "nothing" => "open /home/agent/.claude/sessions: No such file or directory",
            _ => "something else was put in the place of the new link",
        };
        crate::fix_perms::warning(&log, words);
    }
}

fn what_takes_the_place_of_a_failed_file_is_not_removed() {
    let sandbox = Sandbox::new();
    let settings = sandbox.path("/home/agent/.claude/settings.json");
    // The only write of that length.
    let fails = "write:error=ENOSPC:delay_exit=500000:when=1";
    let outcome = ambush(&sandbox, fails, &settings, false, || {
        std::fs::remove_file(&settings).unwrap();
        std::fs::write(&settings, "mine").unwrap();
    });
    assert_eq!(outcome.status, 1, "{outcome:?}");
    crate::fix_perms::warning(
        &outcome.stdout(),
        "write /home/agent/.claude/settings.json: No space left",
    );
    assert_eq!(sandbox.sh("cat /home/agent/.claude/settings.json"), "mine");
}
