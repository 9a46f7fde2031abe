//! A step of the boot as a child process that is watched: it cannot hang, crash or be signalled in a way
//! that takes the boot with it.
//!
//! A system call on a file system that never answers (FUSE of somebody else's, a dead network mount)
//! cannot be ended by the thread that made it, not even by a signal where the request is already with
//! the server. In the boot's own process such a thread would be there for ever, as root, and neither
//! exec(3) nor setuid(2), which wait for all threads, would return. In a child it is sent SIGKILL and
//! left behind: it never runs a line of its program again, and nobody waits for it.
//!
//! The parent keeps its state: dispositions, signal mask (SIGTERM and SIGINT are blocked while
//! the child runs), descriptors (all of the watch's own are close-on-exec and closed afterwards). A
//! caller that ignores SIGCHLD is served as well, where wait(2) knows no exit status: it comes through
//! shared memory, and the end of a pipe shows the child's.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;
use tracing::warn;

use super::sys::{self, SharedMemory};
use crate::error::{Error, Result, errno_of};
use crate::fs::pause;
use crate::heartbeat::Heartbeat;

/// A heartbeat is looked at so many times within the limit. A pause of the whole container, which stops
/// the work and not the clock, counts as one such time.
const LOOKS: u32 = 8;
/// How long a step has to end in good order once the boot was asked to end.
const GRACE: Duration = Duration::from_secs(5);
/// How long of that it may show no sign of life.
const LAST_SIGN: Duration = Duration::from_secs(1);
/// How long SIGKILL, or an end of its own, may take. After that the child is stuck in a system call that
/// no signal ends.
const KILLED: Duration = Duration::from_secs(1);

/// How often the processor is left to others before a pause.
const TURNS: u32 = 100;

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepEnd {
    /// It returned this status.
    Returned(u8),
    /// It ended without returning: a panic (SIGABRT), the OOM killer (SIGKILL), a call of exit. The
    /// signal is not known where SIGCHLD is ignored, or where there was none.
    Died(Option<Signal>),
    /// It got nothing done for the limit. It was sent SIGKILL.
    Stuck {
        /// Where it was, as far as its heartbeat says: the end of a path.
        place: Option<OsString>,
        /// Whether it has ended; else it is left behind, in a system call that even SIGKILL does not
        /// end, and does when that returns.
        ended: bool,
    },
    /// This process was asked to end by this signal, SIGTERM or SIGINT, and the step with it.
    Interrupted(Signal),
}

/// Runs `work` in a forked child, for as long as it shows signs of life: [`Heartbeat::beat`] and its
/// kin must be called more often than once in `limit`, or bytes go between the child and a disk. (It is
/// found stuck after `limit` or an eighth more.)
///
/// - This process must have one thread: the child may do then all that the parent may, also start
///   threads and processes.
/// - What `work` changes in memory is lost to the parent; a status comes back. What it does to files,
///   mounts and descriptors that are shared stays done.
/// - SIGTERM and SIGINT that arrive meanwhile are passed on; the child has them as they were inherited
///   and may handle them. It has 5 s to end, 1 s if it shows no sign of life, then SIGKILL. One that is ignored or blocked when this is
///   called stays so and is nobody's.
/// - The child gets SIGKILL when this process ends.
/// - Text that is buffered for standard output is written before, so lines keep their order.
///
/// Where no child can be had (out of processes, descriptors or memory), says so and runs `work` here.
pub fn run(limit: Duration, work: impl FnOnce(&Heartbeat) -> u8) -> StepEnd {
    let watch = match Watch::new() {
        Ok(watch) => watch,
        Err(error) => return unwatched(&error, work),
    };
    // Both processes would write buffered output.
    let _ = std::io::stdout().flush();
    let parent = nix::unistd::getpid();
    match sys::fork() {
        Ok(ForkResult::Child) => watch.work(parent, work),
        Ok(ForkResult::Parent { child }) => watch.watch(child, limit),
        Err(errno) => {
            drop(watch);
            unwatched(&Error::failed("start a process", errno_of(errno)), work)
        }
    }
}

