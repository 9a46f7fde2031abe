//! The mirror when things go wrong: bad disks, full disks, signals, rivals and saboteurs, all real.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests lay out trees by path and fail loudly"
)]

#[path = "mirror_faults/bounded.rs"]
mod bounded;
#[path = "mirror_faults/destination.rs"]
mod destination;
#[path = "mirror_faults/held.rs"]
mod held;
#[path = "mirror_faults/hostile.rs"]
mod hostile;
#[path = "mirror_faults/inside.rs"]
mod inside;
#[path = "mirror_faults/interruption.rs"]
mod interruption;
#[path = "mirror_faults/private.rs"]
mod private;
#[path = "mirror_faults/source.rs"]
mod source;
mod support;
#[path = "mirror_faults/surplus.rs"]
mod surplus;
#[path = "mirror_faults/threads.rs"]
mod threads;

use std::process::ExitCode;

use support::Need;

const NEEDS: &[Need] = &[Need::Root, Need::Program("rsync")];
const DISK_NEEDS: &[Need] = &[
    Need::Root,
    Need::Loop,
    Need::Program("rsync"),
    Need::Program("mkfs.ext4"),
    Need::Filesystem("ext4"),
    Need::Filesystem("fuse"),
];

fn main() -> ExitCode {
    support::mounts::leave_the_machine_alone();
    let mut cases = destination::cases();
    cases.extend(bounded::cases());
    cases.extend(held::cases());
    cases.extend(hostile::cases());
    cases.extend(inside::cases());
    cases.extend(interruption::cases());
    cases.extend(private::cases());
    cases.extend(source::cases());
    cases.extend(surplus::cases());
    cases.extend(threads::cases());
    support::run(cases)
}
