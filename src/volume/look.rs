//! Looks that are repeated before "cannot tell" is their answer.
#![forbid(unsafe_code)]

use std::time::Duration;

use rustix::io::Errno;

/// How long is waited before each further try.
const WAITS: [Duration; 3] =
    [Duration::from_millis(20), Duration::from_millis(80), Duration::from_millis(200)];

/// Makes a system call again while a signal interrupts it, and a few times over a short while where
/// the reason may pass: a short memory, too many open files, a device or server that stumbles.
pub fn again<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    let mut waits = WAITS.iter();
    loop {
        match call() {
            Err(Errno::INTR) => {}
            Err(
                errno @ (Errno::IO
                | Errno::NOMEM
                | Errno::MFILE
                | Errno::NFILE
                | Errno::STALE
                | Errno::AGAIN),
            ) => match waits.next() {
                Some(wait) => crate::fs::pause(*wait),
                None => return Err(errno),
            },
            other => return other,
        }
    }
}

/// Does something again in the same way.
pub fn again_of<T>(mut action: impl FnMut() -> crate::Result<T>) -> crate::Result<T> {
    let mut failure = None;
    let done = again(|| {
        action().map_err(|error| {
            let errno = error.errno().unwrap_or(Errno::INVAL);
            failure = Some(error);
            errno
        })
    });
    done.map_err(|errno| failure.unwrap_or_else(|| crate::Error::failed("look", errno)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again_and_nothing_else() {
        for (errno, expected) in
            [(Errno::IO, 4), (Errno::MFILE, 4), (Errno::NOENT, 1), (Errno::PERM, 1)]
        {
            let mut calls = 0;
            let outcome: Result<(), Errno> = again(|| {
                calls += 1;
                Err(errno)
            });
            assert_eq!((outcome, calls), (Err(errno), expected));
        }
        let mut calls = 0;
        let outcome = again(|| {
            calls += 1;
            if calls < 100 { Err(Errno::INTR) } else { Ok(calls) }
        });
        assert_eq!(outcome, Ok(100));
    }
}
