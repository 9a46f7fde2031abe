//! `restore`: brings the restore set back from a snapshot volume or a directory, once per workspace.

mod path;
mod probe;
mod progress;
mod report;
mod source;

use std::ffi::{CStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Parser;
use molecule_tools::error::{Error, Result, escape};
use molecule_tools::fs::{Dir, Kind};
use molecule_tools::log::{self, Stream};
use molecule_tools::process::Interruption;
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::Context;
use path::{Job, Restored};
use progress::{Show, Watch};
use report::Report;
use source::{Request, Source, Trees};

const DEFAULT_PATHS: [&str; 3] = ["configs", "workspace", "home/agent/.claude"];
/// Where the marker lives, below the root.
const MARKER_DIRECTORY: &str = "configs";
const MARKER: &CStr = c".restore-completed";

/// Restores the workspace from a snapshot volume or a directory.
///
/// What rsync -aHAX --delete --numeric-ids would leave, once: the marker /configs/.restore-completed
/// says that it was done and holds the report. Exit status: 0 restored or nothing to do, 23 partially
/// restored, 20 ended by SIGTERM or SIGINT, 1 nothing could be restored, 2 usage.
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
    /// Path to restore, relative to the root; may be given several times [default: configs,
    /// workspace and home/agent/.claude]
    #[arg(
        long = "path",
        value_name = "REL",
        env = "MOLECULE_RESTORE_PATHS",
        value_delimiter = ':',
        hide_default_value = true
    )]
    paths: Vec<PathBuf>,
    /// Where the volume is mounted, below the root
    #[arg(long, value_name = "DIR", default_value = "/mnt/restore")]
    mount_point: PathBuf,
    /// Restore although the marker says it was done
    #[arg(long)]
    force: bool,
    /// Say what would change, in the form of rsync --itemize-changes, and change nothing
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

/// How a restore ended.
enum Outcome {
    /// Marker present, or nothing to restore from.
    Nothing,
    /// Something was there to restore from and could not be used.
    Failed(String),
    /// Paths were restored; the worst of their states.
    Done(Report),
    /// A signal ended it.
    Interrupted(Report),
}

/// By hand.
pub fn run(context: &Context) -> u8 {
    let options: Options = match context.parse("restore") {
        Ok(options) => options,
        Err(status) => return status,
    };
    if options.probe {
        return probe::run(&options.device());
    }
    log::section("MOLECULE-RESTORE", if options.json { Stream::Stderr } else { Stream::Stdout });
    let root = match Dir::open_operator_path(&options.root) {
        Ok(root) => root,
        Err(error) => {
            warn!("{error}");
            return 1;
        }
    };
    if options.unmount {
        return match source::unmount(&root, &options.mount_point) {
            Ok(()) => 0,
            Err(error) => {
                warn!("{error}");
                1
            }
        };
    }
    let interruption = Interruption::watch();
    let outcome = restore(&options, &root, &interruption);
    let (status, report) = match outcome {
        Outcome::Nothing if marker_present(&root) => {
            info!("to restore all the same: --force");
            (0, json!({ "status": 0, "result": "marker present" }))
        }
        Outcome::Nothing => (0, json!({ "status": 0, "result": "nothing to do" })),
        Outcome::Failed(reason) => {
            (1, json!({ "status": 1, "result": "failed", "reason": reason }))
        }
        Outcome::Done(report) => (report.status(), report.to_json()),
        Outcome::Interrupted(report) => (20, report.to_json()),
    };
    if options.json {
        log::write_line(Stream::Stdout, &format!("{report:#}"));
    }
    status
}

/// At boot: whatever happens is told and the boot goes on, unless a signal asked for its end; then
/// gives the status to end with.
#[must_use]
pub fn boot() -> Option<u8> {
    log::section("MOLECULE-RESTORE", Stream::Stdout);
    let options = match Options::from_environment() {
        Ok(options) => options,
        Err(error) => {
            warn!("environment: {}; nothing is restored", first_line(&error));
            return None;
        }
    };
    let root = match Dir::open_operator_path(&options.root) {
        Ok(root) => root,
        Err(error) => {
            warn!("{error}");
            return None;
        }
    };
    let interruption = Interruption::watch();
    match restore(&options, &root, &interruption) {
        Outcome::Interrupted(_) => {
            let signal = interruption.seen().unwrap_or(15);
            Some(128 + u8::try_from(signal).unwrap_or(15))
        }
        _ => None,
    }
}

