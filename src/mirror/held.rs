//! Which directories hold their descriptors.
//!
//! Descriptors are a bounded resource (64 must be enough), depth is not. A [`DirNode`] therefore
//! remembers how to find its directory again from its parent, and only the most recent ones hold
//! descriptors; a directory found again must be the same inode as before.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::CStr;
use std::sync::{Arc, Mutex, Weak};

use rustix::io::Errno;

use super::fault::{Fault, Side, Step};
use super::tree::{DirNode, DirPair, OpenDir};
use crate::fs::at;
use crate::lock::lock;

/// The bounded set of directories that hold descriptors, oldest first.
#[derive(Debug)]
pub(super) struct HeldDirs {
    order: Mutex<VecDeque<Weak<DirNode>>>,
    limit: usize,
}

impl HeldDirs {
    /// `limit` is a number of directories (two descriptors each).
    pub fn new(limit: usize) -> Self {
        Self { order: Mutex::new(VecDeque::new()), limit }
    }

    /// Notes that `node` holds its descriptors, and has the oldest beyond the limit let go of theirs.
    /// A thread that works with those right now keeps them open until it is done.
    pub fn note(&self, node: &Arc<DirNode>) {
        let mut order = lock(&self.order);
        order.push_back(Arc::downgrade(node));
        while order.len() > self.limit {
            if let Some(oldest) = order.pop_front().and_then(|weak| weak.upgrade())
                && oldest.parent.is_some()
            {
                oldest.hold(None);
            }
        }
    }

    /// `node` with its descriptors, found again from the nearest ancestor that holds its own.
    pub fn open(&self, node: &Arc<DirNode>) -> Step<OpenDir> {
        let mut missing: Vec<&Arc<DirNode>> = Vec::new();
        let mut place = node;
        let mut pair = loop {
            if let Some(pair) = place.held() {
                break pair;
            }
            missing.push(place);
            match &place.parent {
                Some(parent) => place = parent,
                None => return Err(not_found(Side::Source)(Errno::BADF)),
            }
        };
        for next in missing.into_iter().rev() {
            pair = Arc::new(reopen(&pair, &next.name, next)?);
        }
        if node.held().is_none() {
            node.hold(Some(pair.clone()));
            self.note(node);
        }
        Ok(OpenDir { node: node.clone(), pair })
    }

    /// Lets `parent` hold descriptors again, found through ".." of its child `pair`, so that going
    /// up a long path need not start at the top each time. Where that fails, [`HeldDirs::open`] tries.
    pub fn reach_up(&self, parent: &Arc<DirNode>, pair: &DirPair) {
        if parent.held().is_none()
            && let Ok(found) = reopen(pair, c"..", parent)
        {
            parent.hold(Some(Arc::new(found)));
            self.note(parent);
        }
    }
}

/// Opens `node` by `name` relative to `from`: its own name from its parent, ".." from a child.
fn reopen(from: &DirPair, name: &CStr, node: &DirNode) -> Step<DirPair> {
    let (source, destination) = (not_found(Side::Source), not_found(Side::Destination));
    let src = at::open_dir(&from.src, name).map_err(&source)?;
    if !at::stat_fd(&src).map_err(&source)?.same_inode(&node.stat) {
        return Err(source(Errno::STALE));
    }
    let dst = match (&from.dst, node.dst_id) {
        (Some(from), Some(id)) => {
            let dst = at::open_dir(from, name).map_err(&destination)?;
            if at::stat_fd(&dst).map_err(&destination)?.id() != id {
                return Err(destination(Errno::STALE));
            }
            Some(dst)
        }
        _ => None,
    };
    Ok(DirPair { src, dst })
}

/// A directory that is gone is an error here, for its entries are left out.
fn not_found(side: Side) -> impl Fn(Errno) -> Fault {
    move |errno| Fault::Os { side, operation: "find again the directory of", errno }
}
