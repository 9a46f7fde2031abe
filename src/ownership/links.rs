//! Files with more than one name. Somebody who can write a tree may have linked a file into it that
//! belongs to root and has its other names elsewhere (link(2) allows it where
//! `fs.protected_hardlinks` is 0, and for files that user may read and write): to give that away
//! would hand over the file outside. So a file of another owner with several names is given only
//! when all of them are in the tree, as in a restored tree with hard links.
//!
//! The names are counted without being fooled by somebody who renames meanwhile: a name is a
//! directory inode and a component, so a directory that moves counts once; and every link, unlink
//! and rename sets the time of last change of the file, so names seen while that time stays the same
//! and lies before the count exist at the same time.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::Tally;
use super::walk::Walk;
use crate::error::{Error, Result};
use crate::fs::{Dir, Stat};

type Inode = ((u32, u32), u64);

/// One name of a file that has several.
pub(super) struct Name {
    directory: PathBuf,
    name: CString,
    stat: Stat,
}

impl Name {
    pub(super) fn new(directory: &Dir, name: &CStr, stat: &Stat) -> Self {
        Self { directory: directory.path().to_owned(), name: name.to_owned(), stat: *stat }
    }
}

/// Gives the files whose names are all among `names`, and warns of each of the others.
pub(super) fn settle(walk: &Walk<'_>, root: &Dir, names: Vec<Name>) -> Tally {
    let mut tally = Tally::default();
    let mut files: HashMap<Inode, Vec<Name>> = HashMap::new();
    for name in names {
        files.entry(inode(&name.stat)).or_default().push(name);
    }
    for names in files.into_values() {
        let given = all_in_tree(root, &names).and_then(|()| give(walk, root, &names));
        match given {
            Ok(changed) => tally.changed += changed,
            Err(error) => {
                tally.failed += 1;
                walk.complain(&error);
            }
        }
    }
    tally
}

/// Fails unless the distinct names of the file are as many as it has links, all at one time.
fn all_in_tree(root: &Dir, names: &[Name]) -> Result<()> {
    let Some(first) = names.first() else { return Ok(()) };
    let (file, path) = (&first.stat, root.path().join(&first.directory));
    let path = path.join(OsStr::from_bytes(first.name.to_bytes()));
    let refuse = |reason: String| {
        Error::on("change owner of", path.clone(), reason)
            .hint("give it by hand if it is meant to be the user's")
    };
    let changing = || refuse("it has several names, and they change".into());
    let before = after(file.ctime).ok_or_else(changing)?;
    let mut distinct: HashSet<(Inode, &CStr)> = HashSet::new();
    for name in names {
        let Some(directory) = open(root, name)? else { return Err(changing()) };
        let Some(now) = directory.stat_entry(&name.name)? else { return Err(changing()) };
        if !now.same_inode(file) || now.ctime != file.ctime || now.ctime >= before {
            return Err(changing());
        }
        distinct.insert((inode(&directory.stat()?), &name.name));
    }
    let (links, here) = (file.nlink as usize, distinct.len());
    match here >= links {
        true => Ok(()),
        false => Err(refuse(format!("it has {links} names, and only {here} of them in this tree"))),
    }
}

/// Changes the file through one of its names. On overlayfs without an inode index the first change
/// parts the names (each gets a copy of its own), so every name is looked at.
fn give(walk: &Walk<'_>, root: &Dir, names: &[Name]) -> Result<u64> {
    let mut changed = 0;
    for name in names {
        let Some(directory) = open(root, name)? else { continue };
        let handle = directory.open_handle(&name.name)?;
        let now =
            Stat::of(&handle).map_err(|errno| directory.entry_error("stat", &name.name, errno))?;
        if !now.same_inode(&name.stat) || now.uid == walk.plan.owner.uid {
            continue;
        }
        super::change(&handle, &directory.join(&name.name), walk.plan.owner, walk.plan.mode)?;
        changed += 1;
    }
    Ok(changed)
}

fn open(root: &Dir, name: &Name) -> Result<Option<Dir>> {
    let relative = name.directory.strip_prefix(root.path()).unwrap_or(&name.directory);
    root.open_beneath(relative)
}

fn inode(stat: &Stat) -> Inode {
    (stat.dev, stat.ino)
}

/// The time, once it is later than `time`; none if that lies further off than the clock's grain.
/// This is the clock that file systems stamp inodes with, which advances in steps of up to 10 ms.
fn after(time: (i64, u32)) -> Option<(i64, u32)> {
    for _ in 0..10 {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        let now = (now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or(0));
        if now > time {
            return Some(now);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}
