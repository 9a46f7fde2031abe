//! Leftovers of a [`Dir::replace_file`] in a run that was killed.
#![forbid(unsafe_code)]

use std::ffi::CStr;

use rustix::io::Errno;
use rustix::time::ClockId;

use super::{Dir, DirListing, Kind, Stat, TempName, at};
use crate::error::Result;

/// Names that are looked at. The directory's owner can make any number.
const LOOKED_AT: usize = 4096;
/// Seconds since the last change of one. Another run writes in a moment, and a restore of this directory, which
/// uses such names too, at least now and then.
const AGE: i64 = 600;

/// Removes the half-made files in `dir` that were left more than 10 minutes ago; only for root, whom nobody can
/// foist one on. Nothing else is root's, has one name of this form and permissions 0600: what is put aside under such
/// a name is somebody else's, or a directory. A user who can write in `dir` may put another file in its place at the
/// last moment, but only one that they could remove as well.
///
/// # Errors
///
/// When `dir` cannot be read, or the first error of a look or a removal; the others are done all the same.
pub fn clear_half_made(dir: &Dir) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let now = rustix::time::clock_gettime(ClockId::Realtime).tv_sec;
    let mut result = Ok(());
    for entry in DirListing::first(dir, LOOKED_AT)? {
        if TempName::is_one(&entry.name) {
            result = result.and(clear(dir, &entry.name, now));
        }
    }
    result
}

fn clear(dir: &Dir, name: &CStr, now: i64) -> Result<()> {
    let handle = match dir.open_handle(name) {
        Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let stat = at::stat_fd(&handle).map_err(|errno| dir.entry_error("stat", name, errno))?;
    if is_left(&stat, now) { dir.remove_made(name, &handle) } else { Ok(()) }
}

fn is_left(stat: &Stat, now: i64) -> bool {
    let ours = (stat.kind, stat.uid, stat.mode, stat.nlink) == (Kind::File, 0, 0o600, 1);
    ours && now.saturating_sub(stat.ctime.0) >= AGE
}
