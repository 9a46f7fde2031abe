//! A hundred thousand workspaces that start at once, and a platform that is away for a while: the schedule is that
//! of the program, only the time is not.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use molecule_tools::github::cache::usable;
use molecule_tools::github::platform::RefusalKind;
use molecule_tools::github::schedule::RefreshSchedule;

use crate::support::{Case, test_case};

pub fn cases() -> Vec<Case> {
    vec![test_case!(an_outage_brings_no_stampede_and_all_recover, &[])]
}

const WORKSPACES: usize = 100_000;
/// Seconds that are looked at.
const HOURS: u64 = 4 * 3600;

/// Numbers from 0 to below 1 that are the same each time (splitmix64, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// What a platform does, by the second.
struct Outage {
    name: &'static str,
    begin: u64,
    end: u64,
    kind: RefusalKind,
}

/// The result of one run.
struct Seen {
    /// Most requests in a second.
    peak: u32,
    /// Requests in the whole time, each.
    each: f64,
    /// Seconds from the end of the outage until every workspace has a token again.
    recovered: u64,
    /// Most workspaces at one time that had none, before the outage and after the recovery.
    without: usize,
}

fn simulate(outage: &Outage) -> Seen {
    let schedule = RefreshSchedule::default();
    let mut random = Random(20_261_127);
    let mut due: BinaryHeap<Reverse<(u64, usize)>> =
        (0..WORKSPACES).map(|id| Reverse((millis(schedule.first(random.next())), id))).collect();
    let mut failures = vec![0; WORKSPACES];
    // When the token of each is no longer used; at the start nobody has one.
    let mut stale = vec![0_u64; WORKSPACES];
    let mut requests = vec![0_u32; HOURS as usize];
    let mut gaps: Vec<(u64, u64)> = Vec::new();
    while let Some(Reverse((at, id))) = due.pop() {
        let second = at / 1000;
        if second >= HOURS {
            break;
        }
        requests[second as usize] += 1;
        let pause = if (outage.begin..outage.end).contains(&second) {
            failures[id] += 1;
            schedule.after_failure(failures[id], outage.kind, random.next())
        } else {
            failures[id] = 0;
            // The platform returns the same token until five minutes before its end.
            let left = Duration::from_secs(300 + (random.next() * 3300.0) as u64);
            let usable = usable(left);
            if stale[id] > 0 && stale[id] < at {
                gaps.push((stale[id] / 1000, second));
            }
            stale[id] = at + millis(usable);
            schedule.after_success(Some(usable), random.next())
        };
        due.push(Reverse((at + millis(pause), id)));
    }
    let ended = |stale: &&u64| **stale / 1000 < HOURS - 600;
    assert_eq!(stale.iter().filter(ended).count(), 0, "{}: not all recover", outage.name);
    let recovered = gaps.iter().map(|gap| gap.1.saturating_sub(outage.end)).max().unwrap_or(0);
    let first = stale.len();
    let outside = gaps.iter().filter(|gap| gap.0 < outage.begin || gap.0 > outage.end + recovered);
    Seen {
        peak: requests.iter().copied().max().unwrap_or(0),
        each: requests.iter().map(|&count| f64::from(count)).sum::<f64>() / first as f64,
        recovered,
        without: outside.count(),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn an_outage_brings_no_stampede_and_all_recover() {
    println!("{:<34} {:>12} {:>14} {:>14}", "outage", "peak / s", "requests each", "recovery, s");
    for outage in [
        Outage { name: "none", begin: 0, end: 0, kind: RefusalKind::Transient },
        Outage {
            name: "from the start, 20 min, 503",
            begin: 0,
            end: 1200,
            kind: RefusalKind::Transient,
        },
        Outage {
            name: "after an hour, 1 h, 503",
            begin: 3600,
            end: 7200,
            kind: RefusalKind::Transient,
        },
        Outage {
            name: "after an hour, 10 min, 429 (0 s)",
            begin: 3600,
            end: 4200,
            kind: RefusalKind::Busy(Duration::ZERO),
        },
        Outage {
            name: "after an hour, 10 min, 429 (60 s)",
            begin: 3600,
            end: 4200,
            kind: RefusalKind::Busy(Duration::from_secs(60)),
        },
    ] {
        let seen = simulate(&outage);
        println!(
            "{:<34} {:>12} {:>14.1} {:>14}",
            outage.name, seen.peak, seen.each, seen.recovered
        );
        // Three times what the spread of the first requests alone makes.
        assert!(
            f64::from(seen.peak) < 3.0 * WORKSPACES as f64 / 120.0,
            "{}: {}",
            outage.name,
            seen.peak
        );
        assert!(seen.recovered <= 300, "{}: {}", outage.name, seen.recovered);
        assert_eq!(
            seen.without, 0,
            "{}: a token went stale while the platform answered",
            outage.name
        );
    }
}
