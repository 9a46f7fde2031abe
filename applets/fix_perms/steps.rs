//! The steps of the boot, each changing only what differs: directories, then sessions, files and links in them.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use molecule_tools::error::{Error, Result, escape, os_errno};
use molecule_tools::fs::{Dir, DirListing, Kind, at};
use molecule_tools::ownership::Privileges;
use molecule_tools::record;
use tracing::info;

use super::giver::{PermsGiver, ReadyDir};
use super::{links, sessions};
use molecule_tools::config::{ConfigFile, ConfigPath, OwnPolicy, OwnedDirectory, WorkspaceConfig};

/// All steps in the order of the boot.
pub fn boot(giver: &mut PermsGiver<'_>, config: &WorkspaceConfig) {
    let mut steps = Steps { home: Home::NotYet, without: Vec::new(), given: Vec::new() };
    for directory in &config.directories {
        steps.directory(giver, directory);
    }
    if config.claude_sessions {
        steps.sessions(giver);
    }
    for file in &config.files {
        steps.file(giver, file);
    }
    for link in &config.links {
        match steps.place(giver, &link.path) {
            Some(Some(Place { above: ReadyDir::Open(above), name })) => {
                links::make(giver, &above, &name, link);
            }
            Some(Some(_)) => giver.note_made(&steps.shown(giver, &link.path)),
            Some(None) => giver.failed(&no_directory(&steps.shown(giver, &link.path))),
            None => {}
        }
    }
}

enum Home {
    /// No step has been in it so far.
    NotYet,
    /// There is none, which has had its warning.
    Missing,
    Ready(ReadyDir),
}

/// The directory above something, and its name there.
struct Place {
    above: ReadyDir,
    name: CString,
}

struct Steps<'a> {
    home: Home,
    /// Directories that are absent and not to be made, or could not be.
    without: Vec<&'a ConfigPath>,
    /// Trees that a walk has been through.
    given: Vec<&'a ConfigPath>,
}

impl<'a> Steps<'a> {
    fn is_without(&self, path: &ConfigPath) -> bool {
        self.without.iter().any(|without| path.is_within(without))
    }

    fn shown(&self, giver: &PermsGiver<'_>, path: &ConfigPath) -> PathBuf {
        match path.home {
            true => giver.home_path().join(&path.below),
            false => giver.root.path().join(&path.below),
        }
    }

    /// The directory that `path` is relative to. The home is made for the user if it is absent.
    fn base(&mut self, giver: &mut PermsGiver<'_>, path: &ConfigPath) -> Option<ReadyDir> {
        if !path.home {
            return giver.attempt(giver.root.try_clone()).map(ReadyDir::Open);
        }
        if matches!(self.home, Home::NotYet) {
            giver.at(&giver.home);
            self.home = open_home(giver).map_or(Home::Missing, Home::Ready);
        }
        match &self.home {
            Home::Ready(ReadyDir::Open(home)) => {
                giver.attempt(home.try_clone()).map(ReadyDir::Open)
            }
            Home::Ready(ReadyDir::Planned) => Some(ReadyDir::Planned),
            Home::NotYet | Home::Missing => None,
        }
    }

    /// Where `path` is: `Some(None)` if what leads to it is absent, `Planned` if it is so only for the dry run.
    /// None after a warning, or if nothing is to be there.
    fn place(&mut self, giver: &mut PermsGiver<'_>, path: &ConfigPath) -> Option<Option<Place>> {
        if self.is_without(path) {
            return None;
        }
        let name = CString::new(path.below.file_name()?.as_bytes()).ok()?;
        let above = match self.base(giver, path)? {
            ReadyDir::Open(base) => {
                let above = path.below.parent().unwrap_or(Path::new(""));
                match giver.attempt(base.open_beneath(above))? {
                    Some(above) => ReadyDir::Open(above),
                    None if giver.is_planned(&base.path().join(above)) => ReadyDir::Planned,
                    None => return Some(None),
                }
            }
            ReadyDir::Planned => ReadyDir::Planned,
        };
        Some(Some(Place { above, name }))
    }

