//! Directories of the destination: making and mending them before their entries, finishing them after.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::access::{is_narrow, is_private, is_unfinished, narrow, settle_times, widen};
use super::announce;
use super::counters::add;
use super::engine::{Engine, MirrorPass};
use super::fault::{Fault, Step};
use super::itemize::{Change, Differences};
use super::limits::LISTING;
use super::metadata::{MetadataObject, compare};
use super::purge;
use super::times::same_time;
use super::tree::{DirNode, OpenDir, Standing};
use super::xattrs::Xattrs;
use crate::fs::xattr::XattrTarget;
use crate::fs::{Kind, MAKING, Stat, at};

/// The destination directory for a source directory, ready for its entries.
pub(super) struct ReadyDir {
    pub dst: Option<OwnedFd>,
    pub standing: Standing,
    /// See [`DirNode::widened`].
    pub widened: Option<u32>,
    /// See [`DirNode::protected`].
    pub protected: bool,
}

impl ReadyDir {
    /// A directory of this run's own making, none in a dry run.
    fn new(dst: Option<OwnedFd>) -> Self {
        Self { dst, standing: Standing::New, widened: None, protected: false }
    }

    /// One that was there, and that its users can reach.
    fn shared(dst: OwnedFd) -> Self {
        Self { standing: Standing::Shared, ..Self::new(Some(dst)) }
    }
}

/// Opens the destination directory for `stat`, making it where needed; `None` where something else stays in
/// its place.
pub(super) fn make(
    engine: &Engine<'_>,
    parent: &OpenDir,
    name: &CStr,
    stat: &Stat,
    xattrs: &Xattrs,
) -> Step<Option<ReadyDir>> {
    let destination = Fault::destination;
    let node = &parent.node;
    let Some(dir) = &parent.pair.dst else {
        announce::change(engine, node, name, Change::Create(Kind::Dir));
        add(&engine.counters.copied, 1);
        return Ok(Some(ReadyDir::new(None)));
    };
    let old = match if node.is_new() { Err(Errno::NOENT) } else { at::stat(dir, name) } {
        Ok(old) => Some(old),
        Err(Errno::NOENT) => None,
        Err(errno) => return Err(destination("stat")(errno)),
    };
    match old {
        Some(old) if old.kind == Kind::Dir => {
            return take_up(engine, parent, dir, name, (stat, &old), xattrs).map(Some);
        }
        Some(old) if engine.protects(stat, &old) => {
            announce::kept(engine, node, name);
            return Ok(None);
        }
        _ => {}
    }
    announce::change(engine, node, name, Change::Create(Kind::Dir));
    add(&engine.counters.copied, 1);
    if engine.dry_run() {
        return Ok(Some(ReadyDir::new(None)));
    }
    if old.is_some() {
        at::unlink(dir, name).map_err(destination("remove"))?;
    }
    let writing = engine.pace.writing();
    at::make_dir(dir, name, MAKING).map_err(destination("make directory"))?;
    let dst = at::open_dir(dir, name).map_err(destination("open directory"))?;
    drop(writing);
    if node.is_new() {
        return Ok(Some(ReadyDir::new(Some(dst))));
    }
    // Somebody who can write in the parent may have put another directory there meanwhile.
    let made = at::stat_fd(&dst).map_err(destination("stat"))?;
    if !is_private(&made) {
        mend(engine, node, name, stat, xattrs, &dst)?;
        return Ok(Some(ReadyDir::shared(dst)));
    }
    // It may have inherited a default ACL.
    let found = Xattrs::read(&XattrTarget::fd(&dst)).map_err(destination("read xattrs of"))?;
    let (none, nothing) = (Xattrs::default(), Differences::default());
    let faults =
        MetadataObject::Open(dst.as_fd()).apply_differences(&nothing, &made, &none, &found);
    announce::attributes(engine, node, name, faults);
    Ok(Some(ReadyDir::new(Some(dst))))
}

