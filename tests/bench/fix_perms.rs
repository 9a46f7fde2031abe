//! fix-perms against `chown -R`, one after the other in the same run: 107 000 entries that are right
//! already, on ext4 and in the lower layer of an overlay. Needs root. `cargo bench --bench fix_perms`.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "benchmarks lay out trees by path and fail loudly"
)]

#[path = "../support/mod.rs"]
mod support;

use std::fs::{File, create_dir_all, write};
use std::os::unix::fs::{chown, lchown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::mounts::{Mounted, ext4_image, leave_the_machine_alone};
use support::{Need, program};

/// The user in the trees.
const USER: u32 = 1000;
/// Rounds on ext4; the shortest time of each counts.
const ROUNDS: usize = 9;
/// Rounds on the overlay, where `chown -R` copies every file.
const OVERLAY_ROUNDS: usize = 3;

fn main() {
    if !Need::Root.met() || !Need::Loop.met() {
        println!("fix_perms: needs root and loop devices");
        return;
    }
    leave_the_machine_alone();
    let place = tempfile::tempdir().unwrap();
    let image = place.path().join("image");
    ext4_image(&image, 2048, &["-N", "400000"]);
    let disk = Mounted::image(&image, place.path().join("disk"), "noatime");
    let root = disk.0.join("root");
    let tree = root.join("configs");
    let entries = lay_out(&root, &tree);
    println!("{entries} entries of the right owner, {} CPUs", processors());

    let by_hand = || {
        let mut command = program();
        command.args(["fix-perms", "--user", "1000:1000"]).arg(&tree);
        command
    };
    let boot = || {
        let mut command = program();
        command.args(["fix-perms", "--root"]).arg(&root);
        command
    };
    println!("ext4, everything cached, shortest of {ROUNDS}:");
    let mut times = [Duration::MAX; 3];
    time(&mut chown_of(&tree));
    time(&mut boot());
    for _ in 0..ROUNDS {
        for (best, mut command) in times.iter_mut().zip([chown_of(&tree), by_hand(), boot()]) {
            *best = time(&mut command).min(*best);
        }
    }
    show("chown -R", times[0], times[0]);
    show("fix-perms TREE", times[1], times[0]);
    show("fix-perms (asks every file for capabilities)", times[2], times[0]);

    println!("overlay, everything in the lower layer, shortest of {OVERLAY_ROUNDS}:");
    let mut times = [Duration::MAX; 2];
    for _ in 0..OVERLAY_ROUNDS {
        for (index, best) in times.iter_mut().enumerate() {
            let (upper, work) = (disk.0.join("upper"), disk.0.join("work"));
            let merged = disk.0.join("merged");
            for directory in [&upper, &work, &merged] {
                create_dir_all(directory).unwrap();
            }
            chown(&upper, Some(USER), Some(USER)).unwrap();
            let options = format!(
                "lowerdir={},upperdir={},workdir={}",
                tree.display(),
                upper.display(),
                work.display()
            );
            let mount = ["-t", "overlay", "overlay", "-o", &options];
            support::ok(Command::new("mount").args(mount).arg(&merged));
            let overlay = Mounted(merged.clone());
            let mut command = match index {
                0 => chown_of(&merged),
                _ => {
                    let mut command = program();
                    command.args(["fix-perms", "--user", "1000:1000"]).arg(&merged);
                    command
                }
            };
            *best = time(&mut command).min(*best);
            drop(overlay);
            let copied = walkdir::WalkDir::new(&upper).min_depth(1).into_iter().count();
            println!("  {} entries copied up by {:?}", copied, command.get_program());
            std::fs::remove_dir_all(&upper).unwrap();
            std::fs::remove_dir_all(&work).unwrap();
        }
    }
    show("chown -R", times[0], times[0]);
    show("fix-perms TREE", times[1], times[0]);
}

/// 100 directories with 82 packages of 12 files each, a link in some.
fn lay_out(root: &Path, tree: &Path) -> usize {
    create_dir_all(root.join("etc")).unwrap();
    create_dir_all(root.join("home/agent")).unwrap();
    write(root.join("etc/passwd"), "agent:x:1000:1000::/home/agent:/bin/sh\n").unwrap();
    write(root.join("etc/group"), "agent:x:1000:\n").unwrap();
    for top in 0..100 {
        for package in 0..82 {
            let directory = tree.join(format!("scope-{top}/package-{package}"));
            create_dir_all(&directory).unwrap();
            for file in 0..12 {
                write(directory.join(format!("module_{file}.js")), "export default 1;\n").unwrap();
            }
            if package % 16 == 0 {
                symlink("module_0.js", directory.join("index.js")).unwrap();
            }
        }
    }
    let mut entries = 0;
    for entry in walkdir::WalkDir::new(tree) {
        lchown(entry.unwrap().path(), Some(USER), Some(USER)).unwrap();
        entries += 1;
    }
    rustix::fs::syncfs(File::open(tree).unwrap()).unwrap();
    entries
}

fn chown_of(tree: &Path) -> Command {
    let mut command = Command::new("chown");
    command.args(["-R", "1000:1000"]).arg(tree);
    command
}

fn time(command: &mut Command) -> Duration {
    let start = Instant::now();
    let status = command.status().unwrap();
    let taken = start.elapsed();
    assert!(status.success(), "{command:?}");
    taken
}

fn show(what: &str, time: Duration, of: Duration) {
    let ratio = of.as_secs_f64() / time.as_secs_f64();
    println!("  {what:<46} {:8.3} s  {ratio:6.1}x", time.as_secs_f64());
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get())
}
