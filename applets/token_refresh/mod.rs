//! `token-refresh`: keeps the GitHub token fresh, natively or by a program of the image's.
//!
//! - `native`: the program's own refreshing
#![forbid(unsafe_code)]

mod native;

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use molecule_tools::error::{Error, Result};
use molecule_tools::fs::{Dir, patiently};
use molecule_tools::identity::UserDatabase;
use molecule_tools::log;
use molecule_tools::process::{
    self, BoundedLog, ChildEnd, PreparedSupervisor, SupervisedJob, Supervisor,
};
use rustix::io::Errno;
use tracing::Level;

use crate::applet::{Applet, Context};
use crate::exit::{Exit, Status};

pub const APPLET: Applet =
    Applet { name: "token-refresh", summary: "keep the GitHub token fresh", run };

const SCRIPT: &str = "/app/scripts/molecule-gh-token-refresh.sh";
/// Variable that names another command.
const COMMAND: &str = "MOLECULE_REFRESH_COMMAND";
const PAUSE: Duration = Duration::from_secs(30);
/// The daemon's log takes this much, and what was logged before it as much again.
const LOG_LIMIT: u64 = 1 << 20;

/// Fetches a GitHub token from the platform before the last one ends, and keeps it in
/// ~/.molecule-token-cache for git-credential-molecule, in ~/.gh_token, and in gh if there is one.
///
/// If --command names a program, or there is one at /app/scripts/molecule-gh-token-refresh.sh, that is run in
/// place of all this, and again 30 seconds after each end of it, with a line on standard error with its
/// status (128 plus the number for a signal).
#[derive(Parser)]
#[command(
    after_help = "TOKEN_REFRESH_INITIAL_DELAY_SEC (60), TOKEN_REFRESH_INTERVAL_SEC (2700) and \
TOKEN_REFRESH_JITTER_SEC (120) are the times; the interval is only the longest, for a token is always \
replaced about 300 seconds before its end. If TOKEN_HELPER_SCRIPT is set, each refresh runs `bash \
$TOKEN_HELPER_SCRIPT _refresh_gh` instead of asking the platform. PLATFORM_URL, WORKSPACE_ID, MOLECULE_ORG_ID \
and CONFIGS_DIR say whom to ask.\n\nSIGTERM, SIGINT, SIGHUP and SIGQUIT end it: what it runs and all \
descendants get SIGTERM, what is left of them 5 seconds later or at a second such signal gets \
SIGKILL, and the exit status is 128 plus the signal's number. SIGINT, SIGHUP and SIGQUIT stay \
ignored if they were when it was started, as with nohup. Should it be killed by SIGKILL, what it runs \
is killed too. That runs in a session of its own."
)]
struct Options {
    /// Path of a program to run in place of refreshing natively; it gets no arguments
    #[arg(long, value_name = "CMD", env = COMMAND)]
    command: Option<OsString>,
    /// Refresh once, now, whatever is cached, and say what was done; with a command: run it once, end
    /// what it leaves behind, and give its exit status
    #[arg(long)]
    once: bool,
    /// Say what is cached and for how long; the exit status is 1 if it is nothing
    #[arg(long, conflicts_with = "once")]
    status: bool,
}

fn run(context: &Context) -> Result<Status, Exit> {
    let options: Options = context.parse()?;
    let environment = process::environment();
    if options.status {
        return Ok(native::status(&environment));
    }
    let refresher = Refresher::new(options.command.as_deref());
    if let (Refresher::Native, true) = (&refresher, options.once) {
        return Ok(native::refresh(&environment));
    }
    let prepared = PreparedSupervisor::new(None)?;
    Ok(supervise(&refresher, &environment, prepared, options.once)?)
}

/// How tokens are refreshed.
enum Refresher {
    /// By a program that runs for ever.
    Program(CString),
    /// By this one.
    Native,
}

impl Refresher {
    /// `named` by the operator, else the image's program if it is there.
    fn new(named: Option<&OsStr>) -> Self {
        let present = || Some(OsStr::new(SCRIPT)).filter(|script| executable(script));
        match named.filter(|name| !name.is_empty()).or_else(present) {
            // Nothing from the kernel has a NUL byte.
            Some(program) => Self::Program(CString::new(program.as_bytes()).unwrap_or_default()),
            None => Self::Native,
        }
    }
}

/// Whether the operator asked for GitHub mirror credentials.
pub fn wanted(environment: &[CString]) -> bool {
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
    let refresher = Refresher::new(process::setting(environment, COMMAND));
    if let Err(error) = process::fork_child(|| be_daemon(&refresher, prepared, environment)) {
        log::complain(APPLET.name, Level::WARN, &format!("not started: {error}"));
    }
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
fn be_daemon(refresher: &Refresher, prepared: PreparedSupervisor, environment: &[CString]) -> u8 {
    match process::become_daemon(c"token-refresh", &prepared.descriptors()) {
        Ok(()) => {
            // Standard error is the log file from here on, which is text in every form of the boot log.
            log::init(log::LogFormat::Text);
            supervise(refresher, environment, prepared, false).map_or(1, Status::code)
        }
        Err(error) => {
            log::complain(APPLET.name, Level::WARN, &format!("not started: {error}"));
            1
        }
    }
}

/// An error that ends it has been printed where the command's output goes, unless it is run once.
fn supervise(
    refresher: &Refresher,
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
    match refresher {
        Refresher::Program(program) => {
            keep_running(&mut supervisor, &SupervisedJob::Program(program, environment), once)
        }
        Refresher::Native => native::keep_fresh(&mut supervisor, environment),
    }
}

fn keep_running(
    supervisor: &mut Supervisor,
    job: &SupervisedJob<'_>,
    once: bool,
) -> Result<Status> {
    loop {
        let status = match supervisor.run(job) {
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
