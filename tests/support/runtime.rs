//! A stand-in for the runtime that boot execs: the test binary itself under the runtime's name, which
//! writes what it was given to [`VIEW`] and exits with [`STATUS`].
//!
//! So the test binary is `#![no_main]` and calls [`start`] from its C `main`: the standard runtime's start-up
//! would change the very state that is to be seen.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;

use super::Group;
use super::sandbox::Sandbox;

/// Where the view is written, inside the sandbox.
pub const VIEW: &str = "/tmp/runtime-view";
/// How the stand-in exits.
pub const STATUS: i32 = 7;
/// The name boot looks for.
const NAME: &str = "molecule-runtime";

/// What a process was given, one line of text for each: the kernel's words where it has some.
pub type View = BTreeMap<String, String>;

/// A sandbox with the stand-in as /usr/local/bin/molecule-runtime; `script` as for [`Sandbox::with`].
pub fn sandbox(script: &str) -> Sandbox {
    let this = std::env::current_exe().expect("/proc/self/exe");
    Sandbox::with(&format!(
        ": > usr/local/bin/{NAME}; mount --bind -o ro '{}' usr/local/bin/{NAME}\n{script}",
        this.display()
    ))
}

/// What the stand-in saw; none if it did not run. The next run starts anew.
pub fn take_view(sandbox: &Sandbox) -> Option<View> {
    let text = std::fs::read_to_string(sandbox.path(VIEW)).ok()?;
    std::fs::remove_file(sandbox.path(VIEW)).expect("remove the view");
    let line = |line: &str| {
        let (name, value) = line.split_once('\t')?;
        Some((name.to_owned(), value.to_owned()))
    };
    Some(text.lines().filter_map(line).collect())
}

/// The body of C's `main`: the stand-in, or the tests.
pub fn start(argc: i32, argv: *const *const c_char, groups: fn() -> Vec<Group>) -> i32 {
    let count = usize::try_from(argc).unwrap_or(0);
    // SAFETY: the C library hands over argc valid C strings.
    #[allow(unsafe_code)]
    let arguments: Vec<&CStr> =
        (0..count).map(|index| unsafe { CStr::from_ptr(*argv.add(index)) }).collect();
    if arguments.first().is_some_and(|name| name.to_bytes().ends_with(NAME.as_bytes())) {
        write_view(&arguments);
        return STATUS;
    }
    super::run(groups())
}

fn write_view(arguments: &[&CStr]) {
    let mut view = View::new();
    let mut put = |name: &str, value: String| view.insert(name.to_owned(), value);
    let bytes: Vec<String> = arguments.iter().map(|a| shown(a.to_bytes())).collect();
    put("argv", bytes.join(" "));
    let environment = std::fs::read("/proc/self/environ").unwrap_or_default();
    for entry in environment.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
        let end = entry.iter().position(|byte| *byte == b'=');
        let (name, value) = entry.split_at(end.unwrap_or(entry.len()));
        put(&format!("env {}", shown(name)), shown(value));
    }
    put("env entries", environment.iter().filter(|byte| **byte == 0).count().to_string());
    put("pid", std::process::id().to_string());
    put("cwd", std::env::current_dir().map_or_else(|e| e.to_string(), |d| d.display().to_string()));
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    const KEPT: [&str; 17] = [
        "Uid",
        "Gid",
        "Groups",
        "Umask",
        "SigBlk",
        "SigIgn",
        "SigCgt",
        "SigPnd",
        "NoNewPrivs",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "Threads",
        "Seccomp",
        "PPid",
    ];
    for (name, value) in status.lines().filter_map(|line| line.split_once(":\t")) {
        if KEPT.contains(&name) {
            put(name, value.trim().replace('\t', " "));
        }
    }
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    for line in limits.lines().skip(1) {
        put(&format!("limit {}", line[..25].trim()), line[25..].trim().to_owned());
    }
    for number in 0..64 {
        if let Ok(target) = std::fs::read_link(format!("/proc/self/fd/{number}")) {
            put(&format!("fd {number}"), shown(target.as_os_str().as_bytes()));
        }
    }
    put("stdin", stdin_content());
    let mut text = String::new();
    for (name, value) in &view {
        let _ = writeln!(text, "{name}\t{value}");
    }
    std::fs::write(VIEW, text).expect("write the view");
}

/// The first bytes of a standard input that is a regular file.
fn stdin_content() -> String {
    let regular = std::fs::metadata("/proc/self/fd/0").is_ok_and(|metadata| metadata.is_file());
    match regular {
        true => shown(&std::fs::read("/proc/self/fd/0").unwrap_or_default()),
        false => String::new(),
    }
}

fn shown(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}
