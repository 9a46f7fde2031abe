//! The steps of the boot, each changing only what differs.

use std::ffi::CStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use molecule_tools::error::{Error, Result, escape};
use molecule_tools::fs::{Dir, Kind, Listing};
use molecule_tools::heartbeat::Heartbeat;
use molecule_tools::ownership::{self, Mode, Owner, Privileges, Tally};
use molecule_tools::record;
use rustix::io::Errno;
use tracing::{info, warn};

use super::sessions;

/// Tells whoever looks which mode the agent works in; the SDK's executor sets it again itself.
const SETTINGS: &[u8] = br#"{
"permissions": {"defaultMode": "bypassPermissions"},
"_note": "Mode is also set programmatically by claude_sdk_executor.py (permission_mode='bypassPermissions'); this file is informational and lets `cat ~/.claude/settings.json` succeed."
}
"#;

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

    /// Notes that something is made, and says so in a dry run.
    pub fn making(&mut self, path: &Path) {
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

    /// Opens the directory `path` of `base`, made if absent with the mode that the umask leaves of
    /// 0777. None after a warning, or in a dry run if it is absent.
    pub fn directory(&mut self, base: &Dir, path: &Path) -> Option<Dir> {
        self.at(&base.path().join(path));
        match self.attempt(base.open_beneath(path))? {
            Some(dir) => Some(dir),
            None => {
                self.making(&base.path().join(path));
                match self.dry() {
                    true => None,
                    false => self.attempt(base.make_beneath(path, 0o777)),
                }
            }
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
        self.give_directory(&workspace);
        if self.attempt(first_entry_is_roots(&workspace)) == Some(true) {
            self.give_tree(self.root, c"workspace", Privileges::Take);
        }
        self.directory(&workspace, Path::new(".molecule/chat-uploads"));
        match self.attempt(workspace.stat_entry(c".molecule")) {
            // A link has had its warning.
            Some(Some(stat)) if stat.kind == Kind::Symlink => {}
            _ => self.give_tree(&workspace, c".molecule", Privileges::Take),
        }
    }

    fn home(&mut self) {
        let Some(home) = self.open_home() else { return };
        self.claude(&home);
        if let Some(cache) = self.directory(&home, Path::new(".molecule-token-cache")) {
            self.give_directory(&cache);
            if let Some(stat) = self.attempt(cache.stat())
                && stat.mode != 0o700
            {
                self.tally.changed += 1;
                match self.dry() {
                    true => info!("would make {} mode 0700", escape(cache.path())),
                    false => {
                        self.attempt(cache.chmod(0o700));
                    }
                }
            }
        }
        if let Some(downloads) = self.directory(&home, Path::new("Downloads")) {
            self.give_directory(&downloads);
        }
    }

    /// The user's home, made for the user if absent.
    fn open_home(&mut self) -> Option<Dir> {
        let home = self.home.clone();
        if home.as_os_str().is_empty() {
            // No user to have one, which has had its warning.
            return None;
        }
        if home.file_name().is_none() {
            let error = Error::on("use home directory", home, "it is no directory of the user's")
                .hint("give the user a home in /etc/passwd");
            self.failed(&error);
            return None;
        }
        match self.attempt(self.root.open_beneath(&home))? {
            Some(dir) => Some(dir),
            None => {
                let dir = self.directory(self.root, &home)?;
                self.give_directory(&dir);
                Some(dir)
            }
        }
    }

    /// ~/.claude with the directories and the settings file that the SDK expects.
    fn claude(&mut self, home: &Dir) {
        let volume = self.attempt(self.root.open_beneath(Path::new("root/.claude/sessions")));
        let volume = volume.flatten();
        if let Some(claude) = self.directory(home, Path::new(".claude")) {
            let linked = match &volume {
                Some(volume) => self.attempt(sessions::belong_elsewhere(&claude, volume)),
                None => Some(false),
            };
            if linked == Some(false) {
                self.plain_sessions(&claude);
            }
            self.directory(&claude, Path::new("session-env"));
            self.settings(&claude);
            self.give_tree(home, c".claude", Privileges::Take);
            if linked == Some(true) {
                self.link_sessions(&claude);
            }
        }
        if volume.is_some() {
            self.give_persistent();
        }
    }

    fn settings(&mut self, claude: &Dir) {
        let name = c"settings.json";
        match self.attempt(claude.stat_entry(name)) {
            Some(None) => {
                self.making(&claude.join(name));
                if !self.dry() {
                    self.attempt(write_settings(claude, name));
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

fn write_settings(claude: &Dir, name: &CStr) -> Result<()> {
    let fd = claude.create_file(name, 0o666)?;
    std::fs::File::from(fd).write_all(SETTINGS).map_err(|error| {
        // Half a file would be taken for the user's own at the next boot.
        let _ = claude.remove_file(name);
        claude.entry_error("write", name, Errno::from_io_error(&error).unwrap_or(Errno::IO))
    })
}
