//! Tree to tree copy: what `rsync -aHAX --delete --numeric-ids --one-file-system` leaves behind,
//! with many requests in flight.
//!
//! - `passes`: how often the trees are walked, and what for
//! - `pool`: the queue, the threads, and how many of them there are and why
//! - `fetching`: whether a disk may be what the threads wait for
//! - `limits`: how many descriptors there may be, and who gets them
//! - `tree`: directories in work and the descriptors they hold
//! - `walk`: listing the source and handing its entries out
//! - `directory`: making, mending and finishing directories
//! - `entry`: everything that is no directory: keep, mend, link
//! - `ahead`: small files, opened and asked for a batch at a time
//! - `make`: new files, links and nodes, and how they get their names
//! - `copy`: file content, holes
//! - `large`: large files, by several threads
//! - `metadata`: owner, mode, times, and the order in which they and `xattrs` are given
//! - `times`: what of a modification time the destination can keep
//! - `xattrs`: ACLs and other extended attributes
//! - `links`: hard-link groups
//! - `keep`: what stays where a runtime has run already
//! - `delete`: what the source does not have
//! - `itemize`, `report`: what changed, what was done, what failed
//!
//! Memory is bounded by the threads (a buffer each) and by what is held at once of directories in flight,
//! directories with surplus names, and groups of hard links. Where there are more, a directory is read in
//! portions, and further passes do the rest.
#![forbid(unsafe_code)]

mod ahead;
mod copy;
mod delete;
mod directory;
mod entry;
mod fetching;
mod itemize;
mod keep;
mod large;
mod limits;
mod links;
mod make;
mod metadata;
mod passes;
mod pool;
mod report;
mod times;
mod tree;
mod walk;
mod xattrs;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{StatVfsMountFlags, fstatfs, fstatvfs};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

pub use itemize::{Change, Differences};
pub use keep::Keep;
pub use report::{Failure, Report, Side, Stop, tell};

use crate::error::{Error, Result, describe, escape, shorten};
use crate::fs::xattr::{Reach, Target};
use crate::fs::{Dir, FsIds, KeepDumpable, at};
use ahead::Ahead;
use fetching::Fetching;
use large::LargeBuffer;
use limits::{Limits, MoreDescriptors};
use links::{Id, Ledger, Links, Share};
use make::Born;
use passes::Passes;
use pool::{Queue, TICK, Task};
use report::{Counters, Fault, add};
use tree::{Held, Node, Pair, Place, join};
use xattrs::Xattrs;

/// If the observer was not heard for so long, the whole process may have been stopped.
const STOPPED: Duration = Duration::from_millis(250);
/// Bytes one getdents64(2) call may fill.
const LISTING: usize = 32 * 1024;

/// What to do.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Compare content where size and time agree.
    pub checksum: bool,
    /// Say what would change and touch nothing.
    pub dry_run: bool,
    /// Remove what the source does not have.
    pub delete: bool,
    /// Most threads; chosen by load when none.
    pub jobs: Option<usize>,
    /// Leave out what can make somebody more than they are: device nodes, and set-id bits and file
    /// capabilities of regular files.
    pub no_privileged: bool,
    /// Names in the top directories that are neither copied nor removed.
    pub except: &'static [&'static CStr],
    /// What stays as it is; `None` to make everything as the source has it. With it, `delete` removes nothing.
    pub keep: Option<Keep>,
}

/// A look at a run in progress.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Objects dealt with that are no directories.
    pub entries: u64,
    /// Bytes of file data written.
    pub bytes: u64,
    /// Objects listed but not dealt with.
    pub waiting: u64,
    /// Directories found but not listed.
    pub directories_waiting: u64,
    /// Grows with whatever is done: a run that stands still is one that waits for a file system.
    pub life: u64,
    /// Time since the start.
    pub elapsed: Duration,
}

/// Who watches a run. Called from many threads.
pub trait Observer: Sync {
    /// Whether [`Observer::change`] is to be called.
    fn wants_changes(&self) -> bool {
        false
    }
    /// One change; `path` is below the top of the trees, empty for the top.
    fn change(&self, _change: &Change, _path: &Path) {}
    /// Called every few milliseconds by the thread that waits, and by one that works if that one is late.
    fn progress(&self, _progress: &Progress) {}
    /// Whether the run shall end now.
    fn interrupted(&self) -> bool {
        false
    }
}