impl Options {
    /// What the boot goes by. A number of jobs that is none is left out, not the restore.
    fn from_environment() -> clap::error::Result<Self> {
        Self::try_parse_from(["restore"]).or_else(|error| {
            warn!("environment: {}; going on without it", first_line(&error));
            Self::try_parse_from(["restore", "--jobs", "0"])
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

    /// The restore set, relative to the root.
    fn restore_set(&self) -> Vec<PathBuf> {
        let given: Vec<PathBuf> = self
            .paths
            .iter()
            .map(|path| path.strip_prefix("/").unwrap_or(path).to_owned())
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        if given.is_empty() { DEFAULT_PATHS.map(PathBuf::from).to_vec() } else { given }
    }
}

fn restore(options: &Options, root: &Dir, interruption: &Interruption) -> Outcome {
    let marker = root.path().join(MARKER_DIRECTORY).join(".restore-completed");
    let shown_marker = escape(&marker);
    if !options.force && marker_present(root) {
        info!("marker {shown_marker} present — skipping (already restored on this EC2)");
        return Outcome::Nothing;
    }
    let paths = options.restore_set();
    let (trees, device) = match open_source(options, root, &paths) {
        Ok(Source::Ready { trees, device }) => (trees, device),
        Ok(Source::Skip { failed: false, .. }) => return Outcome::Nothing,
        Ok(Source::Skip { reason, .. }) => return Outcome::Failed(reason),
        Err(error) => {
            warn!("{error}");
            return Outcome::Failed(error.to_string());
        }
    };
    let mut report = Report::new(root.path(), device, trees.stale(), options.dry_run);
    let watch = Watch::new(options.progress, options.dry_run, interruption);
    let job = Job { options, root, source: &trees, watch: &watch };
    let mut busy = false;
    for path in &paths {
        let restored = job.restore(path);
        busy |= matches!(restored, Restored::Busy(_));
        report.add(path, &job, restored);
        // Also one that came while a lock was waited for, or after the last entry.
        if interruption.seen().is_some() {
            warn!("interrupted by a signal; no marker is dropped, restore again");
            return Outcome::Interrupted(report.interrupted());
        }
    }
    if busy {
        warn!("another restore is running; the marker is left to it");
    } else if !options.dry_run {
        drop_marker(root, &marker, &report);
    }
    Outcome::Done(report)
}

fn open_source(options: &Options, root: &Dir, paths: &[PathBuf]) -> Result<Source> {
    match &options.source {
        Some(source) => Ok(Source::Ready {
            trees: {
                let dir = Dir::open_operator_path(source)?;
                Trees::single(&dir, source.clone(), false, paths)
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

fn marker_present(root: &Dir) -> bool {
    root.open_beneath(Path::new(MARKER_DIRECTORY))
        .ok()
        .flatten()
        .and_then(|configs| configs.stat_entry(MARKER).ok().flatten())
        .is_some_and(|stat| stat.kind == Kind::File)
}

/// Drops the marker, with warnings or without: the source would be the same the next time.
fn drop_marker(root: &Dir, marker: &Path, report: &Report) {
    let shown = escape(marker);
    if let Err(error) = write_marker(root, &report.to_json()) {
        let error = error.hint("the restore will run again at the next start");
        warn!("marker {shown} could not be written: {error}");
    } else if report.status() == 0 {
        info!("complete — marker {shown} dropped");
    } else {
        info!("complete with WARNINGS — marker {shown} dropped; rm marker + restart for retry");
    }
}

fn write_marker(root: &Dir, report: &Value) -> Result<()> {
    let configs = root.open_beneath(Path::new(MARKER_DIRECTORY))?.ok_or_else(|| {
        Error::on("open", root.path().join(MARKER_DIRECTORY), "there is no such directory")
    })?;
    // A directory cannot be replaced by a rename; say so before anything is made.
    if configs.stat_entry(MARKER)?.is_some_and(|stat| stat.kind == Kind::Dir) {
        return Err(
            Error::on("replace", configs.join(MARKER), "it is a directory").hint("remove it")
        );
    }
    let umask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(umask);
    let mode = 0o666 & !umask.as_raw_mode();
    configs.replace_file(MARKER, format!("{report:#}\n").as_bytes(), mode, None)
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
