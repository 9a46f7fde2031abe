//! Which tree of a file system holds the restore set: btrfs keeps a root in a subvolume.

use std::path::{Path, PathBuf};

use molecule_tools::fs::Dir;

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
