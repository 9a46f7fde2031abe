//! A forked child, and its life in the background, as with `nohup PROGRAM &` in a script.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use nix::sys::signal::Signal;
use nix::unistd::ForkResult;
use rustix::fs::{Mode, OFlags};

use super::sys::{self, Disposition, close_all_but, set_disposition};
use crate::error::{Error, Result, errno_of};

/// Runs `work` in a child in the background (see [`become_daemon`]), which nobody waits for: this process is to end
/// soon. It must have one thread.
pub fn start_in_background(
    name: &CStr,
    keep: &[BorrowedFd<'_>],
    work: impl FnOnce() -> u8,
) -> Result<()> {
    fork_child(|| become_daemon(name, keep).map_or(1, |()| work()))
}

/// Runs `work` in a child, which ends with the status that it returns. Nobody waits for the child: this
/// process is to end soon, or to exec. It must have one thread.
pub fn fork_child(work: impl FnOnce() -> u8) -> Result<()> {
    match sys::fork() {
        Ok(ForkResult::Parent { .. }) => Ok(()),
        Ok(ForkResult::Child) => sys::exit_child(work().into()),
        Err(errno) => Err(Error::failed("start a process", errno_of(errno))),
    }
}

/// Starts a session for this process and sets the `name` that ps(1) shows; ignores SIGHUP, SIGINT
/// and SIGQUIT; standard streams become /dev/null; every other descriptor but those in `keep` is
/// closed, so that nobody waits for this process to close a pipe.
pub fn become_daemon(name: &CStr, keep: &[BorrowedFd<'_>]) -> Result<()> {
    let fail = |errno: nix::errno::Errno| Error::failed("become a daemon", errno_of(errno));
    nix::unistd::setsid().map_err(fail)?;
    nix::sys::prctl::set_name(name).map_err(fail)?;
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        set_disposition(signal, &Disposition::ignored()).map_err(fail)?;
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
    close_all_but(keep);
    Ok(())
}
