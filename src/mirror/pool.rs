//! The queue of work and the threads on it.
//!
//! How many threads: measured on 2 cores, a hot cache gains nothing beyond 2 to 4 threads, because
//! the time goes to inode and directory writes in the kernel; a volume whose first touch of a block
//! costs 5 to 30 ms is limited by requests in flight alone, and every one of them is a thread that
//! waits. So a run starts with two threads per core, and as long as the processor is less than
//! three quarters busy while work is waiting, it adds half as many again every 10 ms, up to
//! [`MOST_THREADS`]: 64 threads keep 64 requests in flight and cost 18 MiB, and 32 more where all of
//! them read large files.
//!
//! Where half of them are held up by the destination, usually all by its journal, or hardly anything
//! comes from a disk (`fetching`), more threads would only take the processor from each other
//! afterwards (measured hot: 5 % of its time), so ten such moments give one more.
//!
//! The queue is last in, first out, so that the directories in flight stay few; lists of entries are
//! taken before directories, and are limited in number (whoever finds the queue full does the work
//! itself).
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::time::ClockId;

use super::large::BigCopy;
use super::tree::Node;
use crate::fs::Kind;

/// Upper limit of threads; also of requests in flight.
pub(super) const MOST_THREADS: usize = 64;
/// How often the number of threads is thought over.
pub(super) const TICK: Duration = Duration::from_millis(10);
/// Ticks in which something else than the source holds the run up that make for one more thread.
const HELD_UP: usize = 10;
/// Lists of entries that may wait at once.
const ENTRY_LISTS: usize = 256;

/// One listed name.
#[derive(Debug)]
pub(super) struct Name {
    pub name: CString,
    pub kind: Option<Kind>,
    pub ino: u64,
}

/// One piece of work.
#[derive(Debug)]
pub(super) enum Task {
    /// List a directory from a position in it: the top, or one of which the rest has waited.
    List(Arc<Node>, u64),
    /// Mirror the directory `.1` of `.0` with everything below it.
    Directory(Arc<Node>, CString),
    /// Mirror these entries, none a directory, of a directory.
    Entries(Arc<Node>, Vec<Name>),
    /// Help with a large file, if somebody is still at it.
    Chunks(Weak<BigCopy>),
    /// Remove what the source does not have.
    Purge(Arc<Node>),
}

#[derive(Debug, Default)]
struct State {
    directories: Vec<Task>,
    entries: Vec<Task>,
    /// Queued or running.
    outstanding: usize,
    idle: usize,
    closed: bool,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    work: Condvar,
    drained: Condvar,
    threads: AtomicUsize,
    slow: AtomicBool,
    writers: AtomicUsize,
}

