//! The steps of the boot, each changing only what differs.
#![forbid(unsafe_code)]

use std::ffi::{CStr, OsStr};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use molecule_tools::error::{Error, Result, escape, os_errno};
use molecule_tools::fs::{Dir, Kind, Listing, at, patiently};
use molecule_tools::heartbeat::Heartbeat;
use molecule_tools::ownership::{self, Mode, Owner, Privileges, Tally};
use molecule_tools::record;
use tracing::{info, warn};

use super::sessions;

/// Tells whoever looks which mode the agent works in; the SDK's executor sets it again itself.
const SETTINGS: &[u8] = br#"{
"permissions": {"defaultMode": "bypassPermissions"},
"_note": "Mode is also set programmatically by claude_sdk_executor.py (permission_mode='bypassPermissions'); this file is informational and lets `cat ~/.claude/settings.json` succeed."
}
"#;

/// A directory that a step needs.
pub enum Place {
    /// It is there.
    Open(Dir),
    /// A dry run has said that it would be made.
    Planned,
}

/// The root, the user, and what was done so far.
pub struct Steps<'a> {
    pub root: &'a Dir,
    pub mode: Mode,
    /// Where the steps are, for whoever watches.
    pub heart: &'a Heartbeat,
    /// None: nothing is given to anybody.
    pub owner: Option<Owner>,
    /// Groups of the user.
    pub groups: Vec<u32>,
    pub home: PathBuf,
    pub tally: Tally,
    /// Directories, files and links made.
    pub made: u64,
}

