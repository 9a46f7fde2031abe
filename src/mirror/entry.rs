//! One entry that is no directory: compare it, keep it, mend it in place, link it, or have it made anew.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;

use super::announce;
use super::chunks::FilledFile;
use super::content;
use super::counters::add;
use super::delete::foretell_clear;
use super::engine::{Engine, MirrorPass, Worker};
use super::fault::{Fault, Side, Step};
use super::file::NewName;
use super::found::{FoundEntry, ListedName, SourceFile};
use super::itemize::{Change, Differences};
use super::links::{GroupLeader, GroupRole};
use super::make::{self, EntryJob, EntryOutcome, is_device};
use super::metadata::{MetadataObject, compare, raises};
use super::times::same_time;
use super::tree::{OpenDir, Pending};
use super::xattrs::Xattrs;
use crate::fs::{InodeId, Kind, Stat, at};

/// Between two looks whether a leader is finished.
const BUSY: Duration = Duration::from_millis(1);

/// The hard-link group of a source entry.
fn group_of(stat: &Stat) -> Option<InodeId> {
    (stat.nlink > 1).then(|| stat.id())
}

/// Mirrors one listed name.
pub(super) fn mirror(w: &mut Worker<'_>, dir: &OpenDir, found: FoundEntry) {
    let engine = w.engine;
    let FoundEntry { name: ListedName { name, .. }, stat, source } = found;
    let stat = stat.map_err(Fault::source("open"));
    let Some(stat) = announce::value(engine, &dir.node, &name, stat) else { return };
    if stat.mount_id != engine.src_mount {
        return announce::left_out(engine, &dir.node, &name);
    }
    if stat.kind == Kind::Dir {
        return engine.queue_directory(&dir.node, name);
    }
    let group = group_of(&stat);
    let job = EntryJob { dir, name: &name, stat, group };
    match (engine.pass, group) {
        (MirrorPass::MakeRoom, _) => {
            announce::value(engine, &dir.node, &name, check_readable(w, &job));
            return;
        }
        (MirrorPass::Remove, _) | (MirrorPass::Links(_), None) => return,
        // Where its directory could not be made, that has been said.
        (MirrorPass::Links(_), _) if dir.pair.dst.is_none() && !engine.dry_run() => return,
        (MirrorPass::Links(share), Some(group)) if !engine.ledger.is_left(share, group) => return,
        _ => {}
    }
    let role = loop {
        match group.map(|group| engine.links.join(group, stat.nlink, &dir.node, &name)) {
            Some(GroupRole::Busy) if engine.counters.stopped() => return,
            // The thread that has the lead needs nobody who waits here.
            Some(GroupRole::Busy) => std::thread::sleep(BUSY),
            role => break role,
        }
    };
    let counter = match (&role, stat.kind) {
        (Some(GroupRole::Wait), _) => return,
        (_, Kind::File) => &engine.counters.files,
        (_, Kind::Symlink) => &engine.counters.symlinks,
        _ => &engine.counters.specials,
    };
    add(counter, 1);
    match role {
        Some(GroupRole::Follow(leader)) => follow(w, &job, &leader),
        Some(GroupRole::Later) => {
            add(&engine.counters.unlinked, 1);
            group.inspect(|group| engine.ledger.leave(*group));
        }
        _ => {
            let done = ensure(w, &job, source);
            settle(engine, &job, done);
        }
    }
}

/// Announces why an entry could not be mirrored, and ends the lead of its hard-link group.
pub(super) fn settle(engine: &Engine<'_>, job: &EntryJob<'_>, done: Step<EntryOutcome>) {
    let node = &job.dir.node;
    let leader = match done {
        Ok(EntryOutcome::UnderWay) => return,
        Ok(EntryOutcome::LeftOut) => None,
        Ok(EntryOutcome::There(dst)) => Some(dst),
        Err(fault) => {
            announce::fault(engine, node, job.name, fault);
            None
        }
    };
    if let Some(group) = job.group {
        let leader = leader.map(|dst| {
            let (node, name) = (node.clone(), job.name.to_owned());
            GroupLeader { node, name, dst }
        });
        engine.end_lead(group, leader);
    }
}

