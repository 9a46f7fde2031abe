//! What a run did, counted while it runs, and the failures it met.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use super::keep::Kept;
use crate::error::{Error, describe, shorten};

/// Failures kept one by one; later ones are only counted, so that memory stays bounded.
const KEPT: usize = 100;
/// Lines of a kind that are told one by one in the log.
pub(super) const TOLD: u64 = 1000;

/// Which tree a failed operation was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The tree that is read.
    Source,
    /// The tree that is written.
    Destination,
}

/// A step that failed with an error of the kernel's.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    Os {
        side: Side,
        operation: &'static str,
        errno: Errno,
    },
    /// One attribute of an object of the destination. It can be too large for a file system, or beyond
    /// its owner's quota, where there is room for everything else.
    Attribute {
        operation: &'static str,
        errno: Errno,
    },
    /// Of something at the destination.
    Removal {
        operation: &'static str,
        errno: Errno,
    },
}

impl Fault {
    pub fn side(&self) -> Side {
        match self {
            Self::Os { side, .. } => *side,
            _ => Side::Destination,
        }
    }

    pub fn operation(&self) -> &'static str {
        let (Self::Os { operation, .. }
        | Self::Attribute { operation, .. }
        | Self::Removal { operation, .. }) = self;
        operation
    }

    pub fn errno(&self) -> Errno {
        let (Self::Os { errno, .. } | Self::Attribute { errno, .. } | Self::Removal { errno, .. }) =
            self;
        *errno
    }

    /// Whether there was no room at the destination for an object or its content.
    pub fn is_full(&self) -> bool {
        let making = matches!(self, Self::Os { side: Side::Destination, .. });
        making && matches!(self.errno(), Errno::NOSPC | Errno::DQUOT)
    }

    /// Whether the destination may not be written there.
    pub fn is_read_only(&self) -> bool {
        self.side() == Side::Destination && self.errno() == Errno::ROFS
    }
}

/// Why a run ended before everything was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The caller asked for it.
    Interrupted,
    /// The destination is full (ENOSPC, EDQUOT).
    Full,
    /// The destination is read-only (EROFS).
    ReadOnly,
}

/// One failed operation.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Which tree.
    pub side: Side,
    /// Path below the top of the tree; of a long one both ends (see [`shorten`]).
    pub path: PathBuf,
    /// Operation and the kernel's reason, one line.
    pub reason: String,
}

/// The result of one run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Regular files seen in the source.
    pub files: u64,
    /// Directories seen in the source, the top included.
    pub directories: u64,
    /// Symbolic links seen in the source.
    pub symlinks: u64,
    /// Devices, fifos and sockets seen in the source.
    pub specials: u64,
    /// Names made hard links of an already copied inode.
    pub hard_links: u64,
    /// Objects made or replaced.
    pub copied: u64,
    /// Regular files among them with set-user-ID, set-group-ID with group execution, or file capabilities.
    pub privileged_files: u64,
    /// Device nodes among them.
    pub devices: u64,
    /// Such files that were restored without, and device nodes that were not (see
    /// [`Options::no_privileged`](super::Options::no_privileged)).
    pub privileges_left_out: u64,
    /// Objects of which only owner, mode, times, ACLs or xattrs were changed.
    pub touched: u64,
    /// Objects removed from the destination.
    pub deleted: u64,
    /// Objects that differ and stay as they are (see [`Options::keep`](super::Options::keep)).
    pub kept: u64,
    /// The paths of these below the top of the tree, as many as 512 KiB hold.
    pub kept_paths: Vec<PathBuf>,
    /// Bytes of file data written (holes not counted).
    pub bytes: u64,
    /// Source mounts below the top that were left out.
    pub mounts_left_out: u64,
    /// Source entries that vanished between listing and reading.
    pub vanished: u64,
    /// Whether any of the failures was about the source.
    pub source_errors: bool,
    /// Number of failed operations.
    pub errors: u64,
    /// The first of them.
    pub failures: Vec<Failure>,
    /// Whether surplus entries were left in place because the source could not be read in full.
    pub deletion_withheld: bool,
    /// Whether a file was larger than what the destination had left, or than a file may be there
    /// (RLIMIT_FSIZE, or its file system); others were still tried.
    pub did_not_fit: bool,
    /// Whether surplus entries were left in place because such a file had not been read.
    pub(super) deletion_deferred: bool,
    /// Whether surplus entries were left to a later pass.
    pub(super) deletion_pending: bool,
    /// Names with hard links that were left to a later pass.
    pub(super) unlinked: u64,
    /// Most groups of hard links that were held at once.
    pub(super) groups: usize,
    /// Why the run ended early, if it did.
    pub stop: Option<Stop>,
    /// Duration of the run.
    pub elapsed: Duration,
}

impl Report {
    /// rsync(1)'s exit value for what happened: 0, 11 (destination full), 20 (interrupted),
    /// 23 (partial), 24 (only vanished source files).
    pub fn status(&self) -> u8 {
        match self.stop {
            Some(Stop::Interrupted) => 20,
            Some(Stop::Full) => 11,
            Some(Stop::ReadOnly) => 23,
            None if self.did_not_fit => 11,
            None if self.errors > 0 => 23,
            None if self.vanished > 0 => 24,
            None => 0,
        }
    }
}

