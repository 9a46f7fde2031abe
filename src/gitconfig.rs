//! Settings in a git configuration file (git-config(1)), read and changed by git itself, from bytes
//! to bytes. The bytes may be anybody's: git sees them under a name of its own in a directory that
//! nobody else can enter, follows no include in them, and knows no other configuration.
#![forbid(unsafe_code)]

use std::ffi::{CStr, OsStr};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::fs::{Dir, DirListing, Kind, TempName, patiently};
use crate::process::Command;

/// Largest file that is worked on, in bytes; also after a change, or the next one would refuse it.
pub const LIMIT: usize = 1 << 20;
/// Largest file that git may write, what it prints included: LIMIT, and what a change adds to it.
const WRITTEN: u64 = LIMIT as u64 + (64 << 10);
const NAME: &CStr = c"config";
/// The file to which git writes the changed content before it takes its place.
const LOCK: &CStr = c"config.lock";
/// Where a private directory is made: the first in which nobody else can rename it.
const PLACES: [&str; 4] = ["/run", "/tmp", "/var/tmp", "/dev/shm"];
/// Names in each of them that are looked at for what killed runs have left. Others can fill /tmp.
const LOOKED_AT: usize = 4096;

/// The git program, by its path.
#[derive(Debug)]
pub struct GitProgram(PathBuf);

/// One key, `section.subsection.variable`, and the only value it is to have.
pub type GitSetting<'a> = (&'a str, &'a OsStr);

/// A changed file.
#[derive(Debug)]
pub struct Edited {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Its mode: that of a file made under this process's umask.
    pub mode: u32,
    /// Why a copy of it is left in a private directory, if it is.
    pub left: Option<Error>,
}

impl GitProgram {
    /// Uses `program`.
    pub fn new(program: PathBuf) -> Self {
        Self(program)
    }

