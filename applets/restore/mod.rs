//! `restore`: brings the restore set back from a snapshot volume or a directory, once per workspace.
//!
//! - `report`: the summary, for the log, the marker and --json
//! - `consent`: the question before newer work is taken away
//! - `path`: one path: mirrored, verified
//! - `probe`: `--probe`
//! - `progress`: progress lines and signs of life
//! - `held`: the trees, locked
//! - `plan`: what of a tree that exists is kept
//! - `options`: the command line
//! - `records`: the records of starts, read once
//! - `destination`: the directory of a path below the root
//! - `durable`: everything is on the disk before the marker says so
//! - `marker`: the marker
//! - `newer`: entries that were changed since a runtime started
//! - `lock`: the lock of a tree
//! - `caller`: a restore at boot or by hand
//! - `source`: the volume
//! - `set`: the paths
#![forbid(unsafe_code)]

mod caller;
mod consent;
mod destination;
mod durable;
mod held;
mod lock;
mod marker;
mod newer;
mod options;
mod path;
mod plan;
mod probe;
mod progress;
mod records;
mod report;
mod set;
mod source;

use std::path::{Path, PathBuf};
use std::time::Duration;

use molecule_tools::error::{Result, escape};
use molecule_tools::fs::{Dir, patiently};
use molecule_tools::heartbeat::Heartbeat;
use molecule_tools::log::{self, LogStream};
use molecule_tools::process::Interruption;
use molecule_tools::record;
use serde_json::json;
use tracing::{info, warn};

use crate::applet::{Applet, Context};
use crate::exit::{Exit, Status};
use caller::{LifeSigns, RestoreCaller};
use consent::Consent;
use held::{HeldTrees, hold_trees, lock_trees, make_absent};
use marker::RestoreMarker;
use options::{Options, first_line};
use path::PathJob;
use plan::PlanDoubt;
use progress::RestoreWatch;
use report::Report;
use set::shown_below;
use source::{RestoreSource, SourceRequest, SourceTrees};

pub const APPLET: Applet =
    Applet { name: "restore", summary: "bring the restore set back from a snapshot", run };

/// How a restore ended.
enum Outcome {
    /// The marker says that it was done before.
    AlreadyDone,
    /// There is nothing to restore from.
    NoSource,
    /// Something was there to restore from and could not be used.
    Failed(String),
    /// Paths were restored; the worst of their states.
    Done(Report),
    /// A signal ended it, or a start that has gone on without it.
    Interrupted(Report),
}

/// By hand.
fn run(context: &Context) -> Result<Status, Exit> {
    let options: Options = context.parse()?;
    if options.probe {
        return probe::run(&options.device());
    }
    log::section(
        "MOLECULE-RESTORE",
        if options.json { LogStream::Stderr } else { LogStream::Stdout },
    );
    let root = patiently(|| Dir::open_operator_path(&options.root))?;
    if options.unmount {
        source::unmount(&root, &options.mount_point)?;
        return Ok(Status::Done);
    }
    let interruption = Interruption::watch();
    // By hand, the operator sees that it hangs.
    let life =
        LifeSigns { interruption: &interruption, heart: &Heartbeat::new(), silence: Duration::MAX };
    let (status, report) = match restore(&options, &root, life, RestoreCaller::Hand) {
        Outcome::AlreadyDone => {
            info!("to restore all the same: --force");
            (Status::Done, json!({ "status": 0, "result": "marker present" }))
        }
        Outcome::NoSource if options.device.is_some() => {
            let reason = format!("{} is not there", options.device().to_string_lossy());
            source::list_disks(&options.device(), &root.path().join(&options.mount_point));
            (Status::Failed, json!({ "status": 1, "result": "failed", "reason": reason }))
        }
        Outcome::NoSource => (Status::Done, json!({ "status": 0, "result": "nothing to do" })),
        Outcome::Failed(reason) => {
            (Status::Failed, json!({ "status": 1, "result": "failed", "reason": reason }))
        }
        Outcome::Done(report) => {
            if !options.dry_run && report.status() != Status::Failed {
                say_whose(&root);
            }
            (report.status(), report.to_json())
        }
        Outcome::Interrupted(report) => (report.status(), report.to_json()),
    };
    if options.json {
        log::write_line(LogStream::Stdout, &log::json_text(&report, true));
    }
    Ok(status)
}

/// What a boot would do next with the trees of this container, and nobody does after a restore by hand.
fn say_whose(root: &Dir) {
    if rustix::process::geteuid().is_root() && root.path() == Path::new("/") {
        info!(
            "owners are the snapshot's; to give the trees to the agent: molecule-tools fix-perms"
        );
    }
}

