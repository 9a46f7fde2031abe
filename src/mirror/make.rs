//! Making an entry that is no directory.
//!
//! Where somebody else can look, an object is made complete under a temporary name and renamed; in a
//! directory of this run's own making (see [`Node::fresh`]) nobody can, and small files get their
//! final name at once, which saves a third of the system calls that change the directory.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use rustix::io::Errno;

use super::ahead::Source;
use super::copy::{BUFFER, CopyError, is_sparse, with_holes_known};
use super::entry::Subject;
use super::links::{Id, id};
use super::metadata::{Object, is_privileged, without_set_id};
use super::report::{Side, add};
use super::times::same_time;
use super::tree::{Node, Pair, join};
use super::xattrs::Xattrs;
use super::{Engine, Worker};
use crate::error::Error;
use crate::fs::xattr::Target;
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
    /// Made with its owner's ids in a directory of this run's own making.
    born: bool,
}

/// What a file became that was made with its owner's ids. Whether all of that directory and owner
/// become the same is a matter of the directory and its mount.
#[derive(Debug)]
pub(super) struct Born {
    /// Not its inode number, which another may have had before.
    node: Weak<Node>,
    made: Stat,
}

impl Born {
    fn is_like(&self, file: &NewFile) -> bool {
        file.born
            && (self.made.uid, self.made.gid) == (file.stat.uid, file.stat.gid)
            && std::ptr::eq(self.node.as_ptr(), Arc::as_ptr(&file.node))
    }
}

impl NewFile {
    /// Whether nothing stands under its final name.
    pub fn is_first(&self) -> bool {
        self.old.is_none()
    }

    /// Whether it has neither ACLs nor other xattrs.
    pub fn has_plain_metadata(&self) -> bool {
        self.xattrs.is_plain()
    }
}

