//! `restore`: brings the restore set back from a snapshot volume or a directory, once per workspace.
#![forbid(unsafe_code)]

mod destination;
mod durable;
mod lock;
mod marker;
mod newer;
mod path;
mod plan;
mod probe;
mod progress;
mod report;
mod set;
mod source;

use std::ffi::{CStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use molecule_tools::error::{Result, escape};
use molecule_tools::fs::{Dir, patiently};
use molecule_tools::heartbeat::Heartbeat;
use molecule_tools::log::{self, Stream};
use molecule_tools::process::Interruption;
use molecule_tools::record;
use rustix::io::Errno;
use serde_json::json;
use tracing::{info, warn};

use crate::exit::{Exit, Status};
use crate::{Applet, Context};
use destination::Destination;
use lock::{Silence, Wait, was_overtaken};
use marker::Marker;
use newer::Consent;
use path::Job;
use plan::Doubt;
use progress::{Show, Watch};
use report::Report;
use source::{Request, Source, Trees};

pub const APPLET: Applet =
    Applet { name: "restore", summary: "bring the restore set back from a snapshot", run };

/// What is ours at the top of a tree: neither copied nor removed.
const EXCEPT: &[&CStr] = &[lock::NAME, record::FILE];
/// The same in the tree of the marker. That of a snapshot would say that everything was restored, should
/// this restore be cut off.
const EXCEPT_WITH_MARKER: &[&CStr] = &[lock::NAME, record::FILE, marker::NAME];
/// How long a restore by hand waits for another one.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Restores the workspace from a snapshot volume or a directory.
///
/// What rsync -aHAX --delete --numeric-ids would leave, once: the marker /configs/.restore-completed
/// says that it was done and holds the report. Exit status: 0 restored or nothing to do, 23 partially
/// restored, 20 ended by SIGTERM or SIGINT, 1 nothing could be restored or --force was not confirmed, 2 usage.
#[derive(Parser)]
struct Options {
    /// Volume to restore from: a device node, an image file, UUID=, LABEL= or a volume id (vol-...)
    /// [env: MOLECULE_RESTORE_DEVICE] [default: /dev/xvdb]
    // Read from the environment by hand: clap would take a variable for a conflict with --source.
    #[arg(long, value_name = "DEV", conflicts_with = "source")]
    device: Option<OsString>,
    /// Directory to restore from; no volume is looked for then
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// Root of the workspace
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Path to restore, relative to the root; may be given several times [env:
    /// MOLECULE_RESTORE_PATHS, with colons between] [default: configs, workspace and home/agent/.claude]
    // Read from the environment by hand: what is given here may be only a part of that set.
    #[arg(long = "path", value_name = "REL", value_delimiter = ':', value_parser = set::PathParser)]
    paths: Vec<PathBuf>,
    /// Where the volume is mounted, below the root
    #[arg(long, value_name = "DIR", default_value = "/mnt/restore")]
    mount_point: PathBuf,
    /// Restore although the marker says it was done
    #[arg(long)]
    force: bool,
    /// With --force: do not ask before entries are taken away that were changed since a runtime started there
    #[arg(long)]
    yes: bool,
    /// Say what would change, in the form of rsync --itemize-changes, and change nothing; with --force, "!"
    /// marks entries that were changed since a runtime started there
    #[arg(long)]
    dry_run: bool,
    /// Compare content where size and modification time agree
    #[arg(long)]
    checksum: bool,
    /// Leave in place what the snapshot does not have
    #[arg(long)]
    no_delete: bool,
    /// Leave out device nodes, and set-id bits and file capabilities of programs
    #[arg(long, env = "MOLECULE_RESTORE_NO_PRIVILEGED", hide_env_values = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    no_privileged: bool,
    /// Afterwards read both sides again and report every difference
    #[arg(long)]
    verify: bool,
    /// Most requests in flight; 0 is as many as help, up to 64
    #[arg(long, value_name = "N", env = "MOLECULE_RESTORE_JOBS", default_value = "0",
          value_parser = parse_jobs)]
    jobs: u16,
    /// A live line on a terminal, else a line every 10 seconds
    #[arg(long, value_enum, default_value = "auto")]
    progress: Show,
    /// Print the report as JSON on standard output; log lines go to standard error
    #[arg(long)]
    json: bool,
    /// Say as JSON what is on the device, and change nothing
    #[arg(long)]
    probe: bool,
    /// Unmount what an earlier restore has mounted
    #[arg(long, conflicts_with_all = ["source", "probe"])]
    unmount: bool,
}

