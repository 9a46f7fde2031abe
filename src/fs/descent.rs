//! The way down a tree, from a directory that is held to the one in work, in bounded memory and few
//! descriptors: nothing bounds the depth or the breadth of a tree that somebody else has made.
//!
//! Only the deepest [`HELD`] directories of the way are open. Each remembers its name and its inode, so
//! that it is found again through ".." of the one below, or from the start by the names, and taken only
//! if it is the same inode: a user who moves a directory of the way can cut it off, not lead it elsewhere.
//! The names that wait to be entered lie back to back between the names of the way.
#![forbid(unsafe_code)]

mod level;
mod way;

use std::collections::VecDeque;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{RawDir, SeekFrom};
use rustix::io::Errno;

use level::{DescentLevel, UnreadPart};
pub use way::DescentWay;
use way::name_at;

use super::at::{self, kind};
use super::{InodeId, Kind, Stat};

/// Directories of a way that are open at a time, at most.
pub const HELD: usize = 6;
/// Bytes that a way may take, waiting names included: 160,000 levels of one letter, 27,000 of 255.
const WAY: usize = 8 << 20;
/// Bytes of waiting names of one directory after which the rest of its names waits in the directory.
const PORTION: usize = 64 << 10;
/// Bytes of names beyond which a directory is read in the smallest portions.
const MANY_NAMES: usize = 1 << 20;
/// Bytes that one getdents64(2) may fill, of few names and of many. One entry takes at most 280.
const BUFFER: usize = 32 << 10;
const SMALL_BUFFER: usize = 1 << 10;

/// See the module.
#[derive(Debug)]
pub struct TreeDescent {
    start: Arc<OwnedFd>,
    levels: Vec<DescentLevel>,
    /// Of the deepest levels, the deepest last.
    held: VecDeque<Arc<OwnedFd>>,
    /// Of each level its name and a NUL, then the names that wait in it, each with NUL and length;
    /// last of all the name in turn and its NUL.
    names: Vec<u8>,
    /// Where the name in turn begins.
    turn: usize,
    buffer: Vec<MaybeUninit<u8>>,
    /// Directories that may still be opened to find one again from the start.
    searches: u64,
}

/// The next step after the work on a directory.
#[derive(Debug, PartialEq, Eq)]
pub enum DescentNext {
    /// A name is in turn, see [`TreeDescent::name`].
    Name,
    /// The deepest directory has more to list.
    Unread,
    /// The deepest directory is done, or the way has ended.
    Done,
}

/// Directories of the way cannot be reached any more: somebody has moved one of them. What is left of
/// the way can.
#[derive(Debug, PartialEq, Eq)]
pub struct CutOff {
    /// Names that waited in them, at least.
    pub waiting: u64,
}

impl TreeDescent {
    /// A way that begins with entry `name` of `start`, which is in turn.
    pub fn new(start: Arc<OwnedFd>, name: &CStr) -> Self {
        Self {
            start,
            levels: Vec::new(),
            held: VecDeque::with_capacity(HELD + 1),
            names: name.to_bytes_with_nul().to_vec(),
            turn: 0,
            buffer: vec![MaybeUninit::uninit(); BUFFER],
            searches: 4096,
        }
    }

    /// Begins anew elsewhere.
    pub fn restart(&mut self, start: Arc<OwnedFd>, name: &CStr) {
        self.levels.clear();
        self.held.clear();
        self.names.clear();
        self.names.extend_from_slice(name.to_bytes_with_nul());
        self.turn = 0;
        self.start = start;
    }

    /// Whether nothing was entered, or all was left.
    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// The deepest directory of the way; the start if there is none.
    pub fn here(&self) -> &Arc<OwnedFd> {
        self.held.back().unwrap_or(&self.start)
    }

    /// Puts the next waiting name of the deepest directory in turn, if there is one.
    pub fn advance(&mut self) -> DescentNext {
        let Some(level) = self.levels.last() else { return DescentNext::Done };
        if self.names.len() > level.waiting as usize
            && let Some(length) = self.names.pop()
        {
            self.turn = self.names.len() - usize::from(length) - 1;
            return DescentNext::Name;
        }
        match level.unread {
            UnreadPart::Nothing => DescentNext::Done,
            UnreadPart::Here | UnreadPart::From(_) => DescentNext::Unread,
        }
    }

    /// Whether the deepest directory has other work than the name in turn.
    pub fn has_more(&self) -> bool {
        self.levels.last().is_some_and(|level| {
            self.turn > level.waiting as usize || level.unread != UnreadPart::Nothing
        })
    }

