//! The records that a runtime has started over the trees of the restore set.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use molecule_tools::error::Result;
use molecule_tools::fs::Dir;
use molecule_tools::heartbeat::Heartbeat;
use molecule_tools::record;
use rustix::io::Errno;
use tracing::warn;

use super::set::shown_below;

/// Leaves a record with each of the trees that exists.
pub fn leave(paths: &[PathBuf], root: &Dir, write: impl Fn(&Dir) -> Result<()>, heart: &Heartbeat) {
    for path in paths {
        heart.enter(0, shown_below(root.path(), path));
        match root.open_beneath(path).and_then(|tree| tree.as_ref().map_or(Ok(()), &write)) {
            Ok(()) => {}
            // Where nothing can be written, nothing can be lost either.
            Err(error) if error.errno() == Some(Errno::ROFS) => {}
            // A start that is not root's: its user can make nothing here either, at most further down.
            Err(error)
                if matches!(error.errno(), Some(Errno::ACCESS | Errno::PERM))
                    && !rustix::process::geteuid().is_root() => {}
            Err(error) => {
                warn!("{}", error.hint("a later restore may not know that a runtime has run here"));
            }
        }
    }
}

/// Whether a runtime is known to have started over each of the trees that exists.
pub fn are_with_all(root: &Dir, paths: &[PathBuf]) -> bool {
    paths.iter().all(|path| match root.open_beneath(path) {
        Ok(Some(tree)) => matches!(record::look(&tree), Ok(Some(record)) if !record.pending),
        Ok(None) => true,
        Err(_) => false,
    })
}
