//! Directories of the two trees while they are being worked on: identity, standing in the destination, and
//! the count of what is still to be done below.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use crate::error::SHOWN_END;
use crate::fs::{InodeId, Stat, at};
use crate::lock::lock;

/// The open descriptors of one directory in both trees.
#[derive(Debug)]
pub(super) struct DirPair {
    pub src: OwnedFd,
    /// None in a dry run for a directory that does not exist yet.
    pub dst: Option<OwnedFd>,
}

impl DirPair {
    /// The directory of the destination.
    ///
    /// # Errors
    ///
    /// EBADF where there is none; nothing is made then.
    pub fn destination(&self) -> Result<&OwnedFd, Errno> {
        self.dst.as_ref().ok_or(Errno::BADF)
    }
}

/// A mount, and on btrfs a subvolume in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileSystem {
    mount_id: u64,
    dev: (u32, u32),
}

impl FileSystem {
    pub fn of(stat: &Stat) -> Self {
        Self { mount_id: stat.mount_id, dev: stat.dev }
    }
}

/// Who can reach what is in a directory of the destination until everything below is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Made by this run, mode 01700, owned by us: nobody else can, so entries are made under their final
    /// names without looking first. In a dry run: it would be made.
    New,
    /// It was there, and nobody but ourselves can, or its owner may not do everything in it as the source
    /// has it. It gets its owner, mode and xattrs last.
    Private,
    /// The same of one that a killed run has left in the making, with half-written files in it, which
    /// become root's before others can reach them.
    Unfinished,
    /// It was there, and its users can.
    Shared,
}

/// One directory in work.
#[derive(Debug)]
pub(super) struct DirNode {
    pub parent: Option<Arc<DirNode>>,
    pub name: CString,
    /// The source directory's attributes.
    pub stat: Stat,
    /// Identity of the destination directory.
    pub dst_id: Option<InodeId>,
    /// Where the destination directory is.
    pub dst_fs: Option<FileSystem>,
    pub standing: Standing,
    /// The permission bits that it had before its owner was given what is missing to work in it.
    pub widened: Option<u32>,
    /// It was changed by somebody whose work stays: its own metadata is left alone.
    pub protected: bool,
    /// Entries and directories below that are not finished, plus one for the listing itself.
    pending: AtomicUsize,
    /// Names seen in the source.
    pub src_entries: AtomicU64,
    /// Not all source names have been seen, so nothing is removed here.
    incomplete: AtomicBool,
    /// Something in this directory went wrong, so that counting entries proves nothing.
    uncertain: AtomicBool,
    held: Mutex<Option<Arc<DirPair>>>,
    /// See [`KeptNodes`].
    kept: AtomicUsize,
}

impl DirNode {
    /// With one thing pending, its listing; see [`Pending::first`].
    pub fn new(
        parent: Option<Arc<DirNode>>,
        name: CString,
        stat: Stat,
        pair: &Arc<DirPair>,
        standing: Standing,
    ) -> Result<Self, Errno> {
        let dst = pair.dst.as_ref().map(at::stat_fd).transpose()?;
        Ok(Self {
            parent,
            name,
            stat,
            dst_id: dst.as_ref().map(Stat::id),
            dst_fs: dst.as_ref().map(FileSystem::of),
            standing,
            widened: None,
            protected: false,
            pending: AtomicUsize::new(1),
            src_entries: AtomicU64::new(0),
            incomplete: AtomicBool::new(false),
            uncertain: AtomicBool::new(false),
            held: Mutex::new(Some(pair.clone())),
            kept: AtomicUsize::new(0),
        })
    }

    pub fn is_new(&self) -> bool {
        self.standing == Standing::New
    }

    /// Notes that not all source names are seen.
    pub fn set_incomplete(&self) {
        self.incomplete.store(true, Ordering::Relaxed);
    }

    /// Whether all source names have been seen.
    pub fn is_complete(&self) -> bool {
        !self.incomplete.load(Ordering::Relaxed)
    }

    /// Notes that something went wrong in it.
    pub fn set_uncertain(&self) {
        self.uncertain.store(true, Ordering::Relaxed);
    }

    pub fn is_uncertain(&self) -> bool {
        self.uncertain.load(Ordering::Relaxed)
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

    /// The path of `name` in it, or its own where that is empty.
    pub fn path_of(&self, name: &CStr) -> PathBuf {
        if name.is_empty() { self.path() } else { join(&self.path(), name) }
    }

    /// The descriptors, if it holds them.
    pub fn held(&self) -> Option<Arc<DirPair>> {
        lock(&self.held).clone()
    }

    /// Has it hold `pair`, or let go of what it holds.
    pub fn hold(&self, pair: Option<Arc<DirPair>>) {
        *lock(&self.held) = pair;
    }
}

/// A long chain of ancestors must not be dropped by recursion.
impl Drop for DirNode {
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

/// A directory in work with its descriptors.
#[derive(Debug, Clone)]
pub(super) struct OpenDir {
    pub node: Arc<DirNode>,
    pub pair: Arc<DirPair>,
}

/// One thing that is still to be done in or below a directory, which is finished after the last
/// (`walk::release`).
#[derive(Debug)]
#[must_use = "its directory would never be finished"]
pub(super) struct Pending(Arc<DirNode>);

impl Pending {
    /// The one that a new node has from the beginning. Until it is finished, the node is one thing in its
    /// parent; see [`Pending::above`].
    pub fn first(node: DirNode) -> Self {
        if let Some(parent) = &node.parent {
            parent.pending.fetch_add(1, Ordering::Relaxed);
        }
        Self(Arc::new(node))
    }

    /// The thing that `node`, which is finished, was in its parent; once for each node.
    pub fn above(node: &DirNode) -> Option<Self> {
        node.parent.clone().map(Self)
    }

    /// One more.
    pub fn more(node: &Arc<DirNode>) -> Self {
        node.pending.fetch_add(1, Ordering::Relaxed);
        Self(node.clone())
    }

    pub fn node(&self) -> &Arc<DirNode> {
        &self.0
    }

    /// Notes that it is done; the directory, if it was the last there.
    pub fn done(self) -> Option<Arc<DirNode>> {
        (self.0.pending.fetch_sub(1, Ordering::AcqRel) == 1).then_some(self.0)
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
    pub fn add(&self, node: &DirNode) {
        let mut node = Some(node);
        while let Some(added) = node.filter(|node| node.kept.fetch_add(1, Ordering::Relaxed) == 0) {
            self.0.fetch_add(1, Ordering::Relaxed);
            node = added.parent.as_deref();
        }
    }

    /// Takes that back.
    pub fn remove(&self, node: &DirNode) {
        let mut node = Some(node);
        while let Some(gone) = node.filter(|node| node.kept.fetch_sub(1, Ordering::Relaxed) == 1) {
            self.0.fetch_sub(1, Ordering::Relaxed);
            node = gone.parent.as_deref();
        }
    }
}

/// `base` joined with `name`, for messages.
pub(super) fn join(base: &Path, name: &CStr) -> PathBuf {
    base.join(OsStr::from_bytes(name.to_bytes()))
}
