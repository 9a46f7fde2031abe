//! Mounts that end with the test process, whatever becomes of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::sandbox::LoopDevice;
use super::{Need, ok};

/// Gives this process a mount namespace of its own, so that no mount of a test is seen outside and
/// all of them go when it ends. Call it first in `main`: threads started before stay outside.
pub fn leave_the_machine_alone() {
    if Need::Root.met() {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
    }
}

/// A mount; dropping it takes it away.
pub struct Mounted(pub PathBuf);

/// The attributes of a fresh file system that take no time to be written later.
const PROMPT: [&str; 2] = ["-E", "lazy_itable_init=0,lazy_journal_init=0"];

impl Mounted {
    /// A tmpfs of `size` (as in its mount option) at `at`, which is made.
    pub fn tmpfs(at: impl Into<PathBuf>, size: &str) -> Self {
        let at = made(at.into());
        let options = format!("size={size},mode=755");
        mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
        Self(at)
    }

    /// `what` once more at `at`.
    pub fn bind(what: &Path, at: impl Into<PathBuf>) -> Self {
        let at = if what.is_dir() { made(at.into()) } else { at.into() };
        mount(Some(what), &at, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        Self(at)
    }

    /// The file system in `image` at `at` with mount(8) `options`. The loop device goes with it.
    pub fn image(image: &Path, at: impl Into<PathBuf>, options: &str) -> Self {
        let device = LoopDevice::of(image, &["--direct-io=on"]);
        Self::node(device.path(), at, options)
    }

    /// The file system on block device `node` at `at` with mount(8) `options`.
    pub fn node(node: &Path, at: impl Into<PathBuf>, options: &str) -> Self {
        let at = made(at.into());
        ok(Command::new("mount").args(["-o", options]).args([node, &at]));
        Self(at)
    }

    /// Unmounts a file system of its own, all of it written: a process that has copied the mount
    /// namespace meanwhile may keep it mounted, and with it what only the journal holds.
    pub fn put_away(self) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        let end = Instant::now() + Duration::from_secs(100);
        loop {
            match mount(None::<&str>, &self.0, None::<&str>, flags, None::<&str>) {
                // A child of another thread has our open files until its exec.
                Err(Errno::EBUSY) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                other => return other.unwrap(),
            }
        }
    }

    /// Turns it read-only or back.
    pub fn read_only(&self, wanted: bool) {
        let word = if wanted { "remount,bind,ro" } else { "remount,bind,rw" };
        ok(Command::new("mount").args(["-o", word]).arg(&self.0));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // One that is gone already is what was wanted.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// A sparse image file of `megabytes` with a fresh ext4 in it.
pub fn ext4_image(path: &Path, megabytes: u64, options: &[&str]) {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(megabytes << 20).unwrap();
    ok(Command::new("mkfs.ext4")
        .args(["-q", "-F", "-m", "0"])
        .args(PROMPT)
        .args(options)
        .arg(path));
}

fn made(path: PathBuf) -> PathBuf {
    std::fs::create_dir_all(&path).unwrap();
    path
}
