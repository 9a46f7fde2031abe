//! The mounts of this mount namespace, as the kernel lists them (proc_pid_mountinfo(5)).
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::number::{self, DeviceNumber};
use crate::error::{Error, Result};
use crate::fs::{Dir, at, mount_id};

/// Most bytes of a mountinfo that are read.
const LIMIT: usize = 16 << 20;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountRecord {
    /// Number of the mount.
    pub id: u64,
    /// The file system's device.
    pub number: DeviceNumber,
    /// Whether its root is the root of the file system, not a directory or subvolume in it.
    pub is_whole: bool,
    /// Where it is mounted.
    pub point: PathBuf,
    /// The source that the file system shows, for most a device node.
    pub source: Vec<u8>,
    /// Options of the file system, comma-separated.
    options: Vec<u8>,
}

impl MountRecord {
    /// The mounts in a mountinfo file; lines of another form are passed over.
    pub fn all(mountinfo: &[u8]) -> impl Iterator<Item = Self> {
        mountinfo.split(|&byte| byte == b'\n').filter_map(Self::parse)
    }

    /// The mount that `dir` is on. An error if it is not found: /proc is not mounted, or the mount
    /// is on no directory of this mount namespace.
    pub fn of(dir: &Dir) -> Result<Self> {
        let process = Dir::open_operator_path("/proc/self")?;
        let unclear = |reason| Error::on("look up the mount of", dir.path(), reason);
        let id = at::again(|| mount_id(dir.as_fd()))
            .map_err(|errno| Error::os("look up the mount of", dir.path(), errno))?;
        let mounts = process.read_file(c"mountinfo", LIMIT)?.unwrap_or_default();
        let record = Self::all(&mounts).find(|record| record.id == id);
        record.ok_or_else(|| unclear("it is on no directory"))
    }

    /// A line: id, parent, device, root, mount point, options, any number of fields, "-", type, source,
    /// options of the file system.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|&byte| byte == b' ');
        let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let number = number::parse(fields.nth(1)?)?;
        let is_whole = fields.next()? == b"/";
        let point = PathBuf::from(OsString::from_vec(unescape(fields.next()?)));
        let mut rest = fields.skip_while(|field| *field != b"-");
        let source = unescape(rest.nth(2)?);
        let options = rest.next()?.to_vec();
        Some(Self { id, number, is_whole, point, source, options })
    }

    /// Whether the file system was mounted without its journal, as far as its driver shows it.
    pub fn skips_journal(&self) -> bool {
        let skip = ["norecovery", "noload", "rescue=nologreplay", "nologreplay", "rescue=all"];
        let mut words = self.options.split(|&byte| byte == b',');
        words.any(|word| skip.iter().any(|it| it.as_bytes() == word))
    }
}

/// Undoes the kernel's `\NNN` for space, tab, newline and backslash.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if first == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        bytes.push(octal.unwrap_or(first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_parsed(line in "([0-9]{1,4} |[0-9]{1,3}:[0-9]{1,3} |- |\\\\[0-9]{0,3}|[a-z/\n] ?){0,30}") {
            let _ = MountRecord::all(line.as_bytes()).count();
        }

        #[test]
        fn what_the_kernel_escapes_comes_back(name in proptest::collection::vec(1_u8..=255, 1..40)) {
            let escaped: Vec<u8> = name
                .iter()
                .flat_map(|byte| match byte {
                    b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
                    byte => vec![*byte],
                })
                .collect();
            prop_assert_eq!(unescape(&escaped), name);
        }
    }

    #[test]
    fn a_line_is_taken_apart() {
        let line = b"36 35 98:0 /a /b\\040c rw,noatime master:1 shared:3 - ext3 /dev/x rw,noload,errors=continue";
        let record = MountRecord::parse(line).unwrap();
        assert!(!record.is_whole && record.skips_journal());
        assert_eq!((record.id, record.number), (36, (98, 0)));
        assert_eq!((record.point.to_str(), &record.source[..]), (Some("/b c"), &b"/dev/x"[..]));
        let whole =
            MountRecord::parse(b"1 0 8:1 / /b ro - xfs /dev/noload ro,norecoveryx").unwrap();
        assert!(whole.is_whole && !whole.skips_journal());
        for broken in [&b""[..], b"1", b"1 0 8:1 / /b ro xfs", b"1 0 8:1 / /b ro - xfs"] {
            assert_eq!(MountRecord::parse(broken), None);
        }
    }

    #[test]
    fn the_mount_of_proc_is_found() {
        let proc = Dir::open_operator_path("/proc").unwrap();
        let record = MountRecord::of(&proc).unwrap();
        assert!(record.is_whole && !record.skips_journal());
    }
}