/// Sets metadata and name of a large file that other threads have filled, and returns what it was in its
/// directory.
pub(super) fn finish_large(w: &mut Worker<'_>, filled: FilledFile) -> Pending {
    let FilledFile { file, pending, result } = filled;
    let (dir, name) = (file.name.dir().clone(), file.name.wanted().clone());
    let job = EntryJob { dir: &dir, name: &name, stat: file.stat, group: file.group };
    let done = make::finish(w, file, result).map(EntryOutcome::There);
    settle(w.engine, &job, done);
    pending
}

/// Reads a file of the source to its end, for nothing may be deleted unless all of it is there.
fn check_readable(w: &mut Worker<'_>, job: &EntryJob<'_>) -> Step {
    if job.stat.kind != Kind::File {
        return Ok(());
    }
    let src = at::open_read(&job.dir.pair.src, job.name).map_err(Fault::source("open"))?;
    content::read_through(w, &src, &job.stat)
}

/// The object in the destination under the name; no look where there can be none.
fn standing(job: &EntryJob<'_>) -> Step<Option<Stat>> {
    match &job.dir.pair.dst {
        Some(dst) if !job.dir.node.is_new() => match at::stat(dst, job.name) {
            Ok(old) => Ok(Some(old)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Fault::destination("stat")(errno)),
        },
        _ => Ok(None),
    }
}

/// Makes the destination entry equal to the source entry.
fn ensure(w: &mut Worker<'_>, job: &EntryJob<'_>, src: Option<SourceFile>) -> Step<EntryOutcome> {
    let engine = w.engine;
    let (permitted, set_id) = make::permitted(engine, job.stat);
    let job = &EntryJob { stat: permitted, ..*job };
    let EntryJob { dir, name, stat, .. } = job;
    if engine.request.options.no_privileged && is_device(stat.kind) {
        dir.node.set_uncertain();
        add(&engine.counters.privileges_left_out, 1);
        return Ok(EntryOutcome::LeftOut);
    }
    let old = standing(job)?;
    let protected = old.as_ref().is_some_and(|old| engine.protects(stat, old));
    let mut change = Change::Create(stat.kind);
    if let (Some(old), Some(dst)) = (&old, &dir.pair.dst)
        && old.kind == stat.kind
    {
        let compared = EntryComparison::make(w, job, src.as_ref(), old, dst)?;
        let keep = compared.allows_keeping(engine, job, old);
        if protected && (compared.differences.any() || !keep) {
            return Ok(stay(engine, job));
        }
        if keep {
            add(&engine.counters.privileges_left_out, u64::from(set_id || compared.capability));
            if compared.differences.any() {
                mend(engine, job, old, &compared)?;
            }
            return Ok(EntryOutcome::There(Some(old.id())));
        }
        change = Change::Replace(stat.kind, compared.of_replacement(stat, old));
    } else if protected {
        return Ok(stay(engine, job));
    }
    foretell_clear(engine, dir, name, old.as_ref());
    announce::change(engine, &dir.node, name, change);
    if engine.dry_run() {
        add(&engine.counters.copied, 1);
        add(&engine.counters.devices, u64::from(is_device(stat.kind)));
        return Ok(EntryOutcome::There(None));
    }
    match stat.kind {
        Kind::File => make::file(w, job, src, old, set_id),
        _ => make::special(w, job, old).map(EntryOutcome::There),
    }
}

/// Leaves the entry as it is. It is nobody's leader: another name of its group may be restored.
fn stay(engine: &Engine<'_>, job: &EntryJob<'_>) -> EntryOutcome {
    announce::kept(engine, &job.dir.node, job.name);
    EntryOutcome::LeftOut
}

