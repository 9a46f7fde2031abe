//! The trees that are restored into: opened, made where absent, locked.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use molecule_tools::error::{Error, Result};
use molecule_tools::fs::{Dir, Stat};

use super::lock::{LockWait, TreeLock};

/// One tree, and its lock if it has one.
pub struct DestinationDir {
    pub tree: Dir,
    /// Made just now: nobody has ever made anything in it.
    pub made: bool,
    lock: Option<TreeLock>,
}

impl DestinationDir {
    /// Its lock; `None` if there is none to be had.
    pub fn lock(&self) -> Option<&TreeLock> {
        self.lock.as_ref()
    }
}

impl Drop for DestinationDir {
    fn drop(&mut self) {
        if let Some(lock) = self.lock.take() {
            lock.release(&self.tree);
        }
    }
}

/// Opens the directory `path` of `root`, which is made if absent and `make` is set; `None` if it is absent.
pub fn open(root: &Dir, path: &Path, make: bool) -> Result<Option<DestinationDir>> {
    let found = |tree, made| Some(DestinationDir { tree, made, lock: None });
    if !make {
        return Ok(root.open_beneath(path)?.and_then(|tree| found(tree, false)));
    }
    let parent = root.make_beneath(path.parent().unwrap_or(Path::new("")), 0o755)?;
    let name = CString::new(path.file_name().unwrap_or_default().as_bytes())
        .map_err(|_| Error::on("use path", path, "it has a NUL byte"))?;
    let absent = parent.stat_entry(&name)?.is_none();
    if absent {
        parent.make_dir(&name, 0o700)?;
    }
    Ok(found(parent.open_dir(&name)?, absent))
}

/// Takes the locks of all `trees`: two restores would take each other's files for surplus. Always in the same
/// order, so that two of them never wait for each other.
///
/// # Errors
///
/// EWOULDBLOCK when another process has one and `wait`, which is given the tree and the file of its lock, says not
/// to wait on.
pub fn lock(
    trees: Vec<&mut DestinationDir>,
    mut wait: impl FnMut(&Dir, &Stat) -> LockWait,
) -> Result<()> {
    let mut trees = trees
        .into_iter()
        .map(|tree| tree.tree.stat().map(|stat| (stat.id(), tree)))
        .collect::<Result<Vec<_>>>()?;
    trees.sort_unstable_by_key(|(inode, _)| *inode);
    // One tree can be in the set twice, through a bind mount; it has one lock.
    trees.dedup_by_key(|(inode, _)| *inode);
    let mut held: Vec<&TreeLock> = Vec::new();
    for (_, destination) in trees {
        let DestinationDir { tree, lock, .. } = destination;
        *lock = TreeLock::take(tree, |stat| {
            held.iter().for_each(|lock| lock.show_life());
            wait(tree, stat)
        })?;
        held.extend(&*lock);
    }
    Ok(())
}
