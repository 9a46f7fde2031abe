//! How an applet ends: its exit status, and what is left to be said then.
#![forbid(unsafe_code)]

use molecule_tools::error::Error;

/// Exit status of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// 0: everything was done, or there was nothing to do.
    Done,
    /// 1: nothing could be done, or not everything.
    Failed,
    /// 2: bad usage; nothing was begun.
    Usage,
    /// 20: ended by a signal while files were transferred, as rsync(1).
    Interrupted,
    /// 23: not everything could be transferred, as rsync(1).
    Partial,
    /// That of a command, or 128 plus the number of the signal that ended it, as in a shell.
    Command(u8),
}

impl Status {
    /// That of a program that ends because the signal of this number asked it to.
    pub fn of_signal(number: i32) -> Self {
        Self::Command(u8::try_from(128 + number).unwrap_or(255))
    }

    pub fn failed_if(failed: bool) -> Self {
        if failed { Self::Failed } else { Self::Done }
    }

    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Interrupted => 20,
            Self::Partial => 23,
            Self::Command(status) => status,
        }
    }
}

/// Why an applet ended before its work was done.
#[derive(Debug)]
pub enum Exit {
    /// The message has been printed.
    Said(Status),
    /// To be printed as one line after the applet's name; the status is 1.
    Error(String),
}

impl From<Error> for Exit {
    fn from(error: Error) -> Self {
        Self::Error(error.to_string())
    }
}