/// At boot: whatever happens is logged and the boot goes on, unless a signal asked for its end; then
/// returns the status to end with. Another restore that shows no sign of life for `silence` is not waited for.
#[must_use]
pub fn boot(heart: &Heartbeat, silence: Duration) -> Option<Status> {
    log::section("MOLECULE-RESTORE", LogStream::Stdout);
    let (options, root) = boot_options()?;
    let interruption = Interruption::watch();
    let life = LifeSigns { interruption: &interruption, heart, silence };
    match restore(&options, &root, life, RestoreCaller::Boot) {
        Outcome::Interrupted(_) => {
            let signal = interruption.seen()?;
            Some(Status::of_signal(signal))
        }
        _ => None,
    }
}

/// The root and the trees in which a start leaves its records.
pub fn trees() -> Option<(Dir, Vec<PathBuf>)> {
    log::section("MOLECULE-RESTORE", LogStream::Stdout);
    boot_options().map(|(options, root)| (root, options.restore_set()))
}

/// Leaves a record of this start with one tree, just before the runtime starts over it.
pub fn note_start(root: &Dir, tree: &Path, heart: &Heartbeat) {
    records::leave(&[tree.to_owned()], root, record::start, heart);
}

/// Has what was restored written to disk in the background, once this process is the agent.
pub fn make_durable() {
    log::section("MOLECULE-RESTORE", LogStream::Stdout);
    if let Some((options, root)) = boot_options() {
        durable::finish_in_background(&root, &options.restore_set());
    }
}

fn boot_options() -> Option<(Options, Dir)> {
    let options = match Options::from_environment() {
        Ok(options) => options,
        Err(error) => {
            warn!("environment: {}; nothing is restored", first_line(&error));
            return None;
        }
    };
    match patiently(|| Dir::open_operator_path(&options.root)) {
        Ok(root) => Some((options, root)),
        Err(error) => {
            warn!("{error}");
            None
        }
    }
}

fn restore(options: &Options, root: &Dir, life: LifeSigns<'_>, caller: RestoreCaller) -> Outcome {
    life.heart.enter(0, marker::path(root));
    let paths = options.restore_set();
    if let Some(outcome) = settled(options, root, &paths, life, caller) {
        return outcome;
    }
    life.heart.enter(0, options.source_name());
    let source = open_source(options, root, &paths).unwrap_or_else(|error| {
        warn!("{error}");
        RestoreSource::Skip { reason: error.to_string(), failed: true }
    });
    if !options.force && matches!(marker::look(root), Ok(RestoreMarker::CutOff(_))) {
        warn!(
            "marker {}: the machine went down before everything that was restored was on the disk; {}",
            escape(&marker::path(root)),
            match &source {
                RestoreSource::Ready { .. } => "restoring again",
                RestoreSource::Skip { .. } =>
                    "files may be empty or missing, and there is nothing to restore from",
            }
        );
    }
    if let RestoreSource::Skip { reason, failed } = &source
        && (caller == RestoreCaller::Hand || records::are_with_all(root, &paths))
    {
        // A start over these trees is known already, and nothing else happens to them.
        return if *failed { Outcome::Failed(reason.clone()) } else { Outcome::NoSource };
    }
    // With --force nobody has consented yet, and a tree that is to be made holds nothing.
    let make = |path: &Path| match &source {
        RestoreSource::Ready { trees, .. } => !options.dry_run && !options.force && trees.has(path),
        RestoreSource::Skip { .. } => false,
    };
    let mut trees = hold_trees(root, &paths, make, life);
    if let Err(error) = lock_trees(options, root, &mut trees, life, caller) {
        warn!("{error}");
        return Outcome::Failed(error.to_string());
    }
    // The holder of a lock before may have restored everything meanwhile.
    if let Some(outcome) = settled(options, root, &paths, life, caller) {
        return outcome;
    }
    let outcome = match source {
        RestoreSource::Ready { trees: source, device } => {
            let report = Report::new(root.path(), device, source.stale(), options.dry_run, caller);
            bring_back(options, root, &source, &mut trees, report, life)
        }
        RestoreSource::Skip { failed: false, .. } => Outcome::NoSource,
        RestoreSource::Skip { reason, .. } => Outcome::Failed(reason),
    };
    if caller == RestoreCaller::Boot && !matches!(outcome, Outcome::Interrupted(_)) {
        // Before the locks are let go: the next one shall see that a runtime is about to start.
        records::leave(&paths, root, record::announce, life.heart);
    }
    outcome
}

