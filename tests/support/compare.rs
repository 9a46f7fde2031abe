//! The independent judge of a copy: two trees are read entry by entry and every difference is named.
//!
//! It shares no code with the program under test. Directories are held open and their entries
//! reached through `/proc/self/fd`, so that a tree deeper than PATH_MAX can be judged as well.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Allocation beyond the source's that is no lost hole: a file system's own block and extent rounding.
const ALLOCATION_SLACK: u64 = 128 * 1024;

/// All that is kept of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Type and permission bits (stat(2), st_mode).
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Modification time, seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// Bytes; zero for what is neither file nor symlink.
    pub size: u64,
    /// Device number of a device node, else zero.
    pub rdev: u64,
    /// Target of a symlink.
    pub target: Option<PathBuf>,
    /// Every extended attribute of every namespace, ACLs in their raw form among them.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Hash of a regular file's content.
    pub content: u64,
    /// Bytes allocated.
    pub allocated: u64,
    /// Device and inode number.
    pub inode: (u64, u64),
    /// Change time: moves whenever anything was written to the inode.
    pub ctime: (i64, i64),
}

/// A tree by relative path; the tree's own top is the empty path.
pub type Snapshot = BTreeMap<PathBuf, Entry>;

/// Reads the whole tree below `root`, which must exist.
pub fn snapshot(root: &Path) -> Snapshot {
    let mut entries = Snapshot::new();
    entries.insert(PathBuf::new(), entry(root));
    if std::fs::symlink_metadata(root).unwrap().is_dir() {
        visit(&File::open(root).unwrap(), Path::new(""), &mut entries);
    }
    // So that `touched` sees whatever is changed after this.
    super::clock::tick();
    entries
}

#[track_caller]
fn visit(directory: &File, relative: &Path, entries: &mut Snapshot) {
    let here = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    for found in walkdir::WalkDir::new(&here).min_depth(1).max_depth(1) {
        let found = found.unwrap_or_else(|error| panic!("{}: {error}", relative.display()));
        let (path, relative) = (here.join(found.file_name()), relative.join(found.file_name()));
        entries.insert(relative.clone(), entry(&path));
        if found.file_type().is_dir() {
            visit(&File::open(&path).unwrap(), &relative, entries);
        }
    }
}

#[track_caller]
fn entry(path: &Path) -> Entry {
    let data =
        std::fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let kind = data.file_type();
    Entry {
        mode: data.mode(),
        owner: (data.uid(), data.gid()),
        mtime: (data.mtime(), data.mtime_nsec()),
        size: if kind.is_file() || kind.is_symlink() { data.size() } else { 0 },
        rdev: data.rdev(),
        target: kind.is_symlink().then(|| std::fs::read_link(path).unwrap()),
        xattrs: xattrs(path),
        content: if kind.is_file() { hash(path) } else { 0 },
        allocated: data.blocks() * 512,
        inode: (data.dev(), data.ino()),
        ctime: (data.ctime(), data.ctime_nsec()),
    }
}

#[track_caller]
fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 65_536];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => panic!("{}: llistxattr: {error}", path.display()),
    };
    let mut found = BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 65_536];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(length);
        found.insert(String::from_utf8_lossy(name).into_owned(), value);
    }
    found
}

#[track_caller]
fn hash(path: &Path) -> u64 {
    let mut file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (mut hasher, mut buffer, zeros) = (DefaultHasher::new(), vec![0; 1 << 17], [0; 1 << 17]);
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return hasher.finish(),
            // Holes are most of a sparse file, and hashing is slow without optimization.
            length if buffer[..length] == zeros[..length] => hasher.write_usize(length),
            length => hasher.write(&buffer[..length]),
        }
    }
}

/// Every way in which `to` is no copy of `from`, one line each; empty for a perfect copy.
pub fn differences(from: &Path, to: &Path) -> Vec<String> {
    judge(&snapshot(from), &snapshot(to))
}

