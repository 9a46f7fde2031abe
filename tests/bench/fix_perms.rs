//! fix-perms against `chown -R`, one after the other in the same run: 107 000 entries that are right
//! already, on ext4 and in the lower layer of an overlay. Needs root.
//!
//! Elapsed and processor time: the walk takes two threads, which help only where processors are idle.
use std::fs::{File, create_dir_all, write};
use std::os::unix::fs::{chown, lchown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support;
use crate::support::mounts::{Mounted, ext4_image};
use crate::support::{Need, program};

/// The user in the trees.
const USER: u32 = 1000;
/// Rounds on ext4; the shortest time of each counts.
const ROUNDS: usize = 9;

/// The benchmark.
pub fn bench() {
    if !Need::Root.met() || !Need::Loop.met() {
        println!("fix_perms: needs root and loop devices");
        return;
    }
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
    let mut times = [NEVER; 3];
    time(&mut chown_of(&tree));
    time(&mut boot());
    for _ in 0..ROUNDS {
        for (best, mut command) in times.iter_mut().zip([chown_of(&tree), by_hand(), boot()]) {
            *best = best.min(time(&mut command));
        }
    }
    show("chown -R", times[0], times[0]);
    show("fix-perms TREE", times[1], times[0]);
    show("fix-perms (asks every file for capabilities)", times[2], times[0]);

    println!("overlay, everything in the lower layer, once each:");
    let mut times = [NEVER; 2];
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
        *best = time(&mut command);
        drop(overlay);
        let copied = walkdir::WalkDir::new(&upper).min_depth(1).into_iter().count();
        println!("  {} entries copied up by {:?}", copied, command.get_program());
        std::fs::remove_dir_all(&upper).unwrap();
        std::fs::remove_dir_all(&work).unwrap();
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

/// Elapsed and processor time.
#[derive(Clone, Copy)]
struct Time {
    elapsed: Duration,
    processor: Duration,
}

const NEVER: Time = Time { elapsed: Duration::MAX, processor: Duration::MAX };

impl Time {
    fn min(self, other: Self) -> Self {
        Self {
            elapsed: self.elapsed.min(other.elapsed),
            processor: self.processor.min(other.processor),
        }
    }
}

fn time(command: &mut Command) -> Time {
    let (used, start) = (processor_time(), Instant::now());
    let status = command.status().unwrap();
    let elapsed = start.elapsed();
    assert!(status.success(), "{command:?}");
    Time { elapsed, processor: processor_time() - used }
}

/// Of all children that have ended.
fn processor_time() -> Duration {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike;
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let sum = usage.user_time() + usage.system_time();
    Duration::from_micros(sum.num_microseconds().cast_unsigned())
}

fn show(what: &str, time: Time, of: Time) {
    let seconds = |time: Duration| time.as_secs_f64();
    println!(
        "  {what:<45} elapsed {:7.3} s {:6.1}x   processor {:7.3} s {:6.1}x",
        seconds(time.elapsed),
        seconds(of.elapsed) / seconds(time.elapsed),
        seconds(time.processor),
        seconds(of.processor) / seconds(time.processor),
    );
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get())
}
