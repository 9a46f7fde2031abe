//! `gosu USER[:GROUP] COMMAND [ARG]...`: become that user for good and exec the command.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use molecule_tools::error::{Error, Result, escape};
use molecule_tools::fs::Dir;
use molecule_tools::identity::{Identity, UserDatabase, UserSpec};
use molecule_tools::log::{self, LogStream};
use molecule_tools::process;

use crate::applet::{Applet, Context};
use crate::exit::{Exit, Status};

pub const APPLET: Applet =
    Applet { name: "gosu", summary: "become a user and exec a command", run };

const USAGE: &str = "\
usage: gosu USER[:GROUP] COMMAND [ARG]...
       gosu --help | --version

Becomes USER and execs COMMAND: same process, no shell, no session. USER and
GROUP are names or decimal ids; an empty USER is the caller's. Without GROUP the
process gets the user's primary group and exactly the groups that list the user
as a member; with it, that group alone. HOME is set from /etc/passwd, nothing
else in the environment changes. COMMAND is looked up in PATH as the new user.
It takes root, or CAP_SETUID and CAP_SETGID, unless the caller has that uid and
gid already.

Every failure before COMMAND runs is one line on standard error and status 1.

  gosu agent molecule-runtime
  gosu 1000:1000 id
  gosu nobody:root sh -c 'whoami && id'";

fn run(context: &Context) -> Result<Status, Exit> {
    match context.arguments.first().and_then(|first| first.to_str()) {
        Some("--help" | "-h" | "-?") => {
            log::write_line(LogStream::Stdout, USAGE);
            return Ok(Status::Done);
        }
        Some("--version" | "-v") => {
            let version = concat!("gosu (molecule-tools) ", env!("CARGO_PKG_VERSION"));
            log::write_line(LogStream::Stdout, version);
            return Ok(Status::Done);
        }
        _ => {}
    }
    let [spec, name, ..] = context.arguments.as_slice() else {
        log::write_line(LogStream::Stderr, USAGE);
        return Err(Exit::Said(Status::Failed));
    };
    let Err(exit) = switch_and_exec(context, spec, name);
    Err(exit)
}

/// Returns only on failure.
fn switch_and_exec(context: &Context, spec: &OsStr, name: &OsStr) -> Result<Infallible, Exit> {
    let typed = &context.inherited.arguments;
    let command = &typed[typed.len() - (context.arguments.len() - 1)..];

    let identity = assume(context, spec)
        .map_err(|error| Exit::Error(format!("cannot become {}: {error}", escape(spec))))?;

    let mut environment = process::environment();
    let path = process::lookup(&environment, "PATH");
    let program = process::find_program(name, path)?;
    process::set(&mut environment, "HOME", identity.home.as_os_str());
    let errno = context.inherited.exec(&program, command, &environment);
    let program = OsStr::from_bytes(program.to_bytes());
    Err(Error::os("run", program, errno).into())
}

fn assume(context: &Context, spec: &OsStr) -> Result<Identity> {
    let spec = UserSpec::parse(spec)?;
    let identity = spec.resolve(&UserDatabase::read(&Dir::open_operator_path("/")?)?)?;
    context.assume(&identity)?;
    Ok(identity)
}
