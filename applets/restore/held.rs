//! The trees of the restore set, opened and locked.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use molecule_tools::error::{Result, escape};
use molecule_tools::fs::Dir;
use molecule_tools::record;
use tracing::info;

use super::caller::{LifeSigns, RestoreCaller};
use super::destination::{self, DestinationDir};
use super::lock::{HolderSilence, LockWait, was_overtaken};
use super::options::Options;
use super::records;
use super::set::shown_below;
use super::source::SourceTrees;

/// How long a restore by hand waits for another one.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// A path of the restore set, and what is to be restored into.
pub type HeldTrees<'a> = (&'a PathBuf, Result<Option<DestinationDir>>);

/// Opens the trees; one that is absent is made if `make` says so.
pub fn hold_trees<'a>(
    root: &Dir,
    paths: impl IntoIterator<Item = &'a PathBuf>,
    make: impl Fn(&Path) -> bool,
    life: LifeSigns<'_>,
) -> Vec<HeldTrees<'a>> {
    let hold = |path: &'a PathBuf| {
        life.heart.enter(0, shown_below(root.path(), path));
        (path, destination::open(root, path, make(path)))
    };
    paths.into_iter().map(hold).collect()
}

/// A boot waits for as long as another restore takes, for it could not start over half a tree; but not for one that
/// is stuck.
pub fn lock_trees(
    options: &Options,
    root: &Dir,
    trees: &mut [HeldTrees<'_>],
    life: LifeSigns<'_>,
    caller: RestoreCaller,
) -> Result<()> {
    if options.dry_run {
        return Ok(());
    }
    let deadline = Instant::now() + LOCK_WAIT;
    let (mut said, mut silence) = (false, HolderSilence::new());
    let paths: Vec<PathBuf> = trees.iter().map(|(path, _)| (*path).clone()).collect();
    let trees = trees.iter_mut().filter_map(|(_, tree)| tree.as_mut().ok()?.as_mut());
    destination::lock(trees.collect(), |tree, lock| {
        if !said {
            info!("another restore into {} is running, waiting", escape(tree.path()));
            said = true;
        }
        life.heart.enter(0, tree.path());
        // One that is still stuck since an earlier start is not given as much time again.
        let most = if was_overtaken(lock) { life.silence.min(LOCK_WAIT) } else { life.silence };
        let silent = silence.look(lock) >= most;
        match caller {
            _ if life.interruption.seen().is_some() => LockWait::NoMore,
            RestoreCaller::Hand if Instant::now() >= deadline => LockWait::NoMore,
            RestoreCaller::Boot if silent => {
                // The next holder of the locks shall see that a runtime is about to start.
                records::leave(&paths, root, record::announce, life.heart);
                LockWait::Overtake
            }
            _ => LockWait::On,
        }
    })
}

/// Makes and locks the trees that are absent and that the source has.
pub fn make_absent(
    options: &Options,
    root: &Dir,
    source: &SourceTrees,
    trees: &mut [HeldTrees<'_>],
    life: LifeSigns<'_>,
) -> Result<()> {
    let (paths, places): (Vec<&PathBuf>, Vec<_>) = trees
        .iter_mut()
        .filter(|(_, tree)| matches!(tree, Ok(None)))
        .map(|(path, tree)| (*path, tree))
        .unzip();
    let mut made = hold_trees(root, paths, |path| source.has(path), life);
    lock_trees(options, root, &mut made, life, RestoreCaller::Hand)?;
    for (place, (_, tree)) in places.into_iter().zip(made) {
        *place = tree;
    }
    Ok(())
}
