//! The entries that `restore --force` takes away although they were changed since a runtime started over
//! their tree.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use molecule_tools::error::{Result, escape};
use molecule_tools::fs::{Dir, FileTime, Kind};
use molecule_tools::log;
use molecule_tools::mirror::{Change, Differences};
use molecule_tools::record::{self};
use rustix::io::Errno;
use tracing::warn;

/// A tree in which a runtime has started, and when.
pub struct RuntimeStart<'a> {
    tree: &'a Dir,
    time: FileTime,
}

impl<'a> RuntimeStart<'a> {
    /// `None` if no runtime has started over `tree`.
    pub fn of(tree: &'a Dir) -> Option<Self> {
        let time = match record::look(tree) {
            Ok(found) => found?.since,
            Err(error) => {
                warn!("{error}; every entry counts as newer");
                record::ALWAYS
            }
        };
        Some(Self { tree, time })
    }

    /// Whether `change` at `path`, below the tree, takes away what was changed since then. The times of a
    /// directory change with every entry in it and are nobody's work.
    pub fn is_lost(&self, change: &Change, path: &Path) -> bool {
        let times_only = matches!(change, Change::Touch(Kind::Dir, differences)
            if !Differences { time: false, ..*differences }.any());
        // The lock of a restore changes the top itself.
        if times_only || path.as_os_str().is_empty() {
            return false;
        }
        // If it cannot be looked at, it may be somebody's work.
        self.changed_at(path).map_or(true, |time| time.is_some_and(|time| time >= self.time))
    }

    /// The time of last change of `path`; `None` if it does not exist.
    fn changed_at(&self, path: &Path) -> Result<Option<FileTime>> {
        let name =
            CString::new(path.file_name().unwrap_or_default().as_bytes()).unwrap_or_default();
        match self.tree.open_beneath(path.parent().unwrap_or(Path::new(""))) {
            Ok(Some(parent)) => Ok(parent.stat_entry(&name)?.map(|stat| stat.ctime)),
            // Something else stands in the place of the directory, which is a change of its own.
            Err(error) if matches!(error.errno(), None | Some(Errno::NOTDIR | Errno::LOOP)) => {
                Ok(None)
            }
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// That time in words.
    pub fn words(&self) -> String {
        match self.time {
            time if time.0 > 0 => log::rfc3339(time.0),
            _ => "it is not known when".to_owned(),
        }
    }
}

/// A line of a dry run: rsync's eleven characters, `!` if the entry is newer, and the path.
pub fn line(change: &Change, lost: bool, path: &Path) -> String {
    format!("{} {}{}", change.itemize(), if lost { "! " } else { "" }, escape(path))
}
