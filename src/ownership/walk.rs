//! The walk: one statx(2) per entry, shared by several threads once a tree proves large.
//!
//! A tree is walked once, and a second time where it has files that belong to somebody else and have
//! several names: those are counted by the first walk and given by the second, see [`super::links`].
//!
//! Whoever can write the tree while it is walked could keep the walk from its end, by moving what was
//! seen to where it is seen again. So of what changes during a walk only so much is looked at, see
//! [`Bounds`].
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tracing::warn;

use super::bounds::Bounds;
use super::capability::Lookup;
use super::links::Links;
use super::worker::Worker;
use super::{Mode, Owner, Privileges, Tally};
use crate::error::{Error, escape, shorten};
use crate::fs::Dir;
use crate::heartbeat::Heartbeat;

/// Directories the calling thread walks alone, before it starts others.
const ALONE: u64 = 64;
/// Threads for a large tree, at most.
const THREADS: usize = 4;
/// Directories handed from thread to thread at a time, each with its parent held open.
const WAITING: usize = 8;
/// Warnings printed per tree; the rest is only counted, so that a read-only file system does not
/// fill the log.
const WARNINGS: u64 = 100;

/// Walks entry `name` of `parent`.
pub(super) fn run(parent: &Dir, name: &CStr, plan: Plan<'_>) -> Tally {
    let start = match rustix::io::fcntl_dupfd_cloexec(parent, 3) {
        Ok(fd) => Arc::new(fd),
        Err(errno) => {
            warn!("{}", Error::os("walk", parent.join(name), errno));
            return Tally { failed: 1, ..Tally::default() };
        }
    };
    let top = Task { dir: start, path: parent.path().to_owned(), name: name.to_owned() };
    let walk = Walk {
        plan,
        top: parent.join(name),
        links: Links::new(),
        warnings: AtomicU64::new(0),
        unclear: AtomicBool::new(false),
    };
    let mut tally = walk.pass(&top, Pass::Look);
    if walk.links.is_needed() {
        tally += walk.pass(&top, Pass::GiveLinks);
        tally += walk.links.report_uncounted(&walk);
    }
    let unsaid = walk.warnings.load(Ordering::Relaxed).saturating_sub(WARNINGS);
    if unsaid > 0 {
        warn!("{unsaid} more warnings about {}", walk.shown());
    }
    tally
}

/// What is wanted of a walk.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) owner: Owner,
    pub(super) privileges: Privileges,
    pub(super) mode: Mode,
    pub(super) heart: &'a Heartbeat,
}

/// Which of the two walks it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// Gives everything but files with several names, which are counted.
    Look,
    /// Gives those of which all names were counted, and nothing else.
    GiveLinks,
}

/// A directory entry to be walked. Its parent is held open.
pub(super) struct Task {
    pub(super) dir: Arc<OwnedFd>,
    /// Of the parent, for messages.
    pub(super) path: PathBuf,
    pub(super) name: CString,
}

/// What both walks share.
pub(super) struct Walk<'a> {
    pub(super) plan: Plan<'a>,
    top: PathBuf,
    pub(super) links: Links,
    warnings: AtomicU64,
    unclear: AtomicBool,
}

/// What the threads of one walk share.
pub(super) struct Shared<'a> {
    pub(super) walk: &'a Walk<'a>,
    pub(super) pass: Pass,
    pub(super) bounds: Bounds,
    queue: Mutex<Queue>,
    ready: Condvar,
    /// Directories that may be handed over now.
    wanted: AtomicUsize,
    /// Directories that were not looked at, at least.
    left: AtomicU64,
    stopped: AtomicBool,
}

#[derive(Default)]
struct Queue {
    tasks: VecDeque<Task>,
    /// Threads that walk, which may still hand something over.
    active: usize,
}

