//! A command that is kept running: its end, the pause before the next start, and an end of both on
//! request that leaves no process behind.
//!
//! Signals arrive as data (signalfd(2)), so that none is lost between two steps. Every command gets a
//! session of its own, and what it leaves behind is re-parented to this process
//! (PR_SET_CHILD_SUBREAPER, prctl(2)); so all its descendants are found as children of this process,
//! whatever groups or sessions they made, and no signal ever goes to the caller's group.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::pipe::PipeFlags;
use tracing::Level;

use super::bounded_log::BoundedLog;
use super::inherited::SPARED;
use super::sys::{self, Disposition, set_disposition};
use crate::error::{Error, Result, errno_of};
use crate::fs::{Dir, patiently, pause};
use crate::log;

/// How long descendants have to end after SIGTERM before SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// Requests to end. One that is ignored when this process starts stays ignored, SIGTERM excepted.
const REQUESTS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// What a supervisor keeps running.
pub enum SupervisedJob<'a> {
    /// A program, by its path; it gets no arguments and this environment.
    Program(&'a CStr, &'a [CString]),
    /// A part of this program, in a process of its own that ends with the status it returns.
    Work(&'a dyn Fn() -> u8),
}

/// How one run of the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildEnd {
    /// By itself: its exit status, or 128 plus the number of the signal that killed it.
    Status(u8),
    /// This process was asked to end by this signal; the command and its descendants are gone.
    Stopped(Signal),
}

/// The result of one look for ended children.
enum Reaped {
    /// One has ended: its id and status.
    Ended(Pid, u8),
    /// All that are left live.
    Running,
    /// There is none.
    Childless,
}

/// The resources that a supervisor needs and may be refused, out of memory or descriptors: to be had
/// before there is nobody left to tell.
#[derive(Debug)]
pub struct PreparedSupervisor {
    signals: SignalFd,
    output: Option<Output>,
}

impl PreparedSupervisor {
    /// With a log, the command's output goes there, else where the supervisor's own goes.
    pub fn new(log: Option<BoundedLog>) -> Result<Self> {
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = patiently(|| {
            SignalFd::with_flags(&SigSet::empty(), flags)
                .map_err(|errno| Error::failed("take over signals", errno_of(errno)))
        })?;
        Ok(Self { signals, output: log.map(Output::new).transpose()? })
    }

    /// All descriptors that are held.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut held = vec![self.signals.as_fd()];
        if let Some(Output { log, reader, writer }) = &self.output {
            held.extend(log.descriptors());
            held.extend([reader.as_fd(), writer.as_fd()]);
        }
        held
    }
}

/// This process as the keeper of a command; at most one per process, which has one thread.
#[derive(Debug)]
pub struct Supervisor {
    signals: SignalFd,
    inherited_mask: SigSet,
    inherited_sigchld: Disposition,
    leader: Option<Pid>,
    output: Option<Output>,
}