/// Who asked for a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Hand,
    Boot,
}

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
    log::section("MOLECULE-RESTORE", if options.json { Stream::Stderr } else { Stream::Stdout });
    let root = patiently(|| Dir::open_operator_path(&options.root))?;
    if options.unmount {
        source::unmount(&root, &options.mount_point)?;
        return Ok(Status::Done);
    }
    let interruption = Interruption::watch();
    // By hand, whoever waits sees that it hangs.
    let life =
        Life { interruption: &interruption, heart: &Heartbeat::new(), silence: Duration::MAX };
    let (status, report) = match restore(&options, &root, life, Caller::Hand) {
        Outcome::AlreadyDone => {
            info!("to restore all the same: --force");
            (Status::Done, json!({ "status": 0, "result": "marker present" }))
        }
        Outcome::NoSource => (Status::Done, json!({ "status": 0, "result": "nothing to do" })),
        Outcome::Failed(reason) => {
            (Status::Failed, json!({ "status": 1, "result": "failed", "reason": reason }))
        }
        Outcome::Done(report) | Outcome::Interrupted(report) => (report.status(), report.to_json()),
    };
    if options.json {
        log::write_line(Stream::Stdout, &log::json_text(&report, true));
    }
    Ok(status)
}

/// At boot: whatever happens is told and the boot goes on, unless a signal asked for its end; then
/// returns the status to end with. Another restore that shows no sign of life for `silence` is not waited for.
#[must_use]
pub fn boot(heart: &Heartbeat, silence: Duration) -> Option<Status> {
    log::section("MOLECULE-RESTORE", Stream::Stdout);
    let (options, root) = boot_options()?;
    let interruption = Interruption::watch();
    let life = Life { interruption: &interruption, heart, silence };
    match restore(&options, &root, life, Caller::Boot) {
        Outcome::Interrupted(_) => {
            let signal = interruption.seen()?;
            Some(Status::of_signal(signal))
        }
        _ => None,
    }
}

/// The root and the trees in which a start leaves its records.
pub fn trees() -> Option<(Dir, Vec<PathBuf>)> {
    log::section("MOLECULE-RESTORE", Stream::Stdout);
    boot_options().map(|(options, root)| (root, options.restore_set()))
}

/// Leaves a record of this start with one tree, just before the runtime starts over it.
pub fn note_start(root: &Dir, tree: &Path, heart: &Heartbeat) {
    leave_records(&[tree.to_owned()], root, record::start, heart);
}

