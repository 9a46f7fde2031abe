//! Hard-link groups: which source names are one inode, and where it is in the destination.
//!
//! The first name of a group leads and is mirrored like any other; names that are found before the
//! leader is finished wait in the table, later ones are linked at once.
//!
//! A group is forgotten when all the names have been met that its inode has. Of the others [`MOST`] are
//! held at once; names of groups beyond those are left to later passes (`ledger`).
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::inode::{DeviceList, InodeKey};
use super::tree::{DirNode, KeptNodes, Pending};
use crate::fs::InodeId;
use crate::lock::lock;

/// The table is cut into parts, so that only one of them is moved when it grows.
const PARTS: usize = 64;
/// Groups of one part: just what fits before it would grow to twice its size.
const MOST_IN_PART: usize = 1792;
/// Bytes for the names of one part's leaders.
const NAMES_IN_PART: usize = 64 * 1024;
/// Names of one part that wait for their leaders.
const WAITING_IN_PART: usize = 256;
/// Most groups held at once.
pub(super) const MOST: usize = PARTS * MOST_IN_PART;

/// A finished leader.
#[derive(Debug, Clone)]
pub(super) struct GroupLeader {
    pub node: Arc<DirNode>,
    pub name: CString,
    /// None in a dry run, where it would have been made.
    pub dst: Option<InodeId>,
}

/// The task of the caller of [`LinkGroups::join`].
#[derive(Debug)]
pub(super) enum GroupRole {
    /// Mirror the entry, then call [`LinkGroups::finish`].
    Lead,
    /// Nothing: the thread that leads gets this name back from [`LinkGroups::finish`].
    Wait,
    /// Link to this one.
    Follow(GroupLeader),
    /// There is no room for its group: leave it to a later pass.
    Later,
    /// Too many names wait already: ask again when its leader may be finished.
    Busy,
}

/// In place of a device: there is none.
const NO_DEVICE: u32 = u32::MAX;

#[derive(Debug)]
struct Group {
    /// The leader's directory; `None` while it is not finished.
    node: Option<Arc<DirNode>>,
    dst_ino: u64,
    dst_dev: u32,
    /// Where in [`Part::names`] the leader's name begins.
    name: u32,
    /// Names of the inode that have not been met.
    left: u32,
}

#[derive(Debug, Default)]
struct Part {
    groups: HashMap<InodeKey, Group>,
    /// Names of finished leaders, each with its NUL.
    names: Vec<u8>,
    /// Bytes in `names` of groups that are forgotten.
    dead: usize,
    waiting: HashMap<InodeKey, Vec<(Pending, CString)>>,
    /// Names in `waiting`.
    waiters: usize,
}

/// The table of one run.
#[derive(Debug)]
pub(super) struct LinkGroups {
    parts: [Mutex<Part>; PARTS],
    hasher: RandomState,
    devices: DeviceList,
    /// The directories of leaders are among these.
    kept: Arc<KeptNodes>,
    held: AtomicUsize,
    /// Most of them at once.
    most_held: AtomicUsize,
    torn: Mutex<HashSet<InodeId>>,
    /// Groups that an earlier run has torn; nothing of them is kept.
    remade: HashSet<InodeId>,
}

