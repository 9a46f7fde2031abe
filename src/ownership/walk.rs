//! The walk: one statx(2) per entry, shared by several threads once a tree proves large.

use std::ffi::{CStr, CString};
use std::num::NonZero;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use tracing::warn;

use super::capability::Lookup;
use super::links::{self, Name};
use super::{Mode, Owner, Privileges, Tally};
use crate::error::{Error, Result, escape};
use crate::fs::{Dir, Kind, Listing, Stat};
use crate::heartbeat::Heartbeat;

/// Directories the calling thread walks alone, before it starts others.
const ALONE: u32 = 64;
/// Threads for a large tree, at most.
const THREADS: usize = 4;
/// Warnings printed per tree; the rest is only counted, so that a read-only file system does not
/// fill the log.
const WARNINGS: u64 = 100;
/// Down to this depth waiting directories keep their parent open; below, only every 64th level is
/// kept open and the levels between are opened again. So the number of open descriptors stays far
/// below the limit of 1024 however deep somebody nested directories.
const DEPTH_KEPT_OPEN: usize = 256;

/// Walks entry `name` of `parent`.
pub(super) fn run(parent: &Dir, name: &CStr, plan: Plan<'_>) -> Tally {
    let walk =
        Walk { plan, queue: Mutex::default(), ready: Condvar::new(), warnings: AtomicU64::new(0) };
    let mut first = Worker::new(&walk, 1, Lookup::shared());
    let root = match parent.open_dir(name) {
        Ok(root) => Some(Arc::new(root)),
        Err(error) => {
            first.lookup.enter(parent);
            first.not_opened(parent, name, error);
            None
        }
    };
    if let Some(root) = &root {
        first.directory(root, None);
        let mut count = 1;
        while count < ALONE
            && let Some(place) = walk.take()
        {
            first.visit(&place);
            walk.done();
            count += 1;
        }
    }
    let mut tally = first.tally;
    let mut names = first.names;
    let large = !walk.lock().waiting.is_empty();
    if large {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|number| {
                    let walk = &walk;
                    std::thread::Builder::new()
                        .spawn_scoped(scope, move || walk.work(number + 1, None))
                })
                .collect();
            // Without a single thread the calling one does it all.
            if workers.iter().all(|worker| worker.is_err()) {
                let (more, others) = walk.work(1, Some(Lookup::shared()));
                tally += more;
                names.extend(others);
            }
            for (more, others) in workers.into_iter().flatten().flat_map(|worker| worker.join()) {
                tally += more;
                names.extend(others);
            }
        });
    }
    match root {
        Some(root) if !names.is_empty() => tally += links::settle(&walk, &root, names),
        _ => {}
    }
    let unsaid = walk.warnings.load(Ordering::Relaxed).saturating_sub(WARNINGS);
    if unsaid > 0 {
        let path = parent.join(name);
        warn!("{} more warnings about {}", unsaid, escape(&path));
    }
    tally
}

/// What is wanted of a walk.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) owner: Owner,
    pub(super) privileges: Privileges,
    pub(super) mode: Mode,
    pub(super) heart: &'a Heartbeat,
}

/// What the threads share.
pub(super) struct Walk<'a> {
    pub(super) plan: Plan<'a>,
    queue: Mutex<Queue>,
    ready: Condvar,
    warnings: AtomicU64,
}

#[derive(Default)]
struct Queue {
    /// Last in, first out: so only ancestors of a few branches are open at a time.
    waiting: Vec<Place>,
    /// Directories being walked, which may still add to `waiting`.
    active: usize,
}

/// A directory to be walked: a path without links from a directory that is held open.
struct Place {
    anchor: Arc<Dir>,
    relative: PathBuf,
    depth: usize,
}

