//! The trees of one file system that may be the root of a system, or a directory of it: btrfs keeps
//! them in subvolumes.
#![forbid(unsafe_code)]

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use molecule_tools::error::{Error, Result, escape};
use molecule_tools::fs::{Dir, DirListing, Kind};
use molecule_tools::volume::btrfs;
use molecule_tools::volume::look::again_of;
use rustix::io::Errno;
use tracing::warn;

/// Where distributions put the root of a btrfs volume, besides its top and the default subvolume.
const ROOTS: [&str; 3] = ["@", "root", "@rootfs"];
/// Most directories at the top that are looked at to find subvolumes.
const MOST: usize = 256;

/// The trees of a mounted file system, in the order in which they are looked at.
pub struct SubvolumeTrees {
    /// Paths below the root of the mount.
    first: Vec<PathBuf>,
    /// Whether there may be more.
    is_btrfs: bool,
    /// Whether it is not known which subvolume a plain mount would show.
    pub default_unknown: bool,
}

/// `rest` below `top`.
pub fn below(top: &Path, rest: &Path) -> PathBuf {
    // Joining an empty path leaves a slash behind.
    if rest.as_os_str().is_empty() { top.to_owned() } else { top.join(rest) }
}

/// Where a path was found.
pub struct SubvolumeHit {
    pub dir: Dir,
    /// The tree, below the root of the mount.
    pub tree: PathBuf,
    /// The path in it.
    pub rest: PathBuf,
}

impl SubvolumeTrees {
    /// Those of the file system of type `fstype` with root directory `root`.
    pub fn of(root: &Dir, fstype: &str, label: &str) -> Self {
        let is_btrfs = fstype == "btrfs";
        let mut first = vec![PathBuf::new()];
        let mut default_unknown = false;
        if is_btrfs {
            match again_of(|| btrfs::default_subvolume(root)) {
                Ok(path) if path.as_os_str().is_empty() => {}
                Ok(path) => first.insert(0, path),
                Err(error) => {
                    warn!(
                        "{label}: {error}; another subvolume may be taken, nothing will be deleted"
                    );
                    default_unknown = true;
                }
            }
            let roots = ROOTS.map(PathBuf::from).into_iter();
            first.extend(roots.filter(|path| first.first() != Some(path)).collect::<Vec<_>>());
        }
        Self { first, is_btrfs, default_unknown }
    }

    /// Finds directory `path` of a system below `root`: in the default subvolume, at the top, in the
    /// usual roots, in the subvolume that is named after its first directory (`@home`), then in any
    /// one at the top. An error if some tree cannot be looked at, or several of the last kind have it.
    pub fn find(&self, root: &Dir, path: &Path) -> Result<Option<SubvolumeHit>> {
        for tree in &self.first {
            if let Some(hit) = look(root, tree, path)? {
                return Ok(Some(hit));
            }
        }
        if !self.is_btrfs {
            return Ok(None);
        }
        let mut components = path.components();
        if let Some(first) = components.next() {
            let tree = PathBuf::from(format!("@{}", first.as_os_str().to_string_lossy()));
            if let Some(hit) = look(root, &tree, components.as_path())? {
                return Ok(Some(hit));
            }
        }
        // Snapshots that are kept come last: what is written to now is newer.
        let (mut written, mut kept) = (Vec::new(), Vec::new());
        for tree in others(root, &self.first)? {
            if let Some(hit) = look(root, &tree, path)? {
                // A subvolume that has just been opened is there.
                let is_kept = match root.open_beneath(&tree)? {
                    Some(top) => btrfs::is_read_only(&top)?,
                    None => true,
                };
                if is_kept { kept.push(hit) } else { written.push(hit) }
            }
        }
        let mut hits = if written.is_empty() { kept } else { written };
        match hits.len() {
            0 | 1 => Ok(hits.pop()),
            count => {
                let trees: Vec<_> =
                    hits.iter().take(4).map(|hit| escape(&hit.tree).to_string()).collect();
                let reason = format!("{count} subvolumes have it: {}", trees.join(", "));
                Err(Error::on("choose the source of", path, reason)
                    .hint("set the default subvolume of the volume, or name one with --source"))
            }
        }
    }

    /// Finds `path` below the trees that are looked at first, and nowhere else.
    pub fn find_in_first(&self, root: &Dir, path: &Path) -> Result<Option<SubvolumeHit>> {
        for tree in &self.first {
            if let Some(hit) = look(root, tree, path)? {
                return Ok(Some(hit));
            }
        }
        Ok(None)
    }
}

/// The subvolumes at the top that are not in `known`, sorted by name.
fn others(root: &Dir, known: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    again_of(|| {
        names.clear();
        DirListing::for_each(root, |name, kind, _| {
            if kind.is_none_or(|kind| kind == Kind::Dir) && names.len() <= MOST {
                names.push(name.to_owned());
            }
        })
    })?;
    if names.len() > MOST {
        return Err(Error::on("look over", root.path(), "it has too many directories")
            .hint("name the one to restore from with --source"));
    }
    names.sort_unstable();
    let mut trees = Vec::new();
    for name in names {
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes()));
        let stat = again_of(|| root.stat_entry(&name))?;
        let is_subvolume =
            stat.is_some_and(|stat| stat.kind == Kind::Dir && stat.ino == btrfs::SUBVOLUME_ROOT);
        if is_subvolume && !known.contains(&path) {
            trees.push(path);
        }
    }
    Ok(trees)
}

/// Opens directory `rest` of `tree` below `root`, no link followed. A tree that is no directory is no
/// tree; a link within one is an error, not an absence.
fn look(root: &Dir, tree: &Path, rest: &Path) -> Result<Option<SubvolumeHit>> {
    let top = match again_of(|| root.open_beneath(tree)) {
        Ok(Some(top)) => top,
        Ok(None) => return Ok(None),
        Err(error) => match error.errno() {
            Some(Errno::NOTDIR) | None => return Ok(None),
            Some(_) => return Err(error),
        },
    };
    match again_of(|| top.open_beneath(rest)) {
        Ok(Some(dir)) => {
            Ok(Some(SubvolumeHit { dir, tree: tree.to_owned(), rest: rest.to_owned() }))
        }
        Ok(None) => Ok(None),
        Err(error) if error.errno() == Some(Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}