impl LinkGroups {
    /// For a run that makes the groups `remade` anew.
    pub fn remaking(remade: HashSet<InodeId>, kept: &Arc<KeptNodes>) -> Self {
        Self {
            parts: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            devices: DeviceList::default(),
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

    fn part(&self, key: InodeKey) -> MutexGuard<'_, Part> {
        let part = &self.parts[self.hasher.hash_one(key) as usize % PARTS];
        lock(part)
    }

    /// Notes that `name` of `node` is one of the `count` names of the inode `key`.
    pub fn join(&self, key: InodeId, count: u32, node: &Arc<DirNode>, name: &CString) -> GroupRole {
        let key = self.devices.key(key);
        let mut part = self.part(key);
        let part = &mut *part;
        let Some(group) = part.groups.get_mut(&key) else {
            if !part.has_room() || !self.kept.has_room() {
                return GroupRole::Later;
            }
            let held = self.held.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_held.fetch_max(held, Ordering::Relaxed);
            let left = count.saturating_sub(1);
            part.groups
                .insert(key, Group { node: None, dst_ino: 0, dst_dev: NO_DEVICE, name: 0, left });
            return GroupRole::Lead;
        };
        let Some(leader) = &group.node else {
            if part.waiters >= WAITING_IN_PART {
                return GroupRole::Busy;
            }
            part.waiters += 1;
            group.left = group.left.saturating_sub(1);
            part.waiting.entry(key).or_default().push((Pending::more(node), name.clone()));
            return GroupRole::Wait;
        };
        group.left = group.left.saturating_sub(1);
        let leader = GroupLeader {
            node: leader.clone(),
            name: name_at(&part.names, group.name),
            dst: self.devices.at(group.dst_dev).map(|device| (device, group.dst_ino)),
        };
        if group.left == 0 {
            self.forget(part, key);
        }
        GroupRole::Follow(leader)
    }

    /// Ends the lead; without a leader the next name that joins leads. Returns the names that waited.
    pub fn finish(&self, key: InodeId, leader: Option<GroupLeader>) -> Vec<(Pending, CString)> {
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

    fn forget(&self, part: &mut Part, key: InodeKey) {
        let Some(group) = part.groups.remove(&key) else { return };
        self.held.fetch_sub(1, Ordering::Relaxed);
        if let Some(node) = group.node {
            self.kept.remove(&node);
            part.dead += name_at(&part.names, group.name).as_bytes_with_nul().len();
        }
    }

    /// Notes that `leader` has become the inode `dst` when a name was linked to it: overlayfs has copied
    /// it up, and names that were found to be its own before are not any more.
    pub fn tear(&self, key: InodeId, dst: InodeId) {
        let (place, dst) = (self.devices.key(key), self.devices.key(dst));
        if let Some(group) = self.part(place).groups.get_mut(&place) {
            (group.dst_dev, group.dst_ino) = dst;
        }
        let mut torn = lock(&self.torn);
        if torn.len() < MOST {
            torn.insert(key);
        }
    }

    /// The groups that this run has torn.
    pub fn torn(&self) -> HashSet<InodeId> {
        lock(&self.torn).clone()
    }

    /// Whether nothing that is there of the group may be kept.
    pub fn is_remade(&self, key: Option<InodeId>) -> bool {
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
    use super::*;
    use crate::fs::Dir;
    use crate::mirror::ledger::{GroupShare, LinkLedger};
    use crate::mirror::tree::{DirPair, Standing};

    fn node() -> Arc<DirNode> {
        let dir = Dir::open_operator_path("/").unwrap();
        let (stat, src) = (dir.stat().unwrap(), rustix::io::fcntl_dupfd_cloexec(&dir, 3).unwrap());
        let pair = Arc::new(DirPair { src, dst: None });
        Arc::new(DirNode::new(None, CString::default(), stat, &pair, Standing::Shared).unwrap())
    }

    fn lead(links: &LinkGroups, node: &Arc<DirNode>, ino: u64, count: u32, name: &CString) -> bool {
        let key = ((1, 2), ino);
        let leads = matches!(links.join(key, count, node, name), GroupRole::Lead);
        if leads {
            let leader =
                GroupLeader { node: node.clone(), name: name.clone(), dst: Some(((3, 4), ino)) };
            assert!(links.finish(key, Some(leader)).is_empty());
        }
        leads
    }

    #[test]
    fn a_group_whose_names_were_all_met_takes_no_room() {
        let (links, node) = (LinkGroups::remaking(HashSet::new(), &Arc::default()), node());
        let (first, second) = (CString::from(c"first"), CString::from(c"second"));
        for ino in 0..2 * MOST as u64 {
            assert!(lead(&links, &node, ino, 2, &first), "{ino}");
            match links.join(((1, 2), ino), 2, &node, &second) {
                GroupRole::Follow(leader) => {
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
    fn what_has_no_room_is_linked_in_shares() {
        let (links, node) = (LinkGroups::remaking(HashSet::new(), &Arc::default()), node());
        let (ledger, name) = (LinkLedger::new(), CString::from(c"name"));
        let key = |ino| ((1, 2), ino);
        let groups = MOST as u64 + 50_000;
        let mut unlinked = HashSet::new();
        for ino in (0..groups).filter(|ino| !lead(&links, &node, *ino, 3, &name)) {
            ledger.leave(key(ino));
            unlinked.insert(ino);
        }
        assert!((50_000..60_000).contains(&unlinked.len()), "{}", unlinked.len());
        assert_eq!(links.most_held() + unlinked.len(), groups as usize);
        // A leader that is there is still followed.
        let held = (0..groups).find(|ino| !unlinked.contains(ino)).unwrap();
        assert!(matches!(links.join(key(held), 3, &node, &name), GroupRole::Follow(_)));
        let (mut seen, mut again) = (0, 0);
        for share in
            GroupShare::all(GroupShare::count(links.most_held(), 2 * unlinked.len() as u64))
        {
            let links = LinkGroups::remaking(HashSet::new(), &Arc::default());
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
        let (links, node) = (LinkGroups::remaking(HashSet::new(), &Arc::default()), node());
        let (key, name) = (((1, 2), 5), CString::from(c"name"));
        assert!(matches!(links.join(key, 3, &node, &name), GroupRole::Lead));
        assert!(matches!(links.join(key, 3, &node, &name), GroupRole::Wait));
        let leader = GroupLeader { node: node.clone(), name: name.clone(), dst: None };
        assert_eq!(links.finish(key, Some(leader)).len(), 1);
        for _ in 0..2 {
            assert!(matches!(links.join(key, 3, &node, &name), GroupRole::Follow(_)));
        }
        assert!(matches!(links.join(key, 3, &node, &name), GroupRole::Lead));
    }

    #[test]
    fn of_many_names_that_wait_the_last_are_told_so() {
        let (links, node) = (LinkGroups::remaking(HashSet::new(), &Arc::default()), node());
        let (key, name) = (((1, 2), 5), CString::from(c"name"));
        assert!(matches!(links.join(key, 1000, &node, &name), GroupRole::Lead));
        for _ in 0..WAITING_IN_PART {
            assert!(matches!(links.join(key, 1000, &node, &name), GroupRole::Wait));
        }
        assert!(matches!(links.join(key, 1000, &node, &name), GroupRole::Busy));
        let leader = GroupLeader { node: node.clone(), name: name.clone(), dst: None };
        assert_eq!(links.finish(key, Some(leader)).len(), WAITING_IN_PART);
        assert!(matches!(links.join(key, 1000, &node, &name), GroupRole::Follow(_)));
    }

    #[test]
    fn leaders_in_directories_of_their_own_are_fewer() {
        let kept = Arc::default();
        let links = LinkGroups::remaking(HashSet::new(), &kept);
        let name = CString::from(c"name");
        let mut held = 0;
        while held < MOST as u64 && lead(&links, &node(), held, 3, &name) {
            held += 1;
        }
        assert!((1000..20_000).contains(&held) && !kept.has_room(), "{held}");
    }
}
