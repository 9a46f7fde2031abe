//! State that the threads of one pass share, and state that each of them owns.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use super::ahead::ReadAhead;
use super::chunks::{LargeBuffer, LargeCopy};
use super::counters::{RunCounters, add};
use super::fault::Step;
use super::file::BornFile;
use super::found::ListedName;
use super::held::HeldDirs;
use super::ledger::{GroupShare, LinkLedger};
use super::limits::{BUFFER, LISTING, TICK};
use super::links::{GroupLeader, LinkGroups};
use super::options::{MirrorRequest, Progress};
use super::report::Stop;
use super::threads::ThreadPace;
use super::tree::{DirNode, FileSystem, KeptNodes, OpenDir, Pending};
use crate::fs::xattr::XattrReach;
use crate::fs::{FsIds, InodeId, Stat};
use crate::queue::WorkQueue;

/// If the observer was not heard for so long, the whole process may have been stopped.
pub(super) const STOPPED: Duration = Duration::from_millis(250);

/// The purpose of one pass over the trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MirrorPass {
    Copy,
    /// Mirror the names of these groups of hard links, and do nothing else.
    Links(GroupShare),
    /// Remove what the source does not have, and do nothing else.
    Remove,
    /// The destination is full: read everything at the source, and if all of it can be read, remove
    /// what the source does not have.
    MakeRoom,
}

/// One piece of work.
#[derive(Debug)]
pub(super) enum MirrorTask {
    /// List a directory from a position in it: the top, or one of which the rest has waited.
    List(Pending, u64),
    /// Mirror the directory of this name with everything below it.
    Directory(Pending, CString),
    /// Mirror these entries, none a directory, of a directory.
    Entries(Pending, Vec<ListedName>),
    /// Help with a large file, if somebody is still at it.
    Chunks(Weak<LargeCopy>),
    /// Remove what the source does not have.
    Purge(Arc<DirNode>),
}

/// See the module's description.
pub(super) struct Engine<'a> {
    pub request: MirrorRequest<'a>,
    pub pass: MirrorPass,
    pub counters: RunCounters,
    pub queue: WorkQueue<MirrorTask>,
    pub pace: ThreadPace,
    pub held: HeldDirs,
    pub links: LinkGroups,
    pub ledger: &'a LinkLedger,
    pub kept: Arc<KeptNodes>,
    /// Directories whose names have to be compared at the end.
    pub surplus: Mutex<Vec<Arc<DirNode>>>,
    pub src_mount: u64,
    /// Where the top of the destination is.
    pub dst_fs: Option<FileSystem>,
    /// Permissions bind the process (no CAP_DAC_OVERRIDE of capabilities(7)).
    pub ordinary: bool,
    /// Files that a thread may open at once to read ahead.
    pub ahead: usize,
    /// The source has been found unable to be read ahead.
    pub no_ahead: AtomicBool,
    /// Whether the destination keeps times has been looked at.
    pub times_checked: AtomicBool,
    /// Held by who looks whether a large file fits, and allocates its blocks.
    pub room: Mutex<()>,
    /// The caller's thread does the work.
    pub alone: AtomicBool,
    /// When a thread that works is to hear the observer itself, in milliseconds from the start.
    pub next_tick: AtomicU64,
    pub started: Instant,
}

/// The state of one thread.
pub(super) struct Worker<'e> {
    pub engine: &'e Engine<'e>,
    /// Of [`BUFFER`] bytes.
    pub buffer: Vec<u8>,
    /// Of [`LISTING`] bytes.
    pub listing: Vec<MaybeUninit<u8>>,
    pub reach: XattrReach,
    pub ahead: ReadAhead,
    pub large: LargeBuffer,
    pub ids: FsIds,
    pub born: Option<BornFile>,
}

impl<'e> Worker<'e> {
    /// For a thread that is there for nothing else.
    pub fn new(engine: &'e Engine<'e>) -> Self {
        Self {
            reach: XattrReach::of_this_thread(),
            ids: FsIds::of_this_thread(),
            ..Self::of_caller(engine)
        }
    }

