//! A program that is run to its end for what it prints.
//!
//! The standard library's `Command` is not for a boot: it panics where poll(2) or wait(2) fail, and
//! knows no status where the caller ignores SIGCHLD. Here there is nothing to poll: the output goes to
//! files in memory, and no file that the program writes, these included, grows beyond a limit.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::sys::{self, Disposition, set_disposition};
use crate::error::{Error, Result, errno_of, os_errno};
use crate::fs::pause;

/// The program to run, and its environment. It sees nothing else of the caller's environment.
#[derive(Debug)]
pub struct Command<'a> {
    /// The program, absolute; its `argv[0]` as well.
    pub program: &'a Path,
    /// `argv[1]` and so on.
    pub arguments: Vec<&'a OsStr>,
    /// `NAME=value` each.
    pub environment: &'a [CString],
    /// Its working directory.
    pub directory: BorrowedFd<'a>,
    /// Its standard input.
    pub input: &'a [u8],
    /// Largest file that it may write, in bytes; standard output and error are one each. Without a limit it writes
    /// to the standard output and error of this process, and nothing of it is kept.
    pub limit: Option<u64>,
    /// How long it may run. Then it is killed, and whatever it has started in its session's first group.
    pub time: Option<Duration>,
}

/// The output of a program, and how it ended.
#[derive(Debug)]
pub struct CommandOutput {
    /// Exit status, or 128 and the signal's number.
    pub status: u8,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error. Of a program that could not be started: why.
    pub stderr: Vec<u8>,
}

impl Command<'_> {
    /// Runs it to its end. It is killed when the calling process ends before. That process must have
    /// one thread; what it does with SIGCHLD is the same afterwards.
    pub fn run(&self) -> Result<CommandOutput> {
        let input = in_memory(self.input)?;
        let (stdout, stderr) = (in_memory(b"")?, in_memory(b"")?);
        let (program, arguments) = self.strings()?;
        let waited = Waited::begin()?;
        let parent = nix::unistd::getpid();
        let child = match sys::fork() {
            Ok(ForkResult::Parent { child }) => child,
            Ok(ForkResult::Child) => {
                let prepared = self.prepare(parent, [&input, &stdout, &stderr]);
                let errno = match prepared {
                    Ok(()) => {
                        let Err(errno) =
                            nix::unistd::execve(&program, &arguments, self.environment);
                        errno_of(errno)
                    }
                    Err(errno) => errno,
                };
                let _ = (&stderr).write_all(crate::error::describe(errno).as_bytes());
                sys::exit_child(127)
            }
            Err(errno) => return Err(Error::failed("start a process", errno_of(errno))),
        };
        let status = match self.time {
            Some(time) => wait_for(child, time)?,
            None => wait(child, WaitPidFlag::empty())?.unwrap_or_default(),
        };
        drop(waited);
        Ok(CommandOutput { status, stdout: content(stdout)?, stderr: content(stderr)? })
    }

    fn strings(&self) -> Result<(CString, Vec<CString>)> {
        let fail = |_| Error::on("run", self.program, "an argument has a NUL byte");
        let program = CString::new(self.program.as_os_str().as_bytes()).map_err(fail)?;
        let arguments = self.arguments.iter().map(|argument| CString::new(argument.as_bytes()));
        let arguments = std::iter::once(Ok(program.clone())).chain(arguments);
        Ok((program, arguments.collect::<Result<_, _>>().map_err(fail)?))
    }

    /// The child's part before exec(3).
    fn prepare(&self, parent: Pid, [input, stdout, stderr]: [&File; 3]) -> Result<(), Errno> {
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(errno_of)?;
        if nix::unistd::getppid() != parent {
            return Err(Errno::SRCH);
        }
        if self.time.is_some() {
            nix::unistd::setsid().map_err(errno_of)?;
        }
        rustix::process::fchdir(self.directory)?;
        rustix::stdio::dup2_stdin(input)?;
        let Some(limit) = self.limit else { return Ok(()) };
        rustix::stdio::dup2_stdout(stdout)?;
        rustix::stdio::dup2_stderr(stderr)?;
        // SIGXFSZ is ignored in this program and in what it runs: a write beyond it fails (EFBIG).
        let most = getrlimit(Resource::Fsize).maximum.map_or(limit, |old| old.min(limit));
        setrlimit(Resource::Fsize, Rlimit { current: Some(most), maximum: Some(most) })
    }
}

/// While it lives, the ends of children can be waited for. Ignored, SIGCHLD would let the kernel throw
/// their statuses away (wait(2), ECHILD).
struct Waited(Disposition);

impl Waited {
    fn begin() -> Result<Self> {
        set_disposition(Signal::SIGCHLD, &Disposition::default_action())
            .map(Self)
            .map_err(|errno| Error::failed("wait for children", errno_of(errno)))
    }
}

impl Drop for Waited {
    fn drop(&mut self) {
        let _ = set_disposition(Signal::SIGCHLD, &self.0);
    }
}

/// The status of `child` as a shell has it; `None` if it runs still and `flags` say not to wait.
fn wait(child: Pid, flags: WaitPidFlag) -> Result<Option<u8>> {
    loop {
        match waitpid(child, Some(flags)) {
            Ok(WaitStatus::Exited(_, status)) => return Ok(Some(status as u8)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Some(128 + signal as u8)),
            Ok(WaitStatus::StillAlive) => return Ok(None),
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(Error::failed("wait for a child", errno_of(errno))),
        }
    }
}

/// The same of a child that is killed once `time` has passed. Its group is killed in any case: what it leaves
/// behind would hold what it was given.
fn wait_for(child: Pid, time: Duration) -> Result<u8> {
    let deadline = Instant::now() + time;
    let group = Pid::from_raw(-child.as_raw());
    while Instant::now() < deadline {
        if let Some(status) = wait(child, WaitPidFlag::WNOHANG)? {
            let _ = kill(group, Signal::SIGKILL);
            return Ok(status);
        }
        pause(Duration::from_millis(10));
    }
    let _ = kill(group, Signal::SIGKILL);
    // It may not have come to a group of its own.
    let _ = kill(child, Signal::SIGKILL);
    Ok(wait(child, WaitPidFlag::empty())?.unwrap_or_default())
}

/// A file in memory with `bytes`, to be read from its start.
fn in_memory(bytes: &[u8]) -> Result<File> {
    let fail = |errno| Error::failed("make a file in memory", errno);
    let fd: OwnedFd = rustix::fs::memfd_create(c"text", MemfdFlags::CLOEXEC).map_err(fail)?;
    let mut file = File::from(fd);
    file.write_all(bytes).and_then(|()| file.rewind()).map_err(|error| fail(os_errno(&error)))?;
    Ok(file)
}

fn content(mut file: File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .map_err(|error| Error::failed("read a file in memory", os_errno(&error)))?;
    Ok(bytes)
}