    /// The name in turn.
    pub fn name(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.names[self.turn..]).unwrap_or_default()
    }

    /// Drops the name in turn, whatever was done with it.
    pub fn skip(&mut self) {
        self.names.truncate(self.turn);
    }

    /// Puts `name` of the deepest directory in turn, before those that wait in it.
    pub fn take_up(&mut self, name: &CStr) {
        self.turn = self.names.len();
        self.names.extend_from_slice(name.to_bytes_with_nul());
    }

    /// Whether one more level would take more memory than a way may.
    pub fn is_full(&self) -> bool {
        self.names.len() + self.levels.len() * size_of::<DescentLevel>() > WAY
    }

    /// Enters the directory of the name in turn, opened as `fd`, with the attributes `stat`. Nothing of it
    /// has been listed.
    pub fn enter(&mut self, fd: OwnedFd, stat: &Stat) {
        self.searches += 1;
        if self.held.len() == HELD
            && let Some(fd) = self.held.pop_front()
        {
            let index = self.levels.len() - HELD;
            if let Some(level) = self.levels.get_mut(index)
                && level.unread == UnreadPart::Here
            {
                // A directory without positions has no more to list then.
                let position = rustix::fs::seek(&fd, SeekFrom::Current(0));
                level.unread = position.map_or(UnreadPart::Nothing, UnreadPart::From);
            }
        }
        let length = self.way().length_to(self.levels.len()) + self.names.len() - self.turn;
        self.levels.push(DescentLevel {
            id: stat.id(),
            name: self.turn as u32,
            waiting: self.names.len() as u32,
            length: length as u32,
            unread: UnreadPart::Here,
        });
        self.held.push_back(Arc::new(fd));
    }

    /// Lists some of the deepest directory: the result of one getdents64(2). `each` gets where it is, name
    /// and recorded type (see [`at::list`]); a name for which it says true will be in turn later. True
    /// if there is more to list.
    pub fn list(
        &mut self,
        mut each: impl FnMut(DescentWay<'_>, &CStr, Option<Kind>) -> bool,
    ) -> Result<bool, Errno> {
        let (Some(level), Some(fd)) = (self.levels.last_mut(), self.held.back()) else {
            return Ok(false);
        };
        if let UnreadPart::From(position) =
            std::mem::replace(&mut level.unread, UnreadPart::Nothing)
        {
            rustix::fs::seek(fd, SeekFrom::Start(position))?;
        }
        let size = if self.names.len() < MANY_NAMES { BUFFER } else { SMALL_BUFFER };
        let mut raw = RawDir::new(fd, &mut self.buffer[..size]);
        let mut interrupted = 0;
        while let Some(entry) = raw.next() {
            let entry = match entry {
                Err(Errno::INTR) if interrupted < at::ATTEMPTS => {
                    interrupted += 1;
                    continue;
                }
                entry => entry?,
            };
            let name = entry.file_name();
            let way = DescentWay { levels: &self.levels, names: &self.names, fd };
            if name != c"." && name != c".." && each(way, name, kind(entry.file_type())) {
                self.names.extend_from_slice(name.to_bytes_with_nul());
                self.names.push(u8::try_from(name.count_bytes()).unwrap_or(u8::MAX));
            }
            if raw.is_buffer_empty() {
                if let Some(level) = self.levels.last_mut() {
                    level.unread = UnreadPart::Here;
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether so many names wait in the deepest directory that they should be worked on before more of
    /// it is listed.
    pub fn has_portion(&self) -> bool {
        let portion = if self.names.len() < MANY_NAMES { PORTION } else { 0 };
        self.levels.last().is_some_and(|l| self.names.len() > l.waiting as usize + portion)
    }

    /// Where the way is now.
    pub fn way(&self) -> DescentWay<'_> {
        DescentWay { levels: &self.levels, names: &self.names, fd: self.here() }
    }

    /// Leaves the deepest directory, in which nothing waits, for the one above.
    pub fn leave(&mut self) -> Result<(), CutOff> {
        let below = self.held.pop_back();
        let Some(level) = self.levels.pop() else { return Ok(()) };
        self.names.truncate(level.name as usize);
        let (Some(above), Some(below), true) = (self.levels.last(), below, self.held.is_empty())
        else {
            return Ok(());
        };
        match open(&below, c"..", above.id) {
            Ok(fd) => {
                self.held.push_back(Arc::new(fd));
                Ok(())
            }
            Err(_) => self.find_again(),
        }
    }

    /// Opens the way anew from the start, as far as it is as it was. What is further is cut off. All
    /// searches together open no more directories than were entered, and a few thousand: somebody could
    /// make every level need one.
    fn find_again(&mut self) -> Result<(), CutOff> {
        let mut way: VecDeque<Arc<OwnedFd>> = VecDeque::with_capacity(HELD + 1);
        let mut found = 0;
        for level in &self.levels {
            let Some(left) = self.searches.checked_sub(1) else { break };
            self.searches = left;
            let from = way.back().unwrap_or(&self.start);
            let Ok(fd) = open(from, name_at(&self.names, level.name), level.id) else { break };
            way.push_back(Arc::new(fd));
            if way.len() > HELD {
                way.pop_front();
            }
            found += 1;
        }
        self.held = way;
        let Some(first) = self.levels.get(found) else { return Ok(()) };
        let start = first.name as usize;
        let waiting = self.count_waiting(found);
        self.names.truncate(start);
        self.levels.truncate(found);
        Err(CutOff { waiting })
    }

    /// Names that wait in the levels from `first` on, and listings that are not at their end.
    fn count_waiting(&self, first: usize) -> u64 {
        let ends = self.levels.iter().skip(first + 1).map(|level| level.name as usize);
        let ends = ends.chain([self.names.len()]);
        let mut count = 0;
        for (level, end) in self.levels.iter().skip(first).zip(ends) {
            let names = &self.names[level.waiting as usize..end];
            count += names.iter().filter(|&&byte| byte == 0).count() as u64;
            count += u64::from(level.unread != UnreadPart::Nothing);
        }
        count
    }

    /// Gives up all of the way; returns how many names waited in it, at least.
    pub fn abandon(&mut self) -> u64 {
        let waiting = self.count_waiting(0);
        self.levels.clear();
        self.held.clear();
        self.names.clear();
        self.turn = 0;
        waiting
    }
}

/// Opens directory `name`, which must be that inode.
fn open(from: &OwnedFd, name: &CStr, id: InodeId) -> Result<OwnedFd, Errno> {
    let fd = at::open_dir(from, name)?;
    let stat = at::stat_fd(&fd)?;
    if stat.id() == id { Ok(fd) } else { Err(Errno::STALE) }
}

#[cfg(test)]
mod tests;
