//! When the next token is fetched. Nothing here looks at a clock or draws a number: `random` is one of the
//! caller's, from 0 to below 1, so that the same can be asked for a hundred thousand workspaces.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::time::Duration;

use super::platform::RefusalKind;
use crate::error::{Error, Result};
use crate::process;

/// How long before a token is no longer used the next one is fetched, that is 300 seconds before its end.
const AHEAD: Duration = Duration::from_secs(210);
/// The most that a fetch is put off by chance, of what is left then.
const ROOM: Duration = Duration::from_secs(180);
/// Nothing is asked more often than this.
const LEAST: Duration = Duration::from_secs(1);
/// The pause after a token that has hardly any time left. The platform has another one in minutes.
const SHORTEST: Duration = Duration::from_secs(30);
/// The pause after the first failure is at most this, after the next ones twice as much each, up to the other.
const FIRST: Duration = Duration::from_secs(60);
const LAST: Duration = Duration::from_secs(240);
/// The pause after a failure that will not pass by itself.
const PERMANENT: Duration = Duration::from_secs(3600);
/// All clients are told the same second to come back.
const SPREAD: Duration = Duration::from_secs(120);

/// The daemon's times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshSchedule {
    /// The first fetch after the start.
    pub initial: Duration,
    /// The longest from one fetch to the next.
    pub interval: Duration,
    /// The most that is added to each by chance.
    pub jitter: Duration,
}

impl Default for RefreshSchedule {
    fn default() -> Self {
        let [initial, interval, jitter] = [60, 2700, 120].map(Duration::from_secs);
        Self { initial, interval, jitter }
    }
}

impl RefreshSchedule {
    /// TOKEN_REFRESH_INITIAL_DELAY_SEC, TOKEN_REFRESH_INTERVAL_SEC and TOKEN_REFRESH_JITTER_SEC of
    /// `environment`, and a complaint for each that is no time, for which the default stays.
    pub fn new(environment: &[CString]) -> (Self, Vec<Error>) {
        let mut schedule = Self::default();
        let mut complaints = Vec::new();
        for (name, least, time) in [
            ("TOKEN_REFRESH_INITIAL_DELAY_SEC", 0, &mut schedule.initial),
            ("TOKEN_REFRESH_INTERVAL_SEC", 1, &mut schedule.interval),
            ("TOKEN_REFRESH_JITTER_SEC", 0, &mut schedule.jitter),
        ] {
            match seconds(environment, name, least) {
                Ok(Some(seconds)) => *time = Duration::from_secs(seconds),
                Ok(None) => {}
                Err(error) => {
                    complaints.push(error.hint(format!("going on with {} s", time.as_secs())));
                }
            }
        }
        (schedule, complaints)
    }

    /// The pause before the first fetch.
    pub fn first(&self, random: f64) -> Duration {
        self.initial + self.jitter.mul_f64(random)
    }

    /// The pause after a fetch that has brought a token which is used for `usable`; `None`: it is not known.
    pub fn after_success(&self, usable: Option<Duration>, random: f64) -> Duration {
        let Some(usable) = usable else { return self.interval + self.jitter.mul_f64(random) };
        let due = self.interval.min(usable.saturating_sub(AHEAD)).max(LEAST);
        if due < SHORTEST.min(self.interval) {
            return SHORTEST.mul_f64(1.0 + random);
        }
        due + self.jitter.min(ROOM).mul_f64(random)
    }

    /// The pause after the last of `failures` failures in a row.
    pub fn after_failure(&self, failures: u32, kind: RefusalKind, random: f64) -> Duration {
        let most = FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(LAST);
        let pause = match kind {
            // Any part of the time, so that those who fail together do not come back together.
            RefusalKind::Transient => most.mul_f64(random),
            RefusalKind::Busy(wait) => wait.min(PERMANENT) + most.max(SPREAD).mul_f64(random),
            RefusalKind::Permanent => PERMANENT + most.max(SPREAD).mul_f64(random),
        };
        pause.max(LEAST)
    }
}

/// The variable `name` as a number of seconds, a year at most.
fn seconds(environment: &[CString], name: &'static str, least: u64) -> Result<Option<u64>> {
    let Some(text) = process::setting(environment, name) else { return Ok(None) };
    let number = text.to_str().and_then(|text| text.trim().parse().ok());
    match number.filter(|seconds| (least..=31_536_000).contains(seconds)) {
        Some(seconds) => Ok(Some(seconds)),
        None => Err(Error::plain(format!("use {name}"), "it is no number of seconds")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule(entries: &[&str]) -> (RefreshSchedule, usize) {
        let entries: Vec<CString> =
            entries.iter().map(|entry| CString::new(*entry).unwrap()).collect();
        let (schedule, complaints) = RefreshSchedule::new(&entries);
        (schedule, complaints.len())
    }

    #[test]
    fn only_times_are_taken_from_the_environment() {
        let (own, none) = schedule(&[
            "TOKEN_REFRESH_INITIAL_DELAY_SEC=0",
            "TOKEN_REFRESH_INTERVAL_SEC=7",
            "TOKEN_REFRESH_JITTER_SEC=3",
        ]);
        let times = [own.initial, own.interval, own.jitter].map(|time| time.as_secs());
        assert_eq!((times, none), ([0, 7, 3], 0));
        for odd in ["0", "-1", "x", "1e3", "99999999999999999999", "31536001", "1.5"] {
            let entry = format!("TOKEN_REFRESH_INTERVAL_SEC={odd}");
            assert_eq!(schedule(&[&entry]), (RefreshSchedule::default(), 1), "{odd}");
        }
        assert_eq!(schedule(&["TOKEN_REFRESH_INTERVAL_SEC="]), (RefreshSchedule::default(), 0));
    }

    #[test]
    fn the_interval_only_shortens() {
        let usable = |seconds| Some(Duration::from_secs(seconds));
        let after = |interval: u64, usable| {
            let interval = Duration::from_secs(interval);
            let schedule = RefreshSchedule { interval, ..RefreshSchedule::default() };
            schedule.after_success(usable, 0.0).as_secs()
        };
        assert_eq!(after(2700, usable(3000)), 2700);
        assert_eq!(after(86_400, usable(3000)), 2790);
        assert_eq!(after(2700, usable(900)), 690);
        assert_eq!(after(2700, usable(210)), 30);
        assert_eq!(after(5, usable(3000)), 5);
        assert_eq!(after(86_400, None), 86_400);
    }

    proptest! {
        #[test]
        fn no_token_goes_stale_and_nothing_spins(
            interval in 1_u64..100_000, jitter in 0_u64..100_000, usable in 0_u64..=3000,
            failures in 1_u32..100, wait in 0_u64..u64::MAX / 2, random in 0.0..1.0,
        ) {
            let schedule = RefreshSchedule {
                initial: Duration::ZERO,
                interval: Duration::from_secs(interval),
                jitter: Duration::from_secs(jitter),
            };
            let usable = Duration::from_secs(usable);
            let pause = schedule.after_success(Some(usable), random);
            prop_assert!(pause >= LEAST);
            prop_assert!(pause <= usable.max(SHORTEST * 2), "{pause:?}");
            for kind in [
                RefusalKind::Transient,
                RefusalKind::Permanent,
                RefusalKind::Busy(Duration::from_secs(wait)),
            ] {
                let pause = schedule.after_failure(failures, kind, random);
                prop_assert!(pause >= LEAST && pause <= PERMANENT + LAST, "{pause:?}");
            }
        }
    }
}
