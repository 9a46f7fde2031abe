//! Settings in a git configuration file (git-config(1)), read and changed by git itself, from bytes
//! to bytes. The bytes may be anybody's: git sees them under a name of its own in a directory that
//! nobody else can enter, follows no include in them, and knows no other configuration.

use std::ffi::{CStr, OsStr};
use std::io::{Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::MemfdFlags;

use crate::error::{Error, Result};
use crate::fs::{Dir, TempName};

/// Largest file that is worked on, in bytes.
pub const LIMIT: usize = 1 << 20;
const NAME: &CStr = c"config";
/// Where a private directory is made: the first in which nobody else can rename it.
const PLACES: [&str; 4] = ["/run", "/tmp", "/var/tmp", "/dev/shm"];

/// The git program, by its path.
#[derive(Debug)]
pub struct Git(PathBuf);

/// One key, `section.subsection.variable`, and the only value it is to have.
pub type Setting<'a> = (&'a str, &'a OsStr);

impl Git {
    /// Uses `program`.
    pub fn new(program: PathBuf) -> Self {
        Self(program)
    }

    /// Whether each of `settings` is there with that one value, in `bytes` itself.
    pub fn has(&self, bytes: &[u8], settings: &[Setting<'_>]) -> Result<bool> {
        let mut command = self.command(Path::new("/"));
        command.args(["--file", "-", "-z", "--list"]).stdin(in_memory(bytes)?);
        let listed = run(command)?.stdout;
        let entries: Vec<(&[u8], Option<&[u8]>)> = listed
            .split(|&byte| byte == 0)
            .map(|entry| match entry.iter().position(|&byte| byte == b'\n') {
                Some(end) => (&entry[..end], Some(&entry[end + 1..])),
                None => (entry, None),
            })
            .collect();
        Ok(settings.iter().all(|(key, value)| {
            let key = canonical(key);
            let mut found = entries.iter().filter(|(name, _)| *name == key.as_bytes());
            found.next().is_some_and(|(_, is)| *is == Some(value.as_bytes()))
                && found.next().is_none()
        }))
    }

    /// Gives the file with `settings` made, each in place of all values its key had, and the mode of
    /// the file: that of a file made under this process's umask. `bytes` empty: a new file.
    pub fn set(&self, bytes: &[u8], settings: &[Setting<'_>]) -> Result<(Vec<u8>, u32)> {
        let place = Private::new()?;
        if !bytes.is_empty() {
            place.dir.replace_file(NAME, bytes, 0o600, None)?;
        }
        for (key, value) in settings {
            let mut command = self.command(place.dir.path());
            command.args(["--file", "config", "--replace-all", key]).arg(value);
            command.stdin(Stdio::null());
            run(command)?;
        }
        match (place.dir.stat_entry(NAME)?, place.dir.read_file(NAME, 2 * LIMIT)?) {
            (Some(stat), Some(edited)) => Ok((edited, stat.mode)),
            _ => Err(Error::on("read", place.dir.join(NAME), "git made no such file")),
        }
    }

    fn command(&self, directory: &Path) -> Command {
        let mut command = Command::new(&self.0);
        command
            .current_dir(directory)
            .env_clear()
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            // No repository: else git looks for one in the current directory and above.
            .env("GIT_DIR", "/dev/null")
            .args(["config", "--no-includes"]);
        command
    }
}

/// A directory that only this process's user can enter or rename; it goes with the value.
struct Private {
    parent: Dir,
    name: TempName,
    dir: Dir,
}

impl Private {
    fn new() -> Result<Self> {
        let mut failure = None;
        for place in PLACES {
            match Self::inside(place) {
                Ok(private) => return Ok(private),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure
            .unwrap_or_else(|| Error::plain("make a private directory", "nowhere to put it")))
    }

    fn inside(place: &str) -> Result<Self> {
        let parent = Dir::open_operator_path(place)?;
        let user = rustix::process::geteuid().as_raw();
        let stat = parent.stat()?;
        let others_write = stat.mode & 0o022 != 0 && stat.mode & 0o1000 == 0;
        if others_write || ![0, user].contains(&stat.uid) {
            return Err(Error::on("use", place, "others can rename what is in it"));
        }
        let name = TempName::new();
        parent.make_dir(name.as_cstr(), 0o700)?;
        let dir = parent.open_dir(name.as_cstr())?;
        match dir.stat()?.uid == user {
            true => Ok(Self { parent, name, dir }),
            false => Err(Error::on("use", dir.path(), "it has been replaced")),
        }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // What git leaves when it fails half-way included; nothing else is ever in there.
        let _ = self.dir.remove_file(NAME);
        let _ = self.dir.remove_file(c"config.lock");
        let _ = self.parent.remove_dir(self.name.as_cstr());
    }
}

fn in_memory(bytes: &[u8]) -> Result<std::fs::File> {
    let fail =
        |error: std::io::Error| Error::plain("hold a file in memory", error.kind().to_string());
    let fd = rustix::fs::memfd_create(c"config", MemfdFlags::CLOEXEC)
        .map_err(|errno| fail(errno.into()))?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes).map_err(fail)?;
    file.rewind().map_err(fail)?;
    Ok(file)
}

/// Runs git; a failure is told with the first line of its complaint.
fn run(mut command: Command) -> Result<std::process::Output> {
    let program = command.get_program().to_owned();
    let output =
        command.output().map_err(|error| Error::on("run", &program, error.kind().to_string()))?;
    match output.status.success() {
        true => Ok(output),
        false => {
            let complaint = String::from_utf8_lossy(&output.stderr);
            let first = complaint.lines().next().unwrap_or("it failed and said nothing");
            Err(Error::on("run", program, first.to_owned()))
        }
    }
}

/// The key as git prints it: section and variable in lower case, the subsection as it is.
fn canonical(key: &str) -> String {
    match (key.find('.'), key.rfind('.')) {
        (Some(first), Some(last)) => {
            let (section, variable) = (&key[..first], &key[last..]);
            section.to_ascii_lowercase() + &key[first..last] + &variable.to_ascii_lowercase()
        }
        _ => key.to_ascii_lowercase(),
    }
}
