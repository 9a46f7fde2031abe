//! The clock that files get their times from. It moves in steps of up to 10 ms and stands behind the one
//! that programs ask, so that a file made after a look at the latter can be older than it.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// The present time on it: nothing that is made or changed from here on gets an earlier one.
pub fn now() -> Timespec {
    clock_gettime(ClockId::RealtimeCoarse)
}

/// Waits until everything that is changed from here on gets a later time than everything before.
pub fn tick() {
    // Linux 6.13 and later give some files the finer time.
    let before = clock_gettime(ClockId::Realtime);
    while now() <= before {
        std::thread::sleep(Duration::from_millis(1));
    }
}
