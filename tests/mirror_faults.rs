//! The mirror when things go wrong: bad disks, full disks, signals, rivals and saboteurs, all real.

mod bounded;
mod destination;
mod held;
mod hostile;
mod inside;
mod interruption;
mod private;
mod source;
mod surplus;
mod threads;

use crate::support::Case;
use crate::support::Need;

const NEEDS: &[Need] = &[Need::Root, Need::Program("rsync")];
const DISK_NEEDS: &[Need] = &[
    Need::Root,
    Need::Loop,
    Need::Program("rsync"),
    Need::Program("mkfs.ext4"),
    Need::Filesystem("ext4"),
    Need::Filesystem("fuse"),
];

pub fn cases() -> Vec<Case> {
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
    cases
}