impl Place {
    fn open(&self) -> Result<Option<Dir>> {
        let bytes = self.relative.as_os_str().as_bytes();
        match bytes.contains(&b'/') {
            true => self.anchor.open_beneath(&self.relative),
            // Taken for all but the deepest trees; it saves duplicating a descriptor.
            false => match self.anchor.open_dir(&CString::new(bytes).unwrap_or_default()) {
                Err(error) if error.errno() == Some(Errno::NOENT) => Ok(None),
                other => other.map(Some),
            },
        }
    }
}

impl Walk<'_> {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Place> {
        let mut queue = self.lock();
        let place = queue.waiting.pop()?;
        queue.active += 1;
        Some(place)
    }

    /// Waits for a directory; none when all have been walked.
    fn wait(&self) -> Option<Place> {
        let mut queue = self.lock();
        loop {
            if let Some(place) = queue.waiting.pop() {
                queue.active += 1;
                return Some(place);
            }
            if queue.active == 0 {
                return None;
            }
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn add(&self, places: Vec<Place>) {
        if !places.is_empty() {
            self.lock().waiting.extend(places);
            self.ready.notify_all();
        }
    }

    fn done(&self) {
        let mut queue = self.lock();
        queue.active -= 1;
        if queue.active == 0 {
            self.ready.notify_all();
        }
    }

    fn work(&self, number: usize, lookup: Option<Lookup>) -> (Tally, Vec<Name>) {
        let mut worker = Worker::new(self, number, lookup.unwrap_or_else(Lookup::of_this_thread));
        while let Some(place) = self.wait() {
            worker.visit(&place);
            self.done();
        }
        (worker.tally, worker.names)
    }

    /// Warns, up to the limit.
    pub(super) fn complain(&self, error: &Error) {
        if self.warnings.fetch_add(1, Ordering::Relaxed) < WARNINGS {
            warn!("{error}");
        }
    }
}

/// One thread's part.
struct Worker<'a> {
    walk: &'a Walk<'a>,
    number: usize,
    lookup: Lookup,
    tally: Tally,
    names: Vec<Name>,
}

impl<'a> Worker<'a> {
    fn new(walk: &'a Walk<'a>, number: usize, lookup: Lookup) -> Self {
        Self { walk, number, lookup, tally: Tally::default(), names: Vec::new() }
    }

    fn failed(&mut self, error: &Error) {
        self.tally.failed += 1;
        self.walk.complain(error);
    }

    fn visit(&mut self, place: &Place) {
        let heart = self.walk.plan.heart;
        heart.enter(self.number, place.anchor.path().join(&place.relative));
        self.visit_now(place);
        heart.leave(self.number);
    }

    fn visit_now(&mut self, place: &Place) {
        match place.open() {
            Ok(Some(dir)) => self.directory(&Arc::new(dir), Some(place)),
            // Removed or renamed since its parent was listed.
            Ok(None) => {}
            Err(error) => {
                let parent = place.relative.parent().unwrap_or(Path::new(""));
                let name = place.relative.file_name().unwrap_or_default().as_bytes();
                let name = CString::new(name).unwrap_or_default();
                match place.anchor.open_beneath(parent) {
                    Ok(Some(parent)) => {
                        self.lookup.enter(&parent);
                        self.not_opened(&parent, &name, error);
                    }
                    Ok(None) => {}
                    Err(error) => self.failed(&error),
                }
            }
        }
    }

