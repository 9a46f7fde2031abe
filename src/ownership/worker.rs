//! One thread's part of a walk.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::bounds::Seen;
use super::capability::Lookup;
use super::links::Verdict;
use super::walk::{Pass, Plan, Shared, Task};
use super::{Mode, Privileges, Tally};
use crate::error::Error;
use crate::fs::descent::{CutOff, Descent, Next, Way};
use crate::fs::{Kind, MAKING, Stat, at};

/// A thread with its way through the tree.
pub(super) struct Worker<'a> {
    hands: Hands<'a>,
    descent: Descent,
    /// A task was taken and is in turn.
    begins: bool,
    /// For the heartbeat.
    place: Vec<u8>,
}

/// What a thread needs at any place.
struct Hands<'a> {
    shared: &'a Shared<'a>,
    number: usize,
    lookup: Lookup,
    tally: Tally,
    seen: Seen,
    /// Path of the start of the way.
    base: PathBuf,
}

impl<'a> Worker<'a> {
    /// Thread `number`, with `task` to do.
    pub(super) fn new(shared: &'a Shared<'a>, number: usize, lookup: Lookup, task: &Task) -> Self {
        Self {
            hands: Hands {
                shared,
                number,
                lookup,
                tally: Tally::default(),
                seen: Seen::default(),
                base: task.path.clone(),
            },
            descent: Descent::new(Arc::clone(&task.dir), &task.name),
            begins: true,
            place: Vec::new(),
        }
    }

    /// The same work in thread `number`.
    pub(super) fn moved_to(mut self, number: usize, lookup: Lookup) -> Self {
        self.hands.number = number;
        self.hands.lookup = lookup;
        self
    }

    /// Takes on `task`, all else being done.
    pub(super) fn take(&mut self, task: &Task) {
        self.descent.restart(Arc::clone(&task.dir), &task.name);
        self.hands.base.clone_from(&task.path);
        self.begins = true;
    }

    pub(super) fn has_work(&self) -> bool {
        self.begins || !self.descent.is_empty()
    }

    pub(super) fn tally(&self) -> Tally {
        self.hands.tally
    }

    /// Works, through `most` directories at most.
    pub(super) fn walk(&mut self, most: u64) {
        let mut visited = 0;
        if std::mem::take(&mut self.begins) {
            self.visit();
            visited += 1;
        }
        while !self.descent.is_empty() && visited < most {
            if self.hands.shared.is_stopped() {
                let left = self.descent.abandon();
                self.hands.shared.leave_out(left);
                break;
            }
            match self.descent.advance() {
                Next::Name if self.hand_over() => {}
                Next::Name => {
                    self.visit();
                    visited += 1;
                }
                Next::Unread => self.list(),
                Next::Done => {
                    // What did not wait any more is done.
                    if let Err(CutOff { waiting: waiting @ 1.. }) = self.descent.leave() {
                        self.cut_off(waiting);
                    }
                }
            }
        }
        self.hands.shared.walk.plan.heart.leave(self.hands.number);
    }

    /// Gives the directory in turn to another thread, if one wants it and there is other work here.
    fn hand_over(&mut self) -> bool {
        let shared = self.hands.shared;
        if !shared.wants_tasks() || !self.descent.has_more() {
            return false;
        }
        let task = Task {
            dir: Arc::clone(self.descent.here()),
            path: self.descent.way().path(&self.hands.base),
            name: self.descent.name().to_owned(),
        };
        let taken = shared.hand_over(task).is_none();
        if taken {
            self.descent.skip();
        }
        taken
    }

    /// Gives the directory in turn, then its entries.
    fn visit(&mut self) {
        let Self { hands, descent, place, .. } = self;
        let (way, name) = (descent.way(), descent.name());
        way.write_end(&hands.base, name, place);
        let heart = hands.shared.walk.plan.heart;
        heart.enter(hands.number, std::ffi::OsStr::from_bytes(place));
        let dir = match at::open_dir(way.fd(), name) {
            Ok(fd) => at::stat_fd(&fd).map(|stat| (fd, stat)),
            Err(errno) => {
                hands.not_opened(way, name, errno);
                return descent.skip();
            }
        };
        let (fd, stat) = match dir {
            Ok(dir) => dir,
            Err(errno) => {
                hands.failed(|base| Error::os("stat", join(way, base, name), errno));
                return descent.skip();
            }
        };
        let Plan { mode, .. } = hands.shared.walk.plan;
        if mode == Mode::SpareUnfinished && stat.uid == 0 && stat.mode & 0o1777 == MAKING {
            hands.failed(|base| {
                Error::on("give", join(way, base, name), "a restore was cut off while it made it")
                    .hint("it stays root's; the next start restores again")
            });
            return descent.skip();
        }
        hands.give_directory(way, name, &fd, &stat);
        if descent.is_full() {
            hands.failed(|base| {
                Error::on("walk", join(way, base, name), "it lies too deep; what is in it stays")
                    .hint("name it as PATH to fix-perms")
            });
            return descent.skip();
        }
        descent.enter(fd, &stat);
        self.list();
    }

