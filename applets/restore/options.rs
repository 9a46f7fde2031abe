//! The options of a restore, which a boot takes from the environment.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use molecule_tools::error::escape;
use tracing::warn;

use super::{set, source};

/// Restores the workspace from a snapshot volume or a directory.
///
/// Leaves the result of rsync -aHAX --delete --numeric-ids, once: the marker /configs/.restore-completed
/// says that it was done and holds the report. Exit status: 0 restored or nothing to do, 23 partially
/// restored, 20 ended by SIGTERM or SIGINT, 1 nothing could be restored, --device is not there or --force was not
/// confirmed, 2 usage.
#[derive(Parser)]
pub struct Options {
    /// Volume to restore from: a device node, an image file, UUID=, LABEL= or a volume id (vol-...)
    /// [env: MOLECULE_RESTORE_DEVICE] [default: /dev/xvdb]
    // Read from the environment by hand: clap would take a variable for a conflict with --source.
    #[arg(long, value_name = "DEV", conflicts_with = "source")]
    pub device: Option<OsString>,
    /// Directory to restore from; no volume is looked for then
    #[arg(long, value_name = "DIR")]
    pub source: Option<PathBuf>,
    /// Root of the workspace
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Path to restore, relative to the root; may be given several times [env:
    /// MOLECULE_RESTORE_PATHS, with colons between] [default: configs, workspace and home/agent/.claude]
    // Read from the environment by hand: what is given here may be only a part of that set.
    #[arg(long = "path", value_name = "REL", value_delimiter = ':', value_parser = set::PathParser)]
    pub paths: Vec<PathBuf>,
    /// Where the volume is mounted, below the root
    #[arg(long, value_name = "DIR", default_value = "/mnt/restore")]
    pub mount_point: PathBuf,
    /// Restore although the marker says it was done
    #[arg(long)]
    pub force: bool,
    /// With --force: do not ask before entries are taken away that were changed since a runtime started there
    #[arg(long)]
    pub yes: bool,
    /// Say what would change, in the form of rsync --itemize-changes, and change nothing; with --force, "!"
    /// marks entries that were changed since a runtime started there
    #[arg(long)]
    pub dry_run: bool,
    /// Compare content where size and modification time agree
    #[arg(long)]
    pub checksum: bool,
    /// Leave in place what the snapshot does not have
    #[arg(long)]
    pub no_delete: bool,
    /// Leave out device nodes, and set-id bits and file capabilities of programs
    #[arg(long, env = "MOLECULE_RESTORE_NO_PRIVILEGED", hide_env_values = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    pub no_privileged: bool,
    /// Afterwards read both sides again and report every difference
    #[arg(long)]
    pub verify: bool,
    /// Most requests in flight; 0 is as many as help, up to 64
    #[arg(long, value_name = "N", env = "MOLECULE_RESTORE_JOBS", default_value = "0",
          value_parser = parse_jobs)]
    pub jobs: u16,
    /// A live line on a terminal, else a line every 10 seconds
    #[arg(long, value_enum, default_value = "auto")]
    pub progress: Show,
    /// Print the report as JSON on standard output; log lines go to standard error
    #[arg(long)]
    pub json: bool,
    /// Say as JSON what is on the device, and change nothing
    #[arg(long)]
    pub probe: bool,
    /// Unmount what an earlier restore has mounted
    #[arg(long, conflicts_with_all = ["source", "probe"])]
    pub unmount: bool,
}

/// When progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Show {
    /// A live line if standard error is a terminal, else a line every 10 seconds.
    Auto,
    /// A line every 10 seconds, terminal or not.
    Always,
    /// Nothing.
    Never,
}

impl Options {
    /// The options of the boot. A value that is invalid is left out, not the restore: whether privileges are
    /// wanted is then taken for a no.
    pub fn from_environment() -> clap::error::Result<Self> {
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
    pub fn device(&self) -> OsString {
        self.device
            .clone()
            .or_else(|| std::env::var_os("MOLECULE_RESTORE_DEVICE"))
            .filter(|device| !device.is_empty())
            .unwrap_or_else(|| source::DEFAULT_DEVICE.into())
    }

    /// The source of the restore, for messages.
    pub fn source_name(&self) -> OsString {
        self.source.clone().map_or_else(|| self.device(), OsString::from)
    }

    /// The paths to be restored, relative to the root.
    pub fn restore_set(&self) -> Vec<PathBuf> {
        if self.paths.is_empty() { set::whole() } else { self.paths.clone() }
    }

    /// Whether only a part of the restore set is asked for.
    pub fn is_partial(&self) -> bool {
        let asked = self.restore_set();
        set::whole().iter().any(|path| !asked.contains(path))
    }
}

pub fn first_line(error: &clap::Error) -> String {
    escape(error.to_string().lines().next().unwrap_or_default()).to_string()
}

fn parse_jobs(text: &str) -> std::result::Result<u16, std::num::ParseIntError> {
    if text.is_empty() { Ok(0) } else { text.parse() }
}
