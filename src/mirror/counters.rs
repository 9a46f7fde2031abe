//! The counts of a run, added up by many threads while it runs.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::fault::{Fault, Side};
use super::keep::KeptPaths;
use super::report::{Failure, MOST_FAILURES, Report, Stop};
use crate::error::shorten;
use crate::lock::lock;

/// Lines of a kind that the log shows one by one.
const MOST_LINES: u64 = 1000;

/// Logs one of many lines of a kind, of which `number` were logged before.
pub fn log_bounded(number: u64, what: &str, line: impl FnOnce()) {
    match number {
        0..MOST_LINES => line(),
        MOST_LINES => tracing::warn!("further {what} are counted, not listed"),
        _ => {}
    }
}

/// The report while it is written by many threads.
#[derive(Debug, Default)]
pub(super) struct RunCounters {
    pub files: AtomicU64,
    pub directories: AtomicU64,
    pub symlinks: AtomicU64,
    pub specials: AtomicU64,
    pub hard_links: AtomicU64,
    pub copied: AtomicU64,
    pub privileged_files: AtomicU64,
    pub devices: AtomicU64,
    pub privileges_left_out: AtomicU64,
    pub touched: AtomicU64,
    pub deleted: AtomicU64,
    pub kept: AtomicU64,
    pub kept_paths: KeptPaths,
    pub bytes: AtomicU64,
    pub mounts_left_out: AtomicU64,
    pub vanished: AtomicU64,
    pub errors: AtomicU64,
    /// Listed names not yet dealt with.
    pub waiting: AtomicU64,
    /// See [`Progress::life`](super::options::Progress::life).
    pub life: AtomicU64,
    pub source_errors: AtomicBool,
    pub deletion_withheld: AtomicBool,
    failures: Mutex<Vec<Failure>>,
    /// A file was larger than what the destination has left.
    pub did_not_fit: AtomicBool,
    /// A file was larger than a file may be there, and has not been read to its end.
    pub over_limit: AtomicBool,
    pub deletion_deferred: AtomicBool,
    pub deletion_pending: AtomicBool,
    /// Names that have no room in the table of hard links.
    pub unlinked: AtomicU64,
    stop: Mutex<Option<Stop>>,
    stopped: AtomicBool,
}

pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

impl RunCounters {
    /// Records and logs one failure, of an object at `path` below the top that is shown as `shown`.
    pub fn fail(&self, fault: &Fault, path: PathBuf, shown: PathBuf) {
        let side = fault.side();
        let number = self.errors.fetch_add(1, Ordering::Relaxed);
        if side == Side::Source {
            self.source_errors.store(true, Ordering::Relaxed);
        }
        log_bounded(number, "errors", || tracing::warn!("{}", fault.error(shown)));
        let mut failures = lock(&self.failures);
        if failures.len() < MOST_FAILURES {
            let path = shorten(&path).into_owned();
            failures.push(Failure { side, path, reason: fault.reason() });
        }
    }

    /// Ends the run as soon as every thread has noticed; the first reason counts.
    pub fn stop(&self, reason: Stop) {
        lock(&self.stop).get_or_insert(reason);
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub fn report(&self, elapsed: Duration) -> Report {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Report {
            files: get(&self.files),
            directories: get(&self.directories),
            symlinks: get(&self.symlinks),
            specials: get(&self.specials),
            hard_links: get(&self.hard_links),
            copied: get(&self.copied),
            privileged_files: get(&self.privileged_files),
            devices: get(&self.devices),
            privileges_left_out: get(&self.privileges_left_out),
            touched: get(&self.touched),
            deleted: get(&self.deleted),
            kept: get(&self.kept),
            kept_paths: self.kept_paths.paths(),
            bytes: get(&self.bytes),
            mounts_left_out: get(&self.mounts_left_out),
            vanished: get(&self.vanished),
            source_errors: self.source_errors.load(Ordering::Relaxed),
            errors: get(&self.errors),
            failures: lock(&self.failures).clone(),
            deletion_withheld: self.deletion_withheld.load(Ordering::Relaxed),
            deletion_deferred: self.deletion_deferred.load(Ordering::Relaxed),
            did_not_fit: self.did_not_fit.load(Ordering::Relaxed)
                || self.over_limit.load(Ordering::Relaxed),
            deletion_pending: self.deletion_pending.load(Ordering::Relaxed),
            unlinked: get(&self.unlinked),
            groups: 0,
            stop: *lock(&self.stop),
            elapsed,
        }
    }
}
