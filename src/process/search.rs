//! Which file a command name means.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::Access;
use rustix::io::Errno;

use super::environment::lookup;
use super::inherited::Inherited;
use crate::error::{Error, Result};
use crate::fs::Kind;

/// The PATH that a shell searches when it has none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The shell that runs a script without a `#!` line.
const SHELL: &std::ffi::CStr = c"/bin/sh";

/// Finds the program `name`: itself if it has a slash, else the first hit in `path`, a list of
/// directories with colons between. Directories and files that this process may not execute are
/// no hits. A hit in a relative directory is an error, so that the owner of the current directory
/// cannot choose the program. Without a `path` nothing is found.
pub fn find_program(name: &OsStr, path: Option<&OsStr>) -> Result<CString> {
    if name.as_bytes().contains(&b'/') {
        let program = c_string(name.as_bytes())?;
        return match executable(&program) {
            Ok(()) => Ok(program),
            Err(errno) => Err(Error::os("run", name, errno)),
        };
    }
    let Some(path) = path else { return Err(Error::on("run", name, "PATH is not set")) };
    for candidate in candidates(name, path) {
        let program = c_string(&candidate)?;
        if executable(&program).is_err() {
            continue;
        }
        if candidate.first() != Some(&b'/') {
            return Err(Error::on("run", name, "PATH finds it in a relative directory")
                .hint("make that entry of PATH absolute"));
        }
        return Ok(program);
    }
    Err(Error::on("run", name, "no executable file of that name in PATH"))
}

/// `name` in each directory of `path`; an empty entry is the current directory (POSIX XBD 8.3).
fn candidates(name: &OsStr, path: &OsStr) -> impl Iterator<Item = Vec<u8>> {
    path.as_bytes().split(|&byte| byte == b':').map(|entry| {
        let mut candidate = entry.to_vec();
        if candidate.last().is_some_and(|&byte| byte != b'/') {
            candidate.push(b'/');
        }
        candidate.extend_from_slice(name.as_bytes());
        candidate
    })
}

fn executable(program: &CString) -> Result<(), Errno> {
    let stat = rustix::fs::stat(program)?;
    match Kind::from_mode(stat.st_mode) {
        Kind::Dir => Err(Errno::ISDIR),
        _ => rustix::fs::access(program, Access::EXEC_OK),
    }
}

fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Error::on("run", OsStr::from_bytes(bytes), "it has a NUL byte"))
}

/// A program that could not be started, with the status a shell would exit with: 127 not found, 126
/// found but not executable.
#[derive(Debug, Clone)]
pub struct NotStarted {
    /// 126 or 127.
    pub status: u8,
    /// The error.
    pub error: Error,
}

impl Inherited {
    /// Replaces the program by `name` as a shell's `exec` does: searched in the environment's PATH
    /// or [`DEFAULT_PATH`], candidates that cannot be executed are passed over, and a script without
    /// a `#!` line is run by /bin/sh. `arguments` include argv\[0\]. Returns only on failure.
    pub fn exec_as_shell(
        &self,
        name: &OsStr,
        arguments: &[CString],
        environment: &[CString],
    ) -> NotStarted {
        let path = lookup(environment, "PATH").unwrap_or(OsStr::new(DEFAULT_PATH));
        let programs: Vec<Vec<u8>> = match name.as_bytes().contains(&b'/') {
            true => vec![name.as_bytes().to_vec()],
            false => candidates(name, path).collect(),
        };
        let mut failure: Option<(CString, Errno)> = None;
        for program in programs {
            let Ok(program) = CString::new(program) else { continue };
            let mut errno = self.exec(&program, arguments, environment);
            if errno == Errno::NOEXEC {
                let rest = arguments.iter().skip(1).cloned();
                let script: Vec<CString> =
                    [SHELL.to_owned(), program.clone()].into_iter().chain(rest).collect();
                errno = self.exec(SHELL, &script, environment);
            }
            // A file that exists and yet is not found lacks its interpreter; any other reason says
            // more than that one.
            let counts = match errno {
                Errno::NOENT | Errno::NOTDIR => {
                    failure.is_none() && rustix::fs::stat(&program).is_ok()
                }
                _ => true,
            };
            if counts {
                failure = Some((program, errno));
            }
        }
        NotStarted::new(name, failure)
    }
}

impl NotStarted {
    fn new(name: &OsStr, failure: Option<(CString, Errno)>) -> Self {
        let Some((program, errno)) = failure else {
            let hint = "install it, or correct PATH";
            return Self { status: 127, error: Error::on("run", name, "not found").hint(hint) };
        };
        let shown = OsStr::from_bytes(program.to_bytes());
        match errno {
            Errno::NOENT | Errno::NOTDIR => {
                let error = Error::on("run", shown, "its interpreter does not exist")
                    .hint("correct its first line");
                Self { status: 127, error }
            }
            Errno::LOOP | Errno::NAMETOOLONG => {
                Self { status: 127, error: Error::os("run", shown, errno) }
            }
            // setresuid(2) leaves this error to exec.
            Errno::AGAIN => {
                let error = Error::os("run", shown, errno)
                    .hint("its user has too many processes; raise the limit (ulimit -u)");
                Self { status: 126, error }
            }
            _ => Self { status: 126, error: Error::os("run", shown, errno) },
        }
    }
}
