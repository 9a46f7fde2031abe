//! One object in the form of `ls -ld` in the C locale and in UTC (POSIX.1-2024, ls, "long format").
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

use super::{FactLook, UnclearFact};
use crate::error::{escape, shorten};
use crate::fs::xattr::{ACCESS_ACL, DEFAULT_ACL, XattrTarget};
use crate::fs::{Dir, Kind, Stat, at};
use crate::log::civil_from_days;

/// Half of the mean Gregorian year (365.2425 days) in seconds: what is older, or in the future, is
/// shown with its year in place of the time of day.
const HALF_YEAR: i64 = 31_556_952 / 2;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Where numeric ids get their names.
pub trait NameLookup {
    /// Name of a user id.
    fn user(&self, uid: u32) -> FactLook<OsString>;
    /// Name of a group id; `None` if there is none or it cannot be found out.
    fn group(&self, gid: u32) -> Option<OsString>;
}

/// The line for `path` (relative) below `root`, shown as `/path` and escaped so that it stays one line; none
/// if it is missing. A link on the way to it is not followed. `now` is the time (seconds, nanoseconds since 1970)
/// that "recent" refers to.
pub fn long_form(
    root: &Dir,
    path: &Path,
    names: &dyn NameLookup,
    now: (i64, u32),
) -> FactLook<String> {
    let above = root.open_beneath(path.parent().unwrap_or(Path::new("")));
    let Some(above) = above.map_err(|error| UnclearFact::from(&error))? else { return Ok(None) };
    let name = CString::new(path.file_name().unwrap_or_default().as_bytes());
    let (root, name) = (&above, &*name.unwrap_or_default());
    let stat = match at::stat(root, name) {
        Ok(stat) => stat,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    // The number is right, too, where the name cannot be found out.
    let or_number = |name: Option<OsString>, id: u32| name.unwrap_or_else(|| id.to_string().into());
    let mut line = format!(
        "{}{} {} {} {} {} {} {}",
        permissions(&stat),
        mark(root, name),
        stat.nlink,
        escape(&or_number(names.user(stat.uid).ok().flatten(), stat.uid)),
        escape(&or_number(names.group(stat.gid), stat.gid)),
        match stat.kind {
            Kind::Block | Kind::Char => format!("{}, {}", stat.rdev.0, stat.rdev.1),
            _ => stat.size.to_string(),
        },
        date(stat.mtime, now),
        escape(&Path::new("/").join(path)),
    );
    if stat.kind == Kind::Symlink {
        match at::read_link(root, name) {
            Ok(target) => {
                let target = shorten(Path::new(OsStr::from_bytes(target.to_bytes()))).into_owned();
                line.push_str(&format!(" -> {}", escape(&target)));
            }
            Err(errno) => line.push_str(&format!(" -> {}", UnclearFact::from(errno))),
        }
    }
    Ok(Some(line))
}

/// `drwxr-sr-t` and the like.
fn permissions(stat: &Stat) -> String {
    let kind = match stat.kind {
        Kind::File => '-',
        Kind::Dir => 'd',
        Kind::Symlink => 'l',
        Kind::Block => 'b',
        Kind::Char => 'c',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = stat.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, stat.mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// `+` for an access or default ACL, else `.` for a security context alone, else nothing; `?` where
/// that cannot be found out, as in newer versions of `ls`.
fn mark(root: &Dir, name: &CStr) -> &'static str {
    let target = XattrTarget::entry(root, name);
    let has = |attribute: &CStr| target.has(attribute);
    let find = || -> Result<&'static str, Errno> {
        if has(ACCESS_ACL)? || has(DEFAULT_ACL)? {
            return Ok("+");
        }
        Ok(if has(c"security.selinux")? { "." } else { "" })
    };
    find().unwrap_or("?")
}

/// `Nov 23 21:15` within the last half year, else `Nov 23  2020`.
fn date(mtime: (i64, u32), now: (i64, u32)) -> String {
    let (year, month, day) = civil_from_days(mtime.0.div_euclid(86_400));
    let month = MONTHS[(month as usize - 1) % 12];
    let recent = mtime > (now.0 - HALF_YEAR, now.1) && mtime <= now;
    if recent {
        let second = mtime.0.rem_euclid(86_400);
        format!("{month} {day:>2} {:02}:{:02}", second / 3600, second / 60 % 60)
    } else {
        format!("{month} {day:>2}  {year}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_change_form_at_half_a_year_and_at_now() {
        let now = (1_800_000_000, 500);
        for (mtime, form) in [
            ((1_800_000_000, 500), "Jan 15 08:00"),
            ((1_800_000_000, 501), "Jan 15  2027"),
            ((1_799_500_000, 0), "Jan  9 13:06"),
            ((1_800_000_000 - HALF_YEAR, 500), "Jul 16  2026"),
            ((1_800_000_000 - HALF_YEAR, 501), "Jul 16 17:05"),
            ((0, 0), "Jan  1  1970"),
            ((-1, 0), "Dec 31  1969"),
        ] {
            assert_eq!(date(mtime, now), form, "{mtime:?}");
        }
    }
}
