//! The state that this process inherited and changes for itself, and exec with all of it restored.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};

use nix::sys::signal::Signal;
use rustix::io::Errno;

use super::limits::RaisedLimits;
use super::sys::{Disposition, set_disposition};

/// Inherited state that this program changes for itself and restores at exec.
#[derive(Debug)]
pub struct Inherited {
    dispositions: [(Signal, Disposition); 3],
    limits: RaisedLimits,
    /// argv, bytes as given.
    pub arguments: Vec<CString>,
}

impl Inherited {
    /// Takes note of what was inherited and makes the process safe to run in: closed standard
    /// descriptors are held shut, so that no file opened later becomes "stdout"; a reader that goes
    /// away and a limit of file size or processor time do not kill a boot (see `SPARED`); limits too
    /// small to work with are raised where that is allowed.
    pub fn take(arguments: Vec<CString>) -> Self {
        let limits = RaisedLimits::raise();
        hold_closed_standard_descriptors();
        Self { dispositions: SPARED.map(|signal| (signal, ignore(signal))), limits, arguments }
    }

    /// Sets the limits as they were inherited, for a child that is about to be made, or for exec.
    pub fn give_back_limits(&self) {
        self.limits.give_back();
    }

    /// Replaces the program, which gets the inherited dispositions and limits. Returns only on
    /// failure, with the kernel's reason. No descriptor or mask is touched.
    pub fn exec(&self, program: &CStr, arguments: &[CString], environment: &[CString]) -> Errno {
        self.limits.give_back();
        for (signal, inherited) in &self.dispositions {
            let _ = set_disposition(*signal, inherited);
        }
        let Err(errno) = nix::unistd::execve(program, arguments, environment);
        // The message about the failure must not be lost to a reader that went away.
        self.limits.raise_again();
        for signal in SPARED {
            ignore(signal);
        }
        crate::error::errno_of(errno)
    }
}

/// Signals whose default action ends a process that writes to a pipe without a reader, writes beyond
/// the limit of a file's size, or runs beyond its soft limit of processor time. All three are ignored:
/// the first two come as an error of the write as well, and a boot is not what the third is for.
/// Signals that somebody sends, or has had a timer send, end the process as they are meant to.
pub(super) const SPARED: [Signal; 3] = [Signal::SIGPIPE, Signal::SIGXFSZ, Signal::SIGXCPU];

/// Ignores `signal`; returns the former disposition.
fn ignore(signal: Signal) -> Disposition {
    let ignored = Disposition::ignored();
    set_disposition(signal, &ignored).unwrap_or(ignored)
}

/// Puts a path-only descriptor of "/" (close-on-exec, so the next program sees it closed again) on
/// each of 0, 1 and 2 that is closed. It needs no /dev/null, and writes to it fail.
fn hold_closed_standard_descriptors() {
    use rustix::fs::{Mode, OFlags};
    use std::os::fd::IntoRawFd as _;
    // open(2) takes the lowest free number; stop at the first that is no standard descriptor.
    while let Ok(fd) = rustix::fs::open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        use std::os::fd::AsRawFd as _;
        if fd.as_raw_fd() > 2 {
            break;
        }
        let _ = fd.into_raw_fd();
    }
}