/// What each thread owns.
struct Worker {
    buffer: Vec<u8>,
    listing: Vec<MaybeUninit<u8>>,
    reach: Reach,
    ahead: Ahead,
    large: LargeBuffer,
    ids: FsIds,
    born: Option<Born>,
}

impl Worker {
    /// For a thread that is there for nothing else.
    fn new(ahead: usize) -> Self {
        Self {
            reach: Reach::of_this_thread(),
            ids: FsIds::of_this_thread(),
            ..Self::of_caller(ahead)
        }
    }

    /// For the caller's thread, which keeps its working directory, and loses its capabilities when it
    /// gives up being root.
    fn of_caller(ahead: usize) -> Self {
        Self {
            buffer: vec![0; copy::BUFFER],
            listing: vec![MaybeUninit::uninit(); LISTING],
            reach: Reach::through_proc(),
            ahead: Ahead::new(ahead),
            large: LargeBuffer::default(),
            ids: FsIds::unchanged(),
            born: None,
        }
    }
}

/// What one pass over the trees is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    Copy,
    /// Mirror the names of these groups of hard links, and do nothing else.
    Links(Share),
    /// Remove what the source does not have, and do nothing else.
    Remove,
    /// The destination is full: read everything at the source, and if all of it can be read, remove
    /// what the source does not have.
    MakeRoom,
}

struct Engine<'a> {
    options: &'a Options,
    pass: Pass,
    observer: &'a dyn Observer,
    counters: Counters,
    queue: Queue,
    held: Held,
    links: Links,
    ledger: &'a Ledger,
    kept: Arc<tree::KeptNodes>,
    /// Directories whose names have to be compared at the end.
    surplus: Mutex<Vec<Arc<Node>>>,
    src_mount: u64,
    /// Permissions bind the process (no CAP_DAC_OVERRIDE of capabilities(7)).
    ordinary: bool,
    /// Files that a thread may open at once to read ahead.
    ahead: usize,
    /// The source has been found unable to be read ahead.
    no_ahead: AtomicBool,
    /// Whether the destination keeps times has been looked at.
    times_checked: AtomicBool,
    /// Held by who looks whether a large file fits, and allocates its blocks.
    room: Mutex<()>,
    /// The caller's thread does the work.
    alone: AtomicBool,
    /// When a thread that works is to hear the observer itself, in milliseconds from the start.
    next_tick: AtomicU64,
    src_path: &'a Path,
    dst: Option<&'a Dir>,
    /// Where the top of the destination is.
    dst_place: Option<Place>,
    started: Instant,
}

/// Makes the tree at `dst` equal to the tree at `src`. `dst` is none only in a dry run, for a tree
/// that does not exist yet.
///
/// Failures on single entries are told as warnings, counted in the report and do not end the run.
///
/// # Errors
///
/// When the top directories themselves cannot be examined.
pub fn mirror(
    src: &Dir,
    dst: Option<&Dir>,
    options: &Options,
    observer: &dyn Observer,
) -> Result<Report> {
    Passes { src, dst, options, observer }.all()
}

