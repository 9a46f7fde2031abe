//! Looks whose answer decides whether something is lost.
#![forbid(unsafe_code)]

use std::time::Duration;

use rustix::io::Errno;

use crate::error::Result;

/// How often a look is tried that fails for a reason which may pass.
const TRIES: u32 = 5;
/// The pause before the next try.
const PAUSE: Duration = Duration::from_millis(20);

/// Calls `look`, and again where it failed for a reason that may pass: a signal (EINTR), memory or
/// descriptors that somebody else has just now, a disk or file server that does not answer once. An error
/// that is left means "cannot tell", which the caller must not take for "not there".
pub fn patiently<T>(mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let mut tries = 1;
    loop {
        match look() {
            Err(error) if error.errno() == Some(Errno::INTR) => {}
            Err(error) if tries < TRIES && error.errno().is_some_and(may_pass) => {
                tries += 1;
                pause(PAUSE);
            }
            other => return other,
        }
    }
}

/// Waits for `time`, or until a signal comes. The standard library's sleep panics where the call is refused,
/// by a container's system call filter for instance; this one returns at once.
pub fn pause(time: Duration) {
    let tv_sec = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let time = rustix::time::Timespec { tv_sec, tv_nsec: time.subsec_nanos().into() };
    let _ = rustix::thread::nanosleep(&time);
}

fn may_pass(errno: Errno) -> bool {
    [Errno::IO, Errno::NOMEM, Errno::MFILE, Errno::NFILE, Errno::STALE, Errno::AGAIN]
        .contains(&errno)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn what_may_pass_is_tried_again_and_what_is_certain_is_not() {
        let count = |errnos: &[Errno]| {
            let mut left = errnos.iter();
            let mut calls = 0;
            let result = patiently(|| {
                calls += 1;
                left.next().map_or(Ok(()), |errno| Err(Error::os("look at", "/x", *errno)))
            });
            (calls, result.is_ok())
        };
        assert_eq!(count(&[]), (1, true));
        assert_eq!(count(&[Errno::INTR; 20]), (21, true));
        assert_eq!(count(&[Errno::IO, Errno::MFILE]), (3, true));
        assert_eq!(count(&[Errno::IO; 9]), (5, false));
        assert_eq!(count(&[Errno::ACCESS]), (1, false));
    }
}
