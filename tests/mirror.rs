//! The mirror's fidelity: every copy is judged by rsync in dry-run and by a comparator of our own.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests lay out trees by path and fail loudly"
)]

#[path = "mirror/acls.rs"]
mod acls;
#[path = "mirror/ahead.rs"]
mod ahead;
#[path = "mirror/comparator.rs"]
mod comparator;
#[path = "mirror/conflicts.rs"]
mod conflicts;
#[path = "mirror/content.rs"]
mod content;
#[path = "mirror/cut_corners.rs"]
mod cut_corners;
#[path = "mirror/device.rs"]
mod device;
#[path = "mirror/large.rs"]
mod large;
#[path = "mirror/links.rs"]
mod links;
#[path = "mirror/metadata.rs"]
mod metadata;
#[path = "mirror/mounts.rs"]
mod mounts;
#[path = "mirror/names.rs"]
mod names;
#[path = "mirror/ordinary.rs"]
mod ordinary;
#[path = "mirror/overlay.rs"]
mod overlay;
#[path = "mirror/owners.rs"]
mod owners;
#[path = "mirror/privileged.rs"]
mod privileged;
mod support;
#[path = "mirror/times.rs"]
mod times;
#[path = "mirror/xattrs.rs"]
mod xattrs;

use std::process::ExitCode;

use support::Need;

const NEEDS: &[Need] = &[Need::Root, Need::Program("rsync")];

fn main() -> ExitCode {
    support::mounts::leave_the_machine_alone();
    let mut cases = comparator::cases();
    cases.extend(acls::cases());
    cases.extend(ahead::cases());
    cases.extend(conflicts::cases());
    cases.extend(content::cases());
    cases.extend(cut_corners::cases());
    cases.extend(device::cases());
    cases.extend(large::cases());
    cases.extend(links::cases());
    cases.extend(metadata::cases());
    cases.extend(mounts::cases());
    cases.extend(names::cases());
    cases.extend(ordinary::cases());
    cases.extend(overlay::cases());
    cases.extend(owners::cases());
    cases.extend(privileged::cases());
    cases.extend(times::cases());
    cases.extend(xattrs::cases());
    support::run(cases)
}
