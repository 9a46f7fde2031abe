//! `entrypoint [ARG]...`: the boot of a workspace container. Everything that may fail is attempted and
//! told; only a missing user or a missing runtime ends it.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr, OsString};
use std::time::Duration;

use molecule_tools::error::{Result, escape};
use molecule_tools::fs::Dir;
use molecule_tools::heartbeat::Heartbeat;
use molecule_tools::identity::{self, AgentSpec, DEFAULT_AGENT, Database, Identity};
use molecule_tools::log;
use molecule_tools::process;
use molecule_tools::process::step::{self, StepEnd};
use tracing::Level;

use crate::{Context, boot_audit, fix_perms, git_cred_setup, restore, token_refresh};

/// The steps of the boot, in the order of the contract.
pub fn run(context: &Context) -> u8 {
    let mut environment = process::environment();
    let limit = step_limit(&environment);
    if let Some(status) = audit(limit) {
        return status;
    }
    if rustix::process::geteuid().is_root() {
        let restored = match guarded("restore", limit, |heart| restore::boot(heart, 2 * limit)) {
            Ended::BootToo(status) => return status,
            ended => ended == Ended::Itself,
        };
        let agent = setting(&environment, "MOLECULE_AGENT", DEFAULT_AGENT);
        let looked_up = look_up(&agent);
        match Dir::open_operator_path("/") {
            Ok(root) => {
                let credentials = git_cred_setup::wanted(&environment);
                let ownership = guarded("ownership", limit, |heart| {
                    fix_perms::boot(&root, &agent, restored, heart);
                    // Else that step does it.
                    if !credentials {
                        git_cred_setup::clear_leftovers();
                    }
                    None
                });
                if let Ended::BootToo(status) = ownership {
                    return status;
                }
                if credentials {
                    let credentials = guarded("git credentials", limit, |heart| {
                        git_cred_setup::boot(&root, &agent, heart);
                        None
                    });
                    if let Ended::BootToo(status) = credentials {
                        return status;
                    }
                }
            }
            Err(error) => complain(&error.to_string()),
        }
        if let Some(status) = record(limit) {
            return status;
        }
        // A disk that failed then may answer now.
        match looked_up.or_else(|_| look_up(&agent)).and_then(assume) {
            Ok(identity) => process::set(&mut environment, "HOME", identity.home.as_os_str()),
            Err(error) => {
                complain(&error.to_string());
                return 1;
            }
        }
        if let Some(status) = audit(limit) {
            return status;
        }
    } else {
        if let Err(error) = stay() {
            complain(&error.to_string());
            return 1;
        }
        if let Some(status) = record(limit) {
            return status;
        }
    }
    let durable = guarded("durability", limit, |_| {
        restore::make_durable();
        None
    });
    if let Ended::BootToo(status) = durable {
        return status;
    }
    if token_refresh::wanted(&environment) {
        context.inherited.give_back_limits();
        token_refresh::start_daemon(&environment);
    }
    exec_runtime(context, &environment)
}

fn audit(limit: Duration) -> Option<u8> {
    let ended = guarded("audit", limit, |_| {
        boot_audit::boot();
        None
    });
    match ended {
        Ended::BootToo(status) => Some(status),
        _ => None,
    }
}

/// Leaves the records of this start; a tree that hangs does not leave the others without.
fn record(limit: Duration) -> Option<u8> {
    let (root, trees) = restore::trees()?;
    for tree in &trees {
        let ended = guarded("record", limit, |heart| {
            restore::note_start(&root, tree, heart);
            None
        });
        if let Ended::BootToo(status) = ended {
            return Some(status);
        }
    }
    None
}

/// How a guarded step has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It came to its end.
    Itself,
    /// It did not, which was told.
    Early,
    /// The boot has to end too, with this status.
    BootToo(u8),
}

/// Runs a step of the boot in a process of its own, which may hang, crash or be killed: that is told
/// and the boot goes on. It ends if `work` gives a status for that or a signal asks for its end.
#[must_use]
fn guarded(name: &str, limit: Duration, work: impl FnOnce(&Heartbeat) -> Option<u8>) -> Ended {
    match step::run(limit, |heart| work(heart).unwrap_or(0)) {
        StepEnd::Returned(0) => return Ended::Itself,
        StepEnd::Returned(status) => return Ended::BootToo(status),
        StepEnd::Interrupted(signal) => return Ended::BootToo(128 + signal as u8),
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
    Ended::Early
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
    let (database, without_groups) = Database::read_users(&Dir::open_operator_path("/")?)?;
    match (AgentSpec::new(agent).resolve(&database), without_groups) {
        (identity, None) => identity,
        (Ok(identity), Some(error)) => {
            warn(&format!("{error}; the agent gets no supplementary groups"));
            Ok(identity)
        }
        (Err(_), Some(error)) => Err(error),
    }
}

/// Becomes `identity` for good.
fn assume(identity: Identity) -> Result<Identity> {
    if identity.uid != 0 && identity.groups.contains(&0) {
        warn("/etc/group lists the agent in root's group (0)");
    }
    if let Some(unset) = identity.assume()? {
        warn(&unset.to_string());
    }
    Ok(identity)
}

/// Goes on as whoever started this process, without rights beyond that user's.
fn stay() -> Result<()> {
    if identity::give_up_capabilities()? {
        warn("started with capabilities, which are given up");
    }
    if rustix::process::getegid().is_root() {
        warn("started with root's group (0) as its own");
    }
    Ok(())
}

/// Hands everything over to the runtime: its bare name as `argv[0]`, then every argument untouched.
/// Returns only on failure.
fn exec_runtime(context: &Context, environment: &[CString]) -> u8 {
    let runtime = setting(environment, "MOLECULE_RUNTIME", "molecule-runtime");
    let typed = &context.inherited.arguments;
    let passed = &typed[typed.len() - context.arguments.len()..];
    let name = CString::new(runtime.as_encoded_bytes()).unwrap_or_default();
    let arguments: Vec<CString> = [name].into_iter().chain(passed.iter().cloned()).collect();
    let failure = context.inherited.exec_as_shell(&runtime, &arguments, environment);
    complain(&failure.error.to_string());
    failure.status
}

/// The value of variable `name`; set-but-empty counts as unset.
fn setting(environment: &[CString], name: &str, default: &str) -> OsString {
    process::lookup(environment, name)
        .filter(|value| !value.is_empty())
        .unwrap_or(OsStr::new(default))
        .to_owned()
}

fn complain(what: &str) {
    log::complain("entrypoint", Level::ERROR, what);
}

fn warn(what: &str) {
    log::complain("entrypoint", Level::WARN, what);
}