impl Engine<'_> {
    /// Makes a regular file, and has it filled. `set_id`: `subject` is without its set-id bits already.
    pub(super) fn make_file(
        &self,
        worker: &mut Worker,
        subject: &Subject<'_>,
        src: Option<Source>,
        old: Option<Stat>,
        set_id: bool,
    ) {
        let Subject { node, pair, name, key, .. } = subject;
        let Some(dir) = &pair.dst else { return };
        let opened = match src {
            Some(src) => Ok((src, subject.stat)),
            None => at::open_read(&pair.src, name)
                .and_then(|fd| at::stat_fd(&fd).map(|stat| (fd.into(), stat))),
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
        let (stat, set_id_now) = self.permitted(with_holes_known(stat, &src.fd));
        let xattrs = match Xattrs::read(&Target::fd(&src.fd)) {
            Ok(xattrs) => self.permitted_xattrs(xattrs, set_id || set_id_now),
            Err(errno) => return self.abandon(subject, Side::Source, "read xattrs of", errno),
        };
        let writing = self.queue.writing();
        let mut born = false;
        let made = if node.fresh && stat.size <= BUFFER as u64 {
            worker.ids.take(stat.uid, stat.gid);
            let made = worker.ids.attempt(|| at::create(dir, name, 0o600)).map(|fd| (fd, None));
            born = worker.ids.now() == (stat.uid, stat.gid);
            made
        } else {
            worker.ids.reset();
            with_temp_name(|temp| at::create(dir, temp, 0o600)).map(|(fd, temp)| (fd, Some(temp)))
        };
        drop(writing);
        let (dst, temp) = match made {
            Ok(made) => made,
            Err(errno) => return self.abandon(subject, Side::Destination, "create", errno),
        };
        let (node, pair, name) = ((*node).clone(), (*pair).clone(), (*name).clone());
        let file = NewFile { node, pair, name, temp, dst, stat, xattrs, old, key: *key, born };
        self.fill(worker, file, src);
    }

    /// Gives a filled file its metadata and its final name.
    pub(super) fn complete(&self, worker: &mut Worker, file: &NewFile) {
        let Some(dir) = &file.pair.dst else { return };
        let _writing = self.queue.writing();
        let mut finish = || {
            if is_sparse(&file.stat) {
                self.extend(&mut worker.ids, file).map_err(|errno| ("extend", errno))?;
            }
            let like = worker.born.as_ref().filter(|born| born.is_like(file));
            let like = like.map(|born| born.made);
            let made = match (&file.temp, file.key) {
                (Some(_), None) => None,
                (None, None) if like.is_some() => None,
                // What nobody could change is not set again, and followers of a link group need to
                // know what their leader became.
                _ => Some(at::stat_fd(&file.dst).map_err(|errno| ("stat", errno))?),
            };
            if let (true, Some(made)) = (file.born, made) {
                worker.born = Some(Born { node: Arc::downgrade(&file.node), made });
            }
            Object::Open(file.dst.as_fd()).apply_new(
                &file.stat,
                &file.xattrs,
                made.or(like).as_ref().filter(|_| file.node.fresh),
                !file.node.fresh,
                &mut |operation, errno| {
                    self.fail_attribute(&file.node, &file.name, operation, errno);
                },
            );
            self.check_times(file)?;
            if let Some(temp) = &file.temp {
                self.put_in_place(&file.node, dir, temp.as_cstr(), &file.name, file.old.as_ref())?;
            }
            Ok(made)
        };
        match finish() {
            Ok(made) => {
                add(&self.counters.copied, 1);
                if is_privileged(&file.stat, &file.xattrs) {
                    add(&self.counters.privileged_files, 1);
                }
                self.led(file.key, &file.node, &file.name, made.as_ref().map(id));
            }
            Err((operation, errno)) => {
                self.give_up(file, CopyError::at_destination(operation, errno));
            }
        }
    }

    /// Looks once whether the destination keeps times; where it does not, everything is copied again by
    /// every run, and nothing else would say so.
    fn check_times(&self, file: &NewFile) -> Result<(), (&'static str, Errno)> {
        if self.times_checked.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let made = at::stat_fd(&file.dst).map_err(|errno| ("stat", errno))?;
        if !same_time(&file.stat, &made, &file.dst) {
            let (path, shown) = self.paths(&file.node, &file.name, Side::Destination);
            let reason = "the file system does not keep it";
            let error = Error::on("set times of", shown, reason)
                .hint("every restore into it will copy everything");
            self.counters.record(
                Side::Destination,
                path,
                format!("set times of: {reason}"),
                &error,
            );
        }
        Ok(())
    }

    /// Removes a file that could not be completed; what stood under the final name stays.
    pub(super) fn give_up(&self, file: &NewFile, error: CopyError) {
        if let Some(dir) = &file.pair.dst {
            let name = file.temp.as_ref().map_or(file.name.as_c_str(), TempName::as_cstr);
            self.discard(&file.node, dir, name);
        }
        let subject = Subject {
            node: &file.node,
            pair: &file.pair,
            name: &file.name,
            stat: file.stat,
            key: file.key,
        };
        self.not_copied(&subject, error);
    }

    /// Removes what was made in vain.
    pub(super) fn discard(&self, node: &Arc<Node>, dir: &OwnedFd, name: &CStr) {
        match at::unlink(dir, name) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => self.fail_removal(join(&node.path(), name), "remove", errno),
        }
    }

    /// Makes a symbolic link, device node, fifo or socket.
    pub(super) fn make_special(
        &self,
        worker: &mut Worker,
        subject: &Subject<'_>,
        old: Option<Stat>,
    ) {
        let Subject { node, pair, name, stat, key } = subject;
        let Some(dir) = &pair.dst else { return };
        worker.ids.reset();
        let prepared = Xattrs::read(&worker.reach.entry(&pair.src, name))
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
            Some(target) => at::make_symlink(target, dir, place),
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
        let mut fail = |operation, errno| self.fail_attribute(node, name, operation, errno);
        let mut finish = || {
            if node.fresh && stat.kind == Kind::Symlink && key.is_none() {
                let link = Object::Entry(dir.as_fd(), place);
                link.apply_new(stat, &xattrs, None, false, &mut fail);
                return Ok(None);
            }
            let handle = at::open_handle(dir, place).map_err(|errno| ("open", errno))?;
            let made = at::stat_fd(&handle).map_err(|errno| ("stat", errno))?;
            if made.kind != stat.kind || made.rdev != stat.rdev || made.nlink != 1 {
                return Err(("create", Errno::STALE));
            }
            let object = Object::Handle(handle.as_fd());
            let known = Some(&made).filter(|_| node.fresh);
            object.apply_new(stat, &xattrs, known, !node.fresh, &mut fail);
            if temp.is_some() {
                self.put_in_place(node, dir, place, name, old.as_ref())?;
            }
            Ok(Some(id(&made)))
        };
        match finish() {
            Ok(dst) => {
                add(&self.counters.copied, 1);
                add(&self.counters.devices, u64::from(is_device(stat.kind)));
                self.led(*key, node, name, dst);
            }
            Err((operation, errno)) => {
                self.discard(node, dir, place);
                self.abandon(subject, Side::Destination, operation, errno);
            }
        }
    }

    /// Renames a complete object to its final name; a directory that stands there goes first.
    pub(super) fn put_in_place(
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
        at::rename(dir, temp, name).map_err(|errno| ("rename to", errno))
    }
}

impl Engine<'_> {
    /// What of the source's attributes may be given, and whether that is without its set-id bits.
    pub(super) fn permitted(&self, stat: Stat) -> (Stat, bool) {
        let permitted = if self.options.no_privileged { without_set_id(stat) } else { stat };
        (permitted, permitted.mode != stat.mode)
    }

    /// The same for xattrs, of a file whose set-id bits were left out or not; counts both.
    pub(super) fn permitted_xattrs(&self, mut xattrs: Xattrs, set_id: bool) -> Xattrs {
        let capability = self.options.no_privileged && xattrs.drop_capability();
        add(&self.counters.privileges_left_out, u64::from(set_id || capability));
        xattrs
    }
}

/// Whether it stands for hardware, or whatever else a driver makes of it.
pub(super) fn is_device(kind: Kind) -> bool {
    matches!(kind, Kind::Block | Kind::Char)
}

/// Calls `make` with temporary names until one is free.
pub(super) fn with_temp_name<T>(
    make: impl Fn(&CStr) -> Result<T, Errno>,
) -> Result<(T, TempName), Errno> {
    for _ in 0..TEMP_ATTEMPTS {
        let temp = TempName::new();
        match make(temp.as_cstr()) {
            Err(Errno::EXIST) => {}
            other => return other.map(|made| (made, temp)),
        }
    }
    Err(Errno::EXIST)
}
