//! One entry that is no directory: compare it, keep it, mend it in place, link it, or have it made anew.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::io::Errno;

use super::ahead::{Found, Source};
use super::copy::CopyError;
use super::itemize::{Change, Differences};
use super::links::{Id, Leader, Role, id};
use super::make::{is_device, with_temp_name};
use super::metadata::{Object, compare, raises};
use super::pool::{Name, Task};
use super::report::{Side, add};
use super::times::same_time;
use super::tree::{Node, Pair};
use super::xattrs::Xattrs;
use super::{Engine, Pass, Worker};
use crate::error::Error;
use crate::fs::{Kind, Stat, at};

/// Between two looks whether a leader is finished.
const BUSY: Duration = Duration::from_millis(1);

/// What the entry is about, handed from step to step.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub node: &'a Arc<Node>,
    pub pair: &'a Arc<Pair>,
    pub name: &'a CString,
    /// The source entry.
    pub stat: Stat,
    /// The hard-link group it leads.
    pub key: Option<Id>,
}

/// The hard-link group of a source entry.
fn group_of(stat: &Stat) -> Option<Id> {
    (stat.nlink > 1).then(|| id(stat))
}

impl Engine<'_> {
    /// Mirrors one listed name.
    pub(super) fn entry(
        &self,
        worker: &mut Worker,
        node: &Arc<Node>,
        pair: &Arc<Pair>,
        found: Found,
    ) {
        let Found { name: Name { name, .. }, stat, source } = found;
        let stat = match stat {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return self.vanished(node, &name),
            Err(errno) => return self.fail(node, &name, Side::Source, "open", errno),
        };
        if stat.mount_id != self.src_mount {
            return self.leave_out(node, &name);
        }
        if stat.kind == Kind::Dir {
            return self.descend(node, name);
        }
        if self.pass == Pass::MakeRoom {
            return self.check_readable(worker, node, pair, &name, &stat);
        }
        let key = group_of(&stat);
        match (self.pass, key) {
            (Pass::Remove, _) | (Pass::Links(_), None) => return,
            // Where its directory could not be made, that has been said.
            (Pass::Links(_), _) if pair.dst.is_none() && !self.options.dry_run => return,
            (Pass::Links(share), Some(key)) if !self.ledger.is_left(share, key) => return,
            _ => {}
        }
        let subject = Subject { node, pair, name: &name, stat, key };
        let role = loop {
            match key.map(|key| self.links.join(key, stat.nlink, node, &name)) {
                Some(Role::Busy) if self.counters.stopped() => return,
                // Whoever has the lead needs nobody who waits here.
                Some(Role::Busy) => std::thread::sleep(BUSY),
                role => break role,
            }
        };
        let counter = match (&role, stat.kind) {
            (Some(Role::Wait), _) => return,
            (_, Kind::File) => &self.counters.files,
            (_, Kind::Symlink) => &self.counters.symlinks,
            _ => &self.counters.specials,
        };
        add(counter, 1);
        match role {
            Some(Role::Follow(leader)) => self.follow(worker, &subject, &leader),
            Some(Role::Later) => {
                add(&self.counters.unlinked, 1);
                key.inspect(|key| self.ledger.leave(*key));
            }
            _ => self.ensure(worker, &subject, source),
        }
    }

    /// Reads a file of the source to its end, for nothing may be deleted unless all of it is there.
    fn check_readable(
        &self,
        worker: &mut Worker,
        node: &Arc<Node>,
        pair: &Arc<Pair>,
        name: &CString,
        stat: &Stat,
    ) {
        if stat.kind != Kind::File {
            return;
        }
        let subject = Subject { node, pair, name, stat: *stat, key: None };
        let read = at::open_read(&pair.src, name)
            .map_err(|errno| CopyError::Os(Side::Source, "open", errno))
            .and_then(|src| self.read_through(worker, &src, stat));
        if let Err(error) = read {
            self.not_copied(&subject, error);
        }
    }

    /// Makes the destination entry equal to the source entry.
    fn ensure(&self, worker: &mut Worker, subject: &Subject<'_>, src: Option<Source>) {
        let (permitted, set_id) = self.permitted(subject.stat);
        let subject = &Subject { stat: permitted, ..*subject };
        let Subject { node, pair, name, stat, key } = subject;
        if self.options.no_privileged && is_device(stat.kind) {
            node.uncertain.store(true, Ordering::Relaxed);
            add(&self.counters.privileges_left_out, 1);
            return self.finish_lead(*key, None);
        }
        let old = match (&pair.dst, node.fresh) {
            (Some(dst), false) => match at::stat(dst, name) {
                Ok(old) => Some(old),
                Err(Errno::NOENT) => None,
                Err(errno) => return self.abandon(subject, Side::Destination, "stat", errno),
            },
            _ => None,
        };
        let protected = old.as_ref().is_some_and(|old| self.protects(stat, old));
        let mut differences = Differences { content: true, ..Differences::default() };
        if let (Some(old), Some(dst)) = (&old, &pair.dst)
            && old.kind == stat.kind
        {
            let same = match self.same_content(worker, subject, src.as_ref(), old, dst) {
                Ok(same) => same,
                Err(error) => return self.not_copied(subject, error),
            };
            let reach = worker.reach;
            let read = |dir: BorrowedFd<'_>| Xattrs::read(&reach.entry(dir, name));
            let mut wanted = match read(pair.src.as_fd()) {
                Ok(wanted) => wanted,
                Err(errno) => return self.abandon(subject, Side::Source, "read xattrs of", errno),
            };
            // What cannot be compared differs.
            let (found, known) = match read(dst.as_fd()) {
                Ok(found) => (found, true),
                Err(_) => (Xattrs::default(), false),
            };
            let capability = self.options.no_privileged && wanted.drop_capability();
            differences = compare(stat, old, &wanted, &found, dst);
            // An inode with more names than the source's may have some outside the tree: it is
            // never changed in place. Nor does what stands there become a program of its owner: its
            // content may be another, of equal size and time, or still be mapped by who wrote it.
            let keep = same
                && known
                && !self.links.is_remade(*key)
                && !raises(stat, &differences, &wanted, &found)
                && (old.nlink == 1
                    || (!differences.any()
                        && key.is_some_and(|key| self.ledger.claim(id(old), key))));
            if protected && (!same || differences.any() || !keep) {
                return self.keep_entry(subject);
            }
            if keep {
                add(&self.counters.privileges_left_out, u64::from(set_id || capability));
                if differences.any() && !self.touch(subject, old, &differences, &wanted, &found) {
                    return;
                }
                return self.led(*key, node, name, Some(id(old)));
            }
            differences.content = !same;
            differences.size = stat.kind == Kind::File && stat.size != old.size;
        } else if protected {
            return self.keep_entry(subject);
        }
        self.foretell_clear(node, name, old.as_ref());
        self.change(node, name, || match &old {
            Some(old) if old.kind == stat.kind => Change::Replace(stat.kind, differences),
            _ => Change::Create(stat.kind),
        });
        if self.options.dry_run {
            add(&self.counters.copied, 1);
            add(&self.counters.devices, u64::from(is_device(stat.kind)));
            return self.led(*key, node, name, None);
        }
        match stat.kind {
            Kind::File => self.make_file(worker, subject, src, old, set_id),
            _ => self.make_special(worker, subject, old),
        }
    }

    /// rsync's quick check, sharpened: size and modification time. Where only the nanoseconds
    /// differ, or `checksum` is set, the bytes decide.
    fn same_content(
        &self,
        worker: &mut Worker,
        subject: &Subject<'_>,
        src: Option<&Source>,
        old: &Stat,
        dst: &OwnedFd,
    ) -> Result<bool, CopyError> {
        let Subject { pair, name, stat, .. } = subject;
        let source = |operation| move |errno| CopyError::Os(Side::Source, operation, errno);
        match stat.kind {
            Kind::File if stat.size != old.size => Ok(false),
            Kind::File if !self.options.checksum && same_time(stat, old, dst) => Ok(true),
            Kind::File if stat.mtime.0 != old.mtime.0 && !self.options.checksum => Ok(false),
            Kind::File => {
                let opened;
                let src = match src {
                    Some(src) => &src.fd,
                    None => {
                        opened = at::open_read(&pair.src, name).map_err(source("open"))?;
                        &opened
                    }
                };
                // Its owner can keep it from being opened (a lease of fcntl(2), no permission), and a
                // disk from being read. What cannot be compared differs: it is made anew, unopened.
                let Ok(dst) = at::open_read(dst, name) else { return Ok(false) };
                match self.same_bytes(worker, src, &dst, stat.size) {
                    Err(CopyError::Os(Side::Destination, ..)) => Ok(false),
                    other => other,
                }
            }
            Kind::Symlink => {
                let wanted = at::read_link(&pair.src, name).map_err(source("read link"))?;
                Ok(at::read_link(dst, name).is_ok_and(|there| there == wanted))
            }
            Kind::Block | Kind::Char => Ok(stat.rdev == old.rdev),
            Kind::Fifo | Kind::Socket | Kind::Dir => Ok(true),
        }
    }

    /// Mends metadata in place; false when that failed (and was said).
    fn touch(
        &self,
        subject: &Subject<'_>,
        old: &Stat,
        differences: &Differences,
        wanted: &Xattrs,
        found: &Xattrs,
    ) -> bool {
        let Subject { node, pair, name, stat, .. } = subject;
        self.change(node, name, || Change::Touch(stat.kind, *differences));
        add(&self.counters.touched, 1);
        if self.options.dry_run {
            return true;
        }
        let Some(dir) = &pair.dst else { return true };
        let mend = || {
            let handle = at::open_handle(dir, name).map_err(|errno| ("open", errno))?;
            let now = at::stat_fd(&handle).map_err(|errno| ("stat", errno))?;
            // The decision was about that inode with that single name.
            if !now.same_inode(old) || now.kind != old.kind || now.nlink != old.nlink {
                return Err(("change metadata of", Errno::STALE));
            }
            Object::Handle(handle.as_fd()).apply_differences(
                differences,
                stat,
                wanted,
                found,
                &mut |operation, errno| self.fail_attribute(node, name, operation, errno),
            );
            Ok(())
        };
        match mend() {
            Ok(()) => true,
            Err((operation, errno)) => {
                self.abandon(subject, Side::Destination, operation, errno);
                false
            }
        }
    }

    /// Makes the entry a hard link of its group's leader.
    fn follow(&self, worker: &mut Worker, subject: &Subject<'_>, leader: &Leader) {
        let Subject { node, pair, name, stat, .. } = subject;
        let old = match &pair.dst {
            Some(dst) if !node.fresh => match at::stat(dst, name) {
                Ok(old) => Some(old),
                Err(Errno::NOENT) => None,
                Err(errno) => return self.fail(node, name, Side::Destination, "stat", errno),
            },
            _ => None,
        };
        if leader.dst.is_some() && old.as_ref().map(id) == leader.dst {
            return;
        }
        if old.is_some_and(|old| self.protects(stat, &old)) {
            return self.keep(node, name);
        }
        self.foretell_clear(node, name, old.as_ref());
        self.change(node, name, || Change::Link(stat.kind));
        add(&self.counters.hard_links, 1);
        if self.options.dry_run {
            return;
        }
        worker.ids.reset();
        let link = || {
            let Some(dir) = &pair.dst else { return Ok(()) };
            let from = self.held.open(&leader.node).map_err(|(_, errno)| ("open", errno))?;
            let Some(from) = &from.dst else { return Ok(()) };
            let ((), temp) = with_temp_name(|temp| at::link(from, &leader.name, dir, temp))
                .map_err(|errno| ("make hard link", errno))?;
            let temp = temp.as_cstr();
            let put = || {
                let made = at::stat(dir, temp).map_err(|errno| ("stat", errno))?;
                if Some(id(&made)) != leader.dst {
                    // A copy-up (overlayfs) gives the leader another inode; otherwise it is another file.
                    let now = at::stat(from, &leader.name).map_err(|errno| ("stat", errno))?;
                    let same = (now.kind, now.size) == (stat.kind, stat.size);
                    match group_of(stat) {
                        Some(key) if same && now.same_inode(&made) => {
                            self.links.tear(key, id(&made));
                        }
                        _ => return Err(("make hard link", Errno::STALE)),
                    }
                }
                self.put_in_place(node, dir, temp, name, old.as_ref())
            };
            put().inspect_err(|_| self.discard(node, dir, temp))
        };
        match link() {
            Ok(()) => {}
            // Another mount in the destination, more names than its file system allows, or somebody
            // has replaced the leader: the content is kept under this name too, as a file of its own.
            Err((operation, errno @ (Errno::XDEV | Errno::MLINK | Errno::STALE))) => {
                self.fail(node, name, Side::Destination, operation, errno);
                self.ensure(worker, &Subject { key: None, ..*subject }, None);
            }
            Err((operation, errno)) => {
                self.fail(node, name, Side::Destination, operation, errno);
            }
        }
    }

    /// Leaves the entry as it is. It is nobody's leader: another name of its group may be restored.
    fn keep_entry(&self, subject: &Subject<'_>) {
        self.keep(subject.node, subject.name);
        self.finish_lead(subject.key, None);
    }

    /// Ends the lead of a group whose leader is `dst` now (none in a dry run that would make it).
    pub(super) fn led(&self, key: Option<Id>, node: &Arc<Node>, name: &CString, dst: Option<Id>) {
        if key.is_some() {
            self.finish_lead(key, Some(Leader { node: node.clone(), name: name.clone(), dst }));
        }
    }

    /// Ends the lead of a hard-link group; the names that waited are taken up again.
    pub(super) fn finish_lead(&self, key: Option<Id>, leader: Option<Leader>) {
        let Some(key) = key else { return };
        for (node, name) in self.links.finish(key, leader) {
            add(&self.counters.waiting, 1);
            self.queue
                .push_beyond_limit(Task::Entries(node, vec![Name { name, kind: None, ino: 0 }]));
        }
    }

    pub(super) fn abandon(
        &self,
        subject: &Subject<'_>,
        side: Side,
        operation: &'static str,
        errno: Errno,
    ) {
        match (side, errno) {
            (Side::Source, Errno::NOENT) => self.vanished(subject.node, subject.name),
            _ => self.fail(subject.node, subject.name, side, operation, errno),
        }
        self.finish_lead(subject.key, None);
    }

    /// Says why the content of a file could not be had or kept.
    pub(super) fn not_copied(&self, subject: &Subject<'_>, error: CopyError) {
        let Subject { node, name, key, .. } = subject;
        match error {
            CopyError::Os(side, operation, errno) => {
                return self.abandon(subject, side, operation, errno);
            }
            CopyError::Shrunk => {
                let (path, shown) = self.paths(node, name, Side::Source);
                let reason = "it shrank while it was read";
                let error = Error::on("read", shown, reason).hint("restore again");
                self.counters.record(Side::Source, path, format!("read: {reason}"), &error);
            }
            CopyError::TooLarge(errno) => {
                let (path, shown) = self.paths(node, name, Side::Destination);
                self.counters.too_large(path, errno, shown);
            }
            CopyError::Stopped => {}
        }
        node.uncertain.store(true, Ordering::Relaxed);
        self.finish_lead(*key, None);
    }
}