impl Report {
    /// Adds what an earlier pass of the same run has done; how it ended is this pass's.
    pub(super) fn after(mut self, earlier: &Self) -> Self {
        self.copied += earlier.copied;
        self.privileged_files += earlier.privileged_files;
        self.devices += earlier.devices;
        self.touched += earlier.touched;
        self.hard_links += earlier.hard_links;
        self.deleted += earlier.deleted;
        self.bytes += earlier.bytes;
        self.elapsed += earlier.elapsed;
        self
    }

    /// Adds what a pass has done and found out that did a part of the work, and what ended it.
    pub(super) fn with_part(self, part: Self) -> Self {
        let mut sum = self;
        sum.privileges_left_out += part.privileges_left_out;
        sum.kept += part.kept;
        sum.vanished = sum.vanished.max(part.vanished);
        sum.did_not_fit |= part.did_not_fit;
        super::keep::join(&mut sum.kept_paths, &part.kept_paths);
        sum.with_findings_of(part)
    }

    /// Notes that names of hard links are not there.
    pub(super) fn leave_unlinked(&mut self, names: u64) {
        let reason = format!("{names} names of hard links are not restored: there are too many");
        tracing::warn!("{reason}; give the restore a smaller part of the tree");
        self.errors += 1;
        if self.failures.len() < KEPT {
            self.failures.push(Failure { side: Side::Source, path: PathBuf::new(), reason });
        }
    }

    /// Adds what a pass that was to make room, and did not do it, has found out, and what ended it.
    pub(super) fn with_findings_of(self, room: Self) -> Self {
        let mut sum = self.after(&room);
        sum.stop = room.stop.or(sum.stop);
        sum.source_errors |= room.source_errors;
        sum.deletion_withheld |= room.deletion_withheld;
        sum.errors += room.errors;
        sum.failures.extend(room.failures);
        sum.failures.truncate(KEPT);
        sum
    }
}

/// Says one of many lines of a kind, of which `number` were said before.
pub fn tell(number: u64, what: &str, say: impl FnOnce()) {
    match number {
        0..TOLD => say(),
        TOLD => tracing::warn!("further {what} are counted, not listed"),
        _ => {}
    }
}

/// The report while it is written by many threads.
#[derive(Debug, Default)]
pub(super) struct Counters {
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
    pub kept_paths: Kept,
    pub bytes: AtomicU64,
    pub mounts_left_out: AtomicU64,
    pub vanished: AtomicU64,
    pub errors: AtomicU64,
    /// Listed names not yet dealt with.
    pub waiting: AtomicU64,
    /// See [`Progress::life`](super::Progress::life).
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

impl Counters {
    /// Records and tells one failure.
    pub fn fail(&self, fault: &Fault, path: PathBuf, shown: PathBuf) {
        self.tell(fault.side(), fault.operation(), path, fault.errno(), shown);
    }

    /// The same for a file that is larger than what the destination has left, or than a file may be:
    /// others may fit. Nor has it been read to its end.
    pub fn too_large(&self, path: PathBuf, errno: Errno, shown: PathBuf) {
        let (operation, flag) = match errno {
            Errno::FBIG => ("write", &self.over_limit),
            _ => ("allocate space for", &self.did_not_fit),
        };
        self.tell(Side::Destination, operation, path, errno, shown);
        flag.store(true, Ordering::Relaxed);
    }

    fn tell(
        &self,
        side: Side,
        operation: &'static str,
        path: PathBuf,
        errno: Errno,
        shown: PathBuf,
    ) {
        let error = Error::os(operation, shown, errno);
        let error = match errno {
            Errno::NOSPC | Errno::DQUOT => error.hint("free space there and restore again"),
            Errno::FBIG => error.hint("raise the limit of a file's size (ulimit -f)"),
            Errno::ROFS => error.hint("make the destination writable and restore again"),
            Errno::PERM if side == Side::Destination => {
                error.hint("look for an immutable file (lsattr) or a missing capability")
            }
            Errno::IO | Errno::UCLEAN => error.hint("the volume is damaged; check the snapshot"),
            _ => error,
        };
        self.record(side, path, format!("{operation}: {}", describe(errno)), &error);
    }

    /// Records and tells one failure that has words of its own.
    pub fn record(&self, side: Side, path: PathBuf, reason: String, error: &Error) {
        let number = self.errors.fetch_add(1, Ordering::Relaxed);
        if side == Side::Source {
            self.source_errors.store(true, Ordering::Relaxed);
        }
        tell(number, "errors", || tracing::warn!("{error}"));
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() < KEPT {
            let path = shorten(&path).into_owned();
            failures.push(Failure { side, path, reason });
        }
    }

    /// Ends the run as soon as every thread has noticed; the first reason counts.
    pub fn stop(&self, reason: Stop) {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
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
            failures: self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            deletion_withheld: self.deletion_withheld.load(Ordering::Relaxed),
            deletion_deferred: self.deletion_deferred.load(Ordering::Relaxed),
            did_not_fit: self.did_not_fit.load(Ordering::Relaxed)
                || self.over_limit.load(Ordering::Relaxed),
            deletion_pending: self.deletion_pending.load(Ordering::Relaxed),
            unlinked: get(&self.unlinked),
            groups: 0,
            stop: *self.stop.lock().unwrap_or_else(PoisonError::into_inner),
            elapsed,
        }
    }
}
