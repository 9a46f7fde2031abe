//! One path of the restore set: both directories, the lock, the mirror, the verification.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::path::{Path, PathBuf};

use molecule_tools::error::{Error, Result, escape, shorten};
use molecule_tools::fs::Dir;
use molecule_tools::mirror::{self, Change, Observer, Progress, mirror};
use molecule_tools::record;
use tracing::{info, warn};

use super::destination::DestinationDir;
use super::newer::{self, RuntimeStart};
use super::options::Options;
use super::plan::{PathPlan, PlanDoubt};
use super::progress::RestoreWatch;
use super::set::shown_below;
use super::source::{FoundTree, SourceTrees};
use super::{lock, marker};

/// Our own files at the top of a tree: neither copied nor removed.
const EXCEPT: &[&CStr] = &[lock::NAME, record::FILE];
/// The same in the tree of the marker. That of a snapshot would say that everything was restored, should
/// this restore be cut off.
const EXCEPT_WITH_MARKER: &[&CStr] = &[lock::NAME, record::FILE, marker::NAME];

/// The arguments that all paths have in common.
pub struct PathJob<'a> {
    pub options: &'a Options,
    pub root: &'a Dir,
    pub source: &'a SourceTrees,
    pub watch: &'a RestoreWatch<'a>,
    /// Why all trees are to be handled with care.
    pub doubt: Option<PlanDoubt>,
}

/// How it went.
pub enum RestoredPath {
    /// The source has no such directory.
    Absent,
    /// Not begun; one line says why.
    Refused(String),
    /// The mirror ran.
    Mirrored(Box<PathReport>),
}

/// The results of the mirror and the verification.
pub struct PathReport {
    pub mirror: mirror::Report,
    /// Differences that the verification found; `None` if it was not asked for.
    pub mismatches: Option<u64>,
}

impl PathReport {
    pub fn status(&self) -> u8 {
        match self.mirror.status() {
            0 if self.mismatches.unwrap_or(0) > 0 => 23,
            status => status,
        }
    }
}

impl PathJob<'_> {
    /// The path in log lines: source and destination.
    pub fn shown(&self, path: &Path) -> (PathBuf, PathBuf) {
        (self.source.shown(path), shown_below(self.root.path(), path))
    }

    /// Restores one path into `destination` (absent in a dry run) and says its lines.
    pub fn restore(
        &self,
        path: &Path,
        destination: Result<&Option<DestinationDir>, &Error>,
    ) -> RestoredPath {
        let (from, to) = self.shown(path);
        let (from_shown, to_shown) = (escape(&from), escape(&to));
        let source = match self.source.find(path) {
            Ok(Some(source)) => source,
            Ok(None) => return self.absent(&from),
            Err(error) => return self.refused(&from, &to, error),
        };
        info!("rsync {from_shown}/ -> {to_shown}/");
        let restored = destination.map_err(Error::clone).and_then(|destination| {
            let old = destination.as_ref().filter(|destination| !destination.made);
            let plan = PathPlan::of(old.map(|old| &old.tree), self.options, self.doubt.as_ref());
            plan.say(&to);
            let tree = destination.as_ref().map(|destination| &destination.tree);
            self.mirror(&source, tree, &plan, path, &to)
        });
        match restored {
            Ok(report) => {
                match report.status() {
                    0 if source.stale => warn!("{to_shown} was restored from a stale copy"),
                    0 if self.options.dry_run => info!("dry run of {to_shown}"),
                    0 => info!("ok {to_shown}"),
                    status => exited(&to, status),
                }
                RestoredPath::Mirrored(Box::new(report))
            }
            Err(error) => {
                warn!("{error}");
                exited(&to, 23);
                RestoredPath::Refused(error.to_string())
            }
        }
    }

    fn absent(&self, from: &Path) -> RestoredPath {
        let line = format!(
            "source {} absent — skipping (likely the prior workspace never wrote it)",
            escape(from)
        );
        match self.source.stale() {
            false => {
                info!("{line}");
                RestoredPath::Absent
            }
            true => {
                info!("{line}");
                warn!("it may be missing only because the volume's journal was not replayed");
                RestoredPath::Refused("source absent on a volume without journal replay".into())
            }
        }
    }

    fn refused(&self, from: &Path, to: &Path, error: Error) -> RestoredPath {
        info!("rsync {}/ -> {}/", escape(from), escape(to));
        warn!("{error}");
        exited(to, 23);
        RestoredPath::Refused(error.to_string())
    }

    fn mirror(
        &self,
        source: &FoundTree,
        destination: Option<&Dir>,
        plan: &PathPlan,
        path: &Path,
        to: &Path,
    ) -> Result<PathReport> {
        let full = self.full(source, path);
        let options = mirror::Options {
            checksum: full.checksum || plan.checksum,
            delete: full.delete && plan.keep.is_none(),
            keep: plan.keep,
            ..full
        };
        self.watch.start(to);
        let report = if options.dry_run {
            let since = destination.filter(|_| self.options.force).and_then(RuntimeStart::of);
            let listing = DirListing { watch: self.watch, to, since };
            mirror(&source.dir, destination, &options, &listing)?
        } else {
            mirror(&source.dir, destination, &options, self.watch)?
        };
        self.watch.finish();
        say_privileges(&report, to);
        if report.kept > 0 {
            info!(
                "{} entries of {} stay as they are; restore --force does the whole",
                report.kept,
                escape(to)
            );
        }
        if let (Some(destination), true) = (destination, self.options.force && report.status() == 0)
        {
            renew_record(destination, self.options);
        }
        let mut mismatches = None;
        if let (true, Some(destination), None) =
            (self.options.verify && !self.options.dry_run, destination, report.stop)
        {
            mismatches = Some(self.verify(&source.dir, destination, &options, to)?);
        }
        Ok(PathReport { mirror: report, mismatches })
    }

    /// How `path` is made what the snapshot has.
    pub fn full(&self, source: &FoundTree, path: &Path) -> mirror::Options {
        mirror::Options {
            checksum: self.options.checksum,
            dry_run: self.options.dry_run,
            delete: !self.options.no_delete && !source.stale,
            jobs: Some(usize::from(self.options.jobs)).filter(|&jobs| jobs > 0),
            no_privileged: self.options.no_privileged,
            except: if path == Path::new(marker::DIRECTORY) { EXCEPT_WITH_MARKER } else { EXCEPT },
            keep: None,
        }
    }

    /// Reads both sides again; returns the number of differences.
    fn verify(
        &self,
        source: &Dir,
        destination: &Dir,
        options: &mirror::Options,
        to: &Path,
    ) -> Result<u64> {
        let options = mirror::Options { checksum: true, dry_run: true, ..options.clone() };
        let mismatches = Mismatches { to, count: 0.into(), watch: self.watch };
        let report = mirror(source, Some(destination), &options, &mismatches)?;
        let count = mismatches.count.into_inner() + report.errors;
        match count {
            _ if report.stop.is_some() => warn!("verification of {} was cut off", escape(to)),
            0 => info!("verified {}: {} files", escape(to), report.files),
            _ => warn!("verification of {}: {count} differences", escape(to)),
        }
        Ok(count)
    }
}

