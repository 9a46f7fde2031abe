//! The walk: one statx(2) per entry, shared by several threads once a tree proves large.
//!
//! A tree is walked once, and a second time where it has files that belong to somebody else and have
//! several names: those are counted by the first walk and given by the second, see `links`.
//!
//! A user who can write the tree while it is walked could keep the walk from its end, by moving what was
//! seen to where it is seen again. So of what changes during a walk only so much is looked at, see
//! `bounds`.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::warn;

use super::give::Tally;
use super::links::FILES;
use super::shared::{SharedWalk, SubTree, TreeWalk, WalkPass, WalkPlan, WalkTask};
use super::worker::WalkWorker;
use crate::error::Error;
use crate::fs::Dir;
use crate::fs::xattr::XattrReach;
use crate::lock::lock;

/// Directories the calling thread walks alone, before it starts others.
const ALONE: u64 = 64;
/// Threads for a large tree, at most.
const THREADS: usize = 4;

/// Walks entry `name` of `parent`.
pub(super) fn run(parent: &Dir, name: &CStr, plan: WalkPlan<'_>) -> Tally {
    let dir = match rustix::io::fcntl_dupfd_cloexec(parent, 3) {
        Ok(fd) => Arc::new(fd),
        Err(errno) => {
            warn!("{}", Error::os("walk", parent.join(name), errno));
            return Tally { failed: 1, ..Tally::default() };
        }
    };
    let top = SubTree { dir, path: parent.path().to_owned(), name: name.to_owned() };
    let walk = TreeWalk::new(plan, parent.join(name));
    let mut tally = pass(&walk, &top, WalkPass::Look);
    if walk.links.is_needed() {
        tally += pass(&walk, &top, WalkPass::GiveLinks);
        let uncounted = walk.links.uncounted();
        tally.failed += uncounted;
        if uncounted > 0 {
            warn!(
                "change owner of {uncounted} names below {} whose files have several: more than \
                 {FILES} such files, or new ones; run fix-perms again for the rest",
                walk.shown()
            );
        }
    }
    let unsaid = walk.unsaid();
    if unsaid > 0 {
        warn!("{unsaid} more warnings about {}", walk.shown());
    }
    tally
}

fn pass(walk: &TreeWalk<'_>, top: &SubTree, pass: WalkPass) -> Tally {
    let shared = SharedWalk::new(walk, pass);
    let mut first = WalkWorker::new(&shared, 1, XattrReach::through_proc(), top);
    first.walk(ALONE);
    let mut tally = match first.has_work() {
        true => with_threads(&shared, first),
        false => first.tally(),
    };
    if shared.is_stopped() {
        tally.failed += 1;
        let left = shared.left_out();
        walk.warn(|| {
            let reason = format!(
                "so much in it changes meanwhile that there is no end; at least {left} \
                 directories were not looked at"
            );
            Error::on("walk", walk.top(), reason)
                .hint("stop what changes it and run fix-perms again")
        });
    }
    tally
}

/// Goes on with what `first` has left, in several threads.
fn with_threads<'a>(shared: &'a SharedWalk<'a>, first: WalkWorker<'a>) -> Tally {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS);
    // A thread that cannot be started must not take the work with it.
    let first = Mutex::new(Some(first));
    let tally = Mutex::new(Tally::default());
    let run = |worker: &mut Option<WalkWorker<'a>>, number, reach: fn() -> XattrReach, task| {
        match (task, &mut *worker) {
            (WalkTask::Rest, _) => {
                *worker = lock(&first).take().map(|first| first.moved_to(number, reach()));
            }
            (WalkTask::Tree(tree), Some(worker)) => worker.take(&tree),
            (WalkTask::Tree(tree), None) => {
                *worker = Some(WalkWorker::new(shared, number, reach(), &tree));
            }
        }
        if let Some(worker) = worker {
            worker.walk(u64::MAX);
        }
    };
    let add = |worker: Option<WalkWorker<'a>>| {
        *lock(&tally) += worker.map_or(Tally::default(), |worker| worker.tally());
    };
    let (run, add, queue) = (&run, &add, &shared.queue);
    queue.push(WalkTask::Rest);
    shared.set_threads();
    std::thread::scope(|scope| {
        let start = |number| {
            std::thread::Builder::new().spawn_scoped(scope, move || {
                let mut worker = None;
                queue.work(|task| run(&mut worker, number, XattrReach::of_this_thread, task));
                add(worker);
            })
        };
        if (1..=threads).map(start).filter(Result::is_ok).count() > 0 {
            while queue.wait(Duration::from_secs(1), |_| false).is_some() {}
            queue.close();
        } else {
            let mut worker = None;
            queue.drain(|task| run(&mut worker, 1, XattrReach::through_proc, task));
            add(worker);
        }
    });
    tally.into_inner().unwrap_or_else(PoisonError::into_inner)
}