/// Opens the destination directory `name` that is `old`, where the source has `new`, and mends it if that need
/// not wait for the end.
fn take_up(
    engine: &Engine<'_>,
    parent: &OpenDir,
    dir: &OwnedFd,
    name: &CStr,
    (new, old): (&Stat, &Stat),
    xattrs: &Xattrs,
) -> Step<ReadyDir> {
    let widened = widen(engine, dir, name);
    let dst = at::open_dir(dir, name).map_err(Fault::destination("open directory"))?;
    let mut standing = Standing::Shared;
    if is_private(old) && !engine.dry_run() {
        // Not another one that was put there since.
        let now = at::stat_fd(&dst).map_err(Fault::destination("stat"))?;
        standing = match is_private(&now) {
            true if is_unfinished(&now) => Standing::Unfinished,
            true => Standing::Private,
            false => Standing::Shared,
        };
    }
    // Permissions that its owner does not have in it as the source has it wait for the end as well.
    if standing == Standing::Shared && (is_narrow(engine, new) || is_narrow(engine, old)) {
        standing = Standing::Private;
    }
    if standing == Standing::Shared {
        mend(engine, &parent.node, name, new, xattrs, &dst)?;
    }
    let protected = engine.protects(new, old);
    Ok(ReadyDir { dst: Some(dst), standing, widened, protected })
}

/// The destination directory `name`; of one that is not there, or not within reach, the source is
/// read all the same.
pub(super) fn existing(engine: &Engine<'_>, parent: &OpenDir, name: &CStr) -> ReadyDir {
    let Some(dir) = &parent.pair.dst else { return ReadyDir::new(None) };
    let links = matches!(engine.pass, MirrorPass::Links(_));
    let widened = if links { widen(engine, dir, name) } else { None };
    match at::open_dir(dir, name) {
        Ok(dst) => ReadyDir { widened, ..ReadyDir::shared(dst) },
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => ReadyDir::new(None),
        Err(errno) => {
            let fault = Fault::destination("open directory")(errno);
            announce::fault(engine, &parent.node, name, fault);
            ReadyDir::new(None)
        }
    }
}

/// Mends owner, mode, ACLs and xattrs of a directory that was there, before its entries are
/// touched unless it is private; its times wait for the end.
pub(super) fn mend(
    engine: &Engine<'_>,
    parent: &Arc<DirNode>,
    name: &CStr,
    stat: &Stat,
    xattrs: &Xattrs,
    dst: &OwnedFd,
) -> Step {
    let old = at::stat_fd(dst).map_err(Fault::destination("stat"))?;
    // A directory is not made anew for it.
    let found = Xattrs::read(&XattrTarget::fd(dst)).unwrap_or_else(|errno| {
        let fault = Fault::Attribute { operation: "read xattrs of", errno };
        announce::fault(engine, parent, name, fault);
        Xattrs::default()
    });
    let mut differences = compare(stat, &old, xattrs, &found, dst);
    if engine.protects(stat, &old) {
        // Its time of last change shows only that something in it was made or removed.
        differences.time = false;
        if differences.any() {
            announce::kept(engine, parent, name);
        }
        return Ok(());
    }
    if differences.any() {
        announce::change(engine, parent, name, Change::Touch(Kind::Dir, differences));
    }
    differences.time = false;
    if !differences.any() {
        return Ok(());
    }
    add(&engine.counters.touched, 1);
    if !engine.dry_run() {
        let dst = MetadataObject::Open(dst.as_fd());
        let faults = dst.apply_differences(&differences, stat, xattrs, &found);
        announce::attributes(engine, parent, name, faults);
    }
    Ok(())
}

