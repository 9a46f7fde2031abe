//! A plain copy: the system calls that a copy of small files cannot do without, and no checks. It shows
//! how much of a result is the kernel's. It does not read ahead or past the page cache, so a copy that
//! does can be faster on large files and slow volumes.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Condvar, Mutex};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, Statx, StatxFlags, Timespec, Timestamps,
};

/// Directories to do, each with its source and destination, and how many are being done.
struct Work {
    queue: Mutex<(Vec<(OwnedFd, OwnedFd)>, usize)>,
    changed: Condvar,
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Copies the tree `from` into the absent or empty `to` with `threads` threads.
pub fn copy(from: &str, to: &str, threads: usize) {
    let open =
        |path: &str| rustix::fs::open(path, READ | OFlags::DIRECTORY, Mode::empty()).unwrap();
    std::fs::create_dir_all(to).unwrap();
    let work =
        Work { queue: Mutex::new((vec![(open(from), open(to))], 0)), changed: Condvar::new() };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut buffer = vec![0; 256 * 1024];
                while let Some((from, to)) = work.take() {
                    directory(&work, &from, &to, &mut buffer);
                    work.done();
                }
            });
        }
    });
}

impl Work {
    fn take(&self) -> Option<(OwnedFd, OwnedFd)> {
        let mut queue = self.queue.lock().unwrap();
        loop {
            if let Some(next) = queue.0.pop() {
                queue.1 += 1;
                return Some(next);
            }
            if queue.1 == 0 {
                return None;
            }
            queue = self.changed.wait(queue).unwrap();
        }
    }

    fn add(&self, pair: (OwnedFd, OwnedFd)) {
        self.queue.lock().unwrap().0.push(pair);
        self.changed.notify_one();
    }

    fn done(&self) {
        self.queue.lock().unwrap().1 -= 1;
        self.changed.notify_all();
    }
}

fn directory(work: &Work, from: &OwnedFd, to: &OwnedFd, buffer: &mut [u8]) {
    let mut space = vec![std::mem::MaybeUninit::uninit(); 32 * 1024];
    let mut entries = RawDir::new(from, &mut space);
    while let Some(entry) = entries.next() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        match entry.file_type() {
            _ if name == c"." || name == c".." => {}
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::RWXU).unwrap();
                let open =
                    |at| rustix::fs::openat(at, name, READ | OFlags::DIRECTORY, Mode::empty());
                work.add((open(from).unwrap(), open(to).unwrap()));
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new()).unwrap();
                rustix::fs::symlinkat(target.as_c_str(), to, name).unwrap();
            }
            _ => file(from, to, name, buffer),
        }
    }
    let data = rustix::fs::statx(from, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).unwrap();
    finish(to, &data);
}

fn file(from: &OwnedFd, to: &OwnedFd, name: &std::ffi::CStr, buffer: &mut [u8]) {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let data = rustix::fs::statx(from, name, flags, StatxFlags::BASIC_STATS).unwrap();
    let source = rustix::fs::openat(from, name, READ, Mode::empty()).unwrap();
    let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let target = rustix::fs::openat(to, name, create, Mode::RUSR | Mode::WUSR).unwrap();
    let mut left = data.stx_size;
    while left > 0 {
        let length = rustix::io::read(&source, &mut buffer[..]).unwrap();
        assert_eq!(rustix::io::write(&target, &buffer[..length]).unwrap(), length);
        left -= length as u64;
    }
    finish(&target, &data);
}

fn finish(target: impl AsFd, data: &Statx) {
    let owner = (rustix::fs::Uid::from_raw(data.stx_uid), rustix::fs::Gid::from_raw(data.stx_gid));
    rustix::fs::fchown(&target, Some(owner.0), Some(owner.1)).unwrap();
    rustix::fs::fchmod(&target, Mode::from_raw_mode(u32::from(data.stx_mode) & 0o7777)).unwrap();
    let time = |stamp: rustix::fs::StatxTimestamp| Timespec {
        tv_sec: stamp.tv_sec,
        tv_nsec: stamp.tv_nsec.into(),
    };
    let times =
        Timestamps { last_access: time(data.stx_atime), last_modification: time(data.stx_mtime) };
    rustix::fs::futimens(&target, &times).unwrap();
}
