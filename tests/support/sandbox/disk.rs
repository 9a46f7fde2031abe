//! Disk images on loop devices.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::super::ok;

/// A file that serves as a disk. Its name is gone from the start; it lives while it is attached.
pub struct Image {
    file: tempfile::NamedTempFile,
}

impl Image {
    /// `size` bytes of zeros.
    pub fn new(size: u64) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.as_file().set_len(size).expect("a sparse file");
        Self { file }
    }

    /// Its path while it is not attached yet, for mkfs and the like.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Runs a program on it, the path as last argument.
    pub fn make<S: AsRef<OsStr>>(
        self,
        program: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Self {
        ok(Command::new(program).args(arguments).arg(self.path()));
        self
    }

    /// Puts it on a loop device.
    pub fn attach(self) -> LoopDevice {
        LoopDevice::of(self.path(), &[])
    }
}

/// A loop device. The kernel frees it when the last user is gone, this one or a mount.
pub struct LoopDevice {
    path: PathBuf,
    file: File,
}

impl LoopDevice {
    /// `image` on a free loop device; `options` are losetup's (`--read-only`, `--partscan`).
    #[track_caller]
    pub fn of(image: &Path, options: &[&str]) -> Self {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let mut losetup = Command::new("losetup");
            losetup.args(["--find", "--show"]).args(options).arg(image);
            let output = losetup.output().expect("losetup(8)");
            let path = OsString::from(String::from_utf8_lossy(&output.stdout).trim());
            // Another process may have taken the device that was free a moment ago.
            if output.status.success()
                && let Ok(file) = File::open(&path)
            {
                // While it is held open this only marks it to be freed at the last close.
                ok(Command::new("losetup").arg("--detach").arg(&path));
                return Self { path: path.into(), file };
            }
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(Instant::now() < end, "no loop device for {}: {said}", image.display());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// An ext4 file system of `mebibytes`, filled by `script` (sh) that runs as root in its top
    /// directory.
    pub fn ext4(mebibytes: u64, script: &str) -> Self {
        let arguments = ["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        let device = Image::new(mebibytes << 20).make("mkfs.ext4", arguments).attach();
        device.fill(script);
        device
    }

    /// Runs `script` (sh) as root in the top directory of its file system, mounted privately.
    pub fn fill(&self, script: &str) {
        const MOUNTED: &str = r#"
            mount "$0" "$1"; cd "$1"; rm -rf lost+found; eval "$2"; cd /; umount "$1""#;
        let place = tempfile::tempdir().expect("a temporary directory");
        ok(Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-euc", MOUNTED])
            .args([self.path(), place.path(), Path::new(script)]));
    }

    /// Its node outside of any sandbox.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Major and minor number.
    pub fn number(&self) -> (u32, u32) {
        let rdev = rustix::fs::fstat(&self.file).expect("fstat(2)").st_rdev;
        (rustix::fs::major(rdev), rustix::fs::minor(rdev))
    }
}