/// One pass. The hard-link groups `groups` are made anew; afterwards those that it has torn are in it.
fn run(
    &Passes { src, dst, options, observer }: &Passes<'_>,
    pass: Pass,
    groups: &mut HashSet<Id>,
    ledger: &Ledger,
) -> Result<Report> {
    let stat = src.stat()?;
    need_proc(src)?;
    let _more = MoreDescriptors::allow();
    let _dumpable = KeepDumpable::note();
    let Limits { threads, directories, ahead } = Limits::share(options.jobs);
    let kept = Arc::default();
    let engine = Engine {
        options,
        pass,
        observer,
        counters: Counters::default(),
        queue: Queue::default(),
        held: Held::new(directories),
        links: Links::remaking(std::mem::take(groups), &kept),
        ledger,
        kept,
        surplus: Mutex::new(Vec::new()),
        src_mount: stat.mount_id,
        ordinary: is_ordinary(),
        ahead,
        no_ahead: AtomicBool::new(false),
        times_checked: AtomicBool::new(false),
        room: Mutex::new(()),
        alone: AtomicBool::new(false),
        next_tick: AtomicU64::new(STOPPED.as_millis() as u64),
        src_path: src.path(),
        dst,
        dst_place: dst.map(Dir::stat).transpose()?.map(|stat| Place::of(&stat)),
        started: Instant::now(),
    };
    let clone = |dir: &Dir| rustix::io::fcntl_dupfd_cloexec(dir, 3);
    let xattrs = Xattrs::read(&Target::fd(src))
        .map_err(|errno| Error::os("read xattrs of", src.path(), errno))?;
    let pair = (|| {
        let dst = dst.map(clone).transpose()?;
        Ok(Arc::new(Pair { src: clone(src)?, dst }))
    })()
    .map_err(|errno| Error::os("hold", src.path(), errno))?;
    let fresh = dst.is_none();
    let mut root = Node::new(None, CString::default(), stat, &pair, fresh)
        .map_err(|errno| Error::os("stat", engine.dst_path(), errno))?;
    if let Some(dst) = dst.filter(|_| options.keep.is_some()) {
        root.protected = engine.protects(&stat, &dst.stat()?);
    }
    if let Some(dst) = dst.filter(|_| matches!(pass, Pass::Copy | Pass::Links(_))) {
        root.closed = engine.is_narrow(&stat) || engine.is_narrow(&dst.stat()?);
        root.widened = engine.widen(dst, c".");
    }
    let root = Arc::new(root);
    if pass == Pass::Copy
        && let Some(dst) = &pair.dst
        && !root.closed
        && let Err((operation, errno)) = engine.mend_directory(&root, c"", &stat, &xattrs, dst)
    {
        engine.fail(&root, c"", Side::Destination, operation, errno);
    }
    engine.held.note(&root);
    let engine = &engine;
    std::thread::scope(|scope| {
        let workers = RefCell::new(Vec::new());
        let refused = Cell::new(None);
        let spawn = || {
            // Too few threads make a run slow, not wrong.
            let worker = std::thread::Builder::new()
                .stack_size(256 * 1024)
                .spawn_scoped(scope, || engine.work());
            match worker {
                Ok(worker) => workers.borrow_mut().push(worker),
                Err(error) => {
                    refused.set(Errno::from_io_error(&error));
                    return false;
                }
            }
            true
        };
        let mut fetching = Fetching::from(src);
        let mut tick = || {
            let progress = engine.tick();
            fetching.look(progress.bytes, progress.entries)
        };
        let mut work = || {
            if !engine.queue.supervise(threads, spawn, &mut tick) {
                engine.work_alone(refused.get());
            }
        };
        engine.queue.push_beyond_limit(Task::List(root.clone(), 0));
        work();
        if engine.removes() {
            engine.queue_purges();
            work();
        }
        engine.queue.close();
        for worker in workers.into_inner() {
            // The scope waits for their work only. One that is still about to end has capabilities
            // (`FsIds`) when the process gives up its own, and ends it with what setresuid(2) tells it.
            let _ = worker.join();
        }
    });
    *groups = engine.links.torn();
    let groups = engine.links.most_held();
    Ok(Report { groups, ..engine.counters.report(engine.started.elapsed()) })
}

/// Whether permissions bind this process; where its capabilities cannot be known, by its user.
fn is_ordinary() -> bool {
    match rustix::thread::capabilities(None) {
        Ok(sets) => !sets.effective.contains(CapabilitySet::DAC_OVERRIDE),
        Err(_) => !rustix::process::geteuid().is_root(),
    }
}

/// Links, fifos, sockets and devices cannot be opened, and the way to their xattrs and modes without
/// following a link leads through /proc; without it every such entry would fail one by one.
fn need_proc(dir: &Dir) -> Result<()> {
    let path = format!("/proc/self/fd/{}/.", dir.as_fd().as_raw_fd());
    rustix::fs::stat(path).map(drop).map_err(|errno| {
        Error::os("use", "/proc/self/fd", errno).hint("mount -t proc proc /proc and restore again")
    })
}

