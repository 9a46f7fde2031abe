//! Images made by the tools of each format, and what blkid says about them.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use molecule_tools::volume::probe::{Probe, ReadAt, probe};
use rustix::fs::SeekFrom;

use crate::support;

/// A sparse file that goes away with its directory.
pub struct Image {
    directory: tempfile::TempDir,
}

impl Image {
    pub fn new(megabytes: u64) -> Self {
        let image = Self { directory: tempfile::tempdir().unwrap() };
        let file = std::fs::File::create(image.path()).unwrap();
        file.set_len(megabytes << 20).unwrap();
        image
    }

    /// An image of `megabytes` that `program` formats; the image's path is the last argument.
    pub fn made(megabytes: u64, program: &str, arguments: &[&str]) -> Self {
        let image = Self::new(megabytes);
        image.run(program, arguments);
        image
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    /// Runs `program` on the image.
    pub fn run(&self, program: &str, arguments: &[&str]) -> &Self {
        let mut command = Command::new(program);
        // Labels are given in UTF-8.
        command.env("PATH", PATH).env("LC_ALL", "C.UTF-8");
        support::ok(command.args(arguments).arg(self.path()));
        self
    }

    pub fn write(&self, offset: u64, bytes: &[u8]) -> &Self {
        use std::os::unix::fs::FileExt as _;
        let file = std::fs::File::options().write(true).open(self.path()).unwrap();
        file.write_all_at(bytes, offset).unwrap();
        self
    }

    /// The byte at `offset`.
    pub fn byte(&self, offset: u64) -> u8 {
        use std::os::unix::fs::FileExt as _;
        let mut byte = [0];
        std::fs::File::open(self.path()).unwrap().read_exact_at(&mut byte, offset).unwrap();
        byte[0]
    }

    /// Copies what another image holds, but not its holes, to byte `offset`.
    pub fn place(&self, offset: u64, content: &Self) -> &Self {
        use std::os::unix::fs::FileExt as _;
        let from = std::fs::File::open(content.path()).unwrap();
        let mut at = 0;
        while let Ok(start) = rustix::fs::seek(&from, SeekFrom::Data(at)) {
            at = rustix::fs::seek(&from, SeekFrom::Hole(start)).unwrap();
            let mut bytes = vec![0; usize::try_from(at - start).unwrap()];
            from.read_exact_at(&mut bytes, start).unwrap();
            self.write(offset + start, &bytes);
        }
        self
    }

    pub fn probe(&self) -> Probe {
        probe(&open(&self.path())).unwrap()
    }

    /// What is found; it must be what blkid finds, in less than 1 MiB of reading.
    #[track_caller]
    pub fn agreed(&self) -> Probe {
        let counted = Counted { inner: open(&self.path()), bytes: AtomicU64::new(0) };
        let found = probe(&counted).unwrap();
        let bytes = counted.bytes.load(Ordering::Relaxed);
        assert!(bytes < 1 << 20, "{bytes} bytes read");
        let oracle = Blkid::run(&self.path(), &[]);
        assert_eq!(oracle, Blkid::of(&found), "left: blkid, right: ours: {found:?}");
        found
    }
}

/// A loop device over an image.
pub struct Loop {
    path: String,
}

impl Loop {
    pub fn over(image: &Path) -> Self {
        let mut command = Command::new("losetup");
        command.args(["--find", "--show"]).arg(image);
        Self::named(&mut command)
    }

    /// The device whose name `losetup` prints.
    pub fn named(losetup: &mut Command) -> Self {
        Self { path: support::ok(losetup.env("PATH", PATH)).trim().to_owned() }
    }

    pub fn path(&self) -> &str {
        &self.path
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached =
            Command::new("losetup").args(["--detach", &self.path]).env("PATH", PATH).status();
        if !std::thread::panicking() {
            assert!(detached.unwrap().success());
        }
    }
}

/// Where the formatting tools are.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Counts the bytes that are read.
pub struct Counted<T> {
    pub inner: T,
    pub bytes: AtomicU64,
}

impl<T: ReadAt> ReadAt for Counted<T> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read_at(offset, buffer)?;
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn size(&self) -> std::io::Result<u64> {
        self.inner.size()
    }

    fn sector_size(&self) -> u64 {
        self.inner.sector_size()
    }
}

/// The part of blkid's answer that we give too.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Blkid {
    pub fstype: Option<String>,
    pub uuid: Option<String>,
    pub label: Option<String>,
    pub table: Option<String>,
    pub ambivalent: bool,
}

impl Blkid {
    /// `blkid -p` on an image, with more options.
    #[track_caller]
    pub fn run(image: &Path, options: &[&str]) -> Self {
        let output = Command::new("blkid")
            .args(["-p", "-o", "export"])
            .args(options)
            .arg(image)
            .env("PATH", PATH)
            .output()
            .unwrap();
        let status = output.status.code();
        assert!(matches!(status, Some(0 | 2 | 8)), "blkid: {output:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut values: BTreeMap<&str, String> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| match name {
                "LABEL" => (name, unescaped(value)),
                _ => (name, value.to_owned()),
            })
            .collect();
        Self {
            fstype: values.remove("TYPE"),
            uuid: values.remove("UUID"),
            label: values.remove("LABEL"),
            table: values.remove("PTTYPE").filter(|name| name != "PMBR"),
            ambivalent: status == Some(8),
        }
    }

    pub fn of(found: &Probe) -> Self {
        Self {
            fstype: found.fstype.map(String::from),
            uuid: found.uuid.clone(),
            label: found.label.clone(),
            // Where types are ambivalent, blkid does not look for a table.
            table: found
                .table
                .filter(|_| found.ambivalent.is_empty())
                .map(|table| table.name().to_owned()),
            ambivalent: !found.ambivalent.is_empty(),
        }
    }
}

/// Undoes `blkid -o export`: backslashes before what a shell would take, `^A` and `M-` for bytes that
/// are no printable ASCII.
fn unescaped(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let (high, tail, first) = match tail {
            [b'-', next, tail @ ..] if *first == b'M' => (0x80, tail, *next),
            tail => (0, tail, *first),
        };
        let (byte, tail) = match (first, tail) {
            (b'^', [next, tail @ ..]) => (next ^ 0x40, tail),
            (b'\\', [next, tail @ ..]) => (*next, tail),
            (byte, tail) => (byte, tail),
        };
        bytes.push(byte | high);
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A device or an image, open for reading.
pub fn open(path: &Path) -> OwnedFd {
    std::fs::File::open(path).unwrap().into()
}
