//! What is mounted where, from mountinfo (proc_pid_mountinfo(5)).
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::super::device::Number;
use super::sysfs::Disk;

/// Mounts of block devices.
#[derive(Debug, Clone, Default)]
pub struct Mounts {
    others: Vec<Mount>,
    /// Those that an earlier restore has made.
    own: Vec<Mount>,
}

#[derive(Debug, Clone)]
struct Mount {
    id: u64,
    number: Number,
    source: Vec<u8>,
    point: PathBuf,
}

impl Mounts {
    /// Adds the lines of a mountinfo file; lines of another form are passed over, and mounts that are
    /// known already.
    pub fn add(&mut self, mountinfo: &[u8]) {
        let lines = mountinfo.split(|&byte| byte == b'\n').filter_map(parse);
        let known = |mount: &Mount| self.own.iter().any(|own| own.id == mount.id);
        self.others.extend(lines.filter(|mount| !known(mount)));
    }

    /// Takes what is mounted at `point` or one of its numbered siblings for the mount of an earlier
    /// restore: the disk is then not in use for want of anything else.
    pub fn disown(&mut self, point: &Path) {
        let is_own = |mount: &Mount| {
            let rest =
                mount.point.as_os_str().as_bytes().strip_prefix(point.as_os_str().as_bytes());
            rest.is_some_and(|rest| {
                rest.is_empty()
                    || matches!(rest, [b'.', number @ ..] if number.iter().all(u8::is_ascii_digit))
            })
        };
        self.own.extend(self.others.extract_if(.., |mount| is_own(mount)));
    }

    /// Where block device `number` with kernel name `name` is mounted. The name counts for file
    /// systems that show a number of their own (btrfs).
    pub fn point(&self, number: Number, name: &str) -> Option<&PathBuf> {
        self.others.iter().find(|mount| mount.is_of(number, name)).map(|mount| &mount.point)
    }

    /// Whether an earlier restore has mounted `disk` or a partition of it.
    pub fn has_own(&self, disk: &Disk) -> bool {
        let parts = disk.partitions.iter().map(|part| (part.number, &part.name));
        std::iter::once((disk.number, &disk.name))
            .chain(parts)
            .any(|(number, name)| self.own.iter().any(|mount| mount.is_of(number, name)))
    }
}

impl Mount {
    fn is_of(&self, number: Number, name: &str) -> bool {
        self.number == number || self.node() == Some(name.as_bytes())
    }

    /// The kernel name of the device, by its node in /dev or by one that a restore has made for it
    /// (`/proc/self/fd/7/nvme1n1`).
    fn node(&self) -> Option<&[u8]> {
        if let Some(name) = self.source.strip_prefix(b"/dev/") {
            return Some(name);
        }
        let made = self.source.strip_prefix(b"/proc/self/fd/")?;
        let slash = made.iter().position(|&byte| byte == b'/')?;
        Some(&made[slash + 1..])
    }
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let number = super::sysfs::parse_number(fields.nth(1)?)?;
    let point = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    // A variable number of optional fields, then "-", the type, the source.
    let source = unescape(fields.skip_while(|field| *field != b"-").nth(2)?);
    Some(Mount { id, number, source, point })
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
            Mounts::default().add(line.as_bytes());
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
    fn a_mount_is_found_by_number_and_by_source() {
        let mut mounts = Mounts::default();
        mounts.add(
            b"29 1 259:2 / / rw,relatime shared:1 - xfs /dev/nvme0n1p1 rw\n\
              30 29 0:31 / /a\\040b\\134 rw shared:2 master:3 - btrfs /dev/nvme2n1 rw,subvolid=5\n\
              31 29 0:32 / /c rw - btrfs /proc/self/fd/7/sdq rw\n\
              garbage\n\n40 29 259:9\n",
        );
        let point = |number, name| mounts.point(number, name).map(|p| p.to_str().unwrap());
        assert_eq!(point((259, 2), "nvme0n1p1"), Some("/"));
        assert_eq!(point((259, 5), "nvme2n1"), Some("/a b\\"));
        assert_eq!(point((8, 5), "sdq"), Some("/c"));
        assert_eq!(point((259, 9), "nvme1n1"), None);
    }

    #[test]
    fn the_mounts_of_an_earlier_restore_are_no_use_of_a_disk() {
        let mut mounts = Mounts::default();
        for (minor, point) in [
            (1, "/mnt/restore"),
            (2, "/mnt/restore.1"),
            (3, "/mnt/restore.x"),
            (4, "/mnt/restored"),
        ] {
            mounts.add(format!("1{minor} 1 8:{minor} / {point} ro - ext4 /dev/sd rw\n").as_bytes());
        }
        mounts.disown(Path::new("/mnt/restore"));
        let disk = |minor| Disk {
            name: "sdx".into(),
            number: (8, minor),
            size_bytes: 1,
            model: String::new(),
            serial: String::new(),
            in_use: None,
            partitions: Vec::new(),
        };
        // Process 1 of the same mount namespace lists them once more.
        mounts.add(b"11 1 8:1 / /mnt/restore ro - ext4 /dev/sd rw\n");
        for (minor, own) in [(1, true), (2, true), (3, false), (4, false)] {
            assert_eq!(mounts.has_own(&disk(minor)), own, "{minor}");
            assert_eq!(mounts.point((8, minor), "sdx").is_none(), own, "{minor}");
        }
    }
}