    fn directory(&mut self, giver: &mut PermsGiver<'_>, directory: &'a OwnedDirectory) {
        let path = &directory.path;
        if self.is_without(path) {
            return;
        }
        giver.at(&self.shown(giver, path));
        if !directory.make {
            match self.place(giver, path) {
                Some(Some(Place { above: ReadyDir::Open(above), name })) => {
                    match giver.attempt(above.stat_entry(&name)) {
                        Some(Some(_)) => self.apply(giver, directory, &above, &name, false),
                        _ => self.without.push(path),
                    }
                }
                _ => self.without.push(path),
            }
            return;
        }
        let before = giver.made;
        match self.made(giver, directory) {
            Some(ReadyDir::Open(_)) => {
                let fresh = giver.made > before;
                let place = self.place(giver, path).flatten();
                if let Some(Place { above: ReadyDir::Open(above), name }) = place {
                    self.apply(giver, directory, &above, &name, fresh);
                }
            }
            Some(ReadyDir::Planned) => {}
            None => self.without.push(path),
        }
    }

    /// The directory, made where it is absent.
    fn made(&mut self, giver: &mut PermsGiver<'_>, directory: &OwnedDirectory) -> Option<ReadyDir> {
        let path = &directory.path;
        match self.base(giver, path)? {
            ReadyDir::Open(base) => {
                let owner = giver.owner;
                if directory.own == OwnPolicy::Never {
                    giver.owner = None;
                }
                let made = giver.directory(&base, &path.below, directory.mode.unwrap_or(0o777));
                giver.owner = owner;
                made
            }
            ReadyDir::Planned => {
                for part in path.below.ancestors().collect::<Vec<_>>().into_iter().rev().skip(1) {
                    giver.note_made(&giver.home_path().join(part));
                }
                Some(ReadyDir::Planned)
            }
        }
    }

    /// Gives the directory as its policy says, and sets its mode. `fresh`: it was just made.
    fn apply(
        &mut self,
        giver: &mut PermsGiver<'_>,
        directory: &'a OwnedDirectory,
        above: &Dir,
        name: &CStr,
        fresh: bool,
    ) {
        let everything = match directory.own {
            OwnPolicy::Always => true,
            OwnPolicy::IfRoots => {
                matches!(giver.attempt(above.stat_entry(name)), Some(Some(stat)) if stat.uid == 0)
            }
            OwnPolicy::IfFirstEntryIsRoots => {
                let Some(dir) = giver.attempt(above.open_dir(name)) else {
                    return self.without.push(&directory.path);
                };
                giver.attempt(first_entry_is_roots(&dir)) == Some(true)
            }
            OwnPolicy::Itself | OwnPolicy::Made | OwnPolicy::Never => false,
        };
        let counted = self.given.iter().any(|given| directory.path.is_within(given));
        if everything && !(giver.dry() && counted) {
            giver.give_tree(above, name, Privileges::Take);
            self.given.push(&directory.path);
        }
        let itself = match directory.own {
            OwnPolicy::Itself => true,
            OwnPolicy::IfFirstEntryIsRoots => !everything,
            _ => false,
        };
        if itself || directory.mode.is_some() {
            let Some(dir) = giver.attempt(above.open_dir(name)) else {
                return self.without.push(&directory.path);
            };
            if itself {
                giver.give_directory(&dir);
            }
            if let Some(mode) = directory.mode {
                let changed = set_mode(giver, &dir, mode);
                giver.tally.changed += u64::from(changed && !fresh);
            }
        }
    }

    /// ~/.claude/sessions: on its volume, if there is one.
    fn sessions(&mut self, giver: &mut PermsGiver<'_>) {
        let claude = ConfigPath { home: true, below: ".claude/sessions".into() };
        match self.place(giver, &claude).flatten() {
            Some(Place { above: ReadyDir::Open(above), .. }) => {
                sessions::see_to(giver, Some(&above));
            }
            Some(Place { above: ReadyDir::Planned, .. }) => {
                giver.note_made(&self.shown(giver, &claude));
                sessions::see_to(giver, None);
            }
            None => sessions::see_to(giver, None),
        }
    }

    fn file(&mut self, giver: &mut PermsGiver<'_>, file: &ConfigFile) {
        let Some(place) = self.place(giver, &file.path) else { return };
        let Some(Place { above, name }) = place else {
            if file.content.is_some() {
                giver.failed(&no_directory(&self.shown(giver, &file.path)));
            }
            return;
        };
        let ReadyDir::Open(above) = above else {
            if file.content.is_some() {
                giver.note_made(&self.shown(giver, &file.path));
            }
            return;
        };
        match (giver.attempt(above.stat_entry(&name)), &file.content) {
            (Some(None), Some(content)) => {
                let made = match giver.dry() {
                    true => Some(()),
                    false => giver.attempt(write(giver, &above, &name, content, file.mode)),
                };
                if made.is_some() {
                    giver.note_made(&above.join(&name));
                }
            }
            (Some(Some(stat)), _) if stat.kind != Kind::File => {
                let noun = stat.kind.noun();
                let error = Error::on("make", above.join(&name), format!("{noun} stands there"))
                    .hint("put a regular file there");
                giver.failed(&error);
            }
            (Some(Some(_)), _) if file.mode.is_some() => {
                let changed = change_file(giver, &above, &name, file.mode);
                giver.tally.changed += u64::from(giver.attempt(changed) == Some(true));
            }
            _ => {}
        }
    }
}