    /// Whether each of `settings` is there with that one value, in `bytes` itself. An empty value, which
    /// git does not tell from none, never is.
    pub fn has(&self, bytes: &[u8], settings: &[GitSetting<'_>]) -> Result<bool> {
        let root = Dir::open_operator_path("/")?;
        for (key, value) in settings {
            // Not --list: it repeats the name of a section, which may be half of the file, for each key.
            let words = ["--file", "-", "-z", "--get-all", key].map(OsStr::new);
            let values = match self.run(&root, bytes, &words)? {
                (0, values) => values,
                // There is none.
                (_, _) => return Ok(false),
            };
            if value.is_empty() || values.strip_suffix(b"\0") != Some(value.as_bytes()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes `settings`, each in place of all values its key had. `bytes` empty: a new file.
    pub fn set(&self, bytes: &[u8], settings: &[GitSetting<'_>]) -> Result<Edited> {
        let place = Private::new()?;
        let edited = self.edit(&place.dir, bytes, settings);
        let left = place.remove().err();
        match (edited, left) {
            (Ok((bytes, mode)), left) => Ok(Edited { bytes, mode, left }),
            (Err(error), None) => Err(error),
            (Err(error), Some(left)) => Err(error.hint(left.to_string())),
        }
    }

    fn edit(&self, dir: &Dir, bytes: &[u8], settings: &[GitSetting<'_>]) -> Result<(Vec<u8>, u32)> {
        if !bytes.is_empty() {
            dir.replace_file(NAME, bytes, 0o600, None)?;
        }
        for (key, value) in settings {
            let words = ["--file", "config", "--replace-all", key].map(OsStr::new);
            match self.run(dir, b"", &[&words[..], &[value]].concat())? {
                (0, _) => {}
                (status, _) => {
                    let reason = format!("its status is {status}, and it said nothing");
                    return Err(Error::on("run", &self.0, reason));
                }
            }
        }
        match (dir.stat_entry(NAME)?, dir.read_file(NAME, LIMIT)?) {
            (Some(stat), Some(edited)) => Ok((edited, stat.mode)),
            _ => Err(Error::on("read", dir.join(NAME), "git made no such file")),
        }
    }

    /// Runs `git config`; returns its status, 0 or 1, and what it printed. Where it complains, the first
    /// line of that is an error.
    fn run(&self, directory: &Dir, input: &[u8], words: &[&OsStr]) -> Result<(u8, Vec<u8>)> {
        let command = Command {
            program: &self.0,
            arguments: [&["config", "--no-includes"].map(OsStr::new), words].concat(),
            environment: &[
                c"LC_ALL=C",
                c"GIT_CONFIG_NOSYSTEM=1",
                c"GIT_CONFIG_GLOBAL=/dev/null",
                // No repository: else git looks for one in the current directory and above.
                c"GIT_DIR=/dev/null",
            ]
            .map(CStr::to_owned),
            directory: directory.as_fd(),
            input,
            limit: Some(WRITTEN),
            time: None,
        };
        let printed = command.run()?;
        let complaint = String::from_utf8_lossy(&printed.stderr);
        match (printed.status, complaint.lines().next()) {
            (0, _) | (1, None) => Ok((printed.status, printed.stdout)),
            (_, Some(first)) => Err(Error::on("run", &self.0, first.to_owned())),
            (status, None) => Err(Error::on("run", &self.0, format!("its status is {status}"))),
        }
    }
}

/// A directory that only this process's user can enter or rename. It is locked (flock(2)) for as long as
/// it is in use: nobody else can open it, so no lock of anybody's says that it is when it is not.
struct Private {
    parent: Dir,
    name: TempName,
    dir: Dir,
}

impl Private {
    fn new() -> Result<Self> {
        let mut failure = None;
        for place in PLACES {
            match usable(place).and_then(|parent| parent.map(Self::inside).transpose()) {
                Ok(Some(private)) => return Ok(private),
                Ok(None) => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or_else(|| {
            let reason = format!("others can rename what is in {}", PLACES.join(", "));
            Error::plain("make a private directory", reason)
        }))
    }

    fn inside(parent: Dir) -> Result<Self> {
        let name = TempName::new();
        parent.make_dir(name.as_cstr(), 0o700)?;
        let dir = parent.open_dir(name.as_cstr())?;
        let locked = lock(&dir)?;
        let stat = dir.stat()?;
        // Another run may have taken it for a leftover.
        match locked && stat.nlink > 0 && stat.uid == rustix::process::geteuid().as_raw() {
            true => Ok(Self { parent, name, dir }),
            false => Err(Error::on("use", dir.path(), "it has been taken away")),
        }
    }

    fn remove(self) -> Result<()> {
        remove(&self.parent, self.name.as_cstr(), &self.dir)
    }
}

/// Removes what runs have left that were killed: copies of .gitconfig files. Returns the failures.
pub fn clear_leftovers() -> Vec<Error> {
    let mut failures = Vec::new();
    for place in PLACES {
        if let Err(error) = usable(place).and_then(|parent| match parent {
            Some(parent) => clear(&parent, &mut failures),
            None => Ok(()),
        }) {
            failures.push(error);
        }
    }
    failures
}

fn clear(parent: &Dir, failures: &mut Vec<Error>) -> Result<()> {
    let prefix = TempName::PREFIX.as_bytes();
    for entry in DirListing::first(parent, LOOKED_AT)? {
        if !entry.name.to_bytes().starts_with(prefix) {
            continue;
        }
        let cleared = leftover(parent, &entry.name).and_then(|dir| match dir {
            Some(dir) => remove(parent, &entry.name, &dir),
            None => Ok(()),
        });
        failures.extend(cleared.err());
    }
    Ok(())
}

/// The private directory `name` of a run that is over; `None` if it is something else, or is in use. It is
/// this user's own, so nobody else can have put it there or can exchange it.
fn leftover(parent: &Dir, name: &CStr) -> Result<Option<Dir>> {
    let user = rustix::process::geteuid().as_raw();
    match parent.stat_entry(name)? {
        Some(stat) if stat.kind == Kind::Dir && stat.uid == user && stat.mode & 0o077 == 0 => {}
        _ => return Ok(None),
    }
    let dir = parent.open_dir(name)?;
    Ok((dir.stat()?.uid == user && lock(&dir)?).then_some(dir))
}

/// Empties `dir`, entry `name` of `parent`, of what such a directory may hold, and removes it. A look or
/// a removal that fails is tried again, for it is a copy of somebody's settings that would stay.
fn remove(parent: &Dir, name: &CStr, dir: &Dir) -> Result<()> {
    let removed = patiently(|| {
        for entry in DirListing::first(dir, 64)? {
            let ours = entry.name.to_bytes().starts_with(TempName::PREFIX.as_bytes());
            if ours || [NAME, LOCK].contains(&&*entry.name) {
                gone(dir.remove_file(&entry.name))?;
            }
        }
        gone(parent.remove_dir(name))
    });
    removed.map_err(|error| error.hint("it may hold a copy of a .gitconfig; remove it"))
}

fn gone(removed: Result<()>) -> Result<()> {
    match removed {
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Whether nobody else has it locked; then this process has.
fn lock(dir: &Dir) -> Result<bool> {
    match rustix::fs::flock(dir, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(Error::os("lock", dir.path(), errno)),
    }
}

/// The directory `place` if it is there and nobody else can rename what is in it.
fn usable(place: &str) -> Result<Option<Dir>> {
    let dir = match Dir::open_operator_path(place) {
        Err(error) if matches!(error.errno(), Some(Errno::NOENT | Errno::NOTDIR)) => {
            return Ok(None);
        }
        other => other?,
    };
    let stat = dir.stat()?;
    let others_write = stat.mode & 0o022 != 0 && stat.mode & 0o1000 == 0;
    let user = rustix::process::geteuid().as_raw();
    Ok((!others_write && [0, user].contains(&stat.uid)).then_some(dir))
}