impl Walk<'_> {
    fn pass(&self, top: &Task, pass: Pass) -> Tally {
        let shared = Shared {
            walk: self,
            pass,
            bounds: Bounds::start(),
            queue: Mutex::default(),
            ready: Condvar::new(),
            wanted: AtomicUsize::new(0),
            left: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        };
        let mut first = Worker::new(&shared, 1, Lookup::shared(), top);
        first.walk(ALONE);
        let mut tally = match first.has_work() {
            true => shared.with_threads(first),
            false => first.tally(),
        };
        let left = shared.left.load(Ordering::Relaxed);
        if shared.stopped.load(Ordering::Relaxed) {
            tally.failed += 1;
            self.complain(|| {
                Error::on(
                    "walk",
                    self.top.clone(),
                    format!(
                        "so much in it changes meanwhile that there is no end; at least {left} \
                         directories were not looked at"
                    ),
                )
                .hint("stop what changes it and run fix-perms again")
            });
        }
        tally
    }

    /// The top of the tree, for a message.
    pub(super) fn shown(&self) -> String {
        escape(shorten(&self.top).as_ref()).to_string()
    }

    /// Warns, up to the limit.
    pub(super) fn complain(&self, error: impl FnOnce() -> Error) {
        if self.warnings.fetch_add(1, Ordering::Relaxed) < WARNINGS {
            warn!("{}", error());
        }
    }

    /// Says of the first file of which it cannot be told whether it has capabilities what becomes of all.
    pub(super) fn note_unclear(&self, error: impl FnOnce() -> Error) {
        if !self.unclear.swap(true, Ordering::Relaxed) {
            let all = format!("such files below {} lose any that they have", self.shown());
            warn!("{}", error().hint(all));
        }
    }
}

impl<'a> Shared<'a> {
    /// Goes on with what `first` has left, in several threads.
    fn with_threads(&'a self, first: Worker<'a>) -> Tally {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS);
        // A thread that cannot be started must not take the work with it.
        let first = Mutex::new(Some(first));
        let work = |number: usize| {
            let taken = first.lock().unwrap_or_else(PoisonError::into_inner).take();
            let lookup = Lookup::of_this_thread();
            match taken {
                Some(first) => self.work(first.moved_to(number, lookup)),
                None => self.work_as(number, lookup),
            }
        };
        self.lock().active = 1;
        let mut tally = std::thread::scope(|scope| {
            let work = &work;
            let workers: Vec<_> = (1..=threads)
                .map(|number| std::thread::Builder::new().spawn_scoped(scope, move || work(number)))
                .collect();
            let mut tally = Tally::default();
            for more in workers.into_iter().flatten().flat_map(|worker| worker.join()) {
                tally += more;
            }
            tally
        });
        // Without a single thread the calling one does it all.
        if let Some(first) = first.into_inner().unwrap_or_else(PoisonError::into_inner) {
            tally += self.work(first);
        }
        tally
    }

    /// Works on from where `worker` is, then on what the others hand over.
    fn work(&self, mut worker: Worker<'_>) -> Tally {
        worker.walk(u64::MAX);
        self.done();
        while let Some(task) = self.wait() {
            worker.take(&task);
            worker.walk(u64::MAX);
            self.done();
        }
        worker.tally()
    }

    /// Works on what the others hand over.
    fn work_as(&self, number: usize, lookup: Lookup) -> Tally {
        match self.wait() {
            Some(task) => self.work(Worker::new(self, number, lookup, &task)),
            None => Tally::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a task; none when all has been walked.
    fn wait(&self) -> Option<Task> {
        let mut queue = self.lock();
        loop {
            if let Some(task) = queue.tasks.pop_front() {
                queue.active += 1;
                self.note_wanted(&queue);
                return Some(task);
            }
            if queue.active == 0 {
                return None;
            }
            self.note_wanted(&queue);
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn note_wanted(&self, queue: &Queue) {
        self.wanted.store(WAITING - queue.tasks.len(), Ordering::Relaxed);
    }

    /// Whether somebody would take a task, or soon will.
    pub(super) fn wants_tasks(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > 0
    }

    /// Hands `task` over; gives it back if there are enough already.
    pub(super) fn hand_over(&self, task: Task) -> Option<Task> {
        let mut queue = self.lock();
        if queue.tasks.len() >= WAITING {
            self.note_wanted(&queue);
            return Some(task);
        }
        queue.tasks.push_back(task);
        self.note_wanted(&queue);
        drop(queue);
        self.ready.notify_one();
        None
    }

    fn done(&self) {
        let mut queue = self.lock();
        queue.active -= 1;
        if queue.active == 0 {
            self.ready.notify_all();
        }
    }

    /// Ends the walk, if it is not to go on; whether it is so.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Ends the walk.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Notes directories that are not looked at.
    pub(super) fn leave_out(&self, count: u64) {
        self.left.fetch_add(count, Ordering::Relaxed);
    }
}
