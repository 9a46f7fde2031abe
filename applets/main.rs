//! `molecule-tools`: one binary, several applets. A symlink named after an applet is that applet;
//! otherwise the first argument names it.
//!
//! - `install`: the symlinks, and names in the place of a template's own script
//! - `declared`: the configuration, checked and shown
//! - `entrypoint`: the boot, an applet
//! - `hooks`: what an image has run before the runtime
//! - `git_cred_setup`, `git_credential_molecule`, `token_refresh`, `restore`, `fix_perms`, `boot_audit`, `gosu`: the other applets
//! - `applet`: a row of the table
//! - `exit`: exit statuses
// The standard runtime's start-up would ignore SIGPIPE for good and open /dev/null on closed
// standard descriptors, and the runtime we exec must inherit neither.
#![no_main]

mod applet;
mod boot_audit;
mod declared;
mod entrypoint;
mod exit;
mod fix_perms;
mod git_cred_setup;
mod git_credential_molecule;
mod gosu;
mod hooks;
mod install;
mod restore;
mod token_refresh;

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use molecule_tools::error::escape;
use molecule_tools::identity::refuse_set_id;
use molecule_tools::log::{self, LogStream};
use molecule_tools::process::Inherited;
use tracing::Level;

use applet::{Applet, Context};
use exit::{Exit, Status};

static APPLETS: &[Applet] = &[
    boot_audit::APPLET,
    restore::APPLET,
    fix_perms::APPLET,
    gosu::APPLET,
    git_cred_setup::APPLET,
    git_credential_molecule::APPLET,
    token_refresh::APPLET,
    entrypoint::APPLET,
];

fn find(name: &OsStr) -> Option<&'static Applet> {
    APPLETS.iter().find(|applet| name == applet.name)
}

fn dispatch(arguments: Vec<CString>) -> Status {
    let words: Vec<OsString> = arguments
        .iter()
        .map(|argument| OsStr::from_bytes(argument.to_bytes()).to_owned())
        .collect();
    let inherited = Inherited::take(arguments);
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or_default();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let line = format!("a fault of this program at {place}: {}", escape(message));
        log::complain("molecule-tools", Level::ERROR, &line);
    }));
    if let Err(error) = refuse_set_id() {
        log::complain("molecule-tools", Level::ERROR, &error.to_string());
        return Status::Failed;
    }
    log::init(match std::env::var_os("MOLECULE_LOG") {
        Some(form) if form == "json" => log::LogFormat::Json,
        _ => log::LogFormat::Text,
    });
    let called_as = words.first().map(std::path::Path::new).and_then(|p| p.file_name());
    if called_as.is_some_and(install::is_drop_in) {
        return run(&entrypoint::APPLET, inherited, &words[1..]);
    }
    if let Some(applet) = called_as.and_then(find) {
        return run(applet, inherited, &words[1..]);
    }
    let Some(first) = words.get(1) else {
        log::write_line(LogStream::Stderr, &usage());
        return Status::Usage;
    };
    if let Some(applet) = find(first) {
        return run(applet, inherited, &words[2..]);
    }
    match first.to_str() {
        Some("--list") => {
            for applet in APPLETS {
                log::write_line(LogStream::Stdout, applet.name);
            }
            Status::Done
        }
        Some("--install") => install::run(&words[2..], APPLETS),
        Some("--stub") => install::stub(&words[2..]),
        Some("--check-config") => declared::check(&words[2..]),
        Some("--print-config") => declared::print(&words[2..]),
        Some("--version" | "-V") => {
            log::write_line(
                LogStream::Stdout,
                concat!("molecule-tools ", env!("CARGO_PKG_VERSION")),
            );
            Status::Done
        }
        Some("help") if words.len() == 3 => match find(&words[2]) {
            // Its options are the runtime's.
            Some(applet) if applet.name == entrypoint::APPLET.name => {
                log::write_line(LogStream::Stdout, entrypoint::HELP);
                Status::Done
            }
            Some(applet) => run(applet, inherited, &["--help".into()]),
            None => unknown(&words[2]),
        },
        Some("--help" | "-h" | "help") => {
            log::write_line(LogStream::Stdout, &usage());
            Status::Done
        }
        _ => unknown(first),
    }
}

/// Says that there is no such applet, and which one may have been meant.
fn unknown(name: &OsStr) -> Status {
    /// Of 1 for the same word.
    const SIMILAR: f64 = 0.8;
    let typed = name.to_string_lossy();
    let similar = APPLETS.iter().map(|applet| (strsim::jaro(applet.name, &typed), applet.name));
    let nearest = similar.max_by(|one, other| one.0.total_cmp(&other.0));
    let meant = match nearest.filter(|(similarity, _)| *similarity > SIMILAR) {
        Some((_, applet)) => format!("; did you mean {applet}?"),
        None => String::new(),
    };
    let line = format!("molecule-tools: no applet named {}{meant}\n{}", escape(name), usage());
    log::write_line(LogStream::Stderr, &line);
    Status::Usage
}

/// Runs an applet, and prints the error that ended it.
fn run(applet: &Applet, inherited: Inherited, words: &[OsString]) -> Status {
    let context = Context { name: applet.name, inherited, arguments: words.to_vec() };
    match (applet.run)(&context) {
        Ok(status) | Err(Exit::Said(status)) => status,
        Err(Exit::Error(what)) => {
            log::complain(applet.name, Level::ERROR, &what);
            Status::Failed
        }
    }
}

fn usage() -> String {
    let mut text = String::from(
        "usage: molecule-tools APPLET [ARG]...\n       \
         molecule-tools --list | --install DIR [--as-entrypoint FILE] | --stub NAME\n       \
         molecule-tools --print-config | --check-config [FILE]\n       \
         molecule-tools --version | --help | help APPLET\n\napplets:",
    );
    for applet in APPLETS {
        text.push_str(&format!("\n  {:<15} {}", applet.name, applet.summary));
    }
    text
}

/// The entry point the C library calls.
// SAFETY: the C library calls `main` once, with argc valid C strings in argv (C17 5.1.2.2.1).
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn main(argc: i32, argv: *const *const std::ffi::c_char) -> i32 {
    let count = usize::try_from(argc).unwrap_or(0);
    let arguments = (0..count)
        // SAFETY: see above.
        .map(|index| unsafe { CStr::from_ptr(*argv.add(index)) }.to_owned())
        .collect();
    dispatch(arguments).code().into()
}
