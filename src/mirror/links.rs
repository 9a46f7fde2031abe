//! Hard-link groups: which names of one run belong to one inode.
//!
//! The first name met of a group is its leader and is mirrored like any entry; names met before the
//! leader is finished wait in the table, later ones are linked at once. An inode of the destination
//! that already has several names is kept only if one group of the source claims it, so that groups
//! which are crossed or wrongly joined in the destination come apart.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError};

use super::tree::Node;
use crate::fs::Stat;

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
}

#[derive(Debug)]
enum Group {
    Led(Vec<(Arc<Node>, CString)>),
    Finished(Leader),
}

/// The table of one run.
#[derive(Debug, Default)]
pub(super) struct Links {
    groups: Mutex<HashMap<Id, Group>>,
    claims: Mutex<HashMap<Id, Id>>,
    torn: Mutex<HashSet<Id>>,
    /// Groups that an earlier run has torn; nothing of them is kept.
    remade: HashSet<Id>,
}

impl Links {
    /// For a run that makes the groups `remade` anew.
    pub fn remaking(remade: HashSet<Id>) -> Self {
        Self { remade, ..Self::default() }
    }

    /// Notes that `leader` has become the inode `dst` when a name was linked to it: overlayfs has copied
    /// it up, and names that were found to be its own before are not any more.
    pub fn tear(&self, key: Id, leader: &Leader, dst: Id) {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.insert(key, Group::Finished(Leader { dst: Some(dst), ..leader.clone() }));
        self.torn.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
    }

    /// The groups that this run has torn.
    pub fn torn(&self) -> HashSet<Id> {
        self.torn.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether nothing that is there of the group may be kept.
    pub fn is_remade(&self, key: Option<Id>) -> bool {
        key.is_some_and(|key| self.remade.contains(&key))
    }

    pub fn join(&self, key: Id, node: &Arc<Node>, name: &CString) -> Role {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        match groups.entry(key) {
            Entry::Vacant(place) => {
                place.insert(Group::Led(Vec::new()));
                Role::Lead
            }
            Entry::Occupied(mut place) => match place.get_mut() {
                Group::Led(waiting) => {
                    node.expect(1);
                    waiting.push((node.clone(), name.clone()));
                    Role::Wait
                }
                Group::Finished(leader) => Role::Follow(leader.clone()),
            },
        }
    }

    /// Ends the lead; without a leader the next name that joins leads. Gives the names that waited;
    /// each is still expected by its directory.
    pub fn finish(&self, key: Id, leader: Option<Leader>) -> Vec<(Arc<Node>, CString)> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let old = match leader {
            Some(leader) => groups.insert(key, Group::Finished(leader)),
            None => groups.remove(&key),
        };
        match old {
            Some(Group::Led(waiting)) => waiting,
            _ => Vec::new(),
        }
    }

    /// Claims the destination inode `dst` for the source inode `src`; false if another has it.
    pub fn claim(&self, dst: Id, src: Id) -> bool {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        *claims.entry(dst).or_insert(src) == src
    }
}
