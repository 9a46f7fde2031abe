//! Whether a program that root is about to run could have been put there by somebody else.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::environment::lookup;
use super::search::DEFAULT_PATH;
use crate::error::{Error, Result};
use crate::fs::{Dir, Kind, Stat};

/// Links followed on the way, as the kernel's own limit (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// The program `name` in the PATH of `environment`; run by root, the first that only root can have put there.
/// `None` if there is none at all.
///
/// # Errors
///
/// For root, when there are some and others could have changed each of them: why the first is refused.
pub fn find_own_program(name: &str, environment: &[CString]) -> Result<Option<PathBuf>> {
    let path = lookup(environment, "PATH").unwrap_or(OsStr::new(DEFAULT_PATH));
    let mut failure = None;
    for candidate in which::which_in_all(name, Some(path), "/").into_iter().flatten() {
        if !rustix::process::geteuid().is_root() {
            return Ok(Some(candidate));
        }
        match find_own_file(&candidate, "run as root", "remove it from PATH, or give it to root") {
            Ok(Some(program)) => return Ok(Some(program)),
            Ok(None) => {}
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(None), Err)
}

/// Resolves `path` (absolute) and returns the path without links, if every directory and link on the
/// way and the regular file itself belong to root and nobody else may write to them; `None` if there is no
/// such file. PATH of an image often begins with a directory of its user.
///
/// # Errors
///
/// When somebody else could have changed it: `operation` was not done, and `hint` says what to do.
pub fn find_own_file(
    path: &Path,
    operation: &'static str,
    hint: &'static str,
) -> Result<Option<PathBuf>> {
    let refuse = |reason: String| Error::on(operation, path, reason).hint(hint);
    let mut way = vec![Dir::open_operator_path("/")?];
    let mut links = 0;
    let mut ahead: VecDeque<OsString> = components(path);
    check(&way[0].stat()?, way[0].path()).map_err(refuse)?;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            way.truncate(way.len().saturating_sub(1).max(1));
            continue;
        }
        let (Some(dir), Ok(name)) = (way.last(), CString::new(name.into_vec())) else {
            return Err(refuse("it has a NUL byte".into()));
        };
        let Some(stat) = dir.stat_entry(&name)? else {
            return Ok(None);
        };
        let here = dir.join(&name);
        match stat.kind {
            Kind::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(refuse("it has too many symbolic links".into()));
                }
                let target = dir.read_symlink(&name)?;
                let target = Path::new(OsStr::from_bytes(target.to_bytes())).to_owned();
                if target.is_absolute() {
                    way.truncate(1);
                }
                for name in components(&target).into_iter().rev() {
                    ahead.push_front(name);
                }
            }
            Kind::Dir => {
                let next = dir.open_dir(&name)?;
                check(&next.stat()?, &here).map_err(refuse)?;
                way.push(next);
            }
            Kind::File if ahead.is_empty() => {
                check(&stat, &here).map_err(refuse)?;
                return Ok(Some(here));
            }
            kind => return Err(refuse(format!("{} is {}", here.display(), kind.noun()))),
        }
    }
    Err(refuse("it is a directory".into()))
}

fn check(stat: &Stat, path: &Path) -> Result<(), String> {
    // With an ACL the group bits are the most that any named user or group may do.
    match stat.uid == 0 && stat.mode & 0o022 == 0 {
        true => Ok(()),
        false => Err(format!("others than root can change {}", path.display())),
    }
}

fn components(path: &Path) -> VecDeque<OsString> {
    path.as_os_str()
        .as_bytes()
        .split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty() && name != b".")
        .map(|name| OsStr::from_bytes(name).to_owned())
        .collect()
}
