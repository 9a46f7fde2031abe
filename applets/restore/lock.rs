//! What keeps two restores of one tree apart: a file in the tree that nobody but its owner can open, so that
//! the tree's user cannot hold up a boot.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use molecule_tools::error::{Error, Result, escape};
use molecule_tools::fs::{Dir, Kind, Stat, TempName, at};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use tracing::{info, warn};

/// Its name, which is gone when nobody holds the lock.
pub const NAME: &CStr = c".molecule-lock";
/// Things in the place of the lock that are put aside before it is given up.
const TRIES: usize = 20;
/// Between two tries to take a lock that somebody else has.
const PAUSE: Duration = Duration::from_millis(100);

/// The lock of one tree, until [`Lock::release`] or the end of the process.
#[derive(Debug)]
pub struct Lock(OwnedFd);

impl Lock {
    /// Takes the lock of `tree`. While another process has it, `wait` is asked whether to wait on. `None`
    /// where no lock can be had (a read-only tree, one without locks): that is no rival.
    ///
    /// # Errors
    ///
    /// EWOULDBLOCK when `wait` said no.
    pub fn take(tree: &Dir, mut wait: impl FnMut() -> bool) -> Result<Option<Self>> {
        let mut odd = 0;
        while odd < TRIES {
            let file = match keeping_time(tree, || open(tree)) {
                Ok(file) => file,
                Err(Errno::ROFS) => return Ok(None),
                Err(Errno::ISDIR | Errno::LOOP | Errno::NXIO | Errno::NODEV) => {
                    odd += 1;
                    put_aside(tree)?;
                    continue;
                }
                Err(errno) => return without(tree, errno),
            };
            let stat = match at::stat_fd(&file) {
                Ok(stat) => stat,
                Err(errno) => return without(tree, errno),
            };
            if !is_ours(&stat) {
                odd += 1;
                put_aside(tree)?;
                continue;
            }
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Whoever had it before may have taken its name away.
                Ok(()) if leads_to(tree, &stat) => return Ok(Some(Self(file))),
                Ok(()) | Err(Errno::INTR) => {}
                Err(errno @ Errno::WOULDBLOCK) => {
                    if !wait() {
                        return Err(Error::os("lock", tree.path(), errno)
                            .hint("another restore is running there; wait for it (fuser -v)"));
                    }
                    std::thread::sleep(PAUSE);
                }
                Err(errno) => return without(tree, errno),
            }
        }
        warn!(
            "{} cannot be locked: somebody keeps taking the place of the lock",
            escape(tree.path())
        );
        Ok(None)
    }

    /// Lets go of the lock of `tree` and takes its name away. Left behind, it is no lock: the kernel gives it
    /// back with the descriptor.
    pub fn release(self, tree: &Dir) {
        if at::stat_fd(&self.0).is_ok_and(|stat| leads_to(tree, &stat)) {
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

fn open(tree: &Dir) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    rustix::fs::openat(tree, NAME, flags, Mode::RUSR | Mode::WUSR)
}

/// Whether nobody but this user can have opened the file.
fn is_ours(stat: &Stat) -> bool {
    stat.kind == Kind::File
        && stat.uid == rustix::process::geteuid().as_raw()
        && stat.mode & 0o077 == 0
        && stat.nlink == 1
}

fn leads_to(tree: &Dir, stat: &Stat) -> bool {
    tree.stat_entry(NAME).is_ok_and(|there| there.is_some_and(|there| there.same_inode(stat)))
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

fn without(tree: &Dir, errno: Errno) -> Result<Option<Lock>> {
    info!("{}", Error::os("lock", tree.path(), errno).hint("going on without"));
    Ok(None)
}
