//! What a forked child does to live in the background, as with `nohup PROGRAM &` in a script.

use std::ffi::CStr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use rustix::fs::{Mode, OFlags};

use nix::unistd::ForkResult;

use crate::error::{Error, Result, errno_of};

/// Runs `work` in a child in the background (see [`become_daemon`]), which nobody waits for: this process is to end
/// soon. It must have one thread.
pub fn start_in_background(
    name: &CStr,
    keep: &[BorrowedFd<'_>],
    work: impl FnOnce() -> u8,
) -> Result<()> {
    // SAFETY: this process has one thread, so the child may do all that the parent may.
    #[allow(unsafe_code)]
    match unsafe { nix::unistd::fork() } {
        Ok(ForkResult::Parent { .. }) => Ok(()),
        Ok(ForkResult::Child) => {
            let status = become_daemon(name, keep).map_or(1, |()| work());
            // SAFETY: ends the process at once; what the parent set up to happen at exit is not the child's.
            #[allow(unsafe_code)]
            unsafe {
                nix::libc::_exit(status.into())
            }
        }
        Err(errno) => Err(Error::failed("start a process", errno_of(errno))),
    }
}

/// Gives this process a session of its own and the `name` that ps(1) shows; ignores SIGHUP, SIGINT
/// and SIGQUIT; standard streams become /dev/null; every other descriptor but those in `keep` is
/// closed, so that nobody waits for this process to close a pipe.
pub fn become_daemon(name: &CStr, keep: &[BorrowedFd<'_>]) -> Result<()> {
    let fail = |errno: nix::errno::Errno| Error::failed("become a daemon", errno_of(errno));
    nix::unistd::setsid().map_err(fail)?;
    nix::sys::prctl::set_name(name).map_err(fail)?;
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: SIG_IGN installs no code.
        #[allow(unsafe_code)]
        unsafe { sigaction(signal, &ignore) }.map_err(fail)?;
    }
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::os("open", "/dev/null", errno))?;
    for result in [
        rustix::stdio::dup2_stdin(&null),
        rustix::stdio::dup2_stdout(&null),
        rustix::stdio::dup2_stderr(&null),
    ] {
        result.map_err(|errno| Error::failed("redirect standard streams", errno))?;
    }
    drop(null);
    let mut keep: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > first {
            // SAFETY: this process was forked for its own work and never returns to code that holds
            // one of the other descriptors.
            #[allow(unsafe_code)]
            let _ = unsafe { nix::libc::close_range(first, fd - 1, 0) };
        }
        first = fd.saturating_add(1);
    }
    Ok(())
}
