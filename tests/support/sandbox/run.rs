//! What a process in a sandbox is given, and how it ended.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal};

/// No run inside may take longer (seconds); a guard against hangs, no expectation.
const LIMIT: u64 = 120;

/// What a process inside is given; the builder of [`Sandbox::command`].
pub struct Run {
    command: Command,
    namespace: File,
    directory: PathBuf,
    umask: u32,
    identity: Option<(u32, u32, Vec<u32>)>,
    blocked: SigSet,
    ignored: Vec<Signal>,
    descriptors: Vec<(RawFd, OwnedFd)>,
    closed: Vec<RawFd>,
    dropped: Vec<u32>,
    limits: Vec<(nix::sys::resource::Resource, u64, Option<u64>)>,
    stdout: Option<OwnedFd>,
}

impl Run {
    /// A run of `command` in `namespace` with the defaults of [`super::Sandbox::command`].
    pub(super) fn new(command: Command, namespace: File) -> Self {
        Self {
            command,
            namespace,
            directory: "/".into(),
            umask: 0o022,
            identity: None,
            blocked: SigSet::empty(),
            ignored: Vec::new(),
            descriptors: Vec::new(),
            closed: Vec::new(),
            dropped: Vec::new(),
            limits: Vec::new(),
            stdout: None,
        }
    }

    /// One argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Several arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// `argv[0]`.
    pub fn arg0(mut self, name: impl AsRef<OsStr>) -> Self {
        self.command.arg0(name);
        self
    }

    /// One variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Several variables.
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.command.envs(variables);
        self
    }

    /// Without variable `name`.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Without any variable.
    pub fn env_clear(mut self) -> Self {
        self.command.env_clear();
        self
    }

    /// As `uid` and `gid` with exactly `groups`, without capabilities unless uid is 0.
    pub fn identity(mut self, uid: u32, gid: u32, groups: &[u32]) -> Self {
        self.identity = Some((uid, gid, groups.to_vec()));
        self
    }

    /// With this umask.
    pub fn umask(mut self, umask: u32) -> Self {
        self.umask = umask;
        self
    }

    /// In this directory of the sandbox.
    pub fn directory(mut self, inside: impl Into<PathBuf>) -> Self {
        self.directory = inside.into();
        self
    }

    /// With `signal` blocked.
    pub fn block(mut self, signal: Signal) -> Self {
        self.blocked.add(signal);
        self
    }

    /// With `signal` ignored.
    pub fn ignore(mut self, signal: Signal) -> Self {
        self.ignored.push(signal);
        self
    }

    /// With `file` as descriptor `number`.
    pub fn descriptor(mut self, number: RawFd, file: impl Into<OwnedFd>) -> Self {
        self.descriptors.push((number, file.into()));
        self
    }

    /// With descriptor `number` closed.
    pub fn close(mut self, number: RawFd) -> Self {
        self.closed.push(number);
        self
    }

    /// Without capability `number` (linux/capability.h) in any set.
    pub fn drop_capability(mut self, number: u32) -> Self {
        self.dropped.push(number);
        self
    }

    /// With this soft and hard limit.
    pub fn limit(mut self, resource: nix::sys::resource::Resource, value: u64) -> Self {
        self.limits.push((resource, value, Some(value)));
        self
    }

    /// With this soft limit, the hard one as it is.
    pub fn soft_limit(mut self, resource: nix::sys::resource::Resource, value: u64) -> Self {
        self.limits.push((resource, value, None));
        self
    }

    /// With `file` as standard output, which [`Outcome::stdout`] then does not see.
    pub fn stdout(mut self, file: impl Into<OwnedFd>) -> Self {
        self.stdout = Some(file.into());
        self
    }

    /// With `file` as standard input.
    pub fn stdin(mut self, file: impl Into<OwnedFd>) -> Self {
        self.command.stdin(Stdio::from(file.into()));
        self
    }

    /// Runs it to its end; what it started in the background may live on.
    pub fn run(self) -> Outcome {
        self.start().wait()
    }

    /// Starts it.
    pub fn start(self) -> Started {
        let [stdout, stderr] = [0, 1].map(|_| tempfile::tempfile().expect("a temporary file"));
        let mut command = self.command;
        match self.stdout {
            Some(fd) => command.stdout(fd),
            None => command.stdout(stdout.try_clone().expect("a descriptor")),
        };
        command.stderr(stderr.try_clone().expect("a descriptor"));
        let directory =
            std::ffi::CString::new(self.directory.into_os_string().into_encoded_bytes())
                .expect("no NUL");
        let (namespace, mask) = (self.namespace, self.blocked);
        let (umask, identity) = (self.umask, self.identity);
        let (descriptors, closed) = (self.descriptors, self.closed);
        let (ignored, dropped, limits) = (self.ignored, self.dropped, self.limits);
        let enter = move || -> std::io::Result<()> {
            nix::sched::setns(namespace.as_fd(), nix::sched::CloneFlags::CLONE_NEWNS)?;
            nix::unistd::chdir(directory.as_c_str())?;
            for (resource, soft, hard) in &limits {
                let now = nix::sys::resource::getrlimit(*resource)?.1;
                nix::sys::resource::setrlimit(*resource, *soft, hard.unwrap_or(now))?;
            }
            for capability in &dropped {
                drop_capability(*capability)?;
            }
            if let Some((uid, gid, groups)) = &identity {
                let groups: Vec<_> = groups.iter().copied().map(Into::into).collect();
                nix::unistd::setgroups(&groups)?;
                let gid = nix::unistd::Gid::from_raw(*gid);
                nix::unistd::setresgid(gid, gid, gid)?;
                let uid = nix::unistd::Uid::from_raw(*uid);
                nix::unistd::setresuid(uid, uid, uid)?;
            }
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
            // What this test process inherited from its own caller stays out.
            close_at_exec_from(3)?;
            for signal in Signal::iterator() {
                // Not all can be set, and whoever runs the tests in the background ignores some.
                let _ = handle(signal, SigHandler::SigDfl);
            }
            for signal in &ignored {
                handle(*signal, SigHandler::SigIgn)?;
            }
            for (number, fd) in &descriptors {
                duplicate(fd.as_raw_fd(), *number)?;
            }
            for number in &closed {
                nix::unistd::close(*number)?;
            }
            nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
            Ok(())
        };
        // SAFETY: the closure makes system calls and small allocations only; the C library keeps
        // malloc usable in the child of a threaded process.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(enter);
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Started { child, stdout, stderr }
    }
}

