//! `entrypoint [ARG]...`: the boot of a workspace container. Everything that may fail is attempted and
//! logged; only a missing user or a missing runtime ends it.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr, OsString};
use std::time::Duration;

use molecule_tools::error::{Result, escape};
use molecule_tools::fs::Dir;
use molecule_tools::heartbeat::Heartbeat;
use molecule_tools::identity::{self, AgentSpec, Identity, UserDatabase};
use molecule_tools::log;
use molecule_tools::process;
use molecule_tools::process::step::{self, StepEnd};
use tracing::Level;

use crate::applet::{Applet, Context};
use crate::exit::{Exit, Status};
use crate::{boot_audit, fix_perms, git_cred_setup, hooks, restore, token_refresh};
use molecule_tools::config::{self, RuntimeConfig, WorkspaceConfig};

pub const APPLET: Applet =
    Applet { name: "entrypoint", summary: "boot the container: all of it", run };

/// The applet itself has no `--help`: that, too, is the runtime's.
pub const HELP: &str = "\
usage: molecule-tools entrypoint [ARG]...

Boots the container: audit; as root restore, ownership, git credentials (if
enabled), then the agent for good; the token refresh daemon (if enabled); exec
of the runtime, which gets every ARG, --help too. /etc/molecule-tools.json can
declare all of it (molecule-tools --print-config).

Environment: MOLECULE_AGENT (agent), MOLECULE_RUNTIME (molecule-runtime),
MOLECULE_STEP_TIMEOUT (60 seconds), MOLECULE_LOG (text, or json),
ENABLE_GITHUB_MIRROR_CREDENTIALS (true), and those of the other applets.
Status: 1 no such user, 127 no runtime, 126 a runtime that cannot be executed,
128 and its number for SIGTERM and SIGINT; else the runtime's.";

/// The steps of the boot, in the order of the contract.
fn run(context: &Context) -> Result<Status, Exit> {
    let mut environment = process::environment();
    let limit = step_limit(&environment);
    // Before the steps part: each has it then, and mistakes in it are logged once.
    let config = config::in_force();
    audit(limit)?;
    if rustix::process::geteuid().is_root() {
        let identity = boot_as_root(context, &environment, config, limit)?;
        process::set(&mut environment, "HOME", identity.home.as_os_str());
        audit(limit)?;
    } else {
        stay()?;
        record(limit)?;
    }
    guarded("durability", limit, |_| {
        restore::make_durable();
        None
    })?;
    if token_refresh::wanted(&environment) {
        context.inherited.give_back_limits();
        token_refresh::start_daemon(&environment);
    }
    for (name, value) in &config.runtime.environment {
        process::set(&mut environment, name, OsStr::new(value));
    }
    for hook in &config.hooks {
        let limit = Duration::from_secs(hook.seconds) + limit;
        guarded("hook", limit, |_| {
            hooks::run(hook, &environment);
            None
        })?;
    }
    exec_runtime(context, &environment, &config.runtime)
}

/// The part of the boot that takes root's rights, the last of which is to become the agent for good.
fn boot_as_root(
    context: &Context,
    environment: &[CString],
    config: &WorkspaceConfig,
    limit: Duration,
) -> Result<Identity, Exit> {
    let restored = guarded("restore", limit, |heart| restore::boot(heart, 2 * limit))?;
    let agent = setting(environment, "MOLECULE_AGENT", &config.user);
    let looked_up = look_up(&agent);
    match Dir::open_operator_path("/") {
        Ok(root) => {
            let credentials = config.git_credentials && token_refresh::wanted(environment);
            guarded("ownership", limit, |heart| {
                fix_perms::boot(&root, &agent, restored == Ended::Itself, heart);
                // Else that step does it.
                if !credentials {
                    git_cred_setup::clear_leftovers();
                }
                None
            })?;
            if credentials {
                guarded("git credentials", limit, |heart| {
                    git_cred_setup::boot(&root, &agent, heart);
                    None
                })?;
            }
        }
        Err(error) => complain(&error.to_string()),
    }
    record(limit)?;
    // A disk that failed then may answer now.
    Ok(looked_up.or_else(|_| look_up(&agent)).and_then(|identity| assume(context, identity))?)
}

fn audit(limit: Duration) -> Result<Ended, Exit> {
    guarded("audit", limit, |_| {
        boot_audit::boot();
        None
    })
}

/// Leaves the records of this start; a tree that hangs does not leave the others without.
fn record(limit: Duration) -> Result<(), Exit> {
    let Some((root, trees)) = restore::trees() else { return Ok(()) };
    for tree in &trees {
        guarded("record", limit, |heart| {
            restore::note_start(&root, tree, heart);
            None
        })?;
    }
    Ok(())
}

