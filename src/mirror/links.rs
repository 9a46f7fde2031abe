//! Hard-link groups: which source names are one inode, and where it is in the destination.
//!
//! The first name of a group leads and is mirrored like any other; names that are found before the
//! leader is finished wait in the table, later ones are linked at once. An inode of the destination
//! that already has several names is kept only if one group of the source claims it, so that groups
//! which are crossed or wrongly joined in the destination come apart.
//!
//! A group is forgotten when all the names have been met that its inode has. Of the others [`MOST`] are
//! held at once; names of groups beyond those are left to later passes ([`Share`]).
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::tree::{KeptNodes, Node};
use crate::fs::Stat;

/// The table is cut into parts, so that only one of them is moved when it grows.
const PARTS: usize = 64;
/// Groups of one part: just what fits before it would grow to twice its size.
const MOST_IN_PART: usize = 1792;
/// Bytes for the names of one part's leaders.
const NAMES_IN_PART: usize = 64 * 1024;
/// Names of one part that wait for their leaders.
const WAITING_IN_PART: usize = 256;
/// Groups that a pass with nothing else to do is sure to have room for, unless their directories lie deep.
const LEAST_HELD: u64 = 1024;
/// Most groups held at once.
pub(super) const MOST: usize = PARTS * MOST_IN_PART;

/// Device and inode number.
pub(super) type Id = ((u32, u32), u64);

pub(super) fn id(stat: &Stat) -> Id {
    (stat.dev, stat.ino)
}

/// A finished leader.
#[derive(Debug, Clone)]
pub(super) struct Leader {
    pub node: Arc<Node>,
    pub name: CString,
    /// None in a dry run, where it would have been made.
    pub dst: Option<Id>,
}

/// What the caller of [`Links::join`] has to do.
#[derive(Debug)]
pub(super) enum Role {
    /// Mirror the entry, then call [`Links::finish`].
    Lead,
    /// Nothing: whoever leads gets this name back from [`Links::finish`].
    Wait,
    /// Link to this one.
    Follow(Leader),
    /// There is no room for its group: leave it to a later pass.
    Later,
    /// Too many names wait already: ask again when its leader may be finished.
    Busy,
}

/// The groups that one of several passes links, so many that there is room for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    number: u64,
    of: u64,
}

impl Share {
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

    pub fn has(self, key: Id) -> bool {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        hasher.finish() % self.of == self.number
    }
}

/// An [`Id`] with the device as its place in a list.
type Key = (u32, u64);
/// In place of a device: there is none.
const NO_DEVICE: u32 = u32::MAX;

#[derive(Debug)]
struct Group {
    /// The leader's directory; none while it is not finished.
    node: Option<Arc<Node>>,
    dst_ino: u64,
    dst_dev: u32,
    /// Where in [`Part::names`] the leader's name begins.
    name: u32,
    /// Names of the inode that have not been met.
    left: u32,
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

/// What the passes that share groups out know of each other.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Which group has which inode of the destination.
    claims: [Mutex<HashSet<Claim>>; PARTS],
    /// Inodes that are claimed beside these. One that only seems to be is made anew.
    more_claims: Bits,
    /// Groups that were left to a later pass. One that only seems to be is looked at once more.
    left: Bits,
    hasher: RandomState,
    devices: Devices,
}

impl Ledger {
    pub fn new() -> Self {
        Self {
            claims: std::array::from_fn(|_| Mutex::default()),
            more_claims: Bits::default(),
            left: Bits::default(),
            hasher: RandomState::new(),
            devices: Devices::default(),
        }
    }

    /// Claims the inode `dst` for the group `src`; false if another has it, or may have it.
    pub fn claim(&self, dst: Id, src: Id) -> bool {
        let (dev, ino) = self.devices.key(dst);
        let (hash, group) = (self.hasher.hash_one((dev, ino)), self.hasher.hash_one(src) as u32);
        let part = &self.claims[hash as usize % PARTS];
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        let claim = Claim { ino, dev, group };
        match part.get(&claim) {
            Some(made) => made.group == group,
            None if part.len() < MOST_IN_PART => part.insert(claim),
            None => self.more_claims.put(hash),
        }
    }

    /// Notes that a name of the group is left to a later pass.
    pub fn leave(&self, key: Id) {
        self.left.put(self.hasher.hash_one(key));
    }