fn exited(to: &Path, status: u8) {
    warn!("rsync to {} exited {status} — workspace may be partially restored", escape(to));
}

/// Reports files of the snapshot that grant their users more rights than they have.
fn say_privileges(report: &mirror::Report, to: &Path) {
    let (files, devices) = (report.privileged_files, report.devices);
    if files + devices > 0 {
        warn!(
            "{} got {files} programs with set-id bits or capabilities and {devices} device nodes; \
             --no-privileged (MOLECULE_RESTORE_NO_PRIVILEGED=true) leaves them out",
            escape(to)
        );
    }
    if report.privileges_left_out > 0 {
        info!(
            "left out of {}: {} device nodes, or set-id bits and capabilities of programs",
            escape(to),
            report.privileges_left_out
        );
    }
}

/// Says each change of a dry run.
struct DirListing<'a> {
    watch: &'a RestoreWatch<'a>,
    to: &'a Path,
    /// The record by which entries count as newer, if they are not spared.
    since: Option<RuntimeStart<'a>>,
}

impl Observer for DirListing<'_> {
    fn wants_changes(&self) -> bool {
        true
    }

    fn change(&self, change: &Change, path: &Path) {
        let lost = self.since.as_ref().is_some_and(|since| since.is_lost(change, path));
        info!("{}", newer::line(change, lost, &shown_below(self.to, path)));
    }

    fn progress(&self, progress: &Progress) {
        self.watch.progress(progress);
    }

    fn interrupted(&self) -> bool {
        self.watch.interrupted()
    }
}

/// Says each difference that the verification finds.
struct Mismatches<'a> {
    to: &'a Path,
    count: std::sync::atomic::AtomicU64,
    watch: &'a RestoreWatch<'a>,
}

impl Observer for Mismatches<'_> {
    fn wants_changes(&self) -> bool {
        true
    }

    fn change(&self, change: &Change, path: &Path) {
        let number = self.count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        mirror::log_bounded(number, "differences", || {
            let path = shown_below(self.to, path);
            let path = shorten(&path);
            warn!("verification: {} {}", change.itemize(), escape(path.as_ref()));
        });
    }

    fn progress(&self, progress: &Progress) {
        self.watch.note_life(progress);
    }

    fn interrupted(&self) -> bool {
        self.watch.interrupted()
    }
}

/// A tree that was restored in full counts as started over from now on: a runtime may be at work in it.
fn renew_record(tree: &Dir, options: &Options) {
    if options.dry_run {
        return;
    }
    let renewed = match record::look(tree) {
        Ok(None) => Ok(()),
        _ => record::renew(tree),
    };
    if let Err(error) = renewed {
        warn!("{error}");
    }
}
