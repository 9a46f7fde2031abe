//! `molecule-tools`: one binary, several applets. A symlink named after an applet is that applet;
//! otherwise the first argument names it.
// The standard runtime's start-up would ignore SIGPIPE for good and open /dev/null on closed
// standard descriptors, and the runtime we exec must inherit neither.
#![no_main]

mod boot_audit;
mod entrypoint;
mod fix_perms;
mod git_cred_setup;
mod gosu;
mod install;
mod restore;
mod token_refresh;

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use molecule_tools::error::escape;
use molecule_tools::identity::refuse_set_id;
use molecule_tools::log::{self, Stream};
use molecule_tools::process::Inherited;
use tracing::Level;

/// What an applet is given.
pub struct Context {
    /// What the process inherited; argv included.
    pub inherited: Inherited,
    /// The arguments after the applet's name.
    pub arguments: Vec<OsString>,
}

impl Context {
    /// Parses the arguments with clap. On `--help` or bad usage prints and gives the exit status.
    pub fn parse<T: clap::Parser>(&self, name: &'static str) -> Result<T, u8> {
        let command = T::command().name(name).bin_name(format!("molecule-tools {name}"));
        let arguments = std::iter::once(OsString::from(name)).chain(self.arguments.iter().cloned());
        let parsed = command
            .version(env!("CARGO_PKG_VERSION"))
            .try_get_matches_from(arguments)
            .and_then(|matches| T::from_arg_matches(&matches));
        parsed.map_err(|error| {
            match error.use_stderr() {
                // It repeats the argument, which may be the name of somebody's file.
                true => log::write_lines(Stream::Stderr, &error.render().to_string()),
                // A closed stream must not turn a help text into a failure.
                false => drop(error.print()),
            }
            u8::try_from(error.exit_code()).unwrap_or(2)
        })
    }
}

/// One row of the table.
pub struct Applet {
    /// Name on the command line and of the symlink.
    pub name: &'static str,
    /// One line for the list.
    pub summary: &'static str,
    /// Runs it; the result is the exit status.
    pub run: fn(&Context) -> u8,
}

static APPLETS: &[Applet] = &[
    Applet {
        name: "boot-audit",
        summary: "show what a container started with, no secret in it",
        run: boot_audit::run,
    },
    Applet {
        name: "restore",
        summary: "bring the restore set back from a snapshot",
        run: restore::run,
    },
    Applet {
        name: "fix-perms",
        summary: "give the agent user its directories",
        run: fix_perms::run,
    },
    Applet { name: "gosu", summary: "become a user and exec a command", run: gosu::run },
    Applet {
        name: "git-cred-setup",
        summary: "set the GitHub credential helper for root and the agent",
        run: git_cred_setup::run,
    },
    Applet {
        name: "token-refresh",
        summary: "keep the GitHub token refresh script running",
        run: token_refresh::run,
    },
    Applet { name: "entrypoint", summary: "boot the container: all of it", run: entrypoint::run },
];

fn find(name: &OsStr) -> Option<&'static Applet> {
    APPLETS.iter().find(|applet| name == applet.name)
}

fn dispatch(mut arguments: Vec<CString>) -> u8 {
    let words: Vec<OsString> = arguments
        .iter()
        .map(|argument| OsStr::from_bytes(argument.to_bytes()).to_owned())
        .collect();
    let inherited = Inherited::take(std::mem::take(&mut arguments));
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or_default();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let line = format!("a fault of this program at {place}: {}", escape(message));
        log::complain("molecule-tools", Level::ERROR, &line);
    }));
    if let Err(error) = refuse_set_id() {
        log::complain("molecule-tools", Level::ERROR, &error.to_string());
        return 1;
    }
    log::init(match std::env::var_os("MOLECULE_LOG") {
        Some(form) if form == "json" => log::Format::Json,
        _ => log::Format::Text,
    });
    let called_as = words.first().map(std::path::Path::new).and_then(|p| p.file_name());
    if let Some(applet) = called_as.and_then(find) {
        return (applet.run)(&Context { inherited, arguments: words[1..].to_vec() });
    }
    let Some(first) = words.get(1) else {
        log::write_line(Stream::Stderr, &usage());
        return 2;
    };
    if let Some(applet) = find(first) {
        return (applet.run)(&Context { inherited, arguments: words[2..].to_vec() });
    }
    match first.to_str() {
        Some("--list") => {
            for applet in APPLETS {
                log::write_line(Stream::Stdout, applet.name);
            }
            0
        }
        Some("--install") => install::run(&words[2..], APPLETS),
        Some("--version" | "-V") => {
            log::write_line(Stream::Stdout, concat!("molecule-tools ", env!("CARGO_PKG_VERSION")));
            0
        }
        Some("--help" | "-h") => {
            log::write_line(Stream::Stdout, &usage());
            0
        }
        _ => {
            let line = format!("molecule-tools: no applet named {}\n{}", escape(first), usage());
            log::write_line(Stream::Stderr, &line);
            2
        }
    }
}

fn usage() -> String {
    let mut text = String::from(
        "usage: molecule-tools APPLET [ARG]...\n       \
         molecule-tools --list | --install DIR | --version | --help\n\napplets:",
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
    dispatch(arguments).into()
}
