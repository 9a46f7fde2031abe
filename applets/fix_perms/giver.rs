//! Making and giving directories, and the count of it.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ffi::{CStr, OsStr};
use std::path::{Path, PathBuf};

use molecule_tools::error::{Error, Result, escape};
use molecule_tools::fs::Dir;
use molecule_tools::heartbeat::Heartbeat;
use molecule_tools::ownership::{self, Mode, Owner, Privileges, Tally};
use tracing::{info, warn};

/// A directory that a step needs.
pub enum ReadyDir {
    /// It is there.
    Open(Dir),
    /// A dry run has said that it would be made.
    Planned,
}

/// The root, the user, and what was done so far.
pub struct PermsGiver<'a> {
    pub root: &'a Dir,
    pub mode: Mode,
    /// Where the steps are, for the process that watches.
    pub heart: &'a Heartbeat,
    /// None: nothing is given to anybody.
    pub owner: Option<Owner>,
    /// Groups of the user.
    pub groups: Vec<u32>,
    pub home: PathBuf,
    pub tally: Tally,
    /// Directories, files and links made.
    pub made: u64,
    /// Those that a dry run has said would be made.
    planned: BTreeSet<PathBuf>,
}

impl<'a> PermsGiver<'a> {
    pub fn new(root: &'a Dir, mode: Mode, heart: &'a Heartbeat) -> Self {
        Self {
            root,
            mode,
            heart,
            owner: None,
            groups: Vec::new(),
            home: PathBuf::new(),
            tally: Tally::default(),
            made: 0,
            planned: BTreeSet::new(),
        }
    }

    /// Notes where the steps are, below the root.
    pub fn at(&self, path: &Path) {
        self.heart.enter(0, self.root.path().join(path));
    }

    pub fn failed(&mut self, error: &Error) {
        self.tally.failed += 1;
        warn!("{error}");
    }

    /// The value, or a warning.
    pub fn attempt<T>(&mut self, result: Result<T>) -> Option<T> {
        result.inspect_err(|error| self.failed(error)).ok()
    }

    pub fn dry(&self) -> bool {
        self.mode == Mode::DryRun
    }

    /// Notes that `path` was made, or in a dry run that it would be.
    pub fn note_made(&mut self, path: &Path) {
        if !self.dry() {
            self.made += 1;
        } else if self.planned.insert(path.to_owned()) {
            self.made += 1;
            info!("would make {}", escape(path));
        }
    }

    /// Whether a dry run has said that `path` would be made.
    pub fn is_planned(&self, path: &Path) -> bool {
        self.planned.contains(path)
    }

    /// The user's home below the root.
    pub fn home_path(&self) -> PathBuf {
        self.root.path().join(self.home.strip_prefix("/").unwrap_or(&self.home))
    }

    pub fn give_tree(&mut self, parent: &Dir, name: &CStr, privileges: Privileges) {
        if let Some(owner) = self.owner {
            self.tally +=
                ownership::give_tree(parent, name, owner, privileges, self.mode, self.heart);
        }
    }

    pub fn give_directory(&mut self, dir: &Dir) {
        self.heart.enter(0, dir.path());
        if let Some(owner) = self.owner {
            self.tally += ownership::give_directory(dir, owner, self.mode);
        }
    }

    /// Opens the directory `path` of `base`. What is absent of it is made for the user, its last part with what
    /// the umask leaves of `mode`. None after a warning.
    pub fn directory(&mut self, base: &Dir, path: &Path, mode: u32) -> Option<ReadyDir> {
        let names: Vec<&OsStr> = path.iter().filter(|name| *name != "/").collect();
        let mut dir = self.attempt(base.try_clone())?;
        for (index, name) in names.iter().enumerate() {
            self.at(&dir.path().join(name));
            dir = match self.attempt(dir.open_beneath(Path::new(name)))? {
                Some(next) => next,
                None if self.dry() => {
                    let mut path = dir.path().to_owned();
                    for name in &names[index..] {
                        path.push(name);
                        self.note_made(&path);
                    }
                    return Some(ReadyDir::Planned);
                }
                None => {
                    let mode = if index + 1 == names.len() { mode } else { 0o777 };
                    let made = self.attempt(dir.make_beneath(Path::new(name), mode))?;
                    self.note_made(made.path());
                    self.give_new(&made);
                    made
                }
            };
        }
        Some(ReadyDir::Open(dir))
    }

    /// Gives a directory that was just made. Where that fails, so does the step that gives it with what
    /// is in it, and says so.
    fn give_new(&self, dir: &Dir) {
        if let Some(owner) = self.owner {
            let _ = dir.chown(owner.uid, owner.gid);
        }
    }
}