fn no_directory(path: &Path) -> Error {
    Error::on("make", path, "the directory for it is absent")
        .hint("list that directory in the configuration, with \"make\": true")
}

/// The user's home, made for the user if absent.
fn open_home(giver: &mut PermsGiver<'_>) -> Option<ReadyDir> {
    let home = giver.home.clone();
    if home.as_os_str().is_empty() {
        // No user to have one, which has had its warning.
        return None;
    }
    let Some(name) = home.file_name() else {
        let error = Error::on("use home directory", home, "it is no directory of the user's")
            .hint("give the user a home in /etc/passwd");
        giver.failed(&error);
        return None;
    };
    // The directories that lead to it are not the user's.
    let owner = giver.owner.take();
    let above = giver.directory(giver.root, home.parent().unwrap_or(Path::new("")), 0o777);
    giver.owner = owner;
    match above? {
        ReadyDir::Open(above) => giver.directory(&above, Path::new(name), 0o777),
        ReadyDir::Planned => {
            giver.note_made(&giver.home_path());
            Some(ReadyDir::Planned)
        }
    }
}

/// Whether `dir` had another mode than `mode` before.
fn set_mode(giver: &mut PermsGiver<'_>, dir: &Dir, mode: u32) -> bool {
    match giver.attempt(dir.stat()) {
        Some(stat) if stat.mode != mode => {}
        _ => return false,
    }
    if giver.dry() {
        info!("would make {} mode {mode:04o}", escape(dir.path()));
    }
    giver.dry() || giver.attempt(dir.chmod(mode)).is_some()
}

fn first_entry_is_roots(dir: &Dir) -> Result<bool> {
    // A record of this program's own is not what the platform or the agent has put there.
    let first = DirListing::first(dir, 2)?.into_iter().find(|entry| *entry.name != *record::FILE);
    match first {
        Some(entry) => Ok(dir.stat_entry(&entry.name)?.is_some_and(|stat| stat.uid == 0)),
        None => Ok(false),
    }
}

fn write(
    giver: &PermsGiver<'_>,
    above: &Dir,
    name: &CStr,
    content: &str,
    mode: Option<u32>,
) -> Result<()> {
    let mut file = std::fs::File::from(above.create_file(name, mode.unwrap_or(0o666))?);
    if let Some(owner) = giver.owner {
        // Where this fails, so does the walk of the next boot, and says so.
        let _ = at::chown_fd(&file, owner.uid, owner.gid);
    }
    file.write_all(content.as_bytes()).map_err(|error| {
        // Half a file would be taken for the user's own at the next boot.
        let _ = above.remove_made(name, &file);
        above.entry_error("write", name, os_errno(&error))
    })
}

/// Gives a file that is there and sets its mode; true if either differed. A file with a second name may be
/// somebody else's, of which the user has made a link there.
fn change_file(
    giver: &PermsGiver<'_>,
    above: &Dir,
    name: &CStr,
    mode: Option<u32>,
) -> Result<bool> {
    let handle = above.open_handle(name)?;
    let fail = |operation| move |errno| above.entry_error(operation, name, errno);
    let stat = at::stat_fd(&handle).map_err(fail("stat"))?;
    if stat.kind != Kind::File || stat.nlink != 1 {
        return Err(Error::on("change mode of", above.join(name), "it has other names as well")
            .hint("put a file there that has one name only"));
    }
    let owner = giver.owner.filter(|owner| (owner.uid, owner.gid) != (stat.uid, stat.gid));
    let mode = mode.filter(|mode| *mode != stat.mode);
    if giver.dry() {
        if owner.is_some() || mode.is_some() {
            info!("would change owner or mode of {}", escape(&above.join(name)));
        }
        return Ok(owner.is_some() || mode.is_some());
    }
    if let Some(owner) = owner {
        at::chown_fd(&handle, owner.uid, owner.gid).map_err(fail("change owner of"))?;
    }
    if let Some(mode) = mode {
        at::chmod_handle(&handle, mode).map_err(fail("change mode of"))?;
    }
    Ok(owner.is_some() || mode.is_some())
}
