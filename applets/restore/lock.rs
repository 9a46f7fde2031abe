//! The lock that keeps two restores of one tree apart: a file in the tree that nobody but its owner can open, so that
//! the tree's user cannot hold up a boot.
//!
//! A process can be stuck in a system call that not even SIGKILL ends, and has its locks until then. So the process that
//! holds one shows signs of life, the file's modification time, and a boot that sees none for long goes on without
//! a restore. It leaves word with the file: a holder that was only stopped must not go on restoring over what has
//! been made meanwhile. Permission bits say both, which needs no space on the disk.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use molecule_tools::error::{Error, Result, escape};
use molecule_tools::fs::InodeId;
use molecule_tools::fs::{Dir, Kind, Stat, TempName, at, patiently, pause};
use rustix::fs::{FlockOperation, Mode, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;
use tracing::{info, warn};

/// Its name, which is gone when nobody holds the lock.
pub const NAME: &CStr = c".molecule-lock";
/// Things in the place of the lock that are put aside before it is given up.
const TRIES: usize = 20;
/// Between two tries to take a lock that somebody else has.
const PAUSE: Duration = Duration::from_millis(100);

/// The permissions of the lock of a holder that shows signs of life. (An earlier version's has 0600.)
const SHOWS_LIFE: u32 = 0o700;
/// The same after somebody has gone on without it.
const OVERTAKEN: u32 = 0o1700;
/// The pauses of a whole container stop the holder and not the clock: between two looks no more than this counts.
const LOOK: Duration = Duration::from_millis(500);

/// The action of a process that waits for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockWait {
    On,
    /// Gives up.
    NoMore,
    /// Goes on as if there were none, and says so to the holder.
    Overtake,
}

/// How long the holder of a lock has shown no sign of life.
#[derive(Debug)]
pub struct HolderSilence {
    seen: Option<(InodeId, (i64, u32))>,
    looked: Instant,
    time: Duration,
}

impl HolderSilence {
    pub fn new() -> Self {
        Self { seen: None, looked: Instant::now(), time: Duration::ZERO }
    }

    /// Looks at the file of the lock. Of a holder that never shows any nothing is known, and no time passes.
    pub fn look(&mut self, lock: &Stat) -> Duration {
        let (now, sign) = (Instant::now(), Some((lock.id(), lock.mtime)));
        let silent = lock.mode & SHOWS_LIFE == SHOWS_LIFE && self.seen == sign;
        self.time = if silent { self.time + (now - self.looked).min(LOOK) } else { Duration::ZERO };
        (self.seen, self.looked) = (sign, now);
        self.time
    }
}

/// The lock of one tree, until [`TreeLock::release`] or the end of the process.
#[derive(Debug)]
pub struct TreeLock(OwnedFd);