    /// Whether a name of the group was left, and the pass of this share takes it up.
    pub fn is_left(&self, share: Share, key: Id) -> bool {
        share.has(key) && self.left.has(self.hasher.hash_one(key))
    }
}

/// Devices by their places in a list.
#[derive(Debug, Default)]
struct Devices(Mutex<Vec<(u32, u32)>>);

impl Devices {
    fn key(&self, id: Id) -> Key {
        let mut devices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = devices.iter().position(|device| *device == id.0).unwrap_or_else(|| {
            devices.push(id.0);
            devices.len() - 1
        });
        (place as u32, id.1)
    }

    fn at(&self, place: u32) -> Option<(u32, u32)> {
        let devices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        devices.get(place as usize).copied()
    }
}

#[derive(Debug, Default)]
struct Part {
    groups: HashMap<Key, Group>,
    /// Names of finished leaders, each with its NUL.
    names: Vec<u8>,
    /// Bytes in `names` of groups that are forgotten.
    dead: usize,
    waiting: HashMap<Key, Vec<(Arc<Node>, CString)>>,
    /// Names in `waiting`.
    waiters: usize,
}

/// The table of one run.
#[derive(Debug)]
pub(super) struct Links {
    parts: [Mutex<Part>; PARTS],
    hasher: RandomState,
    devices: Devices,
    /// The directories of leaders are among these.
    kept: Arc<KeptNodes>,
    held: AtomicUsize,
    /// Most of them at once.
    most_held: AtomicUsize,
    torn: Mutex<HashSet<Id>>,
    /// Groups that an earlier run has torn; nothing of them is kept.
    remade: HashSet<Id>,
}

impl Links {
    /// For a run that makes the groups `remade` anew.
    pub fn remaking(remade: HashSet<Id>, kept: &Arc<KeptNodes>) -> Self {
        Self {
            parts: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            devices: Devices::default(),
            kept: kept.clone(),
            held: AtomicUsize::new(0),
            most_held: AtomicUsize::new(0),
            torn: Mutex::default(),
            remade,
        }
    }

    /// Most groups that were in the table at once. At the end, hardly any may be left in it.
    pub fn most_held(&self) -> usize {
        self.most_held.load(Ordering::Relaxed)
    }

    fn part(&self, key: Key) -> MutexGuard<'_, Part> {
        let part = &self.parts[self.hasher.hash_one(key) as usize % PARTS];
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `name` of `node` is one of the `count` names of the inode `key`.
    pub fn join(&self, key: Id, count: u32, node: &Arc<Node>, name: &CString) -> Role {
        let key = self.devices.key(key);
        let mut part = self.part(key);
        let part = &mut *part;
        let Some(group) = part.groups.get_mut(&key) else {
            if !part.has_room() || !self.kept.has_room() {
                return Role::Later;
            }
            let held = self.held.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_held.fetch_max(held, Ordering::Relaxed);
            let left = count.saturating_sub(1);
            part.groups
                .insert(key, Group { node: None, dst_ino: 0, dst_dev: NO_DEVICE, name: 0, left });
            return Role::Lead;
        };
        let Some(leader) = &group.node else {
            if part.waiters >= WAITING_IN_PART {
                return Role::Busy;
            }
            part.waiters += 1;
            group.left = group.left.saturating_sub(1);
            node.expect(1);
            part.waiting.entry(key).or_default().push((node.clone(), name.clone()));
            return Role::Wait;
        };
        group.left = group.left.saturating_sub(1);
        let leader = Leader {
            node: leader.clone(),
            name: name_at(&part.names, group.name),
            dst: self.devices.at(group.dst_dev).map(|device| (device, group.dst_ino)),
        };
        if group.left == 0 {
            self.forget(part, key);
        }
        Role::Follow(leader)
    }

    /// Ends the lead; without a leader the next name that joins leads. Gives the names that waited;
    /// each is still expected by its directory.
    pub fn finish(&self, key: Id, leader: Option<Leader>) -> Vec<(Arc<Node>, CString)> {
        let key = self.devices.key(key);
        let dst = leader.as_ref().and_then(|leader| leader.dst).map(|dst| self.devices.key(dst));
        let mut part = self.part(key);
        let part = &mut *part;
        let waiting = part.waiting.remove(&key).unwrap_or_default();
        part.waiters -= waiting.len();
        match (leader, part.groups.get_mut(&key)) {
            (Some(leader), Some(group)) => {
                // Those that waited will be met once more.
                group.left = group.left.saturating_add(waiting.len() as u32);
                group.name = part.names.len() as u32;
                part.names.extend_from_slice(leader.name.to_bytes_with_nul());
                (group.dst_dev, group.dst_ino) = dst.unwrap_or((NO_DEVICE, 0));
                self.kept.add(&leader.node);
                group.node = Some(leader.node);
                if group.left == 0 {
                    self.forget(part, key);
                }
            }
            _ => self.forget(part, key),
        }
        waiting
    }

