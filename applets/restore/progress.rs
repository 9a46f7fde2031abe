//! How far a restore is, said while a path is restored.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use molecule_tools::error::escape;
use molecule_tools::lock::lock;
use molecule_tools::mirror::{Observer, Progress};
use tracing::info;

use super::caller::LifeSigns;
use super::held::HeldTrees;
use super::options::Show;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Between two states of the live line.
const LIVE_EVERY: Duration = Duration::from_millis(200);

/// Between two signs of life for those who wait for the locks.
const SIGN_EVERY: Duration = Duration::from_secs(1);

/// Watches one path after the other.
pub struct RestoreWatch<'a> {
    show: Show,
    live: bool,
    life: LifeSigns<'a>,
    trees: &'a [HeldTrees<'a>],
    state: Mutex<State>,
    signs: Mutex<Signs>,
}

struct State {
    to: PathBuf,
    next: Instant,
}

/// The signs of life for processes that wait for the locks, and their answers.
struct Signs {
    /// The last [`Progress::life`].
    seen: u64,
    /// Something was done since the last sign.
    any: bool,
    next: Instant,
    overtaken: bool,
}

impl<'a> RestoreWatch<'a> {
    /// `trees` are locked.
    pub fn new(show: Show, life: LifeSigns<'a>, trees: &'a [HeldTrees<'a>]) -> Self {
        let live = show == Show::Auto && std::io::stderr().is_terminal();
        let now = Instant::now();
        let state = Mutex::new(State { to: PathBuf::new(), next: now });
        let signs = Signs { seen: 0, any: true, next: now, overtaken: false };
        Self { show, live, life, trees, state, signs: Mutex::new(signs) }
    }

    /// Notes how far a run is, for the process that watches.
    pub fn note_life(&self, progress: &Progress) {
        let mut signs = lock(&self.signs);
        if progress.life != signs.seen {
            (signs.seen, signs.any) = (progress.life, true);
            self.life.heart.beat();
        }
    }

    /// Why the restore has to end, if it has. To be asked often: the signs of life for those who wait are given
    /// here, and what they say is heard.
    pub fn end(&self) -> Option<&'static str> {
        if self.life.interruption.seen().is_some() {
            return Some("interrupted by a signal");
        }
        let mut signs = lock(&self.signs);
        let now = Instant::now();
        if now >= signs.next {
            signs.next = now + SIGN_EVERY;
            let any = std::mem::take(&mut signs.any);
            for lock in
                self.trees.iter().filter_map(|(_, tree)| tree.as_ref().ok()?.as_ref()?.lock())
            {
                // First: a sign of one that was stopped may come too late.
                signs.overtaken |= lock.is_overtaken();
                if any {
                    lock.show_life();
                }
            }
        }
        signs.overtaken.then_some(
            "another start has gone on without this restore, which showed no sign of life",
        )
    }

    /// Notes that somebody is waited for who has been asked.
    pub fn wait_for_answer(&self) -> Option<&'static str> {
        lock(&self.signs).any = true;
        self.end()
    }

    fn interval(&self) -> Duration {
        if self.live { LIVE_EVERY } else { LINE_EVERY }
    }

    /// A new path begins.
    pub fn start(&self, to: &Path) {
        let mut state = lock(&self.state);
        *state = State { to: to.to_owned(), next: Instant::now() + self.interval() };
    }

    /// The path is done; the live line goes.
    pub fn finish(&self) {
        if self.live {
            let _ = std::io::stderr().write_all(b"\r\x1b[K");
        }
    }
}

impl Observer for RestoreWatch<'_> {
    fn progress(&self, progress: &Progress) {
        self.note_life(progress);
        let mut state = lock(&self.state);
        if self.show == Show::Never {
            return;
        }
        let now = Instant::now();
        if now < state.next {
            return;
        }
        state.next = now + self.interval();
        let line = format!("progress {}: {}", escape(&state.to), words(progress));
        if self.live {
            let _ = write!(std::io::stderr(), "\r{line}\x1b[K");
        } else {
            info!("{line}");
        }
    }

    fn interrupted(&self) -> bool {
        self.end().is_some()
    }
}

fn words(progress: &Progress) -> String {
    const MIB: f64 = 1024.0 * 1024.0;
    let seconds = progress.elapsed.as_secs_f64();
    let mib = progress.bytes as f64 / MIB;
    let rate = if seconds > 0.0 { mib / seconds } else { 0.0 };
    format!(
        "{} files, {mib:.1} MiB, {rate:.1} MiB/s, {seconds:.0} s; at least {} files and {} directories to go",
        progress.entries, progress.waiting, progress.directories_waiting
    )
}
