//! `token-refresh`: keeps the script running that refreshes the GitHub token.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use molecule_tools::error::{Error, Result};
use molecule_tools::fs::{Dir, patiently};
use molecule_tools::identity::UserDatabase;
use molecule_tools::log;
use molecule_tools::process::{self, BoundedLog, ChildEnd, PreparedSupervisor, Supervisor};
use rustix::io::Errno;
use tracing::Level;

use crate::applet::{Applet, Context};
use crate::exit::{Exit, Status};

pub const APPLET: Applet =
    Applet { name: "token-refresh", summary: "keep the GitHub token refresh script running", run };

const SCRIPT: &str = "/app/scripts/molecule-gh-token-refresh.sh";
/// Variable that names another command.
const COMMAND: &str = "MOLECULE_REFRESH_COMMAND";
const PAUSE: Duration = Duration::from_secs(30);
/// The daemon's log takes this much, and what was logged before it as much again.
const LOG_LIMIT: u64 = 1 << 20;

/// Runs the command that refreshes the GitHub token, and again 30 seconds after each end of it, with
/// a line on standard error with its status (128 plus the number for a signal).
#[derive(Parser)]
#[command(after_help = "SIGTERM, SIGINT, SIGHUP and SIGQUIT end it: the command and all its \
descendants get SIGTERM, what is left of them 5 seconds later or at a second such signal gets \
SIGKILL, and the exit status is 128 plus the signal's number. SIGINT, SIGHUP and SIGQUIT stay \
ignored if they were when it was started, as with nohup. Should it be killed by SIGKILL, the command \
is killed too. The command runs in a session of its own.")]
struct Options {
    /// Path of the program to run; it gets no arguments
    #[arg(long, value_name = "CMD", env = COMMAND, default_value = SCRIPT)]
    command: OsString,
    /// Run it once, end what it leaves behind, and give its exit status
    #[arg(long)]
    once: bool,
}

fn run(context: &Context) -> Result<Status, Exit> {
    let options: Options = context.parse()?;
    // No argument from the kernel has a NUL byte.
    let program = CString::new(options.command.into_vec()).unwrap_or_default();
    let prepared = PreparedSupervisor::new(None)?;
    Ok(supervise(&program, &process::environment(), prepared, options.once)?)
}

/// Whether the boot starts the daemon: mirror credentials are asked for, and this process may execute
/// the command.
pub fn wanted(environment: &[CString]) -> bool {
    mirror_credentials(environment) && executable(command(environment))
}

/// Whether the operator asked for GitHub mirror credentials.
pub fn mirror_credentials(environment: &[CString]) -> bool {
    process::lookup(environment, "ENABLE_GITHUB_MIRROR_CREDENTIALS") == Some(OsStr::new("true"))
}

/// Whether this process may execute `path`, as `test -x` says it. After an error it is taken
/// for granted, with a warning: a command that is not there is reported when it is run, and tried again.
pub fn executable(path: &OsStr) -> bool {
    let look = || match rustix::fs::access(path, rustix::fs::Access::EXEC_OK) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(Error::os("look whether it may be executed:", path, errno)),
    };
    patiently(look).unwrap_or_else(|error| {
        let line = format!("{error}; going on as if it may");
        log::complain("entrypoint", Level::WARN, &line);
        true
    })
}

/// Starts the supervisor in the background, with `environment` for the command. It is a child of this
/// process, which has one thread, and lives on when this process execs. On failure a warning is
/// printed, and there is no daemon.
pub fn start_daemon(environment: &[CString]) {
    let prepared = match open_log().and_then(|log| PreparedSupervisor::new(Some(log))) {
        Ok(prepared) => prepared,
        Err(error) => {
            return log::complain(APPLET.name, Level::WARN, &format!("not started: {error}"));
        }
    };
    if let Err(error) = process::fork_child(|| be_daemon(prepared, environment)) {
        log::complain(APPLET.name, Level::WARN, &format!("not started: {error}"));
    }
}

fn command(environment: &[CString]) -> &OsStr {
    process::setting(environment, COMMAND).unwrap_or(OsStr::new(SCRIPT))
}

fn open_log() -> Result<BoundedLog> {
    use users::os::unix::UserExt as _;
    let uid = rustix::process::geteuid().as_raw();
    let database = Dir::open_operator_path("/").and_then(|root| UserDatabase::read_users(&root));
    let database = database.inspect_err(|error| {
        log::complain(APPLET.name, Level::WARN, &format!("{error}; its log goes to /home/agent"));
    });
    let home = database
        .ok()
        .map(|(users, _)| users)
        .and_then(|database| Some(database.user_by_uid(uid)?.home_dir().to_owned()))
        .unwrap_or_else(|| PathBuf::from("/home/agent"));
    // Links on the way are followed with this user's own rights only.
    BoundedLog::create(Dir::open_operator_path(home)?, c".gh-token-refresh.log", LOG_LIMIT)
}

/// The daemon's whole life; returns its exit status.
fn be_daemon(prepared: PreparedSupervisor, environment: &[CString]) -> u8 {
    let program = CString::new(command(environment).as_bytes()).unwrap_or_default();
    match process::become_daemon(c"token-refresh", &prepared.descriptors()) {
        Ok(()) => supervise(&program, environment, prepared, false).map_or(1, Status::code),
        Err(error) => {
            log::complain(APPLET.name, Level::WARN, &format!("not started: {error}"));
            1
        }
    }
}

/// An error that ends it has been printed where the command's output goes, unless it is run once.
fn supervise(
    program: &CString,
    environment: &[CString],
    prepared: PreparedSupervisor,
    once: bool,
) -> Result<Status> {
    let mut supervisor = Supervisor::new(prepared);
    if let Err(error) = supervisor.take_over() {
        if once {
            return Err(error);
        }
        supervisor.say(&format!("token-refresh: {error}"));
        return Ok(Status::Failed);
    }
    loop {
        let status = match supervisor.run(program, environment) {
            Ok(ChildEnd::Status(status)) => status,
            Ok(ChildEnd::Stopped(signal)) => return Ok(Status::of_signal(signal as i32)),
            Err(error) if once => return Err(error),
            // No process to be had just now; there may be one later.
            Err(error) => {
                supervisor.say(&format!("token-refresh: {error}"));
                1
            }
        };
        if once {
            supervisor.end_all();
            return Ok(Status::Command(status));
        }
        supervisor.say(&format!(
            "[molecule-gh-token-refresh] daemon exited rc={status} — respawning in 30s"
        ));
        if let Some(signal) = supervisor.pause(PAUSE)? {
            return Ok(Status::of_signal(signal as i32));
        }
    }
}
