//! Refreshing natively: one refresh, the daemon's schedule of them, and what is cached.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use molecule_tools::error::Result;
use molecule_tools::github::broker::{self, RefreshedToken};
use molecule_tools::github::cache::{self, TokenCache};
use molecule_tools::github::gh;
use molecule_tools::github::platform::RefusalKind;
use molecule_tools::github::schedule::RefreshSchedule;
use molecule_tools::log::{self, LogStream};
use molecule_tools::process::{self, ChildEnd, SupervisedJob, Supervisor};
use tracing::{info, warn};

use crate::exit::Status;

/// Variable that names a shell script which refreshes the token.
const SCRIPT: &str = "TOKEN_HELPER_SCRIPT";
const SECTION: &str = "MOLECULE-GITHUB";

/// One refresh, now; what was done has been logged.
pub fn refresh(environment: &[CString]) -> Status {
    log::section(SECTION, LogStream::Stdout);
    if let Some(script) = process::setting(environment, SCRIPT) {
        let ended = gh::run_script(environment, script);
        return match ended {
            Ok(()) => {
                info!("refreshed by {SCRIPT}");
                Status::Done
            }
            Err(error) => {
                warn!("{error}");
                Status::Failed
            }
        };
    }
    process::hide_memory();
    let RefreshedToken { token, left, warnings } = match broker::refresh(environment) {
        Ok(refreshed) => refreshed,
        Err(refusal) => {
            warn!("not refreshed: {}", refusal.error);
            return Status::Failed;
        }
    };
    let failed = !warnings.is_empty();
    for error in warnings {
        warn!("{error}");
    }
    let minutes = left.as_secs() / 60;
    info!(
        "refreshed: a token that is good for {minutes} min, used for {}",
        used(cache::usable(left))
    );
    match gh::log_in(environment, &token) {
        Ok(true) => info!("gh has it too"),
        Ok(false) => {}
        Err(error) => warn!("{error}; gh goes on with what it had"),
    }
    Status::failed_if(failed)
}

/// Says what is cached.
pub fn status(environment: &[CString]) -> Status {
    log::section(SECTION, LogStream::Stdout);
    let cache = match TokenCache::open(environment) {
        Ok(cache) => cache,
        Err(error) => {
            warn!("{error}");
            return Status::Failed;
        }
    };
    if let Some(failure) = cache.last_failure() {
        warn!("the last request failed: {}", failure.reason);
    }
    match cache.usable_for() {
        Ok(Some(left)) => {
            info!("a token is cached, to be used for {} more", used(left));
            Status::Done
        }
        Ok(None) => {
            info!("no token is cached that is still to be used");
            Status::Failed
        }
        Err(error) => {
            warn!("{error}");
            Status::Failed
        }
    }
}

/// The daemon's life: refreshes when it is time until it is asked to end. Each refresh is a process of its
/// own, so that no token lies in the memory of one that lives for weeks.
pub fn keep_fresh(supervisor: &mut Supervisor, environment: &[CString]) -> Result<Status> {
    let (schedule, complaints) = RefreshSchedule::new(environment);
    for complaint in complaints {
        say(supervisor, &complaint.to_string());
    }
    let job = || refresh(environment).code();
    let mut pause = schedule.first(random());
    let mut failures = 0;
    loop {
        say(supervisor, &format!("the next refresh is in {}", used(pause)));
        if let Some(signal) = supervisor.pause(pause)? {
            return Ok(Status::of_signal(signal as i32));
        }
        let began = Instant::now();
        let refreshed = match supervisor.run(&SupervisedJob::Work(&job)) {
            Ok(ChildEnd::Status(status)) => status == Status::Done.code(),
            Ok(ChildEnd::Stopped(signal)) => return Ok(Status::of_signal(signal as i32)),
            Err(error) => {
                say(supervisor, &error.to_string());
                false
            }
        };
        pause = if refreshed {
            failures = 0;
            schedule.after_success(usable_for(environment), random())
        } else {
            failures += 1;
            schedule.after_failure(failures, refusal(environment, began), random())
        };
    }
}

/// How long the token is used that has just been fetched; `None` if a script has done that, whose times are
/// its own, or there was no place for it.
fn usable_for(environment: &[CString]) -> Option<Duration> {
    process::setting(environment, SCRIPT).is_none().then_some(())?;
    TokenCache::open(environment).and_then(|cache| cache.usable_for()).ok().flatten()
}

/// What the failure says of the next request that the process has noted which was started at `began`.
fn refusal(environment: &[CString], began: Instant) -> RefusalKind {
    let note = TokenCache::open(environment).ok().and_then(|cache| cache.last_failure());
    match note {
        Some(note) if note.age() <= began.elapsed() => note.kind(),
        _ => RefusalKind::Transient,
    }
}

fn say(supervisor: &mut Supervisor, what: &str) {
    supervisor.say(&format!("[molecule-gh-token-refresh] {} {what}", log::timestamp()));
}

fn used(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

/// From 0 to below 1.
fn random() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1_u64 << 53) as f64
}