/// How a guarded step has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It came to its end.
    Itself,
    /// It did not, which was logged.
    Early,
}

/// Runs a step of the boot in a process of its own, which may hang, crash or be killed: that is logged
/// and the boot goes on. The boot ends if `work` returns a status for that or a signal asks for its end.
fn guarded(
    name: &str,
    limit: Duration,
    work: impl FnOnce(&Heartbeat) -> Option<Status>,
) -> Result<Ended, Exit> {
    match step::run(limit, |heart| work(heart).map_or(0, Status::code)) {
        StepEnd::Returned(0) => return Ok(Ended::Itself),
        StepEnd::Returned(status) => return Err(Exit::Said(Status::Command(status))),
        StepEnd::Interrupted(signal) => {
            return Err(Exit::Said(Status::of_signal(signal as i32)));
        }
        StepEnd::Died(Some(signal)) => {
            warn(&format!("the {name} step was ended by {signal}; the boot goes on"));
        }
        StepEnd::Died(None) => warn(&format!("the {name} step ended early; the boot goes on")),
        StepEnd::Stuck { place, .. } => {
            let place = place.map(|place| format!(" in {}", escape(&place))).unwrap_or_default();
            let seconds = limit.as_secs();
            warn(&format!(
                "the {name} step has done nothing for {seconds} s{place}; it is left behind and \
                 the boot goes on; look whether a file system there answers (MOLECULE_STEP_TIMEOUT \
                 is the time in seconds)"
            ));
        }
    }
    Ok(Ended::Early)
}

/// How long a step may be without a sign of life: MOLECULE_STEP_TIMEOUT in seconds, 60 without it.
fn step_limit(environment: &[CString]) -> Duration {
    const DEFAULT: u64 = 60;
    let text = setting(environment, "MOLECULE_STEP_TIMEOUT", "60");
    let seconds = text.to_str().and_then(|text| text.parse().ok()).filter(|&seconds| seconds > 0);
    if seconds.is_none() {
        warn(&format!(
            "MOLECULE_STEP_TIMEOUT {} is no number of seconds; going on with {DEFAULT}",
            escape(&text)
        ));
    }
    Duration::from_secs(seconds.unwrap_or(DEFAULT))
}

/// Who `agent` is. A group file that cannot be read leaves out the supplementary groups: fewer rights
/// than the agent has, and certainly nobody else's.
fn look_up(agent: &OsStr) -> Result<Identity> {
    let (database, without_groups) = UserDatabase::read_users(&Dir::open_operator_path("/")?)?;
    match (AgentSpec::new(agent).resolve(&database), without_groups) {
        (identity, None) => identity,
        (Ok(identity), Some(error)) => {
            warn(&format!("{error}; the agent gets no supplementary groups"));
            Ok(identity)
        }
        (Err(_), Some(error)) => Err(error),
    }
}

fn assume(context: &Context, identity: Identity) -> Result<Identity> {
    if identity.uid != 0 && identity.groups.contains(&0) {
        warn("/etc/group lists the agent in root's group (0)");
    }
    context.assume(&identity)?;
    Ok(identity)
}

/// Goes on as the user who started this process, without rights beyond that user's.
fn stay() -> Result<()> {
    if identity::give_up_capabilities()? {
        warn("started with capabilities, which are given up");
    }
    if rustix::process::getegid().is_root() {
        warn("started with root's group (0) as its own");
    }
    Ok(())
}

/// Hands everything over to the runtime: its bare name as `argv[0]`, the arguments of the configuration, then
/// every argument untouched. Returns only on failure.
fn exec_runtime(
    context: &Context,
    environment: &[CString],
    config: &RuntimeConfig,
) -> Result<Status, Exit> {
    let runtime = setting(environment, "MOLECULE_RUNTIME", &config.command);
    let typed = &context.inherited.arguments;
    let passed = &typed[typed.len() - context.arguments.len()..];
    let fixed = config.arguments.iter().map(String::as_bytes);
    // Nothing of the configuration or the environment has a NUL byte.
    let own = [runtime.as_encoded_bytes()].into_iter().chain(fixed).map(CString::new);
    let arguments: Vec<CString> = own.flatten().chain(passed.iter().cloned()).collect();
    let failure = context.inherited.exec_as_shell(&runtime, &arguments, environment);
    complain(&failure.error.to_string());
    Err(Exit::Said(Status::Command(failure.status)))
}

/// The value of variable `name`, or else `default`.
fn setting(environment: &[CString], name: &str, default: &str) -> OsString {
    process::setting(environment, name).unwrap_or(OsStr::new(default)).to_owned()
}

fn complain(what: &str) {
    log::complain(APPLET.name, Level::ERROR, what);
}

fn warn(what: &str) {
    log::complain(APPLET.name, Level::WARN, what);
}
