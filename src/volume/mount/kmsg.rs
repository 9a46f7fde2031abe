//! Why the kernel refused a mount: mount(2) returns a number, the reason is in the kernel's log.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::fs::Kind;
use crate::volume::nodes::DeviceNodes;

/// Records looked at after one attempt, and lines given out of them.
const RECORDS: usize = 512;
const LINES: usize = 8;
/// Syslog severity "warning"; larger numbers are less severe (syslog(2)).
const WARNING: u32 = 4;

/// The kernel's log from now on (/dev/kmsg, Documentation/ABI/testing/dev-kmsg). Silent where reading
/// it is not allowed.
#[derive(Debug)]
pub struct KernelLog(Option<File>);

impl KernelLog {
    /// Starts behind the newest record.
    pub fn from_now(nodes: &DeviceNodes) -> Self {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = |path: &Path| rustix::fs::open(path, flags, Mode::empty()).ok().map(File::from);
        let file = open(Path::new("/dev/kmsg")).or_else(|| {
            let node = nodes.make("kmsg", Kind::Char, (1, 11)).ok()?;
            open(&node.path)
        });
        Self(file.and_then(|mut file| file.seek(SeekFrom::End(0)).ok().map(|_| file)))
    }

    /// New warnings and errors about block device `device` ("nvme1n1p1"), or of the journal and btrfs
    /// code, which do not always name one.
    pub fn complaints(&mut self, device: &str) -> Vec<String> {
        let Some(file) = &mut self.0 else { return Vec::new() };
        let mut lines: Vec<String> = Vec::new();
        let mut record = [0_u8; 8192];
        for _ in 0..RECORDS {
            match file.read(&mut record) {
                Ok(length) => {
                    let line = complaint(&record[..length], device);
                    lines.extend(line.filter(|line| !lines.contains(line)));
                }
                // The reader was overtaken by the ring buffer; the next read returns the oldest record.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
                Err(_) => break,
            }
        }
        lines.truncate(LINES);
        lines
    }
}

/// The text of one record `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS;TEXT\n KEY=VALUE\n` if it is a
/// complaint about `device`.
fn complaint(record: &[u8], device: &str) -> Option<String> {
    let record = String::from_utf8_lossy(record);
    let (head, rest) = record.split_once(';')?;
    let priority: u32 = head.split(',').next()?.parse().ok()?;
    let text = rest.lines().next()?;
    let about = names(text, device)
        || text.starts_with("JBD2:")
        || (text.starts_with("BTRFS") && !text.contains("(device "));
    (priority % 8 <= WARNING && about).then(|| text.to_owned())
}

/// Whether `text` has `device` as a word, so that `loop1` is not found in `loop10`.
fn names(text: &str, device: &str) -> bool {
    !device.is_empty()
        && text.match_indices(device).any(|(start, _)| {
            let outside = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric());
            outside(text[..start].chars().next_back())
                && outside(text[start + device.len()..].chars().next())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_a_warning_about_this_device_and_no_other() {
        let xfs = b"4,1013,99,-;XFS (loop1): Filesystem has duplicate UUID - can't mount\n X=y\n";
        let text = "XFS (loop1): Filesystem has duplicate UUID - can't mount";
        assert_eq!(complaint(xfs, "loop1").as_deref(), Some(text));
        assert_eq!(complaint(xfs, "loop10"), None);
        assert_eq!(complaint(xfs, "oop1"), None);
        assert_eq!(complaint(b"6,1,1,-;XFS (loop1): Mounting V5 Filesystem\n", "loop1"), None);
        let journal = b"3,1,1,-;JBD2: no valid journal superblock found\n";
        assert!(complaint(journal, "loop1").is_some());
        assert_eq!(complaint(b"3,1,1,-;BTRFS error (device loop2): x\n", "loop1"), None);
        assert!(complaint(b"3,1,1,-;BTRFS: x\n", "loop1").is_some());
        for broken in [&b""[..], b";", b"x,y;z", b"\xff;", b"4,1;"] {
            assert_eq!(complaint(broken, "loop1"), None);
        }
    }
}
