//! `restore --force` over newer entries: they are counted by a dry run, and it is asked whether to take them away.
#![forbid(unsafe_code)]

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use molecule_tools::error::escape;
use molecule_tools::mirror::{self, Change, Observer, Progress, mirror};
use rustix::event::{PollFd, PollFlags, Timespec};
use tracing::{info, warn};

use super::held::HeldTrees;
use super::newer::{RuntimeStart, line};
use super::path::PathJob;
use super::progress::RestoreWatch;
use super::set::shown_below;

/// How many of them are named.
const NAMED: u64 = 10;
/// How long an answer is waited for. The trees are locked meanwhile, and a boot may wait for them.
const PATIENCE: Duration = Duration::from_secs(120);

/// The operator's answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Consent {
    Given,
    Refused,
    /// For this reason there is nothing to be asked any more.
    Interrupted(&'static str),
}

/// Counts what a full restore of `trees` would take away that is newer, says so, and asks for consent if
/// there is a terminal to ask on.
pub fn ask(job: &PathJob<'_>, trees: &[HeldTrees<'_>]) -> Consent {
    let (mut lost, mut unknown) = (0, false);
    for (path, destination) in trees {
        let Ok(Some(destination)) = destination else { continue };
        let (Ok(Some(source)), Some(since)) = (
            job.source.find(path),
            RuntimeStart::of(&destination.tree).filter(|_| !destination.made),
        ) else {
            continue;
        };
        let to = shown_below(job.root.path(), path);
        let options = mirror::Options { dry_run: true, ..job.full(&source, path) };
        let count = Count::new(&since, &to, job.watch);
        let looked = mirror(&source.dir, Some(&destination.tree), &options, &count);
        let whole = match looked {
            Ok(report) => report.status() == 0,
            Err(error) => {
                warn!("{error}");
                false
            }
        };
        if !whole && job.watch.end().is_none() {
            unknown = true;
            warn!(
                "{}: not everything could be looked at; more may be taken away than is counted",
                escape(&to)
            );
        }
        let [overwritten, deleted] =
            [&count.overwritten, &count.deleted].map(|count| count.load(Ordering::Relaxed));
        if overwritten + deleted > 0 {
            warn!(
                "{}: {overwritten} entries that were changed since a runtime started there ({}) \
                 are overwritten by this restore, and {deleted} deleted",
                escape(&to),
                since.words()
            );
        }
        lost += overwritten + deleted;
    }
    if let Some(why) = job.watch.end() {
        return Consent::Interrupted(why);
    }
    let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if (lost == 0 && !unknown) || job.options.yes || !terminal {
        return Consent::Given;
    }
    let least = if unknown { "at least " } else { "" };
    let _ = write!(std::io::stderr(), "Take {least}{lost} newer entries away? [y/N] ");
    let consent = answer(job.watch);
    if consent == Consent::Refused {
        info!("nothing was changed");
    }
    consent
}

/// Waits for a line that begins with `y`; anything else, the end of input and silence are a no.
fn answer(watch: &RestoreWatch<'_>) -> Consent {
    let end = Instant::now() + PATIENCE;
    let stdin = std::io::stdin();
    while Instant::now() < end {
        let step = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
        let ready = rustix::event::poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&step));
        if let Some(why) = watch.wait_for_answer() {
            return Consent::Interrupted(why);
        }
        if ready.is_ok_and(|ready| ready > 0) {
            let mut line = String::new();
            let read = stdin.lock().read_line(&mut line);
            let yes = read.is_ok() && line.trim_start().starts_with(['y', 'Y']);
            return if yes { Consent::Given } else { Consent::Refused };
        }
    }
    let _ = writeln!(std::io::stderr());
    warn!("no answer within {} seconds", PATIENCE.as_secs());
    Consent::Refused
}

/// Counts the changes of a dry run that take newer entries away, and names the first ones.
struct Count<'a> {
    since: &'a RuntimeStart<'a>,
    to: &'a Path,
    watch: &'a RestoreWatch<'a>,
    overwritten: AtomicU64,
    deleted: AtomicU64,
}

impl<'a> Count<'a> {
    fn new(since: &'a RuntimeStart<'a>, to: &'a Path, watch: &'a RestoreWatch<'a>) -> Self {
        Self { since, to, watch, overwritten: 0.into(), deleted: 0.into() }
    }
}

impl Observer for Count<'_> {
    fn wants_changes(&self) -> bool {
        true
    }

    fn change(&self, change: &Change, path: &Path) {
        if !self.since.is_lost(change, path) {
            return;
        }
        let count =
            if matches!(change, Change::Delete(_)) { &self.deleted } else { &self.overwritten };
        if count.fetch_add(1, Ordering::Relaxed) < NAMED {
            info!("{}", line(change, true, &shown_below(self.to, path)));
        }
    }

    fn progress(&self, progress: &Progress) {
        self.watch.note_life(progress);
    }

    fn interrupted(&self) -> bool {
        self.watch.interrupted()
    }
}