impl Engine<'_> {
    fn is_excepted(&self, node: &Node, name: &CStr) -> bool {
        node.parent.is_none() && self.options.except.contains(&name)
    }

    /// Whether what the source does not have is removed at the end of this pass.
    fn removes(&self) -> bool {
        self.options.delete && self.options.keep.is_none() && !matches!(self.pass, Pass::Links(_))
    }

    fn work(&self) {
        let mut worker = Worker::new(self.ahead);
        self.queue.work(|task| self.run_task(&mut worker, task));
    }

    /// Does all that is queued in the calling thread, where no other can be started.
    fn work_alone(&self, refused: Option<Errno>) {
        if !self.alone.swap(true, Ordering::Relaxed) {
            let reason = refused.map_or_else(|| "refused".into(), describe);
            tracing::warn!(
                "one thread does all of the copy, for no other can be started: {reason}"
            );
        }
        let mut worker = Worker::of_caller(self.ahead);
        self.queue.drain(|task| self.run_task(&mut worker, task));
    }

    fn run_task(&self, worker: &mut Worker, task: Task) {
        let stopped = self.stopped();
        match task {
            Task::List(node, position) => {
                if let Some(pair) = self.open(&node, c"") {
                    self.list(worker, &node, &pair, position);
                } else {
                    node.whole.store(false, Ordering::Relaxed);
                }
                self.release(node);
            }
            Task::Directory(parent, name) => {
                if !stopped {
                    self.directory(worker, &parent, name);
                }
                self.release(parent);
            }
            Task::Entries(node, list) => self.entries(worker, &node, None, list),
            Task::Chunks(big) => self.help_with(worker, &big),
            Task::Purge(node) => self.purge(&node),
        }
    }

    /// Whether the run shall end. A thread that has nobody to watch looks for itself, and so does one after a stop
    /// of the whole process: what it is about to do may be wanted no more. Asked before each few system calls,
    /// which is a sign of life.
    fn stopped(&self) -> bool {
        add(&self.counters.life, 1);
        if self.started.elapsed().as_millis() as u64 >= self.next_tick.load(Ordering::Relaxed) {
            self.tick();
        }
        self.counters.stopped()
    }

    /// Hears and tells the observer.
    fn tick(&self) -> Progress {
        let next = if self.alone.load(Ordering::Relaxed) { TICK } else { STOPPED };
        let next = self.started.elapsed() + next;
        self.next_tick.store(next.as_millis() as u64, Ordering::Relaxed);
        if self.observer.interrupted() {
            self.counters.stop(Stop::Interrupted);
        }
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let progress = Progress {
            entries: get(&counters.files) + get(&counters.symlinks) + get(&counters.specials),
            bytes: get(&counters.bytes),
            waiting: get(&counters.waiting),
            directories_waiting: self.queue.directories(),
            life: get(&counters.life),
            elapsed: self.started.elapsed(),
        };
        self.observer.progress(&progress);
        progress
    }

    /// The descriptors of `node`; a failure is recorded for `name` in it.
    fn open(&self, node: &Arc<Node>, name: &CStr) -> Option<Arc<Pair>> {
        match self.held.open(node) {
            Ok(pair) => Some(pair),
            Err((side, errno)) => {
                self.fail(node, name, side, "find again the directory of", errno);
                None
            }
        }
    }

    /// Path of `name` in `node` below the top, and as shown in messages.
    fn paths(&self, node: &Node, name: &CStr, side: Side) -> (PathBuf, PathBuf) {
        let path = node.path();
        self.show(if name.is_empty() { path } else { join(&path, name) }, side)
    }

    fn dst_path(&self) -> &Path {
        self.dst.map_or(Path::new(""), Dir::path)
    }

    fn show(&self, path: PathBuf, side: Side) -> (PathBuf, PathBuf) {
        let top = match side {
            Side::Source => self.src_path,
            Side::Destination => self.dst_path(),
        };
        let shown = if path.as_os_str().is_empty() { top.to_owned() } else { top.join(&path) };
        (path, shown)
    }

    fn fail(
        &self,
        node: &Arc<Node>,
        name: &CStr,
        side: Side,
        operation: &'static str,
        errno: Errno,
    ) {
        self.fault(node, name, Fault::Os { side, operation, errno });
    }

    /// An attribute of the destination's `name` could not be changed.
    fn fail_attribute(&self, node: &Arc<Node>, name: &CStr, operation: &'static str, errno: Errno) {
        self.fault(node, name, Fault::Attribute { operation, errno });
    }

    fn fault(&self, node: &Arc<Node>, name: &CStr, fault: Fault) {
        node.uncertain.store(true, Ordering::Relaxed);
        let (path, shown) = self.paths(node, name, fault.side());
        self.counters.fail(&fault, path, shown);
        if fault.is_full() {
            match self.is_in_the_top_s_room(node) {
                true => self.counters.stop(Stop::Full),
                false => self.counters.did_not_fit.store(true, Ordering::Relaxed),
            }
        } else if fault.is_read_only() && self.is_top_read_only() && self.is_at_top_s_place(node) {
            self.counters.stop(Stop::ReadOnly);
        }
    }

    /// Something at `path` in the destination could not be removed.
    fn fail_removal(&self, path: PathBuf, operation: &'static str, errno: Errno) {
        let (path, shown) = self.show(path, Side::Destination);
        let fault = Fault::Removal { operation, errno };
        self.counters.fail(&fault, path, shown);
        if fault.is_read_only() && self.is_top_read_only() {
            self.counters.stop(Stop::ReadOnly);
        }
    }

    /// Whether `node`'s destination directory is on the mount and in the subvolume of the top: what is
    /// mounted inside may be full, or read-only, where all the rest is not.
    fn is_at_top_s_place(&self, node: &Node) -> bool {
        node.dst_place == self.dst_place
    }

    /// Whether room that `node`'s destination directory does not have is missing everywhere. Not so in
    /// another file system, nor below a limit of its own (project quotas), which statfs(2) shows as the
    /// size; where it cannot be told, the others are tried.
    fn is_in_the_top_s_room(&self, node: &Arc<Node>) -> bool {
        let size = |fd: BorrowedFd<'_>| at::again(|| fstatfs(fd)).map(|fs| fs.f_blocks);
        let same_size = || {
            let pair = self.held.open(node).ok()?;
            Some(size(pair.dst.as_ref()?.as_fd()).ok()? == size(self.dst?.as_fd()).ok()?)
        };
        self.is_at_top_s_place(node) && same_size() == Some(true)
    }

    /// Whether the top of the destination is known to be read-only.
    fn is_top_read_only(&self) -> bool {
        let flags = |dst: &Dir| at::again(|| fstatvfs(dst)).map(|fs| fs.f_flag);
        let flags = self.dst.map(flags);
        flags
            .is_some_and(|flags| flags.is_ok_and(|flags| flags.contains(StatVfsMountFlags::RDONLY)))
    }

    fn vanished(&self, node: &Node, name: &CStr) {
        node.uncertain.store(true, Ordering::Relaxed);
        let number = self.counters.vanished.fetch_add(1, Ordering::Relaxed);
        tell(number, "vanished entries", || {
            let (_, shown) = self.paths(node, name, Side::Source);
            tracing::warn!("{} vanished before it could be read", escape(shorten(&shown).as_ref()));
        });
    }

    /// Says that a mount below the top of the source is not followed.
    fn leave_out(&self, node: &Node, name: &CStr) {
        node.uncertain.store(true, Ordering::Relaxed);
        let number = self.counters.mounts_left_out.fetch_add(1, Ordering::Relaxed);
        tell(number, "mounts", || {
            let (_, shown) = self.paths(node, name, Side::Source);
            tracing::info!("{} is a mount of its own, left out", escape(shorten(&shown).as_ref()));
        });
    }

    fn change(&self, node: &Node, name: &CStr, change: impl FnOnce() -> Change) {
        let path = || {
            let path = node.path();
            if name.is_empty() { path } else { join(&path, name) }
        };
        self.change_at(path, change);
    }

    fn change_at(&self, path: impl FnOnce() -> PathBuf, change: impl FnOnce() -> Change) {
        if self.observer.wants_changes() {
            self.observer.change(&change(), &path());
        }
    }
}