fn unwatched(error: &Error, work: impl FnOnce(&Heartbeat) -> u8) -> StepEnd {
    warn!("{error}; going on in this process, which nobody watches");
    StepEnd::Returned(work(&Heartbeat::new()))
}

/// The state before the child exists.
struct Watch {
    memory: SharedMemory,
    reader: OwnedFd,
    writer: OwnedFd,
    signals: Signals,
}

impl Watch {
    fn new() -> Result<Self> {
        let fail = |errno| Error::failed("watch over a step", errno);
        let memory = SharedMemory::new().map_err(fail)?;
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(fail)?;
        // Only the reading end.
        rustix::io::ioctl_fionbio(&reader, true).map_err(fail)?;
        let signals = Signals::take().map_err(|errno| fail(errno_of(errno)))?;
        Ok(Self { memory, reader, writer, signals })
    }

    /// The child's part: never returns into the parent's code.
    fn work(self, parent: Pid, work: impl FnOnce(&Heartbeat) -> u8) -> ! {
        let Self { memory, reader, writer, signals } = self;
        drop((reader, signals));
        // Where a system call filter forbids it, the step is done all the same: it would outlive only a boot
        // that is killed.
        let _ = prctl::set_pdeathsig(Signal::SIGKILL);
        // That may have happened before.
        let orphaned = nix::unistd::getppid() != parent;
        // A build that unwinds must not do so into what was the parent's stack.
        let work = std::panic::AssertUnwindSafe(|| work(&memory.get().heart));
        let status = match orphaned {
            false => std::panic::catch_unwind(work),
            true => Ok(0),
        };
        let Ok(status) = status else { std::process::abort() };
        let _ = std::io::stdout().flush();
        memory.get().status.store(u16::from(status) + 1, Ordering::Release);
        let _held_to_the_end = writer;
        sys::exit_child(0)
    }

    fn watch(self, child: Pid, limit: Duration) -> StepEnd {
        let Self { memory, reader, writer, signals } = self;
        drop(writer);
        Step { child, memory, reader, signals }.watch(limit)
    }
}

/// The result of a wait.
enum Seen {
    /// The child has closed its files: it ends, all its threads included.
    End,
    /// A request to end.
    Request(Signal),
    /// Nothing, for all of the time.
    Nothing,
}

/// The running child.
struct Step {
    child: Pid,
    memory: SharedMemory,
    reader: OwnedFd,
    signals: Signals,
}

impl Step {
    fn watch(self, limit: Duration) -> StepEnd {
        let (mut life, mut looks) = (self.life(), 0);
        loop {
            match self.wait(limit / LOOKS) {
                Seen::End => {
                    let end = self.reap();
                    // One that came together with the end is not to be lost.
                    return self.signals.read().map_or(end, StepEnd::Interrupted);
                }
                Seen::Request(signal) => {
                    self.signal(signal);
                    if !self.ends_in_good_order() {
                        self.kill();
                    }
                    return StepEnd::Interrupted(signal);
                }
                Seen::Nothing => {}
            }
            let now = self.life();
            looks = if now == life { looks + 1 } else { 0 };
            life = now;
            if looks >= LOOKS {
                let place = self.memory.get().heart.place();
                let ended = self.kill();
                // It may hang at its end, with a file open that does not close.
                return match self.memory.get().status() {
                    Some(status) => StepEnd::Returned(status),
                    None => StepEnd::Stuck { place, ended },
                };
            }
        }
    }

    /// Waits for the end of the child, a request to end, or the time.
    fn wait(&self, time: Duration) -> Seen {
        let until = Instant::now() + time;
        loop {
            if let Some(seen) = self.look() {
                return seen;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Seen::Nothing;
            }
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut ready = [
                PollFd::new(&self.reader, PollFlags::IN),
                PollFd::new(&self.signals.arriving, PollFlags::IN),
            ];
            match rustix::event::poll(&mut ready, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // Short of memory.
                Err(_) => pause(left.min(Duration::from_millis(20))),
            }
        }
    }

