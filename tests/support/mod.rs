//! What tests, benchmarks and the demo share: the harness that reports unmet needs as ignored, and the sandbox.
#![allow(dead_code, unused_imports, unused_macros, reason = "benchmarks and the demo use a part")]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "tests lay out trees by path and fail loudly"
)]

pub mod clock;
pub mod compare;
pub mod destination;
pub mod device;
pub mod docker;
pub mod fuse;
pub mod manifest;
pub mod memory;
pub mod mounts;
pub mod needs;
pub mod pair;
pub mod platform;
pub mod runtime;
pub mod sandbox;
pub mod server;
pub mod tls;
pub mod tree;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
pub use memory::{peak_memory, usage, usage_with};
pub use needs::Need;

/// One test: its name says what holds, its needs what the machine must have.
pub struct Case {
    name: &'static str,
    needs: &'static [Need],
    run: Box<dyn FnOnce() + Send>,
}

/// The name of a module of tests, and its cases.
pub type Group = (&'static str, Vec<Case>);

/// The case whose name is that of its function.
macro_rules! test_case {
    ($module:ident::$function:ident, $needs:expr) => {
        $crate::support::case(stringify!($function), $needs, $module::$function)
    };
    ($function:ident, $needs:expr) => {
        $crate::support::case(stringify!($function), $needs, $function)
    };
}
pub(crate) use test_case;

/// A case of any name, for what is done with several values.
pub fn case(
    name: &'static str,
    needs: &'static [Need],
    run: impl FnOnce() + Send + 'static,
) -> Case {
    Case { name, needs, run: Box::new(run) }
}

/// A job in the background of a script inherits ignored signals; what is tested here must not. A program that
/// does not read what it is given is not the tests' end.
fn set_signals() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: SIG_IGN installs no code.
    #[allow(unsafe_code)]
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
    for number in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        // SAFETY: SIG_DFL installs no code.
        #[allow(unsafe_code)]
        let _ = unsafe { signal(number, SigHandler::SigDfl) };
    }
}

/// Runs the cases, one group after the other. A case with an unmet need is reported as ignored with the need in
/// its name; with `MOLECULE_REQUIRE` set to `all` or to a comma-separated list that has the need, it fails.
/// Returns the exit status.
pub fn run(groups: Vec<Group>) -> i32 {
    set_signals();
    mounts::leave_the_machine_alone();
    let arguments = Arguments::from_args();
    let mut failed = false;
    for (group, cases) in groups {
        let trials = cases.into_iter().map(|case| trial(group, case)).collect::<Vec<_>>();
        let wanted = |trial: &Trial| match &arguments.filter {
            Some(filter) if arguments.exact => trial.name() == filter,
            Some(filter) => trial.name().contains(filter.as_str()),
            None => true,
        };
        if trials.iter().any(wanted) {
            failed |= libtest_mimic::run(&arguments, trials).has_failed();
        }
    }
    if failed { 101 } else { 0 }
}

fn trial(group: &str, case: Case) -> Trial {
    let required = std::env::var("MOLECULE_REQUIRE").unwrap_or_default();
    let unmet: Vec<&Need> = case.needs.iter().filter(|need| !need.met()).collect();
    let missing: Vec<String> = unmet.iter().map(|need| need.label()).collect();
    let must = unmet.iter().any(|need| need.required_by(&required));
    let reason = format!("needs {}", missing.join(", "));
    let failure = reason.clone();
    let name = format!("{group}::{}", case.name);
    let trial = Trial::test(name, move || match missing.is_empty() {
        true => {
            (case.run)();
            Ok(())
        }
        false => Err(failure.into()),
    });
    match unmet.is_empty() {
        true => trial,
        false => trial.with_kind(reason).with_ignored_flag(!must),
    }
}

/// Sets a flag when it goes, by a panic too: a thread that works until then ends, and so does a test that fails.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits until `condition` holds; a generous limit guards against hangs.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(100), "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_molecule-tools");

/// Where the program in sandboxes is: the one under test, or what `MOLECULE_BINARY` names, so that the
/// same suite can judge another build.
pub fn program_path() -> &'static Path {
    static PATH: LazyLock<PathBuf> = LazyLock::new(|| {
        std::env::var_os("MOLECULE_BINARY").map_or_else(|| PROGRAM.into(), Into::into)
    });
    &PATH
}

/// A command that runs the program under test with none of the caller's `MOLECULE_*` variables.
pub fn program() -> Command {
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MOLECULE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs `command`, which must succeed; gives its standard output.
#[track_caller]
pub fn ok(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", output.status);
    stdout
}

/// Copies a program that is to be run. Another process writes it: what this one has open for writing, a process that
/// another thread forks has open until its exec, and the kernel runs no such program (ETXTBSY of execve(2)).
#[track_caller]
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    ok(Command::new("cp").args([from.as_ref(), to.as_ref()]));
}

/// What rsync would still have to do to make `to` equal to `from`, content compared: empty when the
/// copy is perfect.
pub fn rsync_differences(from: &Path, to: &Path) -> String {
    let slash = |path: &Path| format!("{}/", path.display());
    ok(Command::new("rsync")
        .args(["-aHAXn", "--checksum", "--delete", "--numeric-ids", "-i"])
        .args([slash(from), slash(to)]))
}
