//! One entry that is no directory: compare it, keep it, mend it in place, or make it anew.
//!
//! Where somebody else can look, an object is made complete under a temporary name and renamed; in a
//! directory of this run's own making (see [`Node::fresh`]) nobody can, and small files get their
//! final name at once, which saves a third of the system calls that change the directory.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

use super::copy::{BUFFER, CopyError};
use super::itemize::{Change, Differences};
use super::links::{Id, Leader, Role, id};
use super::metadata::{Object, Xattrs, compare, entry_xattrs};
use super::pool::{Name, Task};
use super::report::{Side, add};
use super::tree::{Node, Pair};
use super::{Engine, Worker};
use crate::error::Error;
use crate::fs::{Kind, Stat, TempName, at};

/// Attempts to find a temporary name that is not taken.
const TEMP_ATTEMPTS: usize = 100;

/// A regular file under construction.
#[derive(Debug)]
pub(super) struct NewFile {
    pub node: Arc<Node>,
    pub pair: Arc<Pair>,
    pub name: CString,
    /// The name it is made under; none when that is `name` itself.
    temp: Option<TempName>,
    pub dst: OwnedFd,
    pub stat: Stat,
    xattrs: Xattrs,
    /// What stands under the final name.
    old: Option<Stat>,
    /// The hard-link group it leads.
    key: Option<Id>,
}

/// What the entry is about, handed from step to step.
struct Subject<'a> {
    node: &'a Arc<Node>,
    pair: &'a Arc<Pair>,
    name: &'a CString,
    stat: Stat,
    key: Option<Id>,
}