/// A source entry beside what stands there, of the same kind.
struct EntryComparison {
    /// Content, link target or device number are the same.
    same: bool,
    /// Of the metadata.
    differences: Differences,
    wanted: Xattrs,
    found: Xattrs,
    /// The xattrs that are there could be read.
    known: bool,
    /// File capabilities of the source's are left out.
    capability: bool,
}

impl EntryComparison {
    fn make(
        w: &mut Worker<'_>,
        job: &EntryJob<'_>,
        src: Option<&SourceFile>,
        old: &Stat,
        dst: &OwnedFd,
    ) -> Step<Self> {
        let same = same_content(w, job, src, old, dst)?;
        let mut read = |dir: BorrowedFd<'_>| {
            w.reach.enter(dir);
            Xattrs::read(&w.reach.entry(job.name))
        };
        let src = job.dir.pair.src.as_fd();
        let mut wanted = read(src).map_err(Fault::source("read xattrs of"))?;
        // An object that cannot be compared differs.
        let (found, known) = match read(dst.as_fd()) {
            Ok(found) => (found, true),
            Err(_) => (Xattrs::default(), false),
        };
        let capability = w.engine.request.options.no_privileged && wanted.drop_capability();
        let mut differences = compare(&job.stat, old, &wanted, &found, dst);
        differences.content = !same;
        Ok(Self { same, differences, wanted, found, known, capability })
    }

    /// Whether the object that is there stays, with its metadata mended. An inode with more names than the
    /// source's may have some outside the tree: it is never changed in place. Nor does what stands there
    /// become a program of its owner: its content may be another, of equal size and time, or still be
    /// mapped by who wrote it.
    fn allows_keeping(&self, engine: &Engine<'_>, job: &EntryJob<'_>, old: &Stat) -> bool {
        let claim = |group| engine.ledger.claim(old.id(), group);
        self.same
            && self.known
            && !engine.links.is_remade(job.group)
            && !raises(&job.stat, &self.differences, &self.wanted, &self.found)
            && (old.nlink == 1 || (!self.differences.any() && job.group.is_some_and(claim)))
    }

    /// The differences of a file that is made anew.
    fn of_replacement(&self, stat: &Stat, old: &Stat) -> Differences {
        let size = stat.kind == Kind::File && stat.size != old.size;
        Differences { size, ..self.differences }
    }
}

/// rsync's quick check, sharpened: size and modification time. Where only the nanoseconds
/// differ, or `checksum` is set, the bytes decide.
fn same_content(
    w: &mut Worker<'_>,
    job: &EntryJob<'_>,
    src: Option<&SourceFile>,
    old: &Stat,
    dst: &OwnedFd,
) -> Step<bool> {
    let EntryJob { dir, name, stat, .. } = job;
    let checksum = w.engine.request.options.checksum;
    match stat.kind {
        Kind::File if stat.size != old.size => Ok(false),
        Kind::File if !checksum && same_time(stat, old, dst) => Ok(true),
        Kind::File if stat.mtime.0 != old.mtime.0 && !checksum => Ok(false),
        Kind::File => {
            let opened;
            let src = match src {
                Some(src) => &src.fd,
                None => {
                    opened = at::open_read(&dir.pair.src, name).map_err(Fault::source("open"))?;
                    &opened
                }
            };
            // Its owner can keep it from being opened (a lease of fcntl(2), no permission), and a
            // disk from being read. What cannot be compared differs: it is made anew, unopened.
            let Ok(dst) = at::open_read(dst, name) else { return Ok(false) };
            match content::same_bytes(w, src, &dst, stat.size) {
                Err(Fault::Os { side: Side::Destination, .. }) => Ok(false),
                other => other,
            }
        }
        Kind::Symlink => {
            let wanted = at::read_link(&dir.pair.src, name).map_err(Fault::source("read link"))?;
            Ok(at::read_link(dst, name).is_ok_and(|there| there == wanted))
        }
        Kind::Block | Kind::Char => Ok(stat.rdev == old.rdev),
        Kind::Fifo | Kind::Socket | Kind::Dir => Ok(true),
    }
}

