//! Where each path of the restore set is: in which tree of which file system.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use molecule_tools::error::{Error, Result};
use molecule_tools::fs::Dir;
use molecule_tools::volume::look::again_of;
use molecule_tools::volume::mount::PassingMount;
use rustix::io::Errno;

/// The source of a restore: for each path of the restore set, the directory it is restored from.
pub struct Trees {
    /// Top of the tree that has most, for the lines about absent paths.
    top: PathBuf,
    found: Vec<(PathBuf, Where)>,
    /// Ends the mount, if it does not outlive the restore.
    _passing: Option<PassingMount>,
}

/// Where one path of the restore set is.
pub enum Where {
    Here(Found),
    /// In no tree.
    Absent {
        /// Whether one of them was mounted without journal replay.
        stale: bool,
    },
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
    pub fn new(top: PathBuf, found: Vec<(PathBuf, Where)>, passing: Option<PassingMount>) -> Self {
        Self { top, found, _passing: passing }
    }

    /// One directory that holds all there is.
    pub fn single(dir: &Dir, shown: PathBuf, paths: &[PathBuf]) -> Self {
        let look = |path: &PathBuf| match again_of(|| dir.open_beneath(path)) {
            Ok(Some(dir)) => {
                let shown = shown.join(path);
                Where::Here(Found { dir: dir.shown_as(&shown), shown, stale: false })
            }
            Ok(None) => Where::Absent { stale: false },
            Err(error) if error.errno() == Some(Errno::NOTDIR) => Where::Absent { stale: false },
            Err(error) => Where::Unknown(error),
        };
        let found = paths.iter().map(|path| (path.clone(), look(path))).collect();
        Self::new(shown, found, None)
    }

    /// The directory that `path` of the restore set is restored from; `None` if no tree has it; an
    /// error if that is not known.
    pub fn find(&self, path: &Path) -> Result<Option<Found>> {
        match self.place(path) {
            Some(Where::Here(found)) => {
                let dir = found.dir.try_clone()?.shown_as(&found.shown);
                Ok(Some(Found { dir, shown: found.shown.clone(), stale: found.stale }))
            }
            Some(Where::Absent { .. }) => Ok(None),
            Some(Where::Unknown(error)) => Err(error.clone()),
            None => Err(Error::on("look for", path, "it is not in the restore set")),
        }
    }

    /// Whether [`Trees::find`] has something for `path`.
    pub fn has(&self, path: &Path) -> bool {
        matches!(self.place(path), Some(Where::Here(_)))
    }

    /// The path of `path`'s source in log lines; where it is absent, where it would be.
    pub fn shown(&self, path: &Path) -> PathBuf {
        match self.place(path) {
            Some(Where::Here(found)) => found.shown.clone(),
            _ => self.top.join(path),
        }
    }

    /// Whether something of the source may lack recent changes, because a file system was mounted
    /// without journal replay: an absent path is then a failure.
    pub fn stale(&self) -> bool {
        self.found.iter().any(|(_, place)| match place {
            Where::Here(found) => found.stale,
            Where::Absent { stale } => *stale,
            Where::Unknown(_) => false,
        })
    }

    fn place(&self, path: &Path) -> Option<&Where> {
        self.found.iter().find(|(it, _)| it == path).map(|(_, place)| place)
    }
}