/// Everything below is done: a new or private directory is made accessible to its users, and any gets its
/// times. Returns it where that was done, with its descriptors.
pub(super) fn finish(engine: &Engine<'_>, node: &Arc<DirNode>) -> Option<OpenDir> {
    let comparable = !node.is_new() && node.is_complete();
    if engine.pass == MirrorPass::Remove {
        if comparable {
            purge::purge(engine, node);
        }
        return None;
    }
    if engine.dry_run() || engine.pass == MirrorPass::MakeRoom {
        if comparable && engine.removes() {
            purge::note(engine, node);
        }
        return None;
    }
    let dir = announce::opened(engine, node, c"")?;
    let dst = dir.pair.dst.as_ref()?;
    if node.standing == Standing::Unfinished && !is_private(&node.stat) {
        take_back(engine, &dir, dst);
    }
    if node.standing != Standing::Shared {
        announce::value(engine, node, c"", complete(engine, &dir, dst));
    }
    if let Some(mode) = node.widened {
        narrow(engine, node, dst, if node.protected { mode } else { node.stat.mode });
    }
    if !node.is_new() {
        settle_times(engine, node, dst);
        if comparable && engine.removes() && may_have_surplus(engine, node, dst) {
            purge::note(engine, node);
        }
    }
    Some(dir)
}

/// Sets the metadata of a directory that has waited for the end.
fn complete(engine: &Engine<'_>, dir: &OpenDir, dst: &OwnedFd) -> Step {
    let node = &dir.node;
    let xattrs =
        Xattrs::read(&XattrTarget::fd(&dir.pair.src)).map_err(Fault::source("read xattrs of"))?;
    if !node.is_new() {
        return mend(engine, node, c"", &node.stat, &xattrs, dst);
    }
    let faults = MetadataObject::Open(dst.as_fd()).apply_new(&node.stat, &xattrs, None, false);
    announce::attributes(engine, node, c"", faults);
    Ok(())
}

/// Makes root's what a killed run has left half-written in a directory that is about to be accessible
/// and this one has not replaced (it could not be read, or the run ends early): files under a name of
/// the source's that are not as the source has them and have the permissions of a file in the making.
fn take_back(engine: &Engine<'_>, dir: &OpenDir, dst: &OwnedFd) {
    let own = rustix::process::geteuid().as_raw();
    let take = |name: &CStr| {
        let handle = at::open_handle(dst, name).map_err(|errno| ("open", errno))?;
        let old = at::stat_fd(&handle).map_err(|errno| ("stat", errno))?;
        let making = old.kind == Kind::File && old.mode == 0o600 && old.nlink == 1;
        if !making || old.uid == own {
            return Ok(());
        }
        match at::stat(&dir.pair.src, name) {
            // Not of this source's making; its owner keeps it.
            Err(Errno::NOENT) => return Ok(()),
            Ok(new) if new.size == old.size && same_time(&new, &old, dst) => return Ok(()),
            // After an error it is taken: the mode of the directory says that it is ours.
            Ok(_) | Err(_) => {}
        }
        at::chown_fd(&handle, own, old.gid).map_err(|errno| ("change owner of", errno))
    };
    let mut buffer = vec![MaybeUninit::uninit(); LISTING];
    let listed = at::list(dst, &mut buffer, |name, _, _| match take(name) {
        Ok(()) | Err((_, Errno::NOENT)) => {}
        Err((operation, errno)) => {
            announce::fault(engine, &dir.node, name, Fault::Attribute { operation, errno });
        }
    });
    if let Err(errno) = listed {
        let fault = Fault::destination("list")(errno);
        announce::fault(engine, &dir.node, c"", fault);
    }
}

/// Whether the destination may have names the source has not. Every source name is there by now, so
/// counting decides; where something failed, names have to be compared.
fn may_have_surplus(engine: &Engine<'_>, node: &DirNode, dst: &OwnedFd) -> bool {
    let mut count = 0;
    let mut buffer = vec![MaybeUninit::uninit(); LISTING];
    let counted = at::list(dst, &mut buffer, |name, _, _| {
        add(&engine.counters.life, 1);
        count += u64::from(!engine.is_excepted(node, name));
    });
    counted.is_err() || count != node.src_entries.load(Ordering::Relaxed) || node.is_uncertain()
}