    /// Gives the entries of the deepest directory, as far as they are listed now; directories among them
    /// wait.
    fn list(&mut self) {
        let Self { hands, descent, .. } = self;
        let Plan { privileges, heart, .. } = hands.shared.walk.plan;
        if privileges == Privileges::Take && hands.shared.pass == Pass::Look {
            hands.lookup.enter(descent.here());
        }
        loop {
            let listed = descent.list(|way, name, kind| {
                kind == Some(Kind::Dir) || hands.entry(way, name) == Some(Kind::Dir)
            });
            heart.beat();
            if !hands.shared.bounds.allow(&mut hands.seen) {
                hands.shared.stop();
            }
            match listed {
                Ok(true) if descent.has_portion() || hands.shared.is_stopped() => return,
                Ok(true) => {}
                Ok(false) => return,
                Err(errno) => {
                    let way = descent.way();
                    return hands.failed(|base| Error::os("list", way.path(base), errno));
                }
            }
        }
    }

    /// Somebody has moved a directory away in which this walk was.
    fn cut_off(&mut self, waiting: u64) {
        self.hands.shared.leave_out(waiting);
        let way = self.descent.way();
        self.hands.failed(|base| {
            Error::on(
                "walk on below",
                way.path(base),
                format!(
                    "a directory there was moved meanwhile; at least {waiting} directories in it \
                     were not looked at"
                ),
            )
            .hint("run fix-perms again")
        });
    }
}

