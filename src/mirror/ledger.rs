//! Hard links across passes: which inode of the destination belongs to which group of the source, and
//! whose names are left to a later pass.
//!
//! An inode of the destination that already has several names is kept only if one group of the source
//! claims it, so that groups which are crossed or wrongly joined in the destination come apart.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use super::inode::DeviceList;
use crate::fs::InodeId;
use crate::lock::lock;

/// The claims are cut into parts, so that only one of them is moved when it grows.
const PARTS: usize = 64;
/// Claims of one part: just what fits before it would grow to twice its size.
const MOST_IN_PART: usize = 1792;
/// Groups that a pass with nothing else to do is sure to have room for, unless their directories lie deep.
const LEAST_HELD: u64 = 1024;

/// The groups that one of several passes links, so many that there is room for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupShare {
    number: u64,
    of: u64,
}

impl GroupShare {
    /// How many there should be where a first pass that held at most `held` groups at once has left `names`:
    /// most groups have two names or more. A pass can have held few because directories with surplus names
    /// took the room; where the first attempt has too few shares, the next has more.
    pub fn count(held: usize, names: u64) -> u64 {
        let held = (held as u64).max(LEAST_HELD);
        (held + names / 2) / (held * 3 / 4) + 1
    }

    pub fn all(count: u64) -> impl Iterator<Item = Self> {
        (0..count).map(move |number| Self { number, of: count })
    }

    pub fn has(self, key: InodeId) -> bool {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        hasher.finish() % self.of == self.number
    }
}

/// An inode of the destination that a group of the source claims.
#[derive(Debug)]
struct Claim {
    ino: u64,
    dev: u32,
    /// Hash of the group.
    group: u32,
}

impl PartialEq for Claim {
    fn eq(&self, other: &Self) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }
}

impl Eq for Claim {}

impl Hash for Claim {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.dev, self.ino).hash(state);
    }
}

/// A set of hashes in 2 MiB, which also has some that were not put there.
#[derive(Debug, Default)]
struct Bits(OnceLock<Vec<AtomicU64>>);

impl Bits {
    const WORDS: usize = 1 << 18;

    fn place(hash: u64) -> (usize, u64) {
        ((hash >> 6) as usize % Self::WORDS, 1 << (hash & 63))
    }

    /// Puts it there; false if it has it already.
    fn put(&self, hash: u64) -> bool {
        let empty = || std::iter::repeat_with(AtomicU64::default).take(Self::WORDS).collect();
        let (word, bit) = Self::place(hash);
        self.0.get_or_init(empty)[word].fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    fn has(&self, hash: u64) -> bool {
        let (word, bit) = Self::place(hash);
        self.0.get().is_some_and(|words| words[word].load(Ordering::Relaxed) & bit != 0)
    }
}

/// Facts that the passes that share groups out know of each other.
#[derive(Debug)]
pub(super) struct LinkLedger {
    /// Which group has which inode of the destination.
    claims: [Mutex<HashSet<Claim>>; PARTS],
    /// Inodes that are claimed beside these. One that only seems to be is made anew.
    more_claims: Bits,
    /// Groups that were left to a later pass. One that only seems to be is looked at once more.
    left: Bits,
    hasher: RandomState,
    devices: DeviceList,
}

impl LinkLedger {
    pub fn new() -> Self {
        Self {
            claims: std::array::from_fn(|_| Mutex::default()),
            more_claims: Bits::default(),
            left: Bits::default(),
            hasher: RandomState::new(),
            devices: DeviceList::default(),
        }
    }

    /// Claims the inode `dst` for the group `src`; false if another has it, or may have it.
    pub fn claim(&self, dst: InodeId, src: InodeId) -> bool {
        let (dev, ino) = self.devices.key(dst);
        let (hash, group) = (self.hasher.hash_one((dev, ino)), self.hasher.hash_one(src) as u32);
        let part = &self.claims[hash as usize % PARTS];
        let mut part = lock(part);
        let claim = Claim { ino, dev, group };
        match part.get(&claim) {
            Some(made) => made.group == group,
            None if part.len() < MOST_IN_PART => part.insert(claim),
            None => self.more_claims.put(hash),
        }
    }

    /// Notes that a name of the group is left to a later pass.
    pub fn leave(&self, key: InodeId) {
        self.left.put(self.hasher.hash_one(key));
    }

    /// Whether a name of the group was left, and the pass of this share takes it up.
    pub fn is_left(&self, share: GroupShare, key: InodeId) -> bool {
        share.has(key) && self.left.has(self.hasher.hash_one(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_that_had_no_room_for_any_group_is_no_measure() {
        let count = GroupShare::count(0, 16_000);
        assert!((2..16).contains(&count), "{count}");
    }

    #[test]
    fn an_inode_is_claimed_by_one_group() {
        let ledger = LinkLedger::new();
        let claim = |ino: u64, group| ledger.claim(((1, 2), ino), ((3, 4), group));
        assert!(claim(5, 6) && claim(5, 6) && !claim(5, 7));
        assert!(ledger.claim(((1, 3), 5), ((3, 4), 7)));
        let many = 2 * (PARTS * MOST_IN_PART) as u64;
        let claimed = (10..many).filter(|ino| claim(*ino, *ino)).count();
        assert!(claimed * 100 > many as usize * 99, "{claimed}");
        assert_eq!((10..many).filter(|ino| claim(*ino, 7)).count(), 0);
    }
}