    /// Entry `name` could not be opened as a directory: it is none (a link at the top of the walk,
    /// or put there since its parent was listed), or it may not be read. Gives the entry itself.
    fn not_opened(&mut self, parent: &Dir, name: &CStr, error: Error) {
        match parent.stat_entry(name) {
            Ok(None) => {}
            Ok(Some(stat)) if stat.kind == Kind::Dir => {
                self.tally.examined += 1;
                self.failed(&error);
                if !self.walk.plan.owner.owns(&stat) {
                    self.change(parent, name);
                }
            }
            Ok(Some(stat)) => {
                if stat.kind == Kind::Symlink {
                    self.failed(&error);
                }
                self.entry(parent, name);
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Gives `dir`, then its entries; directories among them are queued.
    fn directory(&mut self, dir: &Arc<Dir>, place: Option<&Place>) {
        self.tally.examined += 1;
        match super::change_directory(dir, self.walk.plan.owner, self.walk.plan.mode) {
            Ok(changed) => self.tally.changed += u64::from(changed),
            Err(error) => self.failed(&error),
        }
        if self.walk.plan.privileges == Privileges::Take {
            self.lookup.enter(dir);
        }
        let mut below: Vec<CString> = Vec::new();
        let listed = Listing::for_each(dir, |name, kind, _| {
            if kind == Some(Kind::Dir) || self.entry(dir, name) {
                below.push(name.to_owned());
            }
        });
        if let Err(error) = listed {
            self.failed(&error);
        }
        let depth = place.map_or(0, |place| place.depth) + 1;
        let reopened = depth > DEPTH_KEPT_OPEN && !depth.is_multiple_of(64);
        let child = |name: CString| {
            let name = PathBuf::from(std::ffi::OsString::from_vec(name.into_bytes()));
            match place {
                Some(place) if reopened => Place {
                    anchor: Arc::clone(&place.anchor),
                    relative: place.relative.join(name),
                    depth,
                },
                _ => Place { anchor: Arc::clone(dir), relative: name, depth },
            }
        };
        self.walk.add(below.into_iter().map(child).collect());
    }

    /// Gives entry `name`. True if it is a directory, which is left for the walk.
    fn entry(&mut self, dir: &Dir, name: &CStr) -> bool {
        let stat = match dir.stat_entry(name) {
            Ok(None) => return false,
            Ok(Some(stat)) if stat.kind == Kind::Dir => return true,
            Ok(Some(stat)) => stat,
            Err(error) => {
                self.tally.examined += 1;
                self.failed(&error);
                return false;
            }
        };
        self.tally.examined += 1;
        let Plan { owner, privileges, .. } = self.walk.plan;
        let leave = privileges == Privileges::Leave;
        if owner.owns(&stat) && (leave || !self.privileged(dir, name, &stat)) {
            return false;
        }
        self.change(dir, name);
        false
    }

    /// Whether chown(2) would take something from the file: set-user-ID, set-group-ID with
    /// group-execute, file capabilities.
    fn privileged(&mut self, dir: &Dir, name: &CStr, stat: &Stat) -> bool {
        const SET_USER_ID: u32 = 0o4000;
        const SET_GROUP_ID_AND_EXECUTE: u32 = 0o2010;
        stat.kind == Kind::File
            && (stat.mode & SET_USER_ID != 0
                || stat.mode & SET_GROUP_ID_AND_EXECUTE == SET_GROUP_ID_AND_EXECUTE
                || self.lookup.has_capabilities(dir, name))
    }

    /// Opens entry `name`, which was seen to need a change, and changes what is there now.
    fn change(&mut self, dir: &Dir, name: &CStr) {
        match self.change_now(dir, name) {
            Ok(changed) => self.tally.changed += u64::from(changed),
            // Removed or renamed meanwhile.
            Err(error) if error.errno() == Some(Errno::NOENT) => {}
            Err(error) => self.failed(&error),
        }
    }

    fn change_now(&mut self, dir: &Dir, name: &CStr) -> Result<bool> {
        let Plan { owner, mode, .. } = self.walk.plan;
        let handle = dir.open_handle(name)?;
        let stat = Stat::of(&handle).map_err(|errno| dir.entry_error("stat", name, errno))?;
        if stat.kind != Kind::Dir && stat.nlink > 1 && stat.uid != owner.uid {
            self.names.push(Name::new(dir, name, &stat));
            return Ok(false);
        }
        super::change(&handle, &dir.join(name), owner, mode)?;
        Ok(true)
    }
}