impl TreeLock {
    /// Takes the lock of `tree`. While another process has it, `wait` is given its file and says what to do.
    /// `None` where no lock can be had (a read-only tree, one without locks): that is no rival.
    ///
    /// # Errors
    ///
    /// EWOULDBLOCK when `wait` said not to wait on.
    pub fn take(tree: &Dir, mut wait: impl FnMut(&Stat) -> LockWait) -> Result<Option<Self>> {
        let mut odd = 0;
        while odd < TRIES {
            let fail = |errno| Error::os("lock", tree.path(), errno);
            let file = match patiently(|| {
                keeping_time(tree, || at::open_or_create(tree, NAME)).map_err(fail)
            }) {
                Ok(file) => file,
                Err(error) => match error.errno() {
                    Some(Errno::ROFS) => return Ok(None),
                    Some(Errno::ISDIR | Errno::LOOP | Errno::NXIO | Errno::NODEV) => {
                        odd += 1;
                        put_aside(tree)?;
                        continue;
                    }
                    _ => return Ok(without(error)),
                },
            };
            let stat = match at::stat_fd(&file) {
                Ok(stat) => stat,
                Err(errno) => return Ok(without(fail(errno))),
            };
            if !is_ours(&stat) {
                odd += 1;
                put_aside(tree)?;
                continue;
            }
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => match patiently(|| leads_to(tree, &stat)) {
                    Ok(true) => return Ok(Some(Self::held(file))),
                    // The holder before may have taken its name away.
                    Ok(false) => {}
                    Err(error) => {
                        info!("{}", error.hint("the lock is taken all the same"));
                        return Ok(Some(Self::held(file)));
                    }
                },
                Err(Errno::INTR) => {}
                Err(errno @ Errno::WOULDBLOCK) => {
                    let held = |hint| Err(Error::os("lock", tree.path(), errno).hint(hint));
                    match wait(&stat) {
                        LockWait::On => pause(PAUSE),
                        LockWait::NoMore => {
                            return held(
                                "another restore is running there; wait for it (fuser -v)",
                            );
                        }
                        LockWait::Overtake => {
                            set_mode(&file, OVERTAKEN)
                                .map_err(|errno| Error::os("overtake", tree.path(), errno))?;
                            return held(
                                "the restore that is running there shows no sign of life; nothing is \
                                 restored at this start, look what holds the other one up (fuser -v)",
                            );
                        }
                    }
                }
                Err(errno) => return Ok(without(fail(errno))),
            }
        }
        warn!(
            "{} cannot be locked: somebody keeps taking the place of the lock",
            escape(tree.path())
        );
        Ok(None)
    }

    fn held(file: OwnedFd) -> Self {
        // Where it fails, nobody takes silence for a sign.
        let _ = set_mode(&file, SHOWS_LIFE);
        Self(file)
    }

    /// Shows those who wait that the holder is at work.
    pub fn show_life(&self) {
        // Both: some file systems set neither if one is left out.
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        // Where it fails, a boot may overtake this restore, and loses nothing.
        let _ = rustix::fs::futimens(&self.0, &times);
    }

    /// Whether somebody has gone on without the lock, or may have.
    pub fn is_overtaken(&self) -> bool {
        !at::again(|| at::stat_fd(&self.0)).is_ok_and(|stat| stat.mode & 0o7000 == 0)
    }

    /// Lets go of the lock of `tree` and takes its name away. Left behind, it is no lock: the kernel gives it
    /// back with the descriptor.
    pub fn release(self, tree: &Dir) {
        let leads_here = |stat| matches!(leads_to(tree, &stat), Ok(true));
        if at::stat_fd(&self.0).is_ok_and(leads_here) {
            let _ = keeping_time(tree, || at::unlink(tree, NAME));
        }
    }
}

/// Does `act`, which makes or removes a name in `tree`, and sets the tree's modification time to what it was:
/// the tree is somebody's, and a start is no change of it.
fn keeping_time<T>(tree: &Dir, act: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    let before = at::stat_fd(tree)?;
    let done = act()?;
    // Where it fails, only the time is another.
    let _ = rustix::fs::futimens(tree, &before.times());
    Ok(done)
}

/// Whether a start has gone on without the holder of the lock before.
pub fn was_overtaken(lock: &Stat) -> bool {
    lock.mode & OVERTAKEN == OVERTAKEN
}

fn set_mode(file: &OwnedFd, mode: u32) -> Result<(), Errno> {
    at::again(|| rustix::fs::fchmod(file, Mode::from_raw_mode(mode)))
}

/// Whether only this user can have opened the file.
fn is_ours(stat: &Stat) -> bool {
    stat.kind == Kind::File
        && stat.uid == rustix::process::geteuid().as_raw()
        && stat.mode & 0o077 == 0
        && stat.nlink == 1
}

fn leads_to(tree: &Dir, stat: &Stat) -> Result<bool> {
    Ok(tree.stat_entry(NAME)?.is_some_and(|there| there.same_inode(stat)))
}

/// Renames what somebody has put in the place of the lock, for it may hold their only copy of something.
fn put_aside(tree: &Dir) -> Result<()> {
    let aside = TempName::new();
    match tree.rename(NAME, aside.as_cstr()) {
        Ok(()) => {
            let (there, aside) = (tree.join(NAME), tree.join(aside.as_cstr()));
            warn!("{} is in the way of a lock, renamed to {}", escape(&there), escape(&aside));
            Ok(())
        }
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

fn without(error: Error) -> Option<TreeLock> {
    info!("{}", error.hint("going on without"));
    None
}