/// Has what was restored written to disk in the background, once this process is the agent.
pub fn make_durable() {
    log::section("MOLECULE-RESTORE", Stream::Stdout);
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

fn leave_records(
    paths: &[PathBuf],
    root: &Dir,
    leave: impl Fn(&Dir) -> Result<()>,
    heart: &Heartbeat,
) {
    for path in paths {
        heart.enter(0, shown_below(root.path(), path));
        match root.open_beneath(path).and_then(|tree| tree.as_ref().map_or(Ok(()), &leave)) {
            Ok(()) => {}
            // Where nothing can be written, nothing can be lost either.
            Err(error) if error.errno() == Some(Errno::ROFS) => {}
            // A start that is not root's: its user can make nothing here either, at most further down.
            Err(error)
                if matches!(error.errno(), Some(Errno::ACCESS | Errno::PERM))
                    && !rustix::process::geteuid().is_root() => {}
            Err(error) => {
                warn!("{}", error.hint("a later restore may not know that a runtime has run here"));
            }
        }
    }
}

impl Options {
    /// What the boot goes by. A value that is none is left out, not the restore: whether privileges are
    /// wanted is then taken for a no.
    fn from_environment() -> clap::error::Result<Self> {
        let parse =
            |options: &[&'static str]| Self::try_parse_from(["restore"].iter().chain(options));
        parse(&[]).or_else(|error| {
            warn!("environment: {}; going on without it", first_line(&error));
            parse(&["--jobs", "0"])
                .or_else(|_| parse(&["--no-privileged"]))
                .or_else(|_| parse(&["--jobs", "0", "--no-privileged"]))
        })
    }

    /// The device that was asked for; set but empty counts as unset.
    fn device(&self) -> OsString {
        self.device
            .clone()
            .or_else(|| std::env::var_os("MOLECULE_RESTORE_DEVICE"))
            .filter(|device| !device.is_empty())
            .unwrap_or_else(|| source::DEFAULT_DEVICE.into())
    }

    /// What is restored from, for messages.
    fn source_name(&self) -> OsString {
        self.source.clone().map_or_else(|| self.device(), OsString::from)
    }

    /// What is to be restored, relative to the root.
    fn restore_set(&self) -> Vec<PathBuf> {
        if self.paths.is_empty() { set::whole() } else { self.paths.clone() }
    }

    /// Whether only a part of the restore set is asked for.
    fn is_partial(&self) -> bool {
        let asked = self.restore_set();
        set::whole().iter().any(|path| !asked.contains(path))
    }
}

/// What whoever watches a restore knows of it, and it of them.
#[derive(Clone, Copy)]
struct Life<'a> {
    interruption: &'a Interruption,
    heart: &'a Heartbeat,
    /// For how long a restore that is waited for may show no sign of life.
    silence: Duration,
}

fn restore(options: &Options, root: &Dir, life: Life<'_>, caller: Caller) -> Outcome {
    life.heart.enter(0, marker::path(root));
    let paths = options.restore_set();
    if let Some(outcome) = settled(options, root, &paths, life, caller) {
        return outcome;
    }
    life.heart.enter(0, options.source_name());
    let source = open_source(options, root, &paths).unwrap_or_else(|error| {
        warn!("{error}");
        Source::Skip { reason: error.to_string(), failed: true }
    });
    if !options.force && matches!(marker::look(root), Ok(Marker::CutOff(_))) {
        warn!(
            "marker {}: the machine went down before everything that was restored was on the disk; {}",
            escape(&marker::path(root)),
            match &source {
                Source::Ready { .. } => "restoring again",
                Source::Skip { .. } =>
                    "files may be empty or missing, and there is nothing to restore from",
            }
        );
    }
    if let Source::Skip { reason, failed } = &source
        && (caller == Caller::Hand || all_have_records(root, &paths))
    {
        // A start over these trees is known already, and nothing else happens to them.
        return if *failed { Outcome::Failed(reason.clone()) } else { Outcome::NoSource };
    }
    // With --force nobody has consented yet, and a tree that is to be made holds nothing.
    let make = |path: &Path| match &source {
        Source::Ready { trees, .. } => !options.dry_run && !options.force && trees.has(path),
        Source::Skip { .. } => false,
    };
    let mut trees = hold_trees(root, &paths, make, life);
    if let Err(error) = lock_trees(options, root, &mut trees, life, caller) {
        warn!("{error}");
        return Outcome::Failed(error.to_string());
    }
    // Whoever had a lock before may have restored everything meanwhile.
    if let Some(outcome) = settled(options, root, &paths, life, caller) {
        return outcome;
    }
    let outcome = match source {
        Source::Ready { trees: source, device } => {
            let report = Report::new(root.path(), device, source.stale(), options.dry_run, caller);
            bring_back(options, root, &source, &mut trees, report, life)
        }
        Source::Skip { failed: false, .. } => Outcome::NoSource,
        Source::Skip { reason, .. } => Outcome::Failed(reason),
    };
    if caller == Caller::Boot && !matches!(outcome, Outcome::Interrupted(_)) {
        // Before the locks are let go: the next one shall see that a runtime is about to start.
        leave_records(&paths, root, record::announce, life.heart);
    }
    outcome
}

/// How a restore ends for which there is nothing to do, or of which that cannot be told. At boot a tree without
/// a record gets one then: the old script, or an earlier version, may have started a runtime over it.
fn settled(
    options: &Options,
    root: &Dir,
    paths: &[PathBuf],
    life: Life<'_>,
    caller: Caller,
) -> Option<Outcome> {
    if options.force {
        return None;
    }
    let shown = marker::path(root);
    let (outcome, lived) = match marker::look(root) {
        Ok(Marker::Present(time)) => {
            info!("marker {} present — skipping (already restored on this EC2)", escape(&shown));
            (Outcome::AlreadyDone, time)
        }
        Ok(Marker::Absent | Marker::Odd(_) | Marker::CutOff(_)) => return None,
        Err(error) => {
            let error = error.hint("nothing is restored, for it may be there");
            warn!("cannot tell whether there is a marker {}: {error}", escape(&shown));
            (Outcome::Failed(error.to_string()), record::ALWAYS)
        }
    };
    if caller == Caller::Boot {
        leave_records(paths, root, |tree| record::lived(tree, lived), life.heart);
    }
    Some(outcome)
}

fn all_have_records(root: &Dir, paths: &[PathBuf]) -> bool {
    paths.iter().all(|path| match root.open_beneath(path) {
        Ok(Some(tree)) => matches!(record::look(&tree), Ok(Some(record)) if !record.pending),
        Ok(None) => true,
        Err(_) => false,
    })
}

/// A path of the restore set, and what is to be restored into.
type Held<'a> = (&'a PathBuf, Result<Option<Destination>>);

/// Opens the trees; one that is absent is made if `make` says so.
fn hold_trees<'a>(
    root: &Dir,
    paths: impl IntoIterator<Item = &'a PathBuf>,
    make: impl Fn(&Path) -> bool,
    life: Life<'_>,
) -> Vec<Held<'a>> {
    let hold = |path: &'a PathBuf| {
        life.heart.enter(0, shown_below(root.path(), path));
        (path, destination::open(root, path, make(path)))
    };
    paths.into_iter().map(hold).collect()
}

