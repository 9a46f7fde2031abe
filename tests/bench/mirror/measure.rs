//! One run of one program in a process of its own that waits for it and reads its usage.

use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

/// What a run took.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub seconds: f64,
    /// Processor seconds in user mode, of all its processes.
    pub user: f64,
    /// Processor seconds in the kernel.
    pub system: f64,
    /// Peak resident memory of its largest process, MiB.
    pub mebibytes: f64,
}

/// Runs `command` in a measuring process.
pub fn run(command: &[String]) -> Usage {
    let this = std::env::current_exe().unwrap();
    let said = crate::support::ok(Command::new(this).arg("--measure").args(command));
    let numbers: Vec<f64> = said.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let [seconds, user, system, mebibytes] = numbers[..] else { panic!("{command:?}: {said}") };
    Usage { seconds, user, system, mebibytes }
}

/// What the measuring process does.
pub fn print(command: &[&str]) {
    let start = Instant::now();
    let mut child = Command::new(command[0]);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MOLECULE_")) {
        child.env_remove(name);
    }
    let status = child.args(&command[1..]).stdout(Stdio::null()).status().unwrap();
    let seconds = start.elapsed().as_secs_f64();
    assert!(status.success(), "{command:?}: {status}");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let of = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    let (user, system) = (of(usage.user_time()), of(usage.system_time()));
    println!("{seconds} {user} {system} {}", usage.max_rss() as f64 / 1024.0);
}
