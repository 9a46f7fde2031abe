//! The mirror's fidelity: every copy is judged by rsync in dry-run and by a comparator of our own.

mod acls;
mod ahead;
mod comparator;
mod conflicts;
mod content;
mod cut_corners;
mod device;
mod emulated;
mod large;
mod links;
mod metadata;
mod mounts;
mod names;
mod ordinary;
mod overlay;
mod owners;
mod privileged;
mod times;
mod xattrs;

use crate::support::Case;
use crate::support::Need;

const NEEDS: &[Need] = &[Need::Root, Need::Program("rsync")];

pub fn cases() -> Vec<Case> {
    let mut cases = comparator::cases();
    cases.extend(acls::cases());
    cases.extend(ahead::cases());
    cases.extend(conflicts::cases());
    cases.extend(content::cases());
    cases.extend(cut_corners::cases());
    cases.extend(device::cases());
    cases.extend(emulated::cases());
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
    cases
}
