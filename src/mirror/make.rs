//! Making an entry that is no directory, from its creation to its final name.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::announce;
use super::content;
use super::counters::add;
use super::delete;
use super::engine::{Engine, Worker};
use super::fault::{Fault, Step};
use super::file::{BornFile, NewFile, NewName};
use super::found::SourceFile;
use super::large;
use super::limits::{BUFFER, LARGE};
use super::metadata::{MetadataObject, is_privileged, without_set_id};
use super::times::same_time;
use super::tree::OpenDir;
use super::xattrs::Xattrs;
use crate::fs::xattr::XattrTarget;
use crate::fs::{InodeId, Kind, Stat, at};

/// An entry in work, handed from step to step.
#[derive(Clone, Copy)]
pub(super) struct EntryJob<'a> {
    pub dir: &'a OpenDir,
    pub name: &'a CStr,
    /// The source entry.
    pub stat: Stat,
    /// The hard-link group it leads.
    pub group: Option<InodeId>,
}

/// The outcome of the work on an entry.
#[derive(Debug)]
pub(super) enum EntryOutcome {
    /// It is there, as this inode: none in a dry run that would make it, and where nobody asks for it.
    There(Option<InodeId>),
    /// It is left out, or what is there stays.
    LeftOut,
    /// Other threads are still at its content.
    UnderWay,
}

/// Makes a regular file. `set_id`: `job` is without its set-id bits already.
pub(super) fn file(
    w: &mut Worker<'_>,
    job: &EntryJob<'_>,
    src: Option<SourceFile>,
    old: Option<Stat>,
    set_id: bool,
) -> Step<EntryOutcome> {
    let (file, src) = begin(w, job, src, old, set_id)?;
    if file.stat.size < LARGE {
        let filled = content::fill(w, &file, &src);
        return finish(w, file, filled).map(EntryOutcome::There);
    }
    let Some(filled) = large::copy(w, file, src.fd) else { return Ok(EntryOutcome::UnderWay) };
    // Not the last thing in its directory: the entry itself is one.
    let _ = filled.pending.done();
    finish(w, filled.file, filled.result).map(EntryOutcome::There)
}

/// Creates the file, with nothing in it.
fn begin(
    w: &mut Worker<'_>,
    job: &EntryJob<'_>,
    src: Option<SourceFile>,
    old: Option<Stat>,
    set_id: bool,
) -> Step<(NewFile, SourceFile)> {
    let engine = w.engine;
    let (src, stat) = match src {
        Some(src) => (src, job.stat),
        None => {
            let fd = at::open_read(&job.dir.pair.src, job.name).map_err(Fault::source("open"))?;
            let stat = at::stat_fd(&fd).map_err(Fault::source("open"))?;
            (fd.into(), stat)
        }
    };
    if stat.kind != Kind::File {
        return Err(Fault::source("open")(Errno::STALE));
    }
    let (stat, set_id_now) = permitted(engine, content::with_holes_known(stat, &src.fd));
    let xattrs =
        Xattrs::read(&XattrTarget::fd(&src.fd)).map_err(Fault::source("read xattrs of"))?;
    let xattrs = permitted_xattrs(engine, xattrs, set_id || set_id_now);
    let at_once = job.dir.node.is_new() && stat.size <= BUFFER as u64;
    let writing = engine.pace.writing();
    let ids = &mut w.ids;
    if at_once {
        ids.take(stat.uid, stat.gid);
    } else {
        ids.reset();
    }
    let (dst, name) = NewName::make(job.dir, job.name, at_once, |dir, name| {
        ids.attempt(|| at::create(dir, name, 0o600))
    })
    .map_err(Fault::destination("create"))?;
    drop(writing);
    let born = at_once && ids.now() == (stat.uid, stat.gid);
    Ok((NewFile { name, dst, stat, xattrs, old, group: job.group, born }, src))
}

/// Sets metadata and final name of a file that is filled, and returns its inode where somebody may ask
/// for it. One that is not, or cannot be completed, is removed; what stood under the final name stays.
pub(super) fn finish(w: &mut Worker<'_>, mut file: NewFile, filled: Step) -> Step<Option<InodeId>> {
    let engine = w.engine;
    let made = match filled.and_then(|()| complete(w, &mut file)) {
        Ok(made) => made,
        Err(fault) => {
            discard(engine, file.name);
            return Err(fault);
        }
    };
    add(&engine.counters.copied, 1);
    add(&engine.counters.privileged_files, is_privileged(&file.stat, &file.xattrs).into());
    Ok(made)
}

fn complete(w: &mut Worker<'_>, file: &mut NewFile) -> Step<Option<InodeId>> {
    let engine = w.engine;
    let _writing = engine.pace.writing();
    if !file.xattrs.is_plain() {
        w.ids.reset();
    }
    if file.stat.is_sparse() {
        content::extend(&mut w.ids, file).map_err(Fault::destination("extend"))?;
    }
    let new_dir = file.name.dir().node.is_new();
    let like = w.born.as_ref().and_then(|born| born.tells_of(file));
    // Attributes that nobody could change are not set again, and followers of a link group need to know what their
    // leader became.
    let needless = match file.group {
        None => file.name.is_temporary() || like.is_some(),
        Some(_) => false,
    };
    let made = match needless {
        true => None,
        false => Some(at::stat_fd(&file.dst).map_err(Fault::destination("stat"))?),
    };
    if let (true, Some(made)) = (file.born, made) {
        w.born = Some(BornFile::new(file, made));
    }
    let known = made.or(like).filter(|_| new_dir);
    let object = MetadataObject::Open(file.dst.as_fd());
    let faults = object.apply_new(&file.stat, &file.xattrs, known.as_ref(), !new_dir);
    announce::attributes(engine, &file.name.dir().node, file.name.wanted(), faults);
    check_times(engine, file)?;
    put_in_place(engine, &mut file.name, file.old.as_ref())?;
    Ok(made.as_ref().map(Stat::id))
}