/// A process that runs inside.
pub struct Started {
    /// The process itself.
    pub child: Child,
    stdout: File,
    stderr: File,
}

impl Started {
    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> Outcome {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let pid = rustix::process::Pid::from_child(&self.child);
        let end = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            .expect("pidfd_open(2)");
        let limit = Timespec { tv_sec: LIMIT.cast_signed(), tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&limit));
        if ended != Ok(1) {
            let _ = self.child.kill();
        }
        let pid = self.child.id();
        let status = self.child.wait().expect("wait(2)");
        let [stdout, stderr] = [self.stdout, self.stderr].map(|mut file| {
            let mut bytes = Vec::new();
            file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("its output");
            bytes
        });
        let status = status.code().or(status.signal().map(|number| 128 + number)).unwrap_or(-1);
        let outcome = Outcome { pid, status, stdout, stderr };
        assert_eq!(ended, Ok(1), "no end after {LIMIT} s\n{outcome:?}");
        outcome
    }
}

/// How a run ended.
#[derive(PartialEq, Eq)]
pub struct Outcome {
    /// Its process id, which was also that of what it exec'ed.
    pub pid: u32,
    /// Exit status, or 128 and the signal's number.
    pub status: i32,
    /// Bytes as written.
    pub stdout: Vec<u8>,
    /// Bytes as written.
    pub stderr: Vec<u8>,
}

impl Outcome {
    /// Standard output as text.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "status {}\n{}\n--- stderr\n{}", self.status, self.stdout(), self.stderr())
    }
}

fn drop_capability(number: u32) -> std::io::Result<()> {
    use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
    let one = CapabilitySet::from_bits_retain(1 << number);
    rustix::thread::remove_capability_from_bounding_set(one)?;
    let mut sets: CapabilitySets = capabilities(None)?;
    sets.effective -= one;
    sets.permitted -= one;
    sets.inheritable -= one;
    set_capabilities(None, sets)?;
    Ok(())
}

/// close_range(2) with CLOSE_RANGE_CLOEXEC, for which the C library's headers lack a safe binding.
fn close_at_exec_from(first: u32) -> std::io::Result<()> {
    // SAFETY: the call only sets a flag on descriptors of the child, which is about to exec.
    #[allow(unsafe_code)]
    match unsafe { nix::libc::close_range(first, u32::MAX, nix::libc::CLOSE_RANGE_CLOEXEC as i32) }
    {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn handle(signal: Signal, handler: SigHandler) -> nix::Result<()> {
    use nix::sys::signal::{SaFlags, SigAction, sigaction};
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: SIG_IGN and SIG_DFL install no code.
    #[allow(unsafe_code)]
    unsafe { sigaction(signal, &action) }.map(drop)
}

/// dup2(2); a descriptor that already has the number only loses its close-on-exec flag.
fn duplicate(from: RawFd, to: RawFd) -> nix::Result<()> {
    use std::os::fd::{BorrowedFd, FromRawFd as _, IntoRawFd as _};
    if from == to {
        // SAFETY: the caller holds `from` open.
        #[allow(unsafe_code)]
        let from = unsafe { BorrowedFd::borrow_raw(from) };
        rustix::io::fcntl_setfd(from, rustix::io::FdFlags::empty())
            .map_err(|errno| nix::Error::from_raw(errno.raw_os_error()))?;
        return Ok(());
    }
    // SAFETY: the number belongs to the child, which is about to exec; nothing else owns it.
    #[allow(unsafe_code)]
    let (from, mut to) = unsafe { (BorrowedFd::borrow_raw(from), OwnedFd::from_raw_fd(to)) };
    let result = nix::unistd::dup2(from, &mut to);
    let _ = to.into_raw_fd();
    result
}
