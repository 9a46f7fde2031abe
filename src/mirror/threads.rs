//! How many threads there are, and why.
//!
//! Measured on 2 cores, a hot cache gains nothing beyond 2 to 4 threads, because
//! the time goes to inode and directory writes in the kernel; a volume whose first touch of a block
//! costs 5 to 30 ms is limited by requests in flight alone, and every one of them is a thread that
//! waits. So a run starts with two threads per core, and as long as the processor is less than
//! three quarters busy while work is waiting, it adds half as many again every 10 ms, up to
//! [`MOST_THREADS`](super::limits::MOST_THREADS): 64 threads keep 64 requests in flight and cost 18 MiB,
//! and 32 more where all of them read large files.
//!
//! Where half of them are held up by the destination, usually all by its journal, or hardly anything
//! comes from a disk (`fetching`), more threads would only take the processor from each other
//! afterwards (measured hot: 5 % of its time), so ten such moments give one more.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::time::ClockId;

use super::limits::TICK;
use crate::queue::WorkQueue;

/// Ticks in which something else than the source holds the run up that make for one more thread.
const HELD_UP: usize = 10;

/// The threads of a run, and what was found of their pace.
#[derive(Debug, Default)]
pub(super) struct ThreadPace {
    threads: AtomicUsize,
    slow: AtomicBool,
    writers: AtomicUsize,
}

/// A thread that changes the destination, until it is dropped.
pub(super) struct WritingThread<'a>(&'a AtomicUsize);

impl Drop for WritingThread<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ThreadPace {
    /// Whether the source was once found to answer slowly, so that work is better cut into small
    /// pieces and asked for ahead.
    pub fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Notes that the calling thread is about to change the destination.
    pub fn writing(&self) -> WritingThread<'_> {
        self.writers.fetch_add(1, Ordering::Relaxed);
        WritingThread(&self.writers)
    }

    /// Threads at work.
    pub fn threads(&self) -> usize {
        self.threads.load(Ordering::Relaxed)
    }

    /// Waits until everything in `queue` is done, adding threads (by `spawn`) while they help, at most
    /// `most` in all. `tick` is called every few milliseconds and says whether a disk may be what they wait
    /// for. `helps`: whether a task waits for other threads, not for the volume. False when not even one
    /// thread could start.
    pub fn supervise<T>(
        &self,
        queue: &WorkQueue<T>,
        most: usize,
        spawn: impl Fn() -> bool,
        mut tick: impl FnMut() -> bool,
        helps: impl Fn(&T) -> bool,
    ) -> bool {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let grow = |count: usize| {
            for _ in 0..count {
                if spawn() {
                    self.threads.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        grow((2 * cores).min(most).saturating_sub(self.threads()));
        if self.threads() == 0 {
            return false;
        }
        let mut before = (Instant::now(), processor_time());
        let mut held_up = 0;
        while let Some(look) = queue.wait(TICK, &helps) {
            let working = self.threads().saturating_sub(look.idle);
            let fetching = tick();
            let now = (Instant::now(), processor_time());
            let wall = now.0 - before.0;
            if wall < TICK {
                continue;
            }
            let busy = (now.1 - before.1).as_secs_f64() / wall.as_secs_f64() / cores as f64;
            let writers = self.writers.load(Ordering::Relaxed);
            let threads = self.threads();
            let moment = PaceLook { queued: look.queued, busy, fetching, working, writers };
            let more = match moment.limit() {
                PaceLimit::ProcessorOrWork => 0,
                PaceLimit::Source => {
                    self.slow.fetch_or(look.queued > look.counted && busy < 0.5, Ordering::Relaxed);
                    (threads / 2).max(1)
                }
                PaceLimit::Other => {
                    held_up += 1;
                    usize::from(held_up % HELD_UP == 0)
                }
            };
            grow(more.min(most.saturating_sub(threads)));
            before = now;
        }
        true
    }
}

/// A look at the run.
#[derive(Debug, Clone, Copy)]
struct PaceLook {
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

/// The limit of a run's speed.
#[derive(Debug, PartialEq, Eq)]
enum PaceLimit {
    /// The processor, or there is nothing to do for one more thread.
    ProcessorOrWork,
    Source,
    /// Something else, most likely the destination.
    Other,
}

impl PaceLook {
    fn limit(&self) -> PaceLimit {
        if self.queued == 0 || self.busy >= 0.75 {
            PaceLimit::ProcessorOrWork
        } else if self.fetching && self.writers * 2 < self.working {
            PaceLimit::Source
        } else {
            PaceLimit::Other
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
    const WAITING: PaceLook =
        PaceLook { queued: 9, busy: 0.1, fetching: true, working: 8, writers: 1 };

    #[test]
    fn threads_that_wait_for_a_disk_wait_for_the_source() {
        assert_eq!(WAITING.limit(), PaceLimit::Source);
    }

    #[test]
    fn a_busy_processor_is_the_limit() {
        assert_eq!(PaceLook { busy: 0.75, ..WAITING }.limit(), PaceLimit::ProcessorOrWork);
    }

    #[test]
    fn without_work_for_it_no_thread_would_help() {
        assert_eq!(PaceLook { queued: 0, ..WAITING }.limit(), PaceLimit::ProcessorOrWork);
    }

    #[test]
    fn a_hot_source_is_not_waited_for() {
        assert_eq!(PaceLook { fetching: false, ..WAITING }.limit(), PaceLimit::Other);
    }

    #[test]
    fn half_of_the_threads_at_the_destination_are_held_up_by_it() {
        assert_eq!(PaceLook { writers: 4, ..WAITING }.limit(), PaceLimit::Other);
        assert_eq!(PaceLook { writers: 3, ..WAITING }.limit(), PaceLimit::Source);
    }
}