/// Mends metadata in place.
fn mend(engine: &Engine<'_>, job: &EntryJob<'_>, old: &Stat, compared: &EntryComparison) -> Step {
    let EntryJob { dir, name, stat, .. } = job;
    let EntryComparison { differences, wanted, found, .. } = compared;
    announce::change(engine, &dir.node, name, Change::Touch(stat.kind, *differences));
    add(&engine.counters.touched, 1);
    let Some(dst) = dir.pair.dst.as_ref().filter(|_| !engine.dry_run()) else { return Ok(()) };
    let handle = at::open_handle(dst, name).map_err(Fault::destination("open"))?;
    let now = at::stat_fd(&handle).map_err(Fault::destination("stat"))?;
    // The decision was about that inode with that single name.
    if !now.same_inode(old) || now.kind != old.kind || now.nlink != old.nlink {
        return Err(Fault::destination("change metadata of")(Errno::STALE));
    }
    let handle = MetadataObject::Handle(handle.as_fd());
    let faults = handle.apply_differences(differences, stat, wanted, found);
    announce::attributes(engine, &dir.node, name, faults);
    Ok(())
}

/// Makes the entry a hard link of its group's leader.
fn follow(w: &mut Worker<'_>, job: &EntryJob<'_>, leader: &GroupLeader) {
    let engine = w.engine;
    let EntryJob { dir, name, stat, .. } = job;
    let old = standing(job);
    let Some(old) = announce::value(engine, &dir.node, name, old) else { return };
    if leader.dst.is_some() && old.as_ref().map(Stat::id) == leader.dst {
        return;
    }
    if old.is_some_and(|old| engine.protects(stat, &old)) {
        return announce::kept(engine, &dir.node, name);
    }
    foretell_clear(engine, dir, name, old.as_ref());
    announce::change(engine, &dir.node, name, Change::Link(stat.kind));
    add(&engine.counters.hard_links, 1);
    if engine.dry_run() {
        return;
    }
    w.ids.reset();
    let Err(fault) = link(engine, job, leader, old.as_ref()) else { return };
    announce::fault(engine, &dir.node, name, fault);
    // Another mount in the destination, more names than its file system allows, or somebody
    // has replaced the leader: the content is kept under this name too, as a file of its own.
    if matches!(fault.errno(), Some(Errno::XDEV | Errno::MLINK | Errno::STALE)) {
        let alone = EntryJob { group: None, ..*job };
        let done = ensure(w, &alone, None);
        settle(engine, &alone, done);
    }
}

fn link(engine: &Engine<'_>, job: &EntryJob<'_>, leader: &GroupLeader, old: Option<&Stat>) -> Step {
    let EntryJob { dir, name, stat, .. } = job;
    let from = engine.open(&leader.node)?;
    let (Some(dst), Some(from)) = (&dir.pair.dst, &from.pair.dst) else { return Ok(()) };
    let ((), mut new) =
        NewName::make(dir, name, false, |dst, temp| at::link(from, &leader.name, dst, temp))
            .map_err(Fault::destination("make hard link"))?;
    let mut put = || {
        let made = at::stat(dst, new.current()).map_err(Fault::destination("stat"))?;
        if Some(made.id()) != leader.dst {
            // A copy-up (overlayfs) changes the leader's inode; otherwise it is another file.
            let now = at::stat(from, &leader.name).map_err(Fault::destination("stat"))?;
            let same = (now.kind, now.size) == (stat.kind, stat.size);
            match group_of(stat) {
                Some(group) if same && now.same_inode(&made) => {
                    engine.links.tear(group, made.id());
                }
                _ => return Err(Fault::destination("make hard link")(Errno::STALE)),
            }
        }
        make::put_in_place(engine, &mut new, old)
    };
    let put = put();
    if put.is_err() {
        make::discard(engine, new);
    }
    put
}
