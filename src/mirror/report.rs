//! The result of a run, and the failures it met.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use super::fault::Side;
use super::keep::join_paths;

/// Failures kept one by one; later ones are only counted, so that memory stays bounded.
pub(super) const MOST_FAILURES: usize = 100;

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
    /// Path below the top of the tree; of a long one both ends (see `error::shorten`).
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
        join_paths(&mut sum.kept_paths, &part.kept_paths);
        sum.with_findings_of(part)
    }

    /// Notes that names of hard links are not there.
    pub(super) fn leave_unlinked(&mut self, names: u64) {
        let reason = format!("{names} names of hard links are not restored: there are too many");
        tracing::warn!("{reason}; give the restore a smaller part of the tree");
        self.errors += 1;
        if self.failures.len() < MOST_FAILURES {
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
        sum.failures.truncate(MOST_FAILURES);
        sum
    }
}