/// A boot waits for as long as another restore takes, for it could not start over half a tree; but not for one that
/// is stuck.
fn lock_trees(
    options: &Options,
    root: &Dir,
    trees: &mut [Held<'_>],
    life: Life<'_>,
    caller: Caller,
) -> Result<()> {
    if options.dry_run {
        return Ok(());
    }
    let deadline = Instant::now() + LOCK_WAIT;
    let (mut said, mut silence) = (false, Silence::new());
    let paths: Vec<PathBuf> = trees.iter().map(|(path, _)| (*path).clone()).collect();
    let trees = trees.iter_mut().filter_map(|(_, tree)| tree.as_mut().ok()?.as_mut());
    destination::lock(trees.collect(), |tree, lock| {
        if !said {
            info!("another restore into {} is running, waiting", escape(tree.path()));
            said = true;
        }
        life.heart.enter(0, tree.path());
        // One that is still stuck since an earlier start is not given as much time again.
        let most = if was_overtaken(lock) { life.silence.min(LOCK_WAIT) } else { life.silence };
        let silent = silence.look(lock) >= most;
        match caller {
            _ if life.interruption.seen().is_some() => Wait::NoMore,
            Caller::Hand if Instant::now() >= deadline => Wait::NoMore,
            Caller::Boot if silent => {
                // Whoever has the locks next shall see that a runtime is about to start.
                leave_records(&paths, root, record::announce, life.heart);
                Wait::Overtake
            }
            _ => Wait::On,
        }
    })
}

fn bring_back(
    options: &Options,
    root: &Dir,
    source: &Trees,
    trees: &mut [Held<'_>],
    mut report: Report,
    life: Life<'_>,
) -> Outcome {
    if options.force && !options.dry_run {
        let watch = Watch::new(options.progress, life, trees);
        let job = Job { options, root, source, watch: &watch, doubt: None };
        match newer::ask(&job, trees) {
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
    let watch = Watch::new(options.progress, life, trees);
    let job = Job { options, root, source, watch: &watch, doubt };
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

/// Makes and locks the trees that are absent and that the source has.
fn make_absent(
    options: &Options,
    root: &Dir,
    source: &Trees,
    trees: &mut [Held<'_>],
    life: Life<'_>,
) -> Result<()> {
    let (paths, places): (Vec<&PathBuf>, Vec<_>) = trees
        .iter_mut()
        .filter(|(_, tree)| matches!(tree, Ok(None)))
        .map(|(path, tree)| (*path, tree))
        .unzip();
    let mut made = hold_trees(root, paths, |path| source.has(path), life);
    lock_trees(options, root, &mut made, life, Caller::Hand)?;
    for (place, (_, tree)) in places.into_iter().zip(made) {
        *place = tree;
    }
    Ok(())
}

/// Why an earlier restore, and so a runtime, may have been at these trees although there is no marker.
fn doubt(options: &Options, root: &Dir) -> Option<Doubt> {
    match marker::look(root) {
        Ok(Marker::Odd(kind)) => Some(Doubt::OddMarker(kind.noun())),
        Ok(Marker::CutOff(time)) => Some(Doubt::CutOff(time)),
        Ok(_) if options.dry_run => None,
        Ok(_) => marker::is_writable(root).err().map(Doubt::NoMarker),
        Err(error) => Some(Doubt::NoMarker(error)),
    }
}

fn open_source(options: &Options, root: &Dir, paths: &[PathBuf]) -> Result<Source> {
    match &options.source {
        Some(source) => Ok(Source::Ready {
            trees: {
                let dir = Dir::open_operator_path(source)?;
                Trees::single(&dir, source.clone(), paths)
            },
            device: json!({ "directory": source.to_string_lossy() }),
        }),
        None => Ok(source::open(&Request {
            device: &options.device(),
            root,
            mount_point: &options.mount_point,
            paths,
        })),
    }
}

/// Drops the marker, with warnings or without: the source would be the same the next time. By hand it is
/// dropped only where the next start has nothing left to restore.
fn drop_marker(options: &Options, root: &Dir, trees: &[Held<'_>], report: &mut Report) {
    let marker = marker::path(root);
    let shown = escape(&marker);
    if report.is_by_hand() && report.status() == Status::Failed {
        return warn!("nothing that was asked for could be restored; no marker is dropped");
    }
    let missing = || !matches!(marker::look(root), Ok(Marker::Present(_)));
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

fn first_line(error: &clap::Error) -> String {
    escape(error.to_string().lines().next().unwrap_or_default()).to_string()
}

fn parse_jobs(text: &str) -> std::result::Result<u16, std::num::ParseIntError> {
    if text.is_empty() { Ok(0) } else { text.parse() }
}

/// `path` for messages: below the operator's root.
fn shown_below(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().as_bytes().is_empty() { root.to_owned() } else { root.join(path) }
}
