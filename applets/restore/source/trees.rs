//! Where each path of the restore set is: in which tree of which file system.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use molecule_tools::error::{Error, Result};
use molecule_tools::fs::Dir;
use molecule_tools::volume::look::again_of;
use molecule_tools::volume::mount::PassingMount;
use rustix::io::Errno;

/// The source of a restore: for each path of the restore set, the directory it is restored from.
pub struct SourceTrees {
    /// Top of the tree that has most, for the lines about absent paths.
    top: PathBuf,
    found: Vec<(PathBuf, TreePlace)>,
    /// Ends the mount, if it does not outlive the restore.
    _passing: Option<PassingMount>,
}

/// Where one path of the restore set is.
pub enum TreePlace {
    Here(FoundTree),
    /// In no tree.
    Absent {
        /// Whether one of them was mounted without journal replay.
        stale: bool,
    },
    /// Some tree could not be looked at, or several trees have it.
    Unknown(Error),
}

/// One path of the restore set, open.
pub struct FoundTree {
    /// The directory to restore from.
    pub dir: Dir,
    /// Its path in log lines.
    pub shown: PathBuf,
    /// Its file system was mounted without journal replay: delete nothing, claim no success.
    pub stale: bool,
}

impl SourceTrees {
    pub fn new(
        top: PathBuf,
        found: Vec<(PathBuf, TreePlace)>,
        passing: Option<PassingMount>,
    ) -> Self {
        Self { top, found, _passing: passing }
    }

    /// One directory that holds all there is.
    pub fn single(dir: &Dir, shown: PathBuf, paths: &[PathBuf]) -> Self {
        let look = |path: &PathBuf| match again_of(|| dir.open_beneath(path)) {
            Ok(Some(dir)) => {
                let shown = shown.join(path);
                TreePlace::Here(FoundTree { dir: dir.shown_as(&shown), shown, stale: false })
            }
            Ok(None) => TreePlace::Absent { stale: false },
            Err(error) if error.errno() == Some(Errno::NOTDIR) => {
                TreePlace::Absent { stale: false }
            }
            Err(error) => TreePlace::Unknown(error),
        };
        let found = paths.iter().map(|path| (path.clone(), look(path))).collect();
        Self::new(shown, found, None)
    }

    /// The directory that `path` of the restore set is restored from; `None` if no tree has it; an
    /// error if that is not known.
    pub fn find(&self, path: &Path) -> Result<Option<FoundTree>> {
        match self.place(path) {
            Some(TreePlace::Here(found)) => {
                let dir = found.dir.try_clone()?.shown_as(&found.shown);
                Ok(Some(FoundTree { dir, shown: found.shown.clone(), stale: found.stale }))
            }
            Some(TreePlace::Absent { .. }) => Ok(None),
            Some(TreePlace::Unknown(error)) => Err(error.clone()),
            None => Err(Error::on("look for", path, "it is not in the restore set")),
        }
    }

    /// Whether [`SourceTrees::find`] has something for `path`.
    pub fn has(&self, path: &Path) -> bool {
        matches!(self.place(path), Some(TreePlace::Here(_)))
    }

    /// The path of `path`'s source in log lines; where it is absent, where it would be.
    pub fn shown(&self, path: &Path) -> PathBuf {
        match self.place(path) {
            Some(TreePlace::Here(found)) => found.shown.clone(),
            _ => self.top.join(path),
        }
    }

    /// Whether something of the source may lack recent changes, because a file system was mounted
    /// without journal replay: an absent path is then a failure.
    pub fn stale(&self) -> bool {
        self.found.iter().any(|(_, place)| match place {
            TreePlace::Here(found) => found.stale,
            TreePlace::Absent { stale } => *stale,
            TreePlace::Unknown(_) => false,
        })
    }

    fn place(&self, path: &Path) -> Option<&TreePlace> {
        self.found.iter().find(|(it, _)| it == path).map(|(_, place)| place)
    }
}