    fn forget(&self, part: &mut Part, key: Key) {
        let Some(group) = part.groups.remove(&key) else { return };
        self.held.fetch_sub(1, Ordering::Relaxed);
        if let Some(node) = group.node {
            self.kept.remove(&node);
            part.dead += name_at(&part.names, group.name).as_bytes_with_nul().len();
        }
    }

    /// Notes that `leader` has become the inode `dst` when a name was linked to it: overlayfs has copied
    /// it up, and names that were found to be its own before are not any more.
    pub fn tear(&self, key: Id, dst: Id) {
        let (place, dst) = (self.devices.key(key), self.devices.key(dst));
        if let Some(group) = self.part(place).groups.get_mut(&place) {
            (group.dst_dev, group.dst_ino) = dst;
        }
        let mut torn = self.torn.lock().unwrap_or_else(PoisonError::into_inner);
        if torn.len() < MOST {
            torn.insert(key);
        }
    }

    /// The groups that this run has torn.
    pub fn torn(&self) -> HashSet<Id> {
        self.torn.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether nothing that is there of the group may be kept.
    pub fn is_remade(&self, key: Option<Id>) -> bool {
        key.is_some_and(|key| self.remade.contains(&key))
    }
}

impl Part {
    /// Whether one more group can be held; drops the names of forgotten ones where that makes room.
    fn has_room(&mut self) -> bool {
        if self.names.len() >= NAMES_IN_PART && self.dead * 2 >= self.names.len() {
            let mut names = Vec::new();
            for group in self.groups.values_mut().filter(|group| group.node.is_some()) {
                let name = name_at(&self.names, group.name);
                group.name = names.len() as u32;
                names.extend_from_slice(name.to_bytes_with_nul());
            }
            (self.names, self.dead) = (names, 0);
        }
        self.groups.len() < MOST_IN_PART && self.names.len() < NAMES_IN_PART
    }
}

fn name_at(names: &[u8], start: u32) -> CString {
    let name = names.get(start as usize..).map(CStr::from_bytes_until_nul);
    // Only whole names are ever put there.
    name.and_then(Result::ok).map(CStr::to_owned).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::tree::Pair;
    use super::*;
    use crate::fs::Dir;

    fn node() -> Arc<Node> {
        let dir = Dir::open_operator_path("/").unwrap();
        let (stat, src) = (dir.stat().unwrap(), rustix::io::fcntl_dupfd_cloexec(&dir, 3).unwrap());
        let pair = Arc::new(Pair { src, dst: None });
        Arc::new(Node::new(None, CString::default(), stat, &pair, false).unwrap())
    }

    fn lead(links: &Links, node: &Arc<Node>, ino: u64, count: u32, name: &CString) -> bool {
        let key = ((1, 2), ino);
        let leads = matches!(links.join(key, count, node, name), Role::Lead);
        if leads {
            let leader =
                Leader { node: node.clone(), name: name.clone(), dst: Some(((3, 4), ino)) };
            assert!(links.finish(key, Some(leader)).is_empty());
        }
        leads
    }

    #[test]
    fn a_group_whose_names_were_all_met_takes_no_room() {
        let (links, node) = (Links::remaking(HashSet::new(), &Arc::default()), node());
        let (first, second) = (CString::from(c"first"), CString::from(c"second"));
        for ino in 0..2 * MOST as u64 {
            assert!(lead(&links, &node, ino, 2, &first), "{ino}");
            match links.join(((1, 2), ino), 2, &node, &second) {
                Role::Follow(leader) => {
                    assert_eq!((leader.name, leader.dst), (first.clone(), Some(((3, 4), ino))));
                }
                role => panic!("{role:?}"),
            }
        }
        let held = |part: &Mutex<Part>| part.lock().unwrap().groups.len();
        assert_eq!(links.parts.iter().map(held).sum::<usize>(), 0);
        assert_eq!(links.most_held(), 1);
    }

    #[test]
    fn a_pass_that_had_no_room_for_any_group_is_no_measure() {
        let count = Share::count(0, 16_000);
        assert!((2..16).contains(&count), "{count}");
    }

    #[test]
    fn what_has_no_room_is_linked_in_shares() {
        let (links, node) = (Links::remaking(HashSet::new(), &Arc::default()), node());
        let (ledger, name) = (Ledger::new(), CString::from(c"name"));
        let key = |ino| ((1, 2), ino);
        let groups = MOST as u64 + 50_000;
        let mut unlinked = HashSet::new();
        for ino in (0..groups).filter(|ino| !lead(&links, &node, *ino, 3, &name)) {
            ledger.leave(key(ino));
            unlinked.insert(ino);
        }
        assert!((50_000..60_000).contains(&unlinked.len()), "{}", unlinked.len());
        assert_eq!(links.most_held() + unlinked.len(), groups as usize);
        // What is there is still followed.
        let held = (0..groups).find(|ino| !unlinked.contains(ino)).unwrap();
        assert!(matches!(links.join(key(held), 3, &node, &name), Role::Follow(_)));
        let (mut seen, mut again) = (0, 0);
        for share in Share::all(Share::count(links.most_held(), 2 * unlinked.len() as u64)) {
            let links = Links::remaking(HashSet::new(), &Arc::default());
            for ino in (0..groups).filter(|ino| ledger.is_left(share, key(*ino))) {
                assert!(lead(&links, &node, ino, 3, &name), "{share:?}");
                seen += usize::from(unlinked.contains(&ino));
                again += usize::from(!unlinked.contains(&ino));
            }
        }
        assert_eq!(seen, unlinked.len());
        assert!(again < 2000, "{again}");
    }

    #[test]
    fn names_that_waited_are_met_once_more() {
        let (links, node) = (Links::remaking(HashSet::new(), &Arc::default()), node());
        let (key, name) = (((1, 2), 5), CString::from(c"name"));
        assert!(matches!(links.join(key, 3, &node, &name), Role::Lead));
        assert!(matches!(links.join(key, 3, &node, &name), Role::Wait));
        let leader = Leader { node: node.clone(), name: name.clone(), dst: None };
        assert_eq!(links.finish(key, Some(leader)).len(), 1);
        for _ in 0..2 {
            assert!(matches!(links.join(key, 3, &node, &name), Role::Follow(_)));
        }
        assert!(matches!(links.join(key, 3, &node, &name), Role::Lead));
    }

    #[test]
    fn of_many_names_that_wait_the_last_are_told_so() {
        let (links, node) = (Links::remaking(HashSet::new(), &Arc::default()), node());
        let (key, name) = (((1, 2), 5), CString::from(c"name"));
        assert!(matches!(links.join(key, 1000, &node, &name), Role::Lead));
        for _ in 0..WAITING_IN_PART {
            assert!(matches!(links.join(key, 1000, &node, &name), Role::Wait));
        }
        assert!(matches!(links.join(key, 1000, &node, &name), Role::Busy));
        let leader = Leader { node: node.clone(), name: name.clone(), dst: None };
        assert_eq!(links.finish(key, Some(leader)).len(), WAITING_IN_PART);
        assert!(matches!(links.join(key, 1000, &node, &name), Role::Follow(_)));
    }

    #[test]
    fn an_inode_is_claimed_by_one_group() {
        let ledger = Ledger::new();
        let claim = |ino: u64, group| ledger.claim(((1, 2), ino), ((3, 4), group));
        assert!(claim(5, 6) && claim(5, 6) && !claim(5, 7));
        assert!(ledger.claim(((1, 3), 5), ((3, 4), 7)));
        let many = 2 * MOST as u64;
        let claimed = (10..many).filter(|ino| claim(*ino, *ino)).count();
        assert!(claimed * 100 > many as usize * 99, "{claimed}");
        assert_eq!((10..many).filter(|ino| claim(*ino, 7)).count(), 0);
    }

    #[test]
    fn leaders_in_directories_of_their_own_are_fewer() {
        let kept = Arc::default();
        let links = Links::remaking(HashSet::new(), &kept);
        let name = CString::from(c"name");
        let mut held = 0;
        while held < MOST as u64 && lead(&links, &node(), held, 3, &name) {
            held += 1;
        }
        assert!((1000..20_000).contains(&held) && !kept.has_room(), "{held}");
    }
}