    /// For the caller's thread, which keeps its working directory, and loses its capabilities when it
    /// gives up being root.
    pub fn of_caller(engine: &'e Engine<'e>) -> Self {
        Self {
            engine,
            buffer: vec![0; BUFFER],
            listing: vec![MaybeUninit::uninit(); LISTING],
            reach: XattrReach::through_proc(),
            ahead: ReadAhead::new(engine.ahead),
            large: LargeBuffer::default(),
            ids: FsIds::unchanged(),
            born: None,
        }
    }
}

impl Engine<'_> {
    pub fn dry_run(&self) -> bool {
        self.request.options.dry_run
    }

    /// Whether `name` in `node` is neither copied nor removed.
    pub fn is_excepted(&self, node: &DirNode, name: &CStr) -> bool {
        node.parent.is_none() && self.request.options.except.contains(&name)
    }

    /// Whether `there` stays if it differs from `source`.
    pub fn protects(&self, source: &Stat, there: &Stat) -> bool {
        self.request.options.keep.is_some_and(|keep| keep.holds(source, there))
    }

    /// Whether what the source does not have is removed at the end of this pass.
    pub fn removes(&self) -> bool {
        let options = self.request.options;
        options.delete && options.keep.is_none() && !matches!(self.pass, MirrorPass::Links(_))
    }

    /// Whether something that only the destination has may be removed now: a source that has answered
    /// with an error once may next say that a name is not there.
    pub fn may_remove(&self) -> bool {
        let stopped = self.stopped();
        if !self.counters.source_errors.load(Ordering::Relaxed) {
            return !stopped;
        }
        if !self.counters.deletion_withheld.swap(true, Ordering::Relaxed) {
            let more = if self.counters.deleted.load(Ordering::Relaxed) > 0 { "more " } else { "" };
            tracing::warn!(
                "nothing {more}is deleted, because not everything at the source could be read"
            );
        }
        false
    }

    /// Whether the run shall end. A thread that has nobody to watch looks for itself, and so does one after a stop
    /// of the whole process: what it is about to do may be wanted no more. Asked before each few system calls,
    /// which is a sign of life.
    pub fn stopped(&self) -> bool {
        add(&self.counters.life, 1);
        if self.started.elapsed().as_millis() as u64 >= self.next_tick.load(Ordering::Relaxed) {
            self.tick();
        }
        self.counters.stopped()
    }

    /// Asks the observer whether to end, and reports the progress to it.
    pub fn tick(&self) -> Progress {
        let next = if self.alone.load(Ordering::Relaxed) { TICK } else { STOPPED };
        let next = self.started.elapsed() + next;
        self.next_tick.store(next.as_millis() as u64, Ordering::Relaxed);
        let observer = self.request.observer;
        if observer.interrupted() {
            self.counters.stop(Stop::Interrupted);
        }
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let progress = Progress {
            entries: get(&counters.files) + get(&counters.symlinks) + get(&counters.specials),
            bytes: get(&counters.bytes),
            waiting: get(&counters.waiting),
            directories_waiting: self.queue.later(),
            life: get(&counters.life),
            elapsed: self.started.elapsed(),
        };
        observer.progress(&progress);
        progress
    }

    /// `node` with its descriptors.
    pub fn open(&self, node: &Arc<DirNode>) -> Step<OpenDir> {
        self.held.open(node)
    }

    /// Queues the directory `name` of `node`: done at once, each would be a level of recursion.
    pub fn queue_directory(&self, node: &Arc<DirNode>, name: CString) {
        self.queue.push(MirrorTask::Directory(Pending::more(node), name));
    }

    /// Ends the lead of a hard-link group, without a leader if nothing came of it; the names that waited are
    /// taken up again.
    pub fn end_lead(&self, group: InodeId, leader: Option<GroupLeader>) {
        for (pending, name) in self.links.finish(group, leader) {
            add(&self.counters.waiting, 1);
            let names = vec![ListedName { name, kind: None, ino: 0 }];
            self.queue.push_urgent(MirrorTask::Entries(pending, names));
        }
    }

    /// Notes that `count` listed entries are dealt with, or given up.
    pub fn pass_over(&self, count: usize) {
        self.counters.waiting.fetch_sub(count as u64, Ordering::Relaxed);
    }
}
