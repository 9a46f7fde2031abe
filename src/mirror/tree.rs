//! Directories of the two trees while they are being worked on: identity, held descriptors, and the
//! count of what is still to be done below.
//!
//! Descriptors are a bounded resource (64 must be enough), depth is not. A [`Node`] therefore
//! remembers how to find its directory again from its parent, and only the most recent ones hold
//! descriptors; a directory found again must be the same inode as before.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::io::Errno;

use super::report::Side;
use crate::error::SHOWN_END;
use crate::fs::{Stat, at};

/// The open descriptors of one directory in both trees.
#[derive(Debug)]
pub(super) struct Pair {
    pub src: OwnedFd,
    /// None in a dry run for a directory that does not exist yet.
    pub dst: Option<OwnedFd>,
}

/// A mount, and on btrfs a subvolume in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    mount_id: u64,
    dev: (u32, u32),
}

impl Place {
    pub fn of(stat: &Stat) -> Self {
        Self { mount_id: stat.mount_id, dev: stat.dev }
    }
}

/// One directory in work.
#[derive(Debug)]
pub(super) struct Node {
    pub parent: Option<Arc<Node>>,
    pub name: CString,
    /// The source directory's attributes.
    pub stat: Stat,
    /// Identity (device, inode) of the destination directory.
    dst_id: Option<((u32, u32), u64)>,
    /// Where the destination directory is.
    pub dst_place: Option<Place>,
    /// Made by this run, mode 01700, owned by us: nobody else can reach what is below until it is
    /// finished, so entries are made under their final names without looking first.
    pub fresh: bool,
    /// It was there, and nobody but ourselves could reach what is below. It is opened when it is
    /// finished.
    pub closed: bool,
    /// The permission bits that it had before its owner was given what is missing to work in it.
    pub widened: Option<u32>,
    /// A run that was killed has left it so, with half-written files in it. What is half-written when it
    /// is opened becomes root's.
    pub unfinished: bool,
    /// It was changed by somebody whose work stays: its own metadata is left alone.
    pub protected: bool,
    /// Entries and directories below that are not finished, plus one for the listing itself.
    pending: AtomicUsize,
    /// Names seen in the source.
    pub src_entries: AtomicU64,
    /// All source names have been seen; if not, nothing is removed here.
    pub whole: AtomicBool,
    /// Something in this directory went wrong, so that counting entries proves nothing.
    pub uncertain: AtomicBool,
    held: Mutex<Option<Arc<Pair>>>,
    /// See [`KeptNodes`].
    kept: AtomicUsize,
}

impl Node {
    pub fn new(
        parent: Option<Arc<Node>>,
        name: CString,
        stat: Stat,
        pair: &Arc<Pair>,
        fresh: bool,
    ) -> Result<Self, Errno> {
        let dst = pair.dst.as_ref().map(at::stat_fd).transpose()?;
        Ok(Self {
            parent,
            name,
            stat,
            dst_id: dst.map(|dst| (dst.dev, dst.ino)),
            dst_place: dst.map(|dst| Place::of(&dst)),
            fresh,
            closed: false,
            widened: None,
            unfinished: false,
            protected: false,
            pending: AtomicUsize::new(1),
            src_entries: AtomicU64::new(0),
            whole: AtomicBool::new(true),
            uncertain: AtomicBool::new(false),
            held: Mutex::new(Some(pair.clone())),
            kept: AtomicUsize::new(0),
        })
    }

    /// Notes `count` more things to do below.
    pub fn expect(&self, count: usize) {
        self.pending.fetch_add(count, Ordering::Relaxed);
    }

    /// Notes that one thing is done; true when it was the last.
    pub fn done(&self) -> bool {
        self.pending.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// The path below the top of the trees, for messages. Empty at the top. Of a long one only the ends
    /// are put together.
    pub fn path(&self) -> PathBuf {
        let (mut end, mut start) = (Vec::new(), VecDeque::new());
        let (mut end_bytes, mut start_bytes, mut left_out) = (0, 0, 0);
        let mut node = self;
        while let Some(parent) = &node.parent {
            let name = OsStr::from_bytes(node.name.to_bytes());
            if end_bytes < SHOWN_END {
                end_bytes += name.len() + 1;
                end.push(name);
            } else {
                start_bytes += name.len() + 1;
                start.push_front(name);
            }
            while start_bytes > SHOWN_END
                && start.len() > 1
                && let Some(name) = start.pop_back()
            {
                start_bytes -= name.len() + 1;
                left_out += name.len() + 1;
            }
            node = parent;
        }
        let mut path: PathBuf = start.iter().collect();
        if left_out > 0 {
            path.push(crate::error::left_out(left_out));
        }
        path.extend(end.iter().rev());
        path
    }

    fn held(&self) -> Option<Arc<Pair>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hold(&self, pair: Option<Arc<Pair>>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = pair;
    }
}

/// A long chain of ancestors must not be dropped by recursion.
impl Drop for Node {
    fn drop(&mut self) {
        let mut parent = self.parent.take();
        while let Some(node) = parent {
            parent = match Arc::try_unwrap(node) {
                Ok(mut node) => node.parent.take(),
                Err(_) => None,
            };
        }
    }
}

/// Directories that are done and still needed, each with those above it: of leaders of hard-link groups,
/// and where there are surplus names. What keeps more of them than [`KeptNodes::MOST`] has to do without.
#[derive(Debug, Default)]
pub(super) struct KeptNodes(AtomicUsize);

impl KeptNodes {
    /// How many there may be, about 8 MiB.
    const MOST: usize = 12 * 1024;

