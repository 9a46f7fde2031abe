//! One pass over the trees: its limits, its threads, and who does which task.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use super::access::{is_narrow, widen};
use super::announce;
use super::counters::RunCounters;
use super::directory;
use super::engine::{Engine, MirrorPass, MirrorTask, STOPPED, Worker};
use super::entry;
use super::fetching::DiskShare;
use super::held::HeldDirs;
use super::large;
use super::ledger::LinkLedger;
use super::limits::{ENTRY_LISTS, MoreDescriptors, RunLimits};
use super::links::LinkGroups;
use super::options::MirrorRequest;
use super::purge;
use super::report::Report;
use super::threads::ThreadPace;
use super::tree::{DirNode, DirPair, FileSystem, Pending, Standing};
use super::walk;
use super::xattrs::Xattrs;
use crate::error::{Error, Result, describe};
use crate::fs::xattr::XattrTarget;
use crate::fs::{Dir, InodeId, KeepDumpable, Stat};
use crate::queue::WorkQueue;

/// Does one pass. The hard-link groups `groups` are made anew; afterwards those that it has torn are in it.
pub(super) fn run(
    request: &MirrorRequest<'_>,
    pass: MirrorPass,
    groups: &mut HashSet<InodeId>,
    ledger: &LinkLedger,
) -> Result<Report> {
    let &MirrorRequest { src, dst, options, .. } = request;
    let stat = src.stat()?;
    need_proc(src)?;
    let _more = MoreDescriptors::allow();
    let _dumpable = KeepDumpable::note();
    let RunLimits { threads, directories, ahead } = RunLimits::share(options.jobs);
    let kept = Arc::default();
    let engine = Engine {
        request: *request,
        pass,
        counters: RunCounters::default(),
        queue: WorkQueue::bounded(ENTRY_LISTS),
        pace: ThreadPace::default(),
        held: HeldDirs::new(directories),
        links: LinkGroups::remaking(std::mem::take(groups), &kept),
        ledger,
        kept,
        surplus: Mutex::new(Vec::new()),
        src_mount: stat.mount_id,
        dst_fs: dst.map(Dir::stat).transpose()?.map(|stat| FileSystem::of(&stat)),
        ordinary: is_ordinary(),
        ahead,
        no_ahead: AtomicBool::new(false),
        times_checked: AtomicBool::new(false),
        room: Mutex::new(()),
        alone: AtomicBool::new(false),
        next_tick: AtomicU64::new(STOPPED.as_millis() as u64),
        started: Instant::now(),
    };
    let root = root(&engine, stat)?;
    engine.held.note(root.node());
    work(&engine, root, threads);
    *groups = engine.links.torn();
    let groups = engine.links.most_held();
    Ok(Report { groups, ..engine.counters.report(engine.started.elapsed()) })
}

/// The top directory, mended unless that waits for its end.
fn root(engine: &Engine<'_>, stat: Stat) -> Result<Pending> {
    let &MirrorRequest { src, dst, options, .. } = &engine.request;
    let xattrs = Xattrs::read(&XattrTarget::fd(src))
        .map_err(|errno| Error::os("read xattrs of", src.path(), errno))?;
    let clone = |dir: &Dir| rustix::io::fcntl_dupfd_cloexec(dir, 3);
    let pair = (|| {
        let dst = dst.map(clone).transpose()?;
        Ok(Arc::new(DirPair { src: clone(src)?, dst }))
    })()
    .map_err(|errno| Error::os("hold", src.path(), errno))?;
    let standing = if dst.is_none() { Standing::New } else { Standing::Shared };
    let mut root = DirNode::new(None, CString::default(), stat, &pair, standing)
        .map_err(|errno| Error::os("stat", engine.request.dst_path(), errno))?;
    if let Some(dst) = dst.filter(|_| options.keep.is_some()) {
        root.protected = engine.protects(&stat, &dst.stat()?);
    }
    if let Some(dst) =
        dst.filter(|_| matches!(engine.pass, MirrorPass::Copy | MirrorPass::Links(_)))
    {
        if is_narrow(engine, &stat) || is_narrow(engine, &dst.stat()?) {
            root.standing = Standing::Private;
        }
        root.widened = widen(engine, dst, c".");
    }
    let root = Pending::first(root);
    if engine.pass == MirrorPass::Copy
        && root.node().standing == Standing::Shared
        && let Some(dst) = &pair.dst
    {
        let mended = directory::mend(engine, root.node(), c"", &stat, &xattrs, dst);
        announce::value(engine, root.node(), c"", mended);
    }
    Ok(root)
}