impl Engine<'_> {
    /// Mirrors one listed name.
    pub(super) fn entry(
        &self,
        worker: &mut Worker,
        node: &Arc<Node>,
        pair: &Arc<Pair>,
        item: Name,
    ) {
        let name = item.name;
        let mut src = None;
        let found = if node.fresh && item.kind == Some(Kind::File) {
            at::open_read(&pair.src, &name).and_then(|fd| {
                let stat = at::stat_fd(&fd);
                src = Some(fd);
                stat
            })
        } else {
            at::stat(&pair.src, &name)
        };
        let stat = match found {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return self.vanished(node, &name),
            // A link where the listing had a file: the source changes while it is read.
            Err(Errno::LOOP | Errno::NXIO) if src.is_none() => match at::stat(&pair.src, &name) {
                Ok(stat) => stat,
                Err(errno) => return self.fail(node, &name, Side::Source, "stat", errno),
            },
            Err(errno) => return self.fail(node, &name, Side::Source, "open", errno),
        };
        if stat.mount_id != self.src_mount {
            return self.leave_out(node, &name);
        }
        if stat.kind == Kind::Dir {
            return self.descend(node, name);
        }
        let key = (stat.nlink > 1).then(|| id(&stat));
        let subject = Subject { node, pair, name: &name, stat, key };
        let role = key.map(|key| self.links.join(key, node, &name));
        let counter = match (&role, stat.kind) {
            (Some(Role::Wait), _) => return,
            (_, Kind::File) => &self.counters.files,
            (_, Kind::Symlink) => &self.counters.symlinks,
            _ => &self.counters.specials,
        };
        add(counter, 1);
        match role {
            Some(Role::Follow(leader)) => self.follow(&subject, &leader),
            _ => self.ensure(worker, &subject, src),
        }
    }

    /// Makes the destination entry equal to the source entry.
    fn ensure(&self, worker: &mut Worker, subject: &Subject<'_>, src: Option<OwnedFd>) {
        let Subject { node, pair, name, stat, key } = subject;
        let old = match (&pair.dst, node.fresh) {
            (Some(dst), false) => match at::stat(dst, name) {
                Ok(old) => Some(old),
                Err(Errno::NOENT) => None,
                Err(errno) => return self.abandon(subject, Side::Destination, "stat", errno),
            },
            _ => None,
        };
        let mut differences = Differences { content: true, ..Differences::default() };
        if let (Some(old), Some(dst)) = (&old, &pair.dst)
            && old.kind == stat.kind
        {
            let same = match self.same_content(worker, subject, src.as_ref(), old, dst) {
                Ok(same) => same,
                Err(CopyError::Os(side, operation, errno)) => {
                    return self.abandon(subject, side, operation, errno);
                }
                Err(CopyError::Shrunk) => return self.shrunk(subject),
                Err(CopyError::Stopped) => return self.finish_lead(*key, None),
            };
            let read = |dir: BorrowedFd<'_>| entry_xattrs(dir, name, None);
            let wanted = match read(pair.src.as_fd()) {
                Ok(wanted) => wanted,
                Err(errno) => return self.abandon(subject, Side::Source, "read xattrs of", errno),
            };
            let found = match read(dst.as_fd()) {
                Ok(found) => found,
                Err(errno) => {
                    return self.abandon(subject, Side::Destination, "read xattrs of", errno);
                }
            };
            differences = compare(stat, old, &wanted, &found);
            // An inode with more names than the source's may have some outside the tree: it is
            // never changed in place.
            let keep = same
                && (old.nlink == 1
                    || (!differences.any()
                        && key.is_some_and(|key| self.links.claim(id(old), key))));
            if keep {
                if differences.any() && !self.touch(subject, old, &differences, &wanted, &found) {
                    return;
                }
                return self.led(*key, node, name, Some(id(old)));
            }
            differences.content = !same;
            differences.size = stat.kind == Kind::File && stat.size != old.size;
        }
        self.change(node, name, || match &old {
            Some(old) if old.kind == stat.kind => Change::Replace(stat.kind, differences),
            _ => Change::Create(stat.kind),
        });
        if self.options.dry_run {
            add(&self.counters.copied, 1);
            return self.led(*key, node, name, None);
        }
        match stat.kind {
            Kind::File => self.make_file(worker, subject, src, old),
            _ => self.make_special(subject, old),
        }
    }

    /// rsync's quick check, sharpened: size and modification time. Where only the nanoseconds
    /// differ, or `checksum` is set, the bytes decide.
    fn same_content(
        &self,
        worker: &mut Worker,
        subject: &Subject<'_>,
        src: Option<&OwnedFd>,
        old: &Stat,
        dst: &OwnedFd,
    ) -> Result<bool, CopyError> {
        let Subject { pair, name, stat, .. } = subject;
        let source = |operation| move |errno| CopyError::Os(Side::Source, operation, errno);
        let destination =
            |operation| move |errno| CopyError::Os(Side::Destination, operation, errno);
        match stat.kind {
            Kind::File if stat.size != old.size => Ok(false),
            Kind::File if stat.mtime == old.mtime && !self.options.checksum => Ok(true),
            Kind::File if stat.mtime.0 != old.mtime.0 && !self.options.checksum => Ok(false),
            Kind::File => {
                let opened;
                let src = match src {
                    Some(src) => src,
                    None => {
                        opened = at::open_read(&pair.src, name).map_err(source("open"))?;
                        &opened
                    }
                };
                let dst = at::open_read(dst, name).map_err(destination("open"))?;
                self.same_bytes(worker, src, &dst, stat.size)
            }
            Kind::Symlink => {
                let wanted = at::read_link(&pair.src, name).map_err(source("read link"))?;
                Ok(at::read_link(dst, name).map_err(destination("read link"))? == wanted)
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
            Object::Handle(handle.as_fd()).apply_differences(differences, stat, wanted, found)
        };
        match mend() {
            Ok(()) => true,
            Err((operation, errno)) => {
                self.abandon(subject, Side::Destination, operation, errno);
                false
            }
        }
    }

    fn make_file(
        &self,
        worker: &mut Worker,
        subject: &Subject<'_>,
        src: Option<OwnedFd>,
        old: Option<Stat>,
    ) {
        let Subject { node, pair, name, key, .. } = subject;
        let Some(dir) = &pair.dst else { return };
        let opened = match src {
            Some(src) => Ok((src, subject.stat)),
            None => at::open_read(&pair.src, name)
                .and_then(|fd| at::stat_fd(&fd).map(|stat| (fd, stat))),
        };
        let (src, stat) = match opened {
            Ok(opened) => opened,
            Err(Errno::NOENT) => {
                self.finish_lead(*key, None);
                return self.vanished(node, name);
            }
            Err(errno) => return self.abandon(subject, Side::Source, "open", errno),
        };
        if stat.kind != Kind::File {
            return self.abandon(subject, Side::Source, "open", Errno::STALE);
        }
        let xattrs = match entry_xattrs(&pair.src, name, Some(src.as_fd())) {
            Ok(xattrs) => xattrs,
            Err(errno) => return self.abandon(subject, Side::Source, "read xattrs of", errno),
        };
        let made = if node.fresh && stat.size <= BUFFER as u64 {
            at::create(dir, name, 0o600).map(|fd| (fd, None))
        } else {
            with_temp_name(|temp| at::create(dir, temp, 0o600)).map(|(fd, temp)| (fd, Some(temp)))
        };
        let (dst, temp) = match made {
            Ok(made) => made,
            Err(errno) => return self.abandon(subject, Side::Destination, "create", errno),
        };
        let (node, pair, name) = ((*node).clone(), (*pair).clone(), (*name).clone());
        let file = NewFile { node, pair, name, temp, dst, stat, xattrs, old, key: *key };
        self.fill(worker, file, src);
    }

    /// Gives a filled file its metadata and its final name.
    pub(super) fn complete(&self, file: &NewFile) {
        let Some(dir) = &file.pair.dst else { return };
        let finish = || {
            let object = Object::Open(file.dst.as_fd());
            object.apply_new(&file.stat, &file.xattrs, file.node.default_acl)?;
            // Only followers need to know what their leader became.
            let made = match file.key {
                Some(_) => Some(id(&at::stat_fd(&file.dst).map_err(|errno| ("stat", errno))?)),
                None => None,
            };
            if let Some(temp) = &file.temp {
                self.put_in_place(&file.node, dir, temp.as_cstr(), &file.name, file.old.as_ref())?;
            }
            Ok(made)
        };
        match finish() {
            Ok(made) => {
                add(&self.counters.copied, 1);
                self.led(file.key, &file.node, &file.name, made);
            }
            Err((operation, errno)) => {
                self.give_up(file, CopyError::Os(Side::Destination, operation, errno));
            }
        }
    }

    /// Removes a file that could not be completed; what stood under the final name stays.
    pub(super) fn give_up(&self, file: &NewFile, error: CopyError) {
        if let Some(dir) = &file.pair.dst {
            let name = file.temp.as_ref().map_or(file.name.as_c_str(), TempName::as_cstr);
            // The failure to report is the one that led here.
            let _ = at::unlink(dir, name);
        }
        let subject = Subject {
            node: &file.node,
            pair: &file.pair,
            name: &file.name,
            stat: file.stat,
            key: file.key,
        };
        match error {
            CopyError::Os(side, operation, errno) => self.abandon(&subject, side, operation, errno),
            CopyError::Shrunk => self.shrunk(&subject),
            CopyError::Stopped => self.finish_lead(file.key, None),
        }
    }

    /// Makes a symbolic link, device node, fifo or socket.
    fn make_special(&self, subject: &Subject<'_>, old: Option<Stat>) {
        let Subject { node, pair, name, stat, key } = subject;
        let Some(dir) = &pair.dst else { return };
        let prepared = entry_xattrs(&pair.src, name, None)
            .map_err(|errno| ("read xattrs of", errno))
            .and_then(|xattrs| match stat.kind {
                Kind::Symlink => at::read_link(&pair.src, name)
                    .map(|target| (xattrs, Some(target)))
                    .map_err(|errno| ("read link", errno)),
                _ => Ok((xattrs, None)),
            });
        let (xattrs, target) = match prepared {
            Ok(prepared) => prepared,
            Err((_, Errno::NOENT)) => {
                self.finish_lead(*key, None);
                return self.vanished(node, name);
            }
            Err((operation, errno)) => {
                return self.abandon(subject, Side::Source, operation, errno);
            }
        };
        let make = |place: &CStr| match &target {
            Some(target) => rustix::fs::symlinkat(target.as_c_str(), dir, place),
            None => at::make_node(dir, place, stat.kind, 0o600, stat.rdev),
        };
        let made = match node.fresh {
            true => make(name).map(|()| None),
            false => with_temp_name(make).map(|((), temp)| Some(temp)),
        };
        let temp = match made {
            Ok(temp) => temp,
            Err(errno) => return self.abandon(subject, Side::Destination, "create", errno),
        };
        let place = temp.as_ref().map_or(name.as_c_str(), TempName::as_cstr);
        let finish = || {
            if node.fresh && stat.kind == Kind::Symlink && key.is_none() {
                return Object::Entry(dir.as_fd(), place)
                    .apply_new(stat, &xattrs, node.default_acl)
                    .map(|()| None);
            }
            let handle = at::open_handle(dir, place).map_err(|errno| ("open", errno))?;
            let made = at::stat_fd(&handle).map_err(|errno| ("stat", errno))?;
            if made.kind != stat.kind || made.nlink != 1 {
                return Err(("create", Errno::STALE));
            }
            Object::Handle(handle.as_fd()).apply_new(stat, &xattrs, node.default_acl)?;
            if temp.is_some() {
                self.put_in_place(node, dir, place, name, old.as_ref())?;
            }
            Ok(Some(id(&made)))
        };
        match finish() {
            Ok(dst) => {
                add(&self.counters.copied, 1);
                self.led(*key, node, name, dst);
            }
            Err((operation, errno)) => {
                let _ = at::unlink(dir, place);
                self.abandon(subject, Side::Destination, operation, errno);
            }
        }
    }

    /// Makes the entry a hard link of its group's leader.
    fn follow(&self, subject: &Subject<'_>, leader: &Leader) {
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
        self.change(node, name, || Change::Link(stat.kind));
        add(&self.counters.hard_links, 1);
        if self.options.dry_run {
            return;
        }
        let link = || {
            let Some(dir) = &pair.dst else { return Ok(()) };
            let from = self.held.open(&leader.node).map_err(|(_, errno)| ("open", errno))?;
            let Some(from) = &from.dst else { return Ok(()) };
            let flags = rustix::fs::AtFlags::empty();
            let ((), temp) =
                with_temp_name(|temp| rustix::fs::linkat(from, &leader.name, dir, temp, flags))
                    .map_err(|errno| ("make hard link", errno))?;
            let temp = temp.as_cstr();
            let put = || {
                let made = at::stat(dir, temp).map_err(|errno| ("stat", errno))?;
                if Some(id(&made)) != leader.dst {
                    return Err(("make hard link", Errno::STALE));
                }
                self.put_in_place(node, dir, temp, name, old.as_ref())
            };
            put().inspect_err(|_| {
                let _ = at::unlink(dir, temp);
            })
        };
        if let Err((operation, errno)) = link() {
            self.fail(node, name, Side::Destination, operation, errno);
        }
    }

    /// Renames a complete object to its final name; a directory that stands there goes first.
    fn put_in_place(
        &self,
        node: &Arc<Node>,
        dir: &OwnedFd,
        temp: &CStr,
        name: &CStr,
        old: Option<&Stat>,
    ) -> Result<(), (&'static str, Errno)> {
        if old.is_some_and(|old| old.kind == Kind::Dir) {
            self.clear(node, dir, name).map_err(|errno| ("replace directory", errno))?;
        }
        rustix::fs::renameat(dir, temp, dir, name).map_err(|errno| ("rename to", errno))
    }

    /// Ends the lead of a group whose leader is `dst` now (none in a dry run that would make it).
    fn led(&self, key: Option<Id>, node: &Arc<Node>, name: &CString, dst: Option<Id>) {
        if key.is_some() {
            self.finish_lead(key, Some(Leader { node: node.clone(), name: name.clone(), dst }));
        }
    }

    /// Ends the lead of a hard-link group; the names that waited are taken up again.
    fn finish_lead(&self, key: Option<Id>, leader: Option<Leader>) {
        let Some(key) = key else { return };
        for (node, name) in self.links.finish(key, leader) {
            add(&self.counters.waiting, 1);
            self.queue
                .push_beyond_limit(Task::Entries(node, vec![Name { name, kind: None, ino: 0 }]));
        }
    }

    fn abandon(&self, subject: &Subject<'_>, side: Side, operation: &'static str, errno: Errno) {
        match (side, errno) {
            (Side::Source, Errno::NOENT) => self.vanished(subject.node, subject.name),
            _ => self.fail(subject.node, subject.name, side, operation, errno),
        }
        self.finish_lead(subject.key, None);
    }

    fn shrunk(&self, subject: &Subject<'_>) {
        let (path, shown) = self.paths(subject.node, subject.name, Side::Source);
        let error = Error::on("read", shown, "it shrank while it was read").hint("restore again");
        let reason = String::from("read: it shrank while it was read");
        subject.node.uncertain.store(true, std::sync::atomic::Ordering::Relaxed);
        self.counters.record(Side::Source, path, reason, &error);
        self.finish_lead(subject.key, None);
    }
}

/// Calls `make` with temporary names until one is free.
fn with_temp_name<T>(make: impl Fn(&CStr) -> Result<T, Errno>) -> Result<(T, TempName), Errno> {
    for _ in 0..TEMP_ATTEMPTS {
        let temp = TempName::new();
        match make(temp.as_cstr()) {
            Err(Errno::EXIST) => {}
            other => return other.map(|made| (made, temp)),
        }
    }
    Err(Errno::EXIST)
}