impl Hands<'_> {
    /// Counts a failure of the first walk; the second meets the same.
    fn failed(&mut self, error: impl FnOnce(&Path) -> Error) {
        if self.shared.pass == Pass::Look {
            self.tally.failed += 1;
            self.shared.walk.complain(|| error(&self.base));
        }
    }

    /// The directory itself.
    fn give_directory(&mut self, way: Way<'_>, name: &CStr, fd: &OwnedFd, stat: &Stat) {
        self.shared.bounds.note(&mut self.seen, way.id(), name, stat);
        if self.shared.pass != Pass::Look {
            return;
        }
        self.tally.examined += 1;
        let Plan { owner, mode, .. } = self.shared.walk.plan;
        if !owner.owns(stat) {
            let path = || join(way, &self.base, name);
            match super::change(fd, path, owner, mode) {
                Ok(()) => self.tally.changed += 1,
                Err(error) => self.failed(|_| error),
            }
        }
    }

    /// Entry `name` could not be opened as a directory: it is none (a link or a file at the top of the
    /// walk, or put there since its parent was listed), or it may not be read. Gives the entry itself.
    fn not_opened(&mut self, way: Way<'_>, name: &CStr, errno: Errno) {
        let stat = match at::stat(way.fd(), name) {
            Err(Errno::NOENT) => return,
            Ok(stat) => stat,
            Err(errno) => {
                return self.failed(|base| Error::os("stat", join(way, base, name), errno));
            }
        };
        match stat.kind {
            Kind::Dir => {
                self.failed(|base| Error::os("open directory", join(way, base, name), errno));
                if self.shared.pass == Pass::Look {
                    self.tally.examined += 1;
                    if !self.shared.walk.plan.owner.owns(&stat) {
                        self.change(way, name);
                    }
                }
            }
            Kind::Symlink => {
                self.failed(|base| {
                    let path = join(way, base, name);
                    Error::on("open directory", path, "it is a symbolic link, not followed")
                        .hint("put a real directory or file there")
                });
                self.entry(way, name);
            }
            _ => {
                self.entry(way, name);
            }
        }
    }

    /// Gives entry `name`, unless it is a directory. Its type, as far as it is known.
    fn entry(&mut self, way: Way<'_>, name: &CStr) -> Option<Kind> {
        let stat = match at::stat(way.fd(), name) {
            Ok(stat) if stat.kind == Kind::Dir => return Some(Kind::Dir),
            Ok(stat) => stat,
            Err(Errno::NOENT) => return None,
            Err(errno) => {
                self.failed(|base| Error::os("stat", join(way, base, name), errno));
                if self.shared.pass == Pass::Look {
                    self.tally.examined += 1;
                }
                return None;
            }
        };
        self.shared.bounds.note(&mut self.seen, way.id(), name, &stat);
        let Plan { owner, privileges, .. } = self.shared.walk.plan;
        let shared_file = stat.nlink > 1 && stat.uid != owner.uid;
        match self.shared.pass {
            Pass::Look => {
                self.tally.examined += 1;
                let leave = privileges == Privileges::Leave;
                if shared_file {
                    self.count_link(way, name);
                } else if !owner.owns(&stat) || (!leave && self.privileged(way, name, &stat)) {
                    self.change(way, name);
                }
            }
            Pass::GiveLinks if shared_file => self.give_link(way, name),
            Pass::GiveLinks => {}
        }
        Some(stat.kind)
    }

    /// Whether chown(2) would take something from the file: set-user-ID, set-group-ID with
    /// group-execute, file capabilities. Where that cannot be told it may: `chown -R` asks no file.
    fn privileged(&mut self, way: Way<'_>, name: &CStr, stat: &Stat) -> bool {
        const SET_USER_ID: u32 = 0o4000;
        const SET_GROUP_ID_AND_EXECUTE: u32 = 0o2010;
        stat.kind == Kind::File
            && (stat.mode & SET_USER_ID != 0
                || stat.mode & SET_GROUP_ID_AND_EXECUTE == SET_GROUP_ID_AND_EXECUTE
                || self.lookup.has_capabilities(way.fd(), name).unwrap_or_else(|errno| {
                    self.shared.walk.note_unclear(|| {
                        Error::os("look for capabilities of", join(way, &self.base, name), errno)
                    });
                    true
                }))
    }

    /// Opens entry `name`, which was seen to need a change, and changes what is there now.
    fn change(&mut self, way: Way<'_>, name: &CStr) {
        let Plan { owner, mode, .. } = self.shared.walk.plan;
        let Some((handle, stat)) = self.open(way, name) else { return };
        if stat.kind != Kind::Dir && stat.nlink > 1 && stat.uid != owner.uid {
            return self.count_link(way, name);
        }
        match super::change(handle, || join(way, &self.base, name), owner, mode) {
            Ok(()) => self.tally.changed += 1,
            Err(error) => self.failed(|_| error),
        }
    }

    /// A handle of entry `name`, and what it shows. None if it is gone, or after a warning.
    fn open(&mut self, way: Way<'_>, name: &CStr) -> Option<(OwnedFd, Stat)> {
        let open = || {
            let handle = at::open_handle(way.fd(), name).map_err(|errno| ("open", errno))?;
            let stat = Stat::of(&handle).map_err(|errno| ("stat", errno))?;
            Ok((handle, stat))
        };
        match open() {
            Ok(found) => Some(found),
            // Removed or renamed meanwhile.
            Err((_, Errno::NOENT)) => None,
            Err((operation, errno)) => {
                self.failed(|base| Error::os(operation, join(way, base, name), errno));
                None
            }
        }
    }

    /// Counts entry `name`, one of several of its file, for the second walk.
    fn count_link(&mut self, way: Way<'_>, name: &CStr) {
        let (links, begin) = (&self.shared.walk.links, self.shared.bounds.begin());
        links.wait_past(begin);
        let look = || {
            let directory = match way.id() {
                Some(id) => id,
                None => at::stat_fd(way.fd()).map(|stat| (stat.dev, stat.ino))?,
            };
            Ok((directory, at::stat(way.fd(), name)?))
        };
        match look() {
            Ok((directory, stat)) => links.count(&stat, directory, name, begin),
            Err(Errno::NOENT) => {}
            Err(errno) => self.failed(|base| Error::os("stat", join(way, base, name), errno)),
        }
    }

    /// Gives entry `name`, one of several of its file, if the first walk has counted all of them.
    fn give_link(&mut self, way: Way<'_>, name: &CStr) {
        let Plan { owner, mode, .. } = self.shared.walk.plan;
        let Some((handle, stat)) = self.open(way, name) else { return };
        if stat.kind == Kind::Dir || stat.uid == owner.uid {
            return;
        }
        let (links, path) = (&self.shared.walk.links, || join(way, &self.base, name));
        let failure = match links.judge(&handle, &stat) {
            Verdict::Leave => return,
            Verdict::Give { first: false } if mode == super::Mode::DryRun => return,
            Verdict::Give { first } => match super::change(&handle, path, owner, mode) {
                Ok(()) => {
                    links.note_given(&stat);
                    self.tally.changed += u64::from(first);
                    return;
                }
                Err(error) => error,
            },
            Verdict::Refuse(reason) => Error::on("change owner of", path(), reason)
                .hint("give it by hand if it is meant to be the user's"),
        };
        self.tally.failed += 1;
        self.shared.walk.complain(|| failure);
    }
}

/// The path of entry `name`, for messages.
fn join(way: Way<'_>, base: &Path, name: &CStr) -> PathBuf {
    way.path(base).join(std::ffi::OsStr::from_bytes(name.to_bytes()))
}
