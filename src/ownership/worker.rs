//! One thread's part of a walk.
#![forbid(unsafe_code)]

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use super::entries::{EntryHands, join};
use super::give::{Mode, Privileges, Tally};
use super::shared::{SharedWalk, SubTree, WalkPass, WalkPlan, WalkTask};
use crate::error::Error;
use crate::fs::descent::{CutOff, DescentNext, TreeDescent};
use crate::fs::xattr::XattrReach;
use crate::fs::{Kind, MAKING, at};

/// A thread with its way through the tree.
pub(super) struct WalkWorker<'a> {
    hands: EntryHands<'a>,
    descent: TreeDescent,
    /// A task was taken and is in turn.
    begins: bool,
    /// For the heartbeat.
    place: Vec<u8>,
}

impl<'a> WalkWorker<'a> {
    /// Thread `number`, with `task` to do.
    pub(super) fn new(
        shared: &'a SharedWalk<'a>,
        number: usize,
        reach: XattrReach,
        task: &SubTree,
    ) -> Self {
        Self {
            hands: EntryHands::new(shared, number, reach, &task.path),
            descent: TreeDescent::new(Arc::clone(&task.dir), &task.name),
            begins: true,
            place: Vec::new(),
        }
    }

    /// The same work in thread `number`.
    pub(super) fn moved_to(mut self, number: usize, reach: XattrReach) -> Self {
        self.hands.number = number;
        self.hands.reach = reach;
        self
    }

    /// Takes on `task`, all else being done.
    pub(super) fn take(&mut self, task: &SubTree) {
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
                DescentNext::Name if self.hand_over() => {}
                DescentNext::Name => {
                    self.visit();
                    visited += 1;
                }
                DescentNext::Unread => self.list(),
                DescentNext::Done => {
                    // A directory in which nothing waited is done.
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
        if !self.descent.has_more() || !shared.wants_more() {
            return false;
        }
        let tree = SubTree {
            dir: Arc::clone(self.descent.here()),
            path: self.descent.way().path(&self.hands.base),
            name: self.descent.name().to_owned(),
        };
        let taken = shared.queue.offer(WalkTask::Tree(tree)).is_ok();
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
        let WalkPlan { mode, .. } = hands.shared.walk.plan;
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
        let WalkPlan { privileges, heart, .. } = hands.shared.walk.plan;
        if privileges == Privileges::Take && hands.shared.pass == WalkPass::Look {
            hands.reach.enter(descent.here());
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
