//! Which block devices are mounted, and which of them by an earlier restore.
#![forbid(unsafe_code)]

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::volume::mountinfo::MountRecord;
use crate::volume::number::DeviceNumber;

/// Mounts of block devices.
#[derive(Debug, Clone, Default)]
pub struct Mounts {
    others: Vec<MountRecord>,
    /// Those that an earlier restore has made.
    own: Vec<MountRecord>,
}

impl Mounts {
    /// Adds the lines of a mountinfo file; lines of another form are passed over, and mounts that are
    /// known already.
    pub fn add(&mut self, mountinfo: &[u8]) {
        let lines = MountRecord::all(mountinfo);
        let known = |mount: &MountRecord| self.own.iter().any(|own| own.id == mount.id);
        self.others.extend(lines.filter(|mount| !known(mount)));
    }

    /// Takes what is mounted at `point` or one of its numbered siblings for the mount of an earlier
    /// restore: the disk is then not in use for want of anything else.
    pub fn disown(&mut self, point: &Path) {
        let is_own = |mount: &MountRecord| {
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
    pub fn point(&self, number: DeviceNumber, name: &str) -> Option<&PathBuf> {
        self.others.iter().find(|mount| is_of(mount, number, name)).map(|mount| &mount.point)
    }

    /// Whether an earlier restore has mounted block device `number` with kernel name `name`.
    pub fn has_own(&self, number: DeviceNumber, name: &str) -> bool {
        self.own.iter().any(|mount| is_of(mount, number, name))
    }
}

/// Whether `mount` is one of block device `number` with kernel name `name`.
fn is_of(mount: &MountRecord, number: DeviceNumber, name: &str) -> bool {
    mount.number == number || node(mount) == Some(name.as_bytes())
}

/// The kernel name of the mounted device, by its node in /dev or by one that a restore has made for it
/// (`/proc/self/fd/7/nvme1n1`).
fn node(mount: &MountRecord) -> Option<&[u8]> {
    if let Some(name) = mount.source.strip_prefix(b"/dev/") {
        return Some(name);
    }
    let made = mount.source.strip_prefix(b"/proc/self/fd/")?;
    let slash = made.iter().position(|&byte| byte == b'/')?;
    Some(&made[slash + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

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
        // Process 1 of the same mount namespace lists them once more.
        mounts.add(b"11 1 8:1 / /mnt/restore ro - ext4 /dev/sd rw\n");
        for (minor, own) in [(1, true), (2, true), (3, false), (4, false)] {
            assert_eq!(mounts.has_own((8, minor), "sdx"), own, "{minor}");
            assert_eq!(mounts.point((8, minor), "sdx").is_none(), own, "{minor}");
        }
    }
}
