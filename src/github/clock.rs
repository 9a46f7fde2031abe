//! The clocks that tokens go by, and how their times are written.
#![forbid(unsafe_code)]

use rustix::time::{ClockId, clock_gettime};
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

/// Seconds since 1970 on the clock of this machine, which may be set at any time.
pub fn wall() -> i64 {
    clock_gettime(ClockId::Realtime).tv_sec
}

/// Milliseconds since the machine started, the same for all its processes; suspended time counts.
pub fn since_boot() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec * 1000 + now.tv_nsec / 1_000_000).unwrap_or(0)
}

/// The time in `text` (RFC 3339), in seconds since 1970, rounded down.
pub fn from_rfc3339(text: &str) -> Option<i64> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp)
}

/// The time in `text` as HTTP has it (IMF-fixdate of RFC 9110, 5.6.7), in seconds since 1970.
pub fn from_http_date(text: &str) -> Option<i64> {
    OffsetDateTime::parse(text, &Rfc2822).ok().map(OffsetDateTime::unix_timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_fractions_and_offsets() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-26T10:00:00Z", 1_795_687_200),
            ("2026-11-26T10:00:00.999999999Z", 1_795_687_200),
            ("2026-11-26T12:30:00.5+02:30", 1_795_687_200),
            ("2026-11-26T02:00:00-08:00", 1_795_687_200),
        ] {
            assert_eq!(from_rfc3339(text), Some(seconds), "{text}");
        }
        for odd in ["", "soon", "2026-11-26", "2026-13-26T10:00:00Z", "1795687200"] {
            assert_eq!(from_rfc3339(odd), None, "{odd}");
        }
        assert_eq!(from_http_date("Thu, 26 Nov 2026 10:00:00 GMT"), Some(1_795_687_200));
        assert_eq!(from_http_date("yesterday"), None);
    }
}
