//! Where each path of the restore set is: in which tree of which file system.

use std::path::{Path, PathBuf};

use molecule_tools::error::{Error, Result};
use molecule_tools::fs::Dir;
use rustix::io::Errno;

/// The source of a restore: for each path of the restore set, the directory it is restored from.
pub struct Trees {
    /// Top of the first tree that was looked at, for the lines about absent paths.
    top: PathBuf,
    found: Vec<(PathBuf, Place)>,
    stale: bool,
}

/// Where one path of the restore set is.
enum Place {
    Here(Found),
    /// In no tree.
    Absent,
    /// Some tree could not be looked at, or several trees have it.
    Unknown(Error),
}

/// One path of the restore set, open.
pub struct Found {
    /// The directory to restore from.
    pub dir: Dir,
    /// Its path in log lines.
    pub shown: PathBuf,
    /// Its file system was mounted without journal replay: delete nothing, claim no success.
    pub stale: bool,
}

impl Trees {
    /// One directory that holds all there is.
    pub fn single(dir: &Dir, shown: PathBuf, stale: bool, paths: &[PathBuf]) -> Self {
        let look = |path: &PathBuf| match open(dir, path) {
            Ok(Some(dir)) => Place::Here(Found { dir, shown: shown.join(path), stale }),
            Ok(None) => Place::Absent,
            Err(error) => Place::Unknown(error),
        };
        let found = paths.iter().map(|path| (path.clone(), look(path))).collect();
        Self { top: shown, found, stale }
    }

    /// The directory that `path` of the restore set is restored from; `None` if no tree has it; an
    /// error if that cannot be told.
    pub fn find(&self, path: &Path) -> Result<Option<Found>> {
        match self.place(path) {
            Some(Place::Here(found)) => {
                let dir = found.dir.try_clone()?.shown_as(&found.shown);
                Ok(Some(Found { dir, shown: found.shown.clone(), stale: found.stale }))
            }
            Some(Place::Absent) => Ok(None),
            Some(Place::Unknown(error)) => Err(error.clone()),
            None => Err(Error::on("look for", path, "it is not in the restore set")),
        }
    }

    /// The path of `path`'s source in log lines; where it is absent, where it would be.
    pub fn shown(&self, path: &Path) -> PathBuf {
        match self.place(path) {
            Some(Place::Here(found)) => found.shown.clone(),
            _ => self.top.join(path),
        }
    }

    /// Whether a tree was mounted without journal replay: an absent path is then a failure.
    pub fn stale(&self) -> bool {
        self.stale
    }

    fn place(&self, path: &Path) -> Option<&Place> {
        self.found.iter().find(|(it, _)| it == path).map(|(_, place)| place)
    }
}

/// Opens the directory `path` beneath `tree`, no link followed; `None` if there is no such directory.
fn open(tree: &Dir, path: &Path) -> Result<Option<Dir>> {
    match tree.open_beneath(path) {
        Err(error) if error.errno() == Some(Errno::NOTDIR) => Ok(None),
        other => other,
    }
}

/// Where distributions put the root of a btrfs volume, besides its top.
const SUBVOLUMES: [&str; 3] = ["@", "root", "@rootfs"];

/// The first tree below `root` in which one of `paths` is a directory; links are not followed.
pub fn holding(root: &Dir, fstype: &str, paths: &[PathBuf]) -> Option<PathBuf> {
    let subvolumes = if fstype == "btrfs" { &SUBVOLUMES[..] } else { &[] };
    let trees = std::iter::once("").chain(subvolumes.iter().copied());
    trees.map(PathBuf::from).find(|tree| holds(root, tree, paths))
}

fn holds(root: &Dir, tree: &Path, paths: &[PathBuf]) -> bool {
    let Ok(Some(dir)) = root.open_beneath(tree) else { return false };
    paths.iter().any(|path| matches!(dir.open_beneath(path), Ok(Some(_))))
}
