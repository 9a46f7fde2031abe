//! The agent at work, and what it remembers of its work.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown, lchown};
use std::path::Path;

use crate::sequences::workspace::{TREES, Workspace};

/// The names that the agent works on. Some are files or directories in the image and the snapshots.
const NAMES: [&str; 14] = [
    "old",
    "work",
    "made",
    "missing",
    "linked",
    "dir",
    "dir/a",
    "dir/made",
    "deep",
    "deep/x",
    "deep/x/y",
    "deep/x/made",
    "deep/x/linked",
    "new/one",
];
/// The name that a runtime writes from its first moment on.
pub const ONCE: &str = "once";

/// The content that the agent wrote last, by path, for each tree.
#[derive(Debug, Default)]
pub struct Model {
    trees: [BTreeMap<String, String>; 3],
    written: u64,
}

/// One thing that the agent does in one tree.
#[derive(Debug, Clone, Copy)]
pub enum Work {
    /// Writes the file, in place where there is one.
    Write(&'static str),
    /// The same, with the size and the time of the snapshot's file.
    Imitate(&'static str),
    /// Writes a new file and renames it over the old one.
    Replace(&'static str),
    /// Makes a directory with a file in it, in the place of whatever was there.
    Directory(&'static str),
    Rename(&'static str, &'static str),
    /// Gives the file another name beside its own.
    Link(&'static str, &'static str),
    /// Puts a symbolic link in the place of a file.
    Symlink(&'static str),
    Remove(&'static str),
}

impl Work {
    pub fn random(random: &mut impl FnMut(usize) -> usize) -> Self {
        let mut name = || NAMES[random(NAMES.len())];
        let (one, other) = (name(), name());
        match random(10) {
            0..=2 => Self::Write(one),
            3 => Self::Imitate(one),
            4 => Self::Replace(one),
            5 => Self::Directory(one),
            6 => Self::Rename(one, other),
            7 => Self::Link(one, other),
            8 => Self::Symlink(one),
            _ => Self::Remove(one),
        }
    }
}

impl Model {
    /// Content that nobody else writes, of the length of the snapshot's.
    pub fn content(&mut self) -> String {
        self.written += 1;
        format!("a{:07}\n", self.written)
    }

    /// Tree `index` is another one now.
    pub fn forget(&mut self, index: usize) {
        self.trees[index].clear();
    }

    /// The agent wrote `content` to `name`.
    pub fn remember(&mut self, index: usize, name: &str, content: &str) {
        self.trees[index].insert(name.into(), content.into());
    }

    /// Does it, and remembers it. Work that cannot be done where the tree stands so is left.
    pub fn work(&mut self, workspace: &Workspace, index: usize, work: Work) -> std::io::Result<()> {
        let path = |name: &str| workspace.path(index, name);
        match work {
            Work::Write(name) | Work::Imitate(name) | Work::Replace(name) => {
                let content = self.content();
                parents(&path(name))?;
                if matches!(work, Work::Replace(_)) {
                    let aside = path(".aside");
                    write(&aside, &content)?;
                    std::fs::rename(&aside, path(name))
                        .inspect_err(|_| drop(std::fs::remove_file(&aside)))?;
                } else {
                    write(&path(name), &content)?;
                    for other in self.other_names(workspace, index, name) {
                        self.remember(index, &other, &content);
                    }
                }
                if matches!(work, Work::Imitate(_)) {
                    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_577_836_800);
                    std::fs::File::options().write(true).open(path(name))?.set_modified(old)?;
                }
                self.remember(index, name, &content);
            }
            Work::Directory(name) => {
                self.remove(workspace, index, name)?;
                parents(&path(name))?;
                std::fs::create_dir(path(name))?;
                let content = self.content();
                let inside = format!("{name}/inside");
                write(&path(&inside), &content)?;
                self.remember(index, &inside, &content);
            }
            Work::Rename(from, to) => {
                parents(&path(to))?;
                std::fs::rename(path(from), path(to))?;
                if from == to {
                    return Ok(());
                }
                let tree = &mut self.trees[index];
                tree.retain(|name, _| !is_at_or_below(name, to));
                let moved: Vec<String> =
                    tree.keys().filter(|name| is_at_or_below(name, from)).cloned().collect();
                for name in moved {
                    let content = tree.remove(&name).unwrap();
                    tree.insert(format!("{to}{}", &name[from.len()..]), content);
                }
            }
            Work::Link(from, to) => {
                parents(&path(to))?;
                std::fs::hard_link(path(from), path(to))?;
                let tree = &mut self.trees[index];
                if let Some(content) = tree.get(from).cloned() {
                    tree.insert(to.into(), content);
                }
            }
            Work::Symlink(name) => {
                parents(&path(name))?;
                if path(name).symlink_metadata().is_ok_and(|it| !it.is_dir()) {
                    std::fs::remove_file(path(name))?;
                }
                let target = self.content();
                std::os::unix::fs::symlink(&target, path(name))?;
                lchown(path(name), Some(1000), Some(1000))?;
                self.remember(index, name, &target);
            }
            Work::Remove(name) => self.remove(workspace, index, name)?,
        }
        Ok(())
    }

    /// The names that a file has beside `name`.
    fn other_names(&self, workspace: &Workspace, index: usize, name: &str) -> Vec<String> {
        let inode = |name: &str| {
            let it = workspace.path(index, name).symlink_metadata().ok()?;
            Some((it.dev(), it.ino()))
        };
        let all = NAMES.iter().copied().map(str::to_owned).chain(self.trees[index].keys().cloned());
        let of_this = inode(name);
        all.filter(|other| other != name && inode(other) == of_this).collect()
    }

    fn remove(&mut self, workspace: &Workspace, index: usize, name: &str) -> std::io::Result<()> {
        let path = workspace.path(index, name);
        match path.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(&path)?,
            Ok(_) => std::fs::remove_file(&path)?,
            Err(_) => {}
        }
        self.trees[index].retain(|other, _| !is_at_or_below(other, name));
        Ok(())
    }

    /// The paths whose content is not what the agent wrote last.
    pub fn lost(&self, workspace: &Workspace) -> Vec<String> {
        let mut lost = Vec::new();
        for (index, tree) in self.trees.iter().enumerate() {
            for (name, content) in tree {
                let path = workspace.path(index, name);
                let found = match std::fs::read_link(&path) {
                    Ok(target) => Ok(target.to_string_lossy().into_owned()),
                    Err(_) => std::fs::read_to_string(&path),
                };
                if found.as_ref().ok() != Some(content) {
                    lost.push(format!("{}/{name}: {found:?}, not {content:?}", TREES[index]));
                }
            }
        }
        lost
    }
}

fn is_at_or_below(name: &str, directory: &str) -> bool {
    name.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn parents(path: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(path.parent().unwrap())
}

fn write(path: &Path, content: &str) -> std::io::Result<()> {
    let flags = nix::libc::O_NOFOLLOW;
    let mut options = std::fs::File::options();
    options.write(true).create(true).truncate(true).custom_flags(flags);
    options.open(path)?.write_all(content.as_bytes())?;
    chown(path, Some(1000), Some(1000))
}