/// How a restore ends for which there is nothing to do, or of which that is not known. At boot a tree without
/// a record gets one then: the old script, or an earlier version, may have started a runtime over it.
fn settled(
    options: &Options,
    root: &Dir,
    paths: &[PathBuf],
    life: LifeSigns<'_>,
    caller: RestoreCaller,
) -> Option<Outcome> {
    if options.force {
        return None;
    }
    let shown = marker::path(root);
    let (outcome, lived) = match marker::look(root) {
        Ok(RestoreMarker::Present(time)) => {
            info!("marker {} present — skipping (already restored on this EC2)", escape(&shown));
            (Outcome::AlreadyDone, time)
        }
        Ok(RestoreMarker::Absent | RestoreMarker::Odd(_) | RestoreMarker::CutOff(_)) => {
            return None;
        }
        Err(error) => {
            let error = error.hint("nothing is restored, for it may be there");
            warn!("cannot tell whether there is a marker {}: {error}", escape(&shown));
            (Outcome::Failed(error.to_string()), record::ALWAYS)
        }
    };
    if caller == RestoreCaller::Boot {
        records::leave(paths, root, |tree| record::lived(tree, lived), life.heart);
    }
    Some(outcome)
}

fn bring_back(
    options: &Options,
    root: &Dir,
    source: &SourceTrees,
    trees: &mut [HeldTrees<'_>],
    mut report: Report,
    life: LifeSigns<'_>,
) -> Outcome {
    if options.force && !options.dry_run {
        let watch = RestoreWatch::new(options.progress, life, trees);
        let job = PathJob { options, root, source, watch: &watch, doubt: None };
        match consent::ask(&job, trees) {
            Consent::Given => {}
            Consent::Refused => return Outcome::Failed("not confirmed".to_owned()),
            Consent::Interrupted(why) => {
                warn!("{why}; nothing was changed");
                return Outcome::Interrupted(report.interrupted());
            }
        }
        if let Err(error) = make_absent(options, root, source, trees, life) {
            warn!("{error}");
            return Outcome::Failed(error.to_string());
        }
    }
    let doubt = if options.force { None } else { doubt(options, root) };
    let watch = RestoreWatch::new(options.progress, life, trees);
    let job = PathJob { options, root, source, watch: &watch, doubt };
    for (path, destination) in &*trees {
        life.heart.enter(0, shown_below(root.path(), path));
        let restored = job.restore(path, destination.as_ref());
        report.add(path, &job, restored);
        // Also one that came while a lock was waited for, or after the last entry.
        if let Some(why) = watch.end() {
            warn!("{why}; no marker is dropped, restore again");
            return Outcome::Interrupted(report.interrupted());
        }
    }
    if !options.dry_run {
        life.heart.enter(0, marker::path(root));
        drop_marker(options, root, trees, &mut report);
    }
    Outcome::Done(report)
}

/// Why an earlier restore, and so a runtime, may have been at these trees although there is no marker.
fn doubt(options: &Options, root: &Dir) -> Option<PlanDoubt> {
    match marker::look(root) {
        Ok(RestoreMarker::Odd(kind)) => Some(PlanDoubt::OddMarker(kind.noun())),
        Ok(RestoreMarker::CutOff(time)) => Some(PlanDoubt::CutOff(time)),
        Ok(_) if options.dry_run => None,
        Ok(_) => marker::is_writable(root).err().map(PlanDoubt::NoMarker),
        Err(error) => Some(PlanDoubt::NoMarker(error)),
    }
}

fn open_source(options: &Options, root: &Dir, paths: &[PathBuf]) -> Result<RestoreSource> {
    match &options.source {
        Some(source) => Ok(RestoreSource::Ready {
            trees: {
                let dir = Dir::open_operator_path(source)?;
                SourceTrees::single(&dir, source.clone(), paths)
            },
            device: json!({ "directory": source.to_string_lossy() }),
        }),
        None => Ok(source::open(&SourceRequest {
            device: &options.device(),
            root,
            mount_point: &options.mount_point,
            paths,
        })),
    }
}

/// Drops the marker, with warnings or without: the source would be the same the next time. By hand it is
/// dropped only where the next start has nothing left to restore.
fn drop_marker(options: &Options, root: &Dir, trees: &[HeldTrees<'_>], report: &mut Report) {
    let marker = marker::path(root);
    let shown = escape(&marker);
    if report.is_by_hand() && report.status() == Status::Failed {
        return warn!("nothing that was asked for could be restored; no marker is dropped");
    }
    let missing = || !matches!(marker::look(root), Ok(RestoreMarker::Present(_)));
    if report.is_by_hand() && options.is_partial() && missing() {
        return info!(
            "only a part of the restore set was asked for: no marker is dropped, the next start \
             restores the rest"
        );
    }
    // A boot does not wait for the disk.
    let held = trees.iter().filter_map(|(_, tree)| Some(&tree.as_ref().ok()?.as_ref()?.tree));
    if report.is_by_hand() && durable::sync(held) {
        report.is_durable();
    }
    if let Err(error) = marker::write(root, &report.to_json()) {
        report.lacks_marker();
        let error =
            error.hint("the next start restores again, deletes nothing and leaves what is newer");
        warn!("marker {shown} could not be written: {error}");
    } else if report.status() == Status::Done {
        info!("complete — marker {shown} dropped");
    } else {
        info!("complete with WARNINGS — marker {shown} dropped; rm marker + restart for retry");
    }
}