/// A thread that changes the destination, until it is dropped.
pub(super) struct Writing<'a>(&'a AtomicUsize);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a list of entries or help with a file, or gives it back when too many wait already.
    pub fn push(&self, task: Task) -> Result<(), Task> {
        let state = self.lock();
        if state.entries.len() >= ENTRY_LISTS {
            return Err(task);
        }
        self.add(state, task);
        Ok(())
    }

    /// Adds work that cannot be done by whoever found it: directories (each would be a level of
    /// recursion) and names of a hard-link group that have waited in its table until now.
    pub fn push_beyond_limit(&self, task: Task) {
        self.add(self.lock(), task);
    }

    fn add(&self, mut state: MutexGuard<'_, State>, task: Task) {
        match task {
            Task::Entries(..) | Task::Chunks(_) => state.entries.push(task),
            _ => state.directories.push(task),
        }
        state.outstanding += 1;
        if state.idle > 0 {
            self.work.notify_one();
        }
    }

    /// Whether the source was once found to answer slowly, so that work is better cut into small
    /// pieces and asked for ahead.
    pub fn slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Notes that the calling thread is about to change the destination.
    pub fn writing(&self) -> Writing<'_> {
        self.writers.fetch_add(1, Ordering::Relaxed);
        Writing(&self.writers)
    }

    /// Directories found but not taken up.
    pub fn directories(&self) -> u64 {
        self.lock().directories.len() as u64
    }

    /// Threads at work.
    pub fn threads(&self) -> usize {
        self.threads.load(Ordering::Relaxed)
    }

    /// Takes tasks until the queue is closed. Run by every worker thread.
    pub fn work(&self, mut run: impl FnMut(Task)) {
        loop {
            let mut state = self.lock();
            let task = loop {
                if let Some(task) = state.entries.pop().or_else(|| state.directories.pop()) {
                    break task;
                }
                if state.closed {
                    return;
                }
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            };
            drop(state);
            run(task);
            let mut state = self.lock();
            state.outstanding -= 1;
            if state.outstanding == 0 {
                self.drained.notify_all();
            }
        }
    }

    /// Does everything that is queued in the calling thread, the only one.
    pub fn drain(&self, mut run: impl FnMut(Task)) {
        loop {
            let mut state = self.lock();
            let Some(task) = state.entries.pop().or_else(|| state.directories.pop()) else {
                return;
            };
            state.outstanding -= 1;
            drop(state);
            run(task);
        }
    }

    /// Waits until everything is done, adding threads (by `spawn`) while they help, at most `most`
    /// in all. `tick` is called every few milliseconds and says whether a disk may be what they wait
    /// for. False when not even one thread could start.
    pub fn supervise(
        &self,
        most: usize,
        spawn: impl Fn() -> bool,
        mut tick: impl FnMut() -> bool,
    ) -> bool {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let grow = |count: usize| {
            for _ in 0..count {
                if spawn() {
                    self.threads.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let started = self.threads();
        grow((2 * cores).min(most).saturating_sub(started));
        if self.threads() == 0 {
            return false;
        }
        let mut before = (Instant::now(), processor_time());
        let mut held_up = 0;
        let mut state = self.lock();
        while state.outstanding > 0 {
            state =
                self.drained.wait_timeout(state, TICK).map_or_else(|e| e.into_inner().0, |r| r.0);
            let queued = state.entries.len() + state.directories.len();
            // Helpers of a large file wait for each other, not for the volume.
            let lists = state.directories.len()
                + state.entries.iter().filter(|task| matches!(task, Task::Entries(..))).count();
            let working = self.threads().saturating_sub(state.idle);
            drop(state);
            let fetching = tick();
            let now = (Instant::now(), processor_time());
            let wall = now.0 - before.0;
            if wall >= TICK {
                let busy = (now.1 - before.1).as_secs_f64() / wall.as_secs_f64() / cores as f64;
                let writers = self.writers.load(Ordering::Relaxed);
                let threads = self.threads();
                let more = match (Look { queued, busy, fetching, working, writers }).finds() {
                    Limit::Processor => 0,
                    Limit::Source => {
                        self.slow.fetch_or(lists > 0 && busy < 0.5, Ordering::Relaxed);
                        (threads / 2).max(1)
                    }
                    Limit::Other => {
                        held_up += 1;
                        usize::from(held_up % HELD_UP == 0)
                    }
                };
                grow(more.min(most.saturating_sub(threads)));
                before = now;
            }
            state = self.lock();
        }
        true
    }

    /// Lets the workers end.
    pub fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
    }
}

/// A look at the run.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// Tasks that wait for a thread.
    queued: usize,
    /// Share of the processor that the run had since the last look.
    busy: f64,
    /// Whether a disk may be what threads wait for.
    fetching: bool,
    /// Threads that have a task.
    working: usize,
    /// Those of them that are changing the destination.
    writers: usize,
}

/// What keeps a run from going faster.
#[derive(Debug, PartialEq, Eq)]
enum Limit {
    /// The processor, or there is nothing to do for one more thread.
    Processor,
    Source,
    /// Something else, most likely the destination.
    Other,
}

impl Look {
    fn finds(&self) -> Limit {
        if self.queued == 0 || self.busy >= 0.75 {
            Limit::Processor
        } else if self.fetching && self.writers * 2 < self.working {
            Limit::Source
        } else {
            Limit::Other
        }
    }
}

fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.max(0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Threads that wait for a disk.
    const WAITING: Look = Look { queued: 9, busy: 0.1, fetching: true, working: 8, writers: 1 };

    #[test]
    fn threads_that_wait_for_a_disk_wait_for_the_source() {
        assert_eq!(WAITING.finds(), Limit::Source);
    }

    #[test]
    fn a_busy_processor_is_the_limit() {
        assert_eq!(Look { busy: 0.75, ..WAITING }.finds(), Limit::Processor);
    }

    #[test]
    fn without_work_for_it_no_thread_would_help() {
        assert_eq!(Look { queued: 0, ..WAITING }.finds(), Limit::Processor);
    }

    #[test]
    fn a_hot_source_is_not_waited_for() {
        assert_eq!(Look { fetching: false, ..WAITING }.finds(), Limit::Other);
    }

    #[test]
    fn half_of_the_threads_at_the_destination_are_held_up_by_it() {
        assert_eq!(Look { writers: 4, ..WAITING }.finds(), Limit::Other);
        assert_eq!(Look { writers: 3, ..WAITING }.finds(), Limit::Source);
    }
}