/// Mirrors everything below `root`, and removes what is surplus, with at most `most` threads.
fn work(engine: &Engine<'_>, root: Pending, most: usize) {
    std::thread::scope(|scope| {
        let workers = RefCell::new(Vec::new());
        let refused = Cell::new(None);
        let spawn = || {
            // Too few threads make a run slow, not wrong.
            let worker =
                std::thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, || {
                    let mut worker = Worker::new(engine);
                    engine.queue.work(|task| run_task(&mut worker, task));
                });
            match worker {
                Ok(worker) => workers.borrow_mut().push(worker),
                Err(error) => {
                    refused.set(Errno::from_io_error(&error));
                    return false;
                }
            }
            true
        };
        let mut share = DiskShare::from(engine.request.src);
        let mut tick = || {
            let progress = engine.tick();
            share.is_fetching(progress.bytes, progress.entries)
        };
        let helps = |task: &MirrorTask| matches!(task, MirrorTask::Chunks(_));
        let mut work = || {
            let pace = &engine.pace;
            if !pace.supervise(&engine.queue, most, spawn, &mut tick, helps) {
                work_alone(engine, refused.get());
            }
        };
        engine.queue.push(MirrorTask::List(root, 0));
        work();
        if engine.removes() {
            purge::queue(engine);
            work();
        }
        engine.queue.close();
        for worker in workers.into_inner() {
            // The scope waits for their work only. One that is still about to end has capabilities
            // (`FsIds`) when the process gives up its own, and ends it by the signal of setresuid(2).
            let _ = worker.join();
        }
    });
}

/// Does all that is queued in the calling thread, where no other can be started.
fn work_alone(engine: &Engine<'_>, refused: Option<Errno>) {
    if !engine.alone.swap(true, Ordering::Relaxed) {
        let reason = refused.map_or_else(|| "refused".into(), describe);
        tracing::warn!("one thread does all of the copy, for no other can be started: {reason}");
    }
    let mut worker = Worker::of_caller(engine);
    engine.queue.drain(|task| run_task(&mut worker, task));
}

fn run_task(w: &mut Worker<'_>, task: MirrorTask) {
    let engine = w.engine;
    let stopped = engine.stopped();
    match task {
        MirrorTask::List(pending, position) => {
            match announce::opened(engine, pending.node(), c"") {
                Some(dir) => walk::list(w, &dir, position),
                None => pending.node().set_incomplete(),
            }
            walk::release(engine, pending);
        }
        MirrorTask::Directory(pending, name) => {
            if !stopped {
                walk::directory(w, pending.node(), name);
            }
            walk::release(engine, pending);
        }
        MirrorTask::Entries(pending, list) => {
            match announce::opened(engine, pending.node(), c"") {
                Some(dir) => walk::entries(w, &dir, list),
                None => engine.pass_over(list.len()),
            }
            walk::release(engine, pending);
        }
        MirrorTask::Chunks(copy) => {
            if let Some(filled) = copy.upgrade().and_then(|copy| large::help(w, copy)) {
                let pending = entry::finish_large(w, filled);
                walk::release(engine, pending);
            }
        }
        MirrorTask::Purge(node) => purge::purge(engine, &node),
    }
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
