//! How far a restore is, said while a path is restored.

use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use molecule_tools::error::escape;
use molecule_tools::mirror::{Observer, Progress};
use tracing::info;

use super::Life;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Between two states of the live line.
const LIVE_EVERY: Duration = Duration::from_millis(200);

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

/// Watches one path after the other.
pub struct Watch<'a> {
    show: Show,
    live: bool,
    life: Life<'a>,
    state: Mutex<State>,
}

struct State {
    to: PathBuf,
    next: Instant,
    /// What [`Progress::life`] was.
    seen: u64,
}

impl<'a> Watch<'a> {
    pub fn new(show: Show, life: Life<'a>) -> Self {
        let live = show == Show::Auto && std::io::stderr().is_terminal();
        let state = Mutex::new(State { to: PathBuf::new(), next: Instant::now(), seen: 0 });
        Self { show, live, life, state }
    }

    fn interval(&self) -> Duration {
        if self.live { LIVE_EVERY } else { LINE_EVERY }
    }

    /// A new path begins.
    pub fn start(&self, to: &Path) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { to: to.to_owned(), next: Instant::now() + self.interval(), seen: 0 };
    }

    /// The path is done; the live line goes.
    pub fn finish(&self) {
        if self.live {
            let _ = std::io::stderr().write_all(b"\r\x1b[K");
        }
    }
}

impl Observer for Watch<'_> {
    fn progress(&self, progress: &Progress) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if progress.life != state.seen {
            state.seen = progress.life;
            self.life.heart.beat();
        }
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
        self.life.interruption.seen().is_some()
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