/// A log, and the pipe from the command's standard output and error to it.
#[derive(Debug)]
struct Output {
    log: BoundedLog,
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Supervisor {
    /// One that has not taken over the signals.
    pub fn new(PreparedSupervisor { signals, output }: PreparedSupervisor) -> Self {
        let inherited_mask = SigSet::empty();
        let inherited_sigchld = Disposition::default_action();
        Self { signals, inherited_mask, inherited_sigchld, leader: None, output }
    }

    /// Takes over the signals and the descendants; to be called once, and first.
    pub fn take_over(&mut self) -> Result<()> {
        let fail = |errno: Errno| Error::failed("take over signals", errno_of(errno));
        let mut mask: SigSet = REQUESTS.into_iter().collect();
        mask.add(Signal::SIGCHLD);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), Some(&mut self.inherited_mask))
            .map_err(fail)?;
        let reset = |signal| set_disposition(signal, &Disposition::default_action()).map_err(fail);
        for signal in [Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
            let inherited = reset(signal)?;
            if inherited.is_ignored() {
                set_disposition(signal, &inherited).map_err(fail)?;
                mask.remove(signal);
                // Where it was blocked before it stays so; the command gets both as they were.
                if !self.inherited_mask.contains(signal) {
                    let one = SigSet::from(signal);
                    sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&one), None).map_err(fail)?;
                }
            }
        }
        // Ignored, it would let the kernel throw the exit status away.
        self.inherited_sigchld = reset(Signal::SIGCHLD)?;
        prctl::set_child_subreaper(true).map_err(fail)?;
        patiently(|| self.signals.set_mask(&mask).map_err(fail))
    }

    /// Runs `job` to its end, or until this process is asked to end.
    pub fn run(&mut self, job: &SupervisedJob<'_>) -> Result<ChildEnd> {
        let leader = self.spawn(job)?;
        loop {
            while let Reaped::Ended(pid, status) = self.reap()? {
                if pid == leader {
                    self.drain();
                    return Ok(ChildEnd::Status(status));
                }
            }
            if let Some(signal) = self.wait(None) {
                self.end_all();
                return Ok(ChildEnd::Stopped(signal));
            }
        }
    }

    /// Waits for `duration`, taking care of what descendants still write and of their ends. A request
    /// to end cuts it short: that signal, once all descendants are gone.
    pub fn pause(&mut self, duration: Duration) -> Result<Option<Signal>> {
        let until = Instant::now() + duration;
        loop {
            while let Reaped::Ended(..) = self.reap()? {}
            if Instant::now() >= until {
                return Ok(None);
            }
            if let Some(signal) = self.wait(Some(until)) {
                self.end_all();
                return Ok(Some(signal));
            }
        }
    }

    /// Writes a line of this process's own where the command's standard error goes.
    pub fn say(&mut self, line: &str) {
        match &mut self.output {
            Some(output) => output.log.append(format!("{line}\n").as_bytes()),
            None => log::complain_as(line, "token-refresh", Level::WARN, line),
        }
    }

    /// Ends every descendant: SIGTERM to the children and their groups, to those too that become
    /// children when their parents end; SIGKILL after a grace period or on a second request.
    pub fn end_all(&mut self) {
        let mut signal = Signal::SIGTERM;
        let mut until = Instant::now() + GRACE;
        let mut signalled = Vec::new();
        loop {
            self.signal_children(signal, &mut signalled);
            loop {
                match self.reap() {
                    Ok(Reaped::Ended(..)) => {}
                    Ok(Reaped::Running) => break,
                    Ok(Reaped::Childless) | Err(_) => return self.drain(),
                }
            }
            if Instant::now() >= until {
                if signal == Signal::SIGKILL {
                    // Stuck in the kernel, where no signal reaches them.
                    return self.drain();
                }
                signal = Signal::SIGKILL;
                signalled.clear();
                until = Instant::now() + GRACE;
                continue;
            }
            // The end of a parent that is no child of this process goes unnoticed: look again soon.
            let soon = Instant::now() + Duration::from_millis(50);
            if self.wait(Some(until.min(soon))).is_some() && signal == Signal::SIGTERM {
                until = Instant::now();
            }
        }
    }

    /// Sends `signal` to every child that did not get it, and to its group unless that is this process's
    /// own (a child that has not come to its setsid(2) yet). `signalled` has who got it, groups as
    /// kill(2) takes them: a second SIGTERM runs a shell's trap again, and means "at once" to others.
    fn signal_children(&self, signal: Signal, signalled: &mut Vec<Pid>) {
        let own = nix::unistd::getpgrp();
        for child in self.children() {
            if signalled.contains(&child) {
                continue;
            }
            // An unreaped child keeps its own number and its group's from being given to others.
            let target = match nix::unistd::getpgid(Some(child)) {
                Ok(group) if group != own && group.as_raw() > 1 => Pid::from_raw(-group.as_raw()),
                _ => child,
            };
            // A child that its parent left behind got what its group got (fork(2) sees to it).
            if !signalled.contains(&target) {
                let _ = kill(target, signal);
            }
            signalled.extend([child, target]);
        }
    }

    /// The children of this process, ended ones that are not reaped included. The kernel's list needs
    /// CONFIG_PROC_CHILDREN and /proc (proc_pid_children(5)); else only the command itself is known.
    fn children(&self) -> Vec<Pid> {
        let list = Dir::open_operator_path("/proc/thread-self")
            .and_then(|task| task.read_file(c"children", 1 << 20));
        match list {
            Ok(Some(list)) => String::from_utf8_lossy(&list)
                .split_ascii_whitespace()
                .filter_map(|number| number.parse().ok().map(Pid::from_raw))
                .collect(),
            _ => self.leader.into_iter().collect(),
        }
    }

    /// One ended child, and its status as the shell reports it.
    fn reap(&mut self) -> Result<Reaped> {
        let (pid, status) = loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) => break (pid, status as u8),
                Ok(WaitStatus::Signaled(pid, signal, _)) => break (pid, 128 + signal as u8),
                Ok(WaitStatus::StillAlive) => return Ok(Reaped::Running),
                Err(Errno::ECHILD) => return Ok(Reaped::Childless),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::failed("wait for a child", errno_of(errno))),
            }
        };
        if self.leader == Some(pid) {
            self.leader = None;
        }
        Ok(Reaped::Ended(pid, status))
    }

    /// Sleeps until a child ends, the log pipe has bytes (which are copied), a request arrives (which
    /// is returned) or `until` is reached. Short of memory it is woken more often.
    fn wait(&mut self, until: Option<Instant>) -> Option<Signal> {
        let timeout = until.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() }
        });
        let signals = PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN);
        let result = match &self.output {
            Some(output) => {
                let output = PollFd::new(&output.reader, PollFlags::IN);
                rustix::event::poll(&mut [signals, output], timeout.as_ref())
            }
            None => rustix::event::poll(&mut [signals], timeout.as_ref()),
        };
        if result.is_err_and(|errno| errno != rustix::io::Errno::INTR) {
            pause(Duration::from_millis(50));
        }
        self.drain();
        while let Ok(Some(info)) = self.signals.read_signal() {
            let signal = Signal::try_from(info.ssi_signo.cast_signed());
            if let Ok(signal) = signal
                && signal != Signal::SIGCHLD
            {
                return Some(signal);
            }
        }
        None
    }

    /// Copies the pipe's content to the log: at most 16 reads, so that a fast writer cannot keep signals waiting.
    fn drain(&mut self) {
        let Some(output) = &mut self.output else { return };
        let mut buffer = [0; 16 * 1024];
        for _ in 0..16 {
            match rustix::io::read(&output.reader, &mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(length) => output.log.append(&buffer[..length]),
            }
        }
    }

    fn spawn(&mut self, job: &SupervisedJob<'_>) -> Result<Pid> {
        let parent = nix::unistd::getpid();
        match sys::fork() {
            Ok(ForkResult::Parent { child }) => {
                self.leader = Some(child);
                Ok(child)
            }
            Ok(ForkResult::Child) => self.become_job(job, parent),
            Err(errno) => Err(Error::failed("start a process", errno_of(errno))),
        }
    }

    /// The child's part: never returns.
    fn become_job(&self, job: &SupervisedJob<'_>, parent: Pid) -> ! {
        let prepare = || -> nix::Result<()> {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            if nix::unistd::getppid() != parent {
                return Err(Errno::ESRCH);
            }
            nix::unistd::setsid()?;
            if let Some(output) = &self.output {
                let os = |errno: rustix::io::Errno| Errno::from_raw(errno.raw_os_error());
                rustix::stdio::dup2_stdout(&output.writer).map_err(os)?;
                rustix::stdio::dup2_stderr(&output.writer).map_err(os)?;
            }
            for signal in SPARED {
                set_disposition(signal, &Disposition::default_action())?;
            }
            set_disposition(Signal::SIGCHLD, &self.inherited_sigchld)?;
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.inherited_mask), None)
        };
        let (program, environment) = match job {
            SupervisedJob::Work(work) => sys::exit_child(prepare().map_or(1, |()| work()).into()),
            SupervisedJob::Program(program, environment) => (*program, *environment),
        };
        let result = prepare()
            .and_then(|()| nix::unistd::execve(program, &[program], environment))
            .or_else(|errno| match errno {
                // A script without "#!", which a shell would run itself.
                Errno::ENOEXEC => nix::unistd::execve(c"/bin/sh", &[c"sh", program], environment),
                other => Err(other),
            });
        let Err(errno) = result;
        let path = std::ffi::OsStr::from_bytes(program.to_bytes());
        let error = Error::os("run", path, errno_of(errno));
        let line = error.to_string();
        match self.output {
            // Standard error is the log file, which is text in every form of the boot log.
            Some(_) => log::write_line(log::LogStream::Stderr, &line),
            None => log::complain_as(&line, "token-refresh", Level::ERROR, &line),
        }
        sys::exit_child(if errno == Errno::ENOENT { 127 } else { 126 })
    }
}

impl Output {
    fn new(log: BoundedLog) -> Result<Self> {
        let fail = |errno| Error::failed("make a pipe", errno);
        let (reader, writer) =
            patiently(|| rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(fail))?;
        // Only the reading end: the command's writes shall wait when it is faster than the log.
        rustix::io::ioctl_fionbio(&reader, true).map_err(fail)?;
        Ok(Self { log, reader, writer })
    }
}
