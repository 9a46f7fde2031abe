//! Signs of life: work counts what it gets done and notes where it is, and somebody else can tell that
//! it is stuck and where.
//!
//! All of it are atomic numbers, so that it can lie in memory that two processes share, see
//! [`crate::process::step`]. Nothing here makes a system call or waits.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Places that are noted at a time, one for each thread that works.
pub const WORKERS: usize = 8;
/// Bytes of a path that are noted; of a longer one the end.
pub const PLACE: usize = 240;

/// See the module. Zero bytes are a valid heartbeat that has not begun.
#[derive(Debug)]
pub struct Heartbeat {
    beats: AtomicU64,
    places: [Place; WORKERS],
}

#[derive(Debug)]
struct Place {
    length: AtomicU8,
    bytes: [AtomicU8; PLACE],
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self::new()
    }
}

impl Heartbeat {
    /// One that has not begun.
    pub fn new() -> Self {
        let place = |_| Place {
            length: AtomicU8::new(0),
            bytes: std::array::from_fn(|_| AtomicU8::new(0)),
        };
        Self { beats: AtomicU64::new(0), places: std::array::from_fn(place) }
    }

    /// Notes that something was done. Work that may be watched calls this, or one of the other two,
    /// after each few system calls.
    pub fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that thread `worker` (from 0, below [`WORKERS`]) turns to `path`. 0 is for the thread
    /// that leads, whose places may be coarse.
    pub fn enter(&self, worker: usize, path: impl AsRef<OsStr>) {
        self.beat();
        let Some(place) = self.places.get(worker) else { return };
        let path = path.as_ref().as_bytes();
        let path = &path[path.len().saturating_sub(PLACE)..];
        for (to, from) in place.bytes.iter().zip(path) {
            to.store(*from, Ordering::Relaxed);
        }
        place.length.store(path.len() as u8, Ordering::Relaxed);
    }

    /// Notes that thread `worker` is nowhere: it is done, or waits for another.
    pub fn leave(&self, worker: usize) {
        self.beat();
        if let Some(place) = self.places.get(worker) {
            place.length.store(0, Ordering::Relaxed);
        }
    }

    /// Grows with whatever is done.
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Where a thread is, the leading one only if no other is anywhere. What is read while a thread
    /// moves on may be a mixture of two paths.
    pub fn place(&self) -> Option<OsString> {
        let place = self.places.iter().rev().find(|p| p.length.load(Ordering::Relaxed) > 0)?;
        let length = usize::from(place.length.load(Ordering::Relaxed)).min(PLACE);
        let bytes = place.bytes[..length].iter().map(|byte| byte.load(Ordering::Relaxed)).collect();
        Some(OsString::from_vec(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_somewhere_comes_before_the_leading_one() {
        let heart = Heartbeat::new();
        assert_eq!((heart.beats(), heart.place()), (0, None));
        heart.enter(0, "/workspace");
        heart.enter(3, "/workspace/a/b");
        assert_eq!((heart.beats(), heart.place()), (2, Some("/workspace/a/b".into())));
        heart.leave(3);
        assert_eq!((heart.beats(), heart.place()), (3, Some("/workspace".into())));
        heart.enter(WORKERS, "/nowhere");
        assert_eq!((heart.beats(), heart.place()), (4, Some("/workspace".into())));
    }

    #[test]
    fn of_a_long_path_the_end_is_kept() {
        let heart = Heartbeat::new();
        heart.enter(1, format!("/{}/end", "x".repeat(5000)));
        let place = heart.place().unwrap();
        assert_eq!(place.len(), PLACE);
        assert!(place.to_str().unwrap().ends_with("x/end"));
    }
}