    fn look(&self) -> Option<Seen> {
        match rustix::io::read(&self.reader, &mut [0]) {
            Ok(_) => Some(Seen::End),
            Err(_) => self.signals.read().map(Seen::Request),
        }
    }

    /// The child's heartbeat, and the bytes that disks have read and written for it, which it lives by
    /// while it waits for a mount that replays a journal; nothing of them where the kernel does not say.
    fn life(&self) -> (u64, Vec<u8>) {
        let mut text = [0; 512];
        let mut read = || {
            let path = format!("/proc/{}/io", self.child);
            let file = rustix::fs::open(path, OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
            rustix::io::read(file, &mut text)
        };
        let length = read().unwrap_or(0);
        // The lines before count what went through any descriptor, which proc_pid_io(5) calls rchar.
        let disks = text[..length].split(|byte| *byte == b'\n').skip(4);
        (self.memory.get().heart.beats(), disks.flatten().copied().collect())
    }

    /// Waits until the child has ended, as it was asked to; false if it takes too long or is stuck.
    fn ends_in_good_order(&self) -> bool {
        let (until, mut life) = (Instant::now() + GRACE, self.life());
        while Instant::now() < until {
            if self.ends_within(LAST_SIGN) {
                return true;
            }
            let now = self.life();
            if now == life {
                return false;
            }
            life = now;
        }
        false
    }

    fn ends_within(&self, time: Duration) -> bool {
        // A second request changes nothing.
        for _ in 0..LOOKS {
            if let Seen::End = self.wait(time / LOOKS) {
                self.reap();
                return true;
            }
        }
        false
    }

    /// Sends SIGKILL; whether the child has ended.
    fn kill(&self) -> bool {
        self.signal(Signal::SIGKILL);
        self.ends_within(KILLED)
    }

    /// The child has not been waited for and has not closed the pipe: the id is its own, also where
    /// SIGCHLD is ignored.
    fn signal(&self, signal: Signal) {
        let _ = kill(self.child, signal);
    }

    /// Takes the child, which is ending, from the process table; one that does not get to its end (it
    /// has files open that hang at close) is left behind.
    fn reap(&self) -> StepEnd {
        let mut time = Duration::from_micros(50);
        let mut turns = 0;
        let ended = loop {
            match waitpid(self.child, Some(WaitPidFlag::WNOHANG)) {
                // It takes less than a pause, as a rule.
                Ok(WaitStatus::StillAlive) if turns < TURNS => {
                    turns += 1;
                    std::thread::yield_now();
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) if time < KILLED => {
                    pause(time);
                    time *= 2;
                }
                other => break other,
            }
        };
        match (self.memory.get().status(), ended) {
            (Some(status), _) => StepEnd::Returned(status),
            (None, Ok(WaitStatus::Signaled(_, signal, _))) => StepEnd::Died(Some(signal)),
            // SIGCHLD is ignored: the kernel has taken it away (ECHILD).
            (None, _) => StepEnd::Died(None),
        }
    }
}

/// SIGTERM and SIGINT as data, those that would have ended this process; the mask as it was when this
/// is dropped.
struct Signals {
    arriving: SignalFd,
    _mask: Mask,
}

/// Puts the inherited signal mask back.
struct Mask(SigSet);

impl Signals {
    fn take() -> nix::Result<Self> {
        let mut mask = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, None, Some(&mut mask))?;
        let mut wanted = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            if !mask.contains(signal) && !sys::is_ignored(signal) {
                wanted.add(signal);
            }
        }
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let arriving = SignalFd::with_flags(&wanted, flags)?;
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&wanted), None)?;
        Ok(Self { arriving, _mask: Mask(mask) })
    }

    fn read(&self) -> Option<Signal> {
        let seen = self.arriving.read_signal().ok().flatten()?;
        Signal::try_from(seen.ssi_signo.cast_signed()).ok()
    }
}

impl Drop for Mask {
    fn drop(&mut self) {
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.0), None);
    }
}