impl<'a> Steps<'a> {
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
        }
    }

    /// All steps in the order of the boot.
    pub fn boot(&mut self) {
        self.at(Path::new("configs"));
        self.give_tree(self.root, c"configs", Privileges::Take);
        self.at(Path::new("workspace"));
        self.workspace();
        self.at(&self.home);
        self.home();
    }

    /// Notes where the steps are, below the root.
    fn at(&self, path: &Path) {
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
        self.made += 1;
        if self.dry() {
            info!("would make {}", escape(path));
        }
    }

    pub fn give_tree(&mut self, parent: &Dir, name: &CStr, privileges: Privileges) {
        if let Some(owner) = self.owner {
            self.tally +=
                ownership::give_tree(parent, name, owner, privileges, self.mode, self.heart);
        }
    }

    fn give_directory(&mut self, dir: &Dir) {
        self.heart.enter(0, dir.path());
        if let Some(owner) = self.owner {
            self.tally += ownership::give_directory(dir, owner, self.mode);
        }
    }

    /// Opens the directory `path` of `base`. What is absent of it is made for the user, with what the
    /// umask leaves of `mode`. None after a warning.
    pub fn directory(&mut self, base: &Dir, path: &Path, mode: u32) -> Option<Place> {
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
                    return Some(Place::Planned);
                }
                None => {
                    let made = self.attempt(dir.make_beneath(Path::new(name), mode))?;
                    self.note_made(made.path());
                    self.give_new(&made);
                    made
                }
            };
        }
        Some(Place::Open(dir))
    }

    /// Gives a directory that was just made. Where that fails, so does the step that gives it with what
    /// is in it, and says so.
    fn give_new(&self, dir: &Dir) {
        if let Some(owner) = self.owner {
            let _ = dir.chown(owner.uid, owner.gid);
        }
    }

    /// /workspace itself; everything below only if the entry listed first belongs to root, as it is
    /// where the host's uid maps to root (Docker Desktop). Then the directory for uploads, which the
    /// upload handler could not make below a .molecule that belongs to root.
    fn workspace(&mut self) {
        let Some(Some(workspace)) = self.attempt(self.root.open_beneath(Path::new("workspace")))
        else {
            return;
        };
        let everything = self.attempt(first_entry_is_roots(&workspace)) == Some(true);
        match everything {
            true => self.give_tree(self.root, c"workspace", Privileges::Take),
            false => self.give_directory(&workspace),
        }
        self.directory(&workspace, Path::new(".molecule/chat-uploads"), 0o777);
        match self.attempt(workspace.stat_entry(c".molecule")) {
            // A link has had its warning.
            Some(Some(stat)) if stat.kind == Kind::Symlink => {}
            // It was counted before, and nothing has been changed since.
            _ if everything && self.dry() => {}
            _ => self.give_tree(&workspace, c".molecule", Privileges::Take),
        }
    }

    fn home(&mut self) {
        let home = match self.open_home() {
            None => return,
            Some(Place::Open(home)) => home,
            Some(Place::Planned) => {
                let home = self.root.path().join(self.home.strip_prefix("/").unwrap_or(&self.home));
                let claude = home.join(".claude");
                self.note_made(&claude);
                self.plan_in_claude(&claude);
                if self.sessions_volume().flatten().is_some() {
                    self.give_persistent();
                }
                for name in [".molecule-token-cache", "Downloads"] {
                    self.note_made(&home.join(name));
                }
                return;
            }
        };
        self.claude(&home);
        let cache = self.directory(&home, Path::new(".molecule-token-cache"), 0o700);
        if let Some(Place::Open(cache)) = cache {
            self.give_directory(&cache);
            if let Some(stat) = self.attempt(cache.stat())
                && stat.mode != 0o700
            {
                let done = match self.dry() {
                    true => {
                        info!("would make {} mode 0700", escape(cache.path()));
                        Some(())
                    }
                    false => self.attempt(cache.chmod(0o700)),
                };
                self.tally.changed += u64::from(done.is_some());
            }
        }
        if let Some(Place::Open(downloads)) = self.directory(&home, Path::new("Downloads"), 0o777) {
            self.give_directory(&downloads);
        }
    }

    /// The user's home, made for the user if absent.
    fn open_home(&mut self) -> Option<Place> {
        let home = self.home.clone();
        if home.as_os_str().is_empty() {
            // No user to have one, which has had its warning.
            return None;
        }
        let Some(name) = home.file_name() else {
            let error = Error::on("use home directory", home, "it is no directory of the user's")
                .hint("give the user a home in /etc/passwd");
            self.failed(&error);
            return None;
        };
        // What leads to it is not the user's.
        let owner = self.owner.take();
        let above = self.directory(self.root, home.parent().unwrap_or(Path::new("")), 0o777);
        self.owner = owner;
        match above? {
            Place::Open(above) => self.directory(&above, Path::new(name), 0o777),
            Place::Planned => {
                self.note_made(&self.root.path().join(home.strip_prefix("/").unwrap_or(&home)));
                Some(Place::Planned)
            }
        }
    }

    /// ~/.claude with the directories and the settings file that the SDK expects.
    fn claude(&mut self, home: &Dir) {
        // Where it cannot be told, sessions stay where they are: a directory in the place of the link would
        // keep them off their volume for good.
        let volume = self.sessions_volume();
        match self.directory(home, Path::new(".claude"), 0o777) {
            Some(Place::Open(claude)) => {
                let linked = match &volume {
                    Some(Some(volume)) => self.attempt(sessions::belong_elsewhere(&claude, volume)),
                    Some(None) => Some(false),
                    None => None,
                };
                if linked == Some(false) {
                    self.plain_sessions(&claude);
                }
                self.directory(&claude, Path::new("session-env"), 0o777);
                self.settings(&claude);
                self.give_tree(home, c".claude", Privileges::Take);
                if linked == Some(true) {
                    self.link_sessions(&claude);
                }
            }
            Some(Place::Planned) => self.plan_in_claude(&home.path().join(".claude")),
            None => {}
        }
        if volume.flatten().is_some() {
            self.give_persistent();
        }
    }

    /// The directory that the platform mounts for sessions, if it does. None after a warning.
    fn sessions_volume(&mut self) -> Option<Option<Dir>> {
        let look = || self.root.open_beneath(Path::new("root/.claude/sessions"));
        self.attempt(patiently(look))
    }

    /// In a dry run, what would be made in a ~/.claude that is absent.
    fn plan_in_claude(&mut self, claude: &Path) {
        for name in ["sessions", "session-env", "settings.json"] {
            self.note_made(&claude.join(name));
        }
    }

    fn settings(&mut self, claude: &Dir) {
        let name = c"settings.json";
        match self.attempt(claude.stat_entry(name)) {
            Some(None) => {
                let made = match self.dry() {
                    true => Some(()),
                    false => self.attempt(write_settings(claude, name, self.owner)),
                };
                if made.is_some() {
                    self.note_made(&claude.join(name));
                }
            }
            Some(Some(stat)) if stat.kind != Kind::File => {
                let error = Error::on(
                    "make",
                    claude.join(name),
                    format!("{} stands there", stat.kind.noun()),
                )
                .hint("put a regular file there");
                self.failed(&error);
            }
            _ => {}
        }
    }
}

fn first_entry_is_roots(dir: &Dir) -> Result<bool> {
    // A record of this program's own is not what the platform or the agent has put there.
    let first = Listing::first(dir, 2)?.into_iter().find(|entry| *entry.name != *record::FILE);
    match first {
        Some(entry) => Ok(dir.stat_entry(&entry.name)?.is_some_and(|stat| stat.uid == 0)),
        None => Ok(false),
    }
}

fn write_settings(claude: &Dir, name: &CStr, owner: Option<Owner>) -> Result<()> {
    let mut file = std::fs::File::from(claude.create_file(name, 0o666)?);
    if let Some(owner) = owner {
        // Where this fails, so does the walk that follows, and says so.
        let _ = at::chown_fd(&file, owner.uid, owner.gid);
    }
    file.write_all(SETTINGS).map_err(|error| {
        // Half a file would be taken for the user's own at the next boot.
        let _ = claude.remove_made(name, &file);
        claude.entry_error("write", name, os_errno(&error))
    })
}
