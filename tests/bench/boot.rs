//! A boot without work, from its start to the exec of the runtime, by the reference script and by the
//! program, in turns, in equal sandboxes. As root; needs rsync and gosu as the script does. Fails if the
//! median ratio is below [`REQUIRED`].
use std::ffi::{CStr, CString};
use std::path::Path;

use crate::support;
use crate::support::sandbox::{PROGRAM_INSIDE, Sandbox};

/// How many times faster the program has to be.
const REQUIRED: f64 = 10.0;
/// Pairs of runs that are measured, after one of each that does the first boot's work.
const PAIRS: usize = 60;
/// Carries the clock of the start through the boot.
const START: &str = "BOOT_STARTED_AT";
/// Where the stand-in for the runtime leaves the nanoseconds that passed.
const ELAPSED: &str = "/tmp/elapsed";

fn now() -> i128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

fn sandbox() -> Sandbox {
    let this = std::env::current_exe().expect("/proc/self/exe");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/entrypoint.sh");
    Sandbox::with(&format!(
        "for name in molecule-runtime starter; do
             : > usr/local/bin/$name; mount --bind -o ro '{}' usr/local/bin/$name
         done
         cp {script} entrypoint.sh; chmod 755 entrypoint.sh",
        this.display()
    ))
}

/// Milliseconds of one boot.
fn measure(sandbox: &Sandbox, boot: &[&str]) -> f64 {
    let outcome = sandbox.command("/usr/local/bin/starter").args(boot).run();
    assert_eq!(outcome.status, 0, "{outcome:?}");
    let text = std::fs::read_to_string(sandbox.path(ELAPSED)).expect("the runtime ran");
    std::fs::remove_file(sandbox.path(ELAPSED)).expect("remove it");
    text.parse::<f64>().expect("a number") / 1e6
}

fn quartiles(mut values: Vec<f64>) -> [f64; 5] {
    values.sort_by(f64::total_cmp);
    [0, 1, 2, 3, 4].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

/// The benchmark; the exit status.
pub fn bench() -> i32 {
    let (scripted, native) = (sandbox(), sandbox());
    let script = || measure(&scripted, &["/entrypoint.sh"]);
    let program = || measure(&native, &[PROGRAM_INSIDE, "entrypoint"]);
    script();
    program();
    let pairs: Vec<(f64, f64)> = (0..PAIRS).map(|_| (script(), program())).collect();
    let print = |what: &str, values: [f64; 5]| {
        let [least, low, median, high, most] = values;
        println!("{what:<22} {least:8.2} {low:8.2} {median:8.2} {high:8.2} {most:8.2}");
    };
    println!("boot without work, {PAIRS} pairs in turns    program: {}", support::PROGRAM);
    println!("{:22} {:>8} {:>8} {:>8} {:>8} {:>8}", "", "least", "25 %", "median", "75 %", "most");
    print("reference script, ms", quartiles(pairs.iter().map(|pair| pair.0).collect()));
    print("program, ms", quartiles(pairs.iter().map(|pair| pair.1).collect()));
    let ratios = quartiles(pairs.iter().map(|pair| pair.0 / pair.1).collect());
    print("times faster", ratios);
    println!("required: {REQUIRED}");
    i32::from(ratios[2] < REQUIRED)
}

/// Takes the time and execs the boot; called by the name `starter`.
pub fn start(arguments: &[&CStr]) -> i32 {
    let mut environment: Vec<CString> = std::env::vars()
        .filter_map(|(name, value)| CString::new(format!("{name}={value}")).ok())
        .collect();
    environment.push(CString::new(format!("{START}={}", now())).expect("no NUL"));
    let Err(errno) = nix::unistd::execve(arguments[1], &arguments[1..], &environment);
    panic!("{}: {errno}", arguments[1].to_string_lossy());
}

/// The runtime's stand-in: writes how long the boot took to get here.
pub fn finish() -> i32 {
    let end = now();
    let start: i128 = std::env::var(START).expect("set").parse().expect("a number");
    std::fs::write(Path::new(ELAPSED), (end - start).to_string()).expect("write it");
    0
}