/// Every way in which tree `to` is no copy of tree `from`.
pub fn judge(from: &Snapshot, to: &Snapshot) -> Vec<String> {
    let mut lines = names(from, to);
    for (path, old) in from {
        if let Some(new) = to.get(path) {
            lines.extend(attributes(path, old, new));
        }
    }
    let (old, new) = (topology(from), topology(to));
    lines.extend(old.difference(&new).map(|group| format!("links: {group:?} is no group")));
    lines.extend(new.difference(&old).map(|group| format!("links: {group:?} became a group")));
    lines
}

/// Every way in which `after` is not the very same tree as `before`: also inodes and change times.
pub fn touched(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let mut lines = names(before, after);
    for (path, old) in before {
        let Some(new) = after.get(path) else { continue };
        lines.extend(attributes(path, old, new));
        if old.inode != new.inode {
            lines.push(format!("inode: {path:?}: {:?} became {:?}", old.inode, new.inode));
        }
        if old.ctime != new.ctime {
            lines.push(format!("ctime: {path:?}: {:?} became {:?}", old.ctime, new.ctime));
        }
    }
    lines
}

fn names(from: &Snapshot, to: &Snapshot) -> Vec<String> {
    let absent = from.keys().filter(|path| !to.contains_key(*path));
    let surplus = to.keys().filter(|path| !from.contains_key(*path));
    absent
        .map(|path| format!("absent: {path:?}"))
        .chain(surplus.map(|path| format!("surplus: {path:?}")))
        .collect()
}

fn attributes(path: &Path, old: &Entry, new: &Entry) -> Vec<String> {
    let mut lines = Vec::new();
    let mut differ = |what: &str, same: bool, old: String, new: String| {
        if !same {
            lines.push(format!("{what}: {path:?}: {old} became {new}"));
        }
    };
    let octal = |mode: u32| format!("{mode:o}");
    let (kind, bits) = (0o170_000, 0o7777);
    differ("type", old.mode & kind == new.mode & kind, octal(old.mode), octal(new.mode));
    differ("mode", old.mode & bits == new.mode & bits, octal(old.mode), octal(new.mode));
    differ("owner", old.owner == new.owner, format!("{:?}", old.owner), format!("{:?}", new.owner));
    differ("mtime", old.mtime == new.mtime, format!("{:?}", old.mtime), format!("{:?}", new.mtime));
    differ("size", old.size == new.size, old.size.to_string(), new.size.to_string());
    differ("rdev", old.rdev == new.rdev, old.rdev.to_string(), new.rdev.to_string());
    differ(
        "target",
        old.target == new.target,
        format!("{:?}", old.target),
        format!("{:?}", new.target),
    );
    differ("content", old.content == new.content, "bytes".into(), "other bytes".into());
    differ(
        "xattrs",
        old.xattrs == new.xattrs,
        format!("{:?}", old.xattrs),
        format!("{:?}", new.xattrs),
    );
    let whole = old.allocated >= old.size;
    let kept = whole || new.allocated <= old.allocated + ALLOCATION_SLACK;
    differ("holes", kept, old.allocated.to_string(), new.allocated.to_string());
    lines
}

/// The groups of names, directories left out, that share an inode; single names are no group.
fn topology(tree: &Snapshot) -> BTreeSet<Vec<&Path>> {
    let mut groups: BTreeMap<(u64, u64), Vec<&Path>> = BTreeMap::new();
    for (path, entry) in tree.iter().filter(|(_, entry)| entry.mode & 0o170_000 != 0o040_000) {
        groups.entry(entry.inode).or_default().push(path);
    }
    groups.into_values().filter(|group| group.len() > 1).collect()
}

/// Names below `root` for which `suspect` holds.
pub fn names_where(root: &Path, suspect: impl Fn(&OsStr) -> bool) -> Vec<PathBuf> {
    let tree = snapshot(root);
    tree.into_keys().filter(|path| path.file_name().is_some_and(&suspect)).collect()
}