/// Looks once whether the destination keeps times; where it does not, everything is copied again by
/// every run, and nothing else would say so.
fn check_times(engine: &Engine<'_>, file: &NewFile) -> Step {
    if engine.times_checked.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let made = at::stat_fd(&file.dst).map_err(Fault::destination("stat"))?;
    if !same_time(&file.stat, &made, &file.dst) {
        let (node, name) = (&file.name.dir().node, file.name.wanted());
        announce::fault(engine, node, name, Fault::TimesNotKept);
    }
    Ok(())
}

/// Makes a symbolic link, device node, fifo or socket, and returns its inode where somebody may ask for it.
pub(super) fn special(
    w: &mut Worker<'_>,
    job: &EntryJob<'_>,
    old: Option<Stat>,
) -> Step<Option<InodeId>> {
    let EntryJob { dir, name, stat, .. } = *job;
    let engine = w.engine;
    w.ids.reset();
    w.reach.enter(&dir.pair.src);
    let xattrs = Xattrs::read(&w.reach.entry(name)).map_err(Fault::source("read xattrs of"))?;
    let target = match stat.kind {
        Kind::Symlink => {
            Some(at::read_link(&dir.pair.src, name).map_err(Fault::source("read link"))?)
        }
        _ => None,
    };
    let ((), mut new) = NewName::make(dir, name, dir.node.is_new(), |dst, name| match &target {
        Some(target) => at::make_symlink(target, dst, name),
        None => at::make_node(dst, name, stat.kind, 0o600, stat.rdev),
    })
    .map_err(Fault::destination("create"))?;
    let made = match complete_special(engine, job, &mut new, &xattrs, old.as_ref()) {
        Ok(made) => made,
        Err(fault) => {
            discard(engine, new);
            return Err(fault);
        }
    };
    add(&engine.counters.copied, 1);
    add(&engine.counters.devices, u64::from(is_device(stat.kind)));
    Ok(made)
}

fn complete_special(
    engine: &Engine<'_>,
    job: &EntryJob<'_>,
    new: &mut NewName,
    xattrs: &Xattrs,
    old: Option<&Stat>,
) -> Step<Option<InodeId>> {
    let EntryJob { dir, name, stat, group } = job;
    let dst = dir.pair.destination().map_err(Fault::destination("open"))?;
    let new_dir = dir.node.is_new();
    if new_dir && stat.kind == Kind::Symlink && group.is_none() {
        let faults =
            MetadataObject::Entry(dst.as_fd(), new.current()).apply_new(stat, xattrs, None, false);
        announce::attributes(engine, &dir.node, name, faults);
        put_in_place(engine, new, old)?;
        return Ok(None);
    }
    let handle = at::open_handle(dst, new.current()).map_err(Fault::destination("open"))?;
    let made = at::stat_fd(&handle).map_err(Fault::destination("stat"))?;
    if made.kind != stat.kind || made.rdev != stat.rdev || made.nlink != 1 {
        return Err(Fault::destination("create")(Errno::STALE));
    }
    let known = Some(&made).filter(|_| new_dir);
    let faults = MetadataObject::Handle(handle.as_fd()).apply_new(stat, xattrs, known, !new_dir);
    announce::attributes(engine, &dir.node, name, faults);
    put_in_place(engine, new, old)?;
    Ok(Some(made.id()))
}

/// Renames a complete object to its final name; a directory that stands there goes first.
pub(super) fn put_in_place(engine: &Engine<'_>, new: &mut NewName, old: Option<&Stat>) -> Step {
    if new.is_temporary() && old.is_some_and(|old| old.kind == Kind::Dir) {
        let OpenDir { node, pair } = new.dir();
        pair.destination()
            .and_then(|dst| delete::clear(engine, node, dst, new.wanted()))
            .map_err(Fault::destination("replace directory"))?;
    }
    new.keep().map_err(Fault::destination("rename to"))
}

/// Removes what was made in vain.
pub(super) fn discard(engine: &Engine<'_>, new: NewName) {
    let path = new.dir().node.path_of(new.current());
    if let Err(errno) = new.discard() {
        announce::removal(engine, path, Fault::Removal { operation: "remove", errno });
    }
}

/// The source's attributes as far as they may be set, and whether that is without its set-id bits.
pub(super) fn permitted(engine: &Engine<'_>, stat: Stat) -> (Stat, bool) {
    let without = engine.request.options.no_privileged;
    let permitted = if without { without_set_id(stat) } else { stat };
    (permitted, permitted.mode != stat.mode)
}

/// The same for xattrs, of a file whose set-id bits were left out or not; counts both.
fn permitted_xattrs(engine: &Engine<'_>, mut xattrs: Xattrs, set_id: bool) -> Xattrs {
    let capability = engine.request.options.no_privileged && xattrs.drop_capability();
    add(&engine.counters.privileges_left_out, u64::from(set_id || capability));
    xattrs
}

/// Whether it stands for hardware, or whatever else a driver makes of it.
pub(super) fn is_device(kind: Kind) -> bool {
    matches!(kind, Kind::Block | Kind::Char)
}