    pub fn has_room(&self) -> bool {
        self.0.load(Ordering::Relaxed) < Self::MOST
    }

    /// Notes that `node` is needed once more.
    pub fn add(&self, node: &Node) {
        let mut node = Some(node);
        while let Some(added) = node.filter(|node| node.kept.fetch_add(1, Ordering::Relaxed) == 0) {
            self.0.fetch_add(1, Ordering::Relaxed);
            node = added.parent.as_deref();
        }
    }

    /// Takes that back.
    pub fn remove(&self, node: &Node) {
        let mut node = Some(node);
        while let Some(gone) = node.filter(|node| node.kept.fetch_sub(1, Ordering::Relaxed) == 1) {
            self.0.fetch_sub(1, Ordering::Relaxed);
            node = gone.parent.as_deref();
        }
    }
}

/// The bounded set of directories that hold descriptors, oldest first.
#[derive(Debug)]
pub(super) struct Held {
    order: Mutex<VecDeque<Weak<Node>>>,
    limit: usize,
}

impl Held {
    /// `limit` is a number of directories (two descriptors each).
    pub fn new(limit: usize) -> Self {
        Self { order: Mutex::new(VecDeque::new()), limit }
    }

    /// Notes that `node` holds its descriptors, and lets go of the oldest beyond the limit. Whoever
    /// works with those right now keeps them open until it is done.
    pub fn note(&self, node: &Arc<Node>) {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.push_back(Arc::downgrade(node));
        while order.len() > self.limit {
            if let Some(oldest) = order.pop_front().and_then(|weak| weak.upgrade())
                && oldest.parent.is_some()
            {
                oldest.hold(None);
            }
        }
    }

    /// The descriptors of `node`, found again from the nearest ancestor that holds its own.
    pub fn open(&self, node: &Arc<Node>) -> Result<Arc<Pair>, (Side, Errno)> {
        let mut missing: Vec<&Arc<Node>> = Vec::new();
        let mut place = node;
        let mut pair = loop {
            if let Some(pair) = place.held() {
                break pair;
            }
            missing.push(place);
            match &place.parent {
                Some(parent) => place = parent,
                None => return Err((Side::Source, Errno::BADF)),
            }
        };
        for next in missing.into_iter().rev() {
            pair = Arc::new(reopen(&pair, &next.name, next)?);
        }
        if node.held().is_none() {
            node.hold(Some(pair.clone()));
            self.note(node);
        }
        Ok(pair)
    }

    /// Lets `parent` hold descriptors again, found through ".." of its child `pair`, so that going
    /// up a long path need not start at the top each time. Where that fails, [`Held::open`] tries.
    pub fn reach_up(&self, parent: &Arc<Node>, pair: &Pair) {
        if parent.held().is_none()
            && let Ok(found) = reopen(pair, c"..", parent)
        {
            parent.hold(Some(Arc::new(found)));
            self.note(parent);
        }
    }
}

/// Opens `node` by `name` relative to `from`: its own name from its parent, ".." from a child.
fn reopen(from: &Pair, name: &CStr, node: &Node) -> Result<Pair, (Side, Errno)> {
    let src = at::open_dir(&from.src, name).map_err(|errno| (Side::Source, errno))?;
    let stat = at::stat_fd(&src).map_err(|errno| (Side::Source, errno))?;
    if !stat.same_inode(&node.stat) {
        return Err((Side::Source, Errno::STALE));
    }
    let dst = match (&from.dst, node.dst_id) {
        (Some(from), Some(id)) => {
            let dst = at::open_dir(from, name).map_err(|e| (Side::Destination, e))?;
            let stat = at::stat_fd(&dst).map_err(|errno| (Side::Destination, errno))?;
            if (stat.dev, stat.ino) != id {
                return Err((Side::Destination, Errno::STALE));
            }
            Some(dst)
        }
        _ => None,
    };
    Ok(Pair { src, dst })
}

/// `base` joined with `name`, for messages.
pub(super) fn join(base: &Path, name: &CStr) -> PathBuf {
    base.join(OsStr::from_bytes(name.to_bytes()))
}
