//! What the kernel says of the mount that an open directory is on (proc_pid_mountinfo(5)).
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd};

use std::ffi::CString;

use crate::error::{Error, Result};
use crate::fs::Dir;

/// Most bytes of a mountinfo that are read.
const LIMIT: usize = 16 << 20;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Whether its root is the root of the file system, not a directory or subvolume in it.
    pub is_whole: bool,
    /// Options of the file system, comma-separated.
    options: Vec<u8>,
}

impl Record {
    /// The mount that `dir` is on. An error if it cannot be told: /proc is not mounted, or the mount
    /// is on no directory of this mount namespace.
    pub fn of(dir: &Dir) -> Result<Self> {
        let process = Dir::open_operator_path("/proc/self")?;
        let unclear = |reason| Error::on("look up the mount of", dir.path(), reason);
        let number = CString::new(dir.as_fd().as_raw_fd().to_string()).unwrap_or_default();
        let descriptors = process.open_dir(c"fdinfo")?;
        let about = descriptors.read_file(&number, 1 << 16)?;
        let about = about.ok_or_else(|| unclear("/proc does not tell its number"))?;
        // statx(2) tells it too, but only since Linux 5.8.
        let id = about.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"mnt_id:"));
        let id = id.ok_or_else(|| unclear("/proc does not tell its number"))?.trim_ascii();
        let mounts = process.read_file(c"mountinfo", LIMIT)?.unwrap_or_default();
        let record = mounts.split(|&byte| byte == b'\n').find_map(|line| Self::parse(line, id));
        record.ok_or_else(|| unclear("it is on no directory"))
    }

    /// The line of mount `id`: id, parent, device, root, mount point, options, any number of fields,
    /// "-", type, source, options of the file system.
    fn parse(line: &[u8], id: &[u8]) -> Option<Self> {
        let mut fields = line.split(|&byte| byte == b' ');
        if fields.next()? != id {
            return None;
        }
        let is_whole = fields.nth(2)? == b"/";
        let options = fields.skip_while(|field| *field != b"-").nth(3)?.to_vec();
        Some(Self { is_whole, options })
    }

    /// Whether the file system was mounted without its journal, as far as its driver shows it.
    pub fn skips_journal(&self) -> bool {
        let skip = ["norecovery", "noload", "rescue=nologreplay", "nologreplay", "rescue=all"];
        let mut words = self.options.split(|&byte| byte == b',');
        words.any(|word| skip.iter().any(|it| it.as_bytes() == word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line = b"36 35 98:0 /a /b rw,noatime master:1 shared:3 - ext3 /dev/x rw,noload,errors=continue";
        let record = Record::parse(line, b"36").unwrap();
        assert!(!record.is_whole && record.skips_journal());
        assert_eq!(Record::parse(line, b"3"), None);
        let whole =
            Record::parse(b"1 0 8:1 / /b ro - xfs /dev/noload ro,norecoveryx", b"1").unwrap();
        assert!(whole.is_whole && !whole.skips_journal());
        for broken in [&b""[..], b"1", b"1 0 8:1 / /b ro xfs", b"1 0 8:1 / /b ro - xfs"] {
            assert_eq!(Record::parse(broken, b"1"), None);
        }
    }

    #[test]
    fn the_mount_of_proc_is_found() {
        let proc = Dir::open_operator_path("/proc").unwrap();
        let record = Record::of(&proc).unwrap();
        assert!(record.is_whole && !record.skips_journal());
    }
}
