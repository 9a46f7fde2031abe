//! Where a descent is: its directory, and its path for messages.
#![forbid(unsafe_code)]

use std::ffi::{CStr, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::level::DescentLevel;
use crate::error::{LONGEST_SHOWN, SHOWN_END, left_out};
use crate::fs::InodeId;

/// A look at a way.
#[derive(Debug, Clone, Copy)]
pub struct DescentWay<'a> {
    pub(super) levels: &'a [DescentLevel],
    pub(super) names: &'a [u8],
    pub(super) fd: &'a OwnedFd,
}

impl<'a> DescentWay<'a> {
    /// The deepest directory; the start if nothing was entered.
    pub fn fd(&self) -> &'a OwnedFd {
        self.fd
    }

    /// Its inode; `None` for the start.
    pub fn id(&self) -> Option<InodeId> {
        self.levels.last().map(|level| level.id)
    }

    /// The name of the deepest directory; empty for the start.
    pub fn last_name(&self) -> &'a CStr {
        self.levels.last().map_or(c"", |level| name_at(self.names, level.name))
    }

    fn name(&self, level: &DescentLevel) -> &'a OsStr {
        OsStr::from_bytes(name_at(self.names, level.name).to_bytes())
    }

    /// Bytes of the path of the first `count` levels.
    pub(super) fn length_to(&self, count: usize) -> usize {
        let last = count.checked_sub(1).and_then(|index| self.levels.get(index));
        last.map_or(0, |level| level.length as usize)
    }

    /// The path of the deepest directory, `base` being the start's, for messages: of a long one both
    /// ends.
    pub fn path(&self, base: &Path) -> PathBuf {
        let mut path = base.to_owned();
        if path.as_os_str().len() + self.length_to(self.levels.len()) <= LONGEST_SHOWN {
            path.extend(self.levels.iter().map(|level| self.name(level)));
            return path;
        }
        let mut first = 0;
        while let Some(level) = self.levels.get(first)
            && path.as_os_str().len() < SHOWN_END
        {
            path.push(self.name(level));
            first += 1;
        }
        let last = self.last_levels(SHOWN_END).max(first);
        if last > first {
            path.push(left_out(self.length_to(last) - self.length_to(first)));
        }
        path.extend(self.levels[last..].iter().map(|level| self.name(level)));
        path
    }

    /// The first of the deepest levels whose names are `length` bytes or more together.
    fn last_levels(&self, length: usize) -> usize {
        let (mut first, mut have) = (self.levels.len(), 0);
        while first > 0 && have < length {
            first -= 1;
            have += self.name(&self.levels[first]).len() + 1;
        }
        first
    }

    /// Writes the end of the path of entry `name` there, about 256 bytes.
    pub fn write_end(&self, base: &Path, name: &CStr, path: &mut Vec<u8>) {
        let first = self.last_levels(SHOWN_END);
        path.clear();
        if first == 0 {
            path.extend_from_slice(base.as_os_str().as_bytes());
        }
        let names = self.levels[first..].iter().map(|level| self.name(level).as_bytes());
        for name in names.chain([name.to_bytes()]) {
            if path.last() != Some(&b'/') {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
    }
}

/// The name that begins at `start`.
pub(super) fn name_at(names: &[u8], start: u32) -> &CStr {
    CStr::from_bytes_until_nul(&names[start as usize..]).unwrap_or_default()
}
