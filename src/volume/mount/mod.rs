//! Read-only mounts of a file system that nobody vouches for: with journal replay if the device
//! allows it, else without, else from a backup superblock.
//!
//! - `mounted`: a mount, and how it is shown to others
//! - `api`: one mount: fsopen(2), or mount(2)
//! - `kmsg`: the kernel's reasons
//! - `asks`: requests of a superblock that are not granted
//! - `target`: the file system that is to be mounted
#![forbid(unsafe_code)]

mod api;
mod asks;
mod kmsg;
mod mounted;
mod target;

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;
use tracing::{info, warn};

use super::loopdev::LoopDevice;
use super::nodes::{DeviceNode, DeviceNodes};
use super::place::MountPlace;
use crate::error::{Error, Result, describe, escape};
use api::{MountGuard, MountOption, MountOptions};
use asks::SuperblockAsks;
pub use kmsg::KernelLog;
pub use mounted::{MountedVolume, PassingMount, ShownMount};
pub use target::MountTarget;

/// One way to mount.
struct MountAttempt {
    options: Vec<MountOption>,
    /// Whether the journal may be replayed, which writes to a device that allows it.
    replay: bool,
    /// For a kernel that found the metadata inconsistent (EUCLEAN), not for one that understood it and
    /// declined: a copy of the superblock would only hide why.
    only_if_corrupted: bool,
}

/// Mounts `target`, trying each way in turn. `place` is where it will be shown, and where
/// mount(2) puts it on kernels without detached mounts. Each failure is logged as it happens; the error is that of the last attempt.
pub fn mount(
    target: &MountTarget<'_>,
    nodes: &DeviceNodes,
    place: Option<&MountPlace>,
) -> Result<MountedVolume> {
    if let Some(why) = why_not_mountable(target.fstype) {
        info!("mount: {}: unknown filesystem type '{}'", escape(target.shown), target.fstype);
        warn!("{}: {why}", escape(target.shown));
        return Err(Error::on("mount", target.shown, why));
    }
    let asks = asks::asks(&target.device.as_fd(), target.range.offset, target.fstype);
    let no_replay = match asks {
        Ok(SuperblockAsks::Nothing) => None,
        Ok(SuperblockAsks::NoReplay(why)) => Some(why.to_owned()),
        Ok(SuperblockAsks::OtherDevices(why)) => {
            warn!("{}: {why}; it is not mounted", escape(target.shown));
            return Err(Error::on("mount", target.shown, why));
        }
        Err(error) => Some(error.to_string()),
    };
    if let Some(why) = &no_replay {
        warn!("{}: {why}", escape(target.shown));
    }
    let mut earlier = place.and_then(|place| MountedVolume::earlier(target, place, nodes));
    if let Some(mounted) = &mut earlier {
        mounted.replayed &= no_replay.is_none();
    }
    if let Some(mounted) = earlier.take_if(|mounted| mounted.replayed) {
        return Ok(mounted);
    }
    let mut log = KernelLog::from_now(nodes);
    let mut last = Errno::INVAL;
    for attempt in attempts(target) {
        let excluded = attempt.replay && no_replay.is_some();
        if excluded || attempt.only_if_corrupted && last != Errno::UCLEAN {
            continue;
        }
        let shown = options_shown(&attempt.options);
        if !attempt.replay
            && let Some(mounted) = earlier.take()
        {
            warn_of_staleness(target, &shown);
            return Ok(mounted);
        }
        let DeviceView { name, node, device, shared } = match view(target, attempt.replay, nodes) {
            Ok(view) => view,
            Err(error) => {
                info!("mount: {error}");
                continue;
            }
        };
        let options = MountOptions { wanted: &attempt.options, guards: guards(target.fstype) };
        match api::mount(kernel_type(target.fstype), &node.path, &options, place) {
            Ok(mount) => {
                let root = match mount.open_root(target.shown) {
                    Ok(root) => root,
                    Err(error) => {
                        info!("mount: {error}");
                        mount.end();
                        continue;
                    }
                };
                if !attempt.replay {
                    warn_of_staleness(target, &shown);
                }
                return Ok(MountedVolume::new(mount, root, attempt.replay, shared, device));
            }
            Err(errno) => {
                last = errno;
                info!(
                    "mount: {} ({name}, {shown}): {}",
                    escape(target.shown),
                    reason(errno, target)
                );
                for line in log.complaints(&name) {
                    info!("mount: kernel: {}", escape(&line));
                }
                // BUSY: mounted for writing elsewhere; what a view without the journal shows of a file
                // system in use is not what anybody wrote. PERM: no other option helps.
                if matches!(errno, Errno::BUSY | Errno::PERM) {
                    break;
                }
            }
        }
    }
    Err(Error::os("mount", target.shown, last))
}

fn warn_of_staleness(target: &MountTarget<'_>, options: &str) {
    warn!(
        "{} is mounted without its journal ({options}): changes made shortly before the snapshot may \
         be missing or damaged, nothing will be deleted",
        escape(target.shown)
    );
}

/// The block device to mount.
struct DeviceView {
    /// Kernel name.
    name: String,
    node: DeviceNode,
    /// Where the node is that of a loop device made for this.
    device: Option<LoopDevice>,
    /// Whether the device may be mounted already: a second mount shares the options of the first.
    shared: bool,
}

/// The device's own node, or a loop device over the range. Without replay always a read-only loop
/// device, as the kernel writes to a writable device even with replay switched off.
fn view(target: &MountTarget<'_>, replay: bool, nodes: &DeviceNodes) -> Result<DeviceView> {
    if let (Some((name, node)), true) = (&target.node, replay) {
        let (name, node) = (name.clone(), node.clone());
        // If the kernel does not say, the mount must prove that it replays the journal.
        let shared = node.is_claimed().unwrap_or(true);
        return Ok(DeviceView { name, node, device: None, shared });
    }
    let writable = match target.device.node() {
        Some(node) if replay && !target.device.read_only() => open_for_replay(target, node)?,
        _ => None,
    };
    let device = match &writable {
        Some(fd) => LoopDevice::attach(fd, target.range, true, nodes)?,
        None => LoopDevice::attach(target.device, target.range, false, nodes)?,
    };
    let (name, node) = (device.name().to_owned(), device.node().clone());
    Ok(DeviceView { name, node, device: Some(device), shared: false })
}

/// Opens the disk of a range that has no device of its own for writing; `None`, and a line, if that is
/// not possible. What is mounted for writing elsewhere must not be replayed, nor be taken for a clean
/// copy, and here the kernel does not know that it is the same: an error if the disk is in use.
fn open_for_replay(target: &MountTarget<'_>, node: &DeviceNode) -> Result<Option<OwnedFd>> {
    let has_journal = matches!(target.fstype, "ext2" | "ext3" | "ext4" | "xfs" | "btrfs");
    let in_use = match node.is_claimed() {
        Ok(false) => None,
        Ok(true) => {
            Some(Error::on("open for writing", target.shown, "its disk is in use elsewhere"))
        }
        Err(error) => Some(error),
    };
    if let Some(error) = in_use {
        return match has_journal {
            true => Err(error.hint("its journal cannot be replayed")),
            false => Ok(None),
        };
    }
    match node.open(OFlags::RDWR) {
        Ok(fd) => Ok(Some(fd)),
        Err(errno) => {
            info!("mount: {}", Error::os("open for writing", target.shown, errno));
            Ok(None)
        }
    }
}

/// Options that keep a volume from choosing how the host takes its damage, by type. Each comes after what the
/// superblock asks for, and wins.
fn guards(fstype: &str) -> &'static [MountGuard] {
    const CONTINUE: MountOption = MountOption::constant("errors", "continue");
    const fn must(option: MountOption) -> MountGuard {
        MountGuard { option, needed: true }
    }
    const fn may(option: MountOption) -> MountGuard {
        MountGuard { option, needed: false }
    }
    match fstype {
        // s_errors, s_default_mount_opts and s_mount_opts (ext4(5), tune2fs(8) -e, -o, -E mount_opts).
        "ext2" | "ext3" | "ext4" => {
            const {
                &[
                    must(CONTINUE),
                    must(MountOption::flag("block_validity")),
                    must(MountOption::flag("nodiscard")),
                ]
            }
        }
        // These know errors=panic, but no volume can ask for it; a driver that does not know the
        // option does not panic either.
        "exfat" | "f2fs" | "jfs" | "nilfs2" | "ntfs" | "squashfs" | "vfat" => {
            const { &[may(CONTINUE)] }
        }
        // xfs takes log and realtime devices from options only; btrfs, erofs, iso9660 and udf have no
        // such choice in the superblock.
        _ => &[],
    }
}

fn attempts(target: &MountTarget<'_>) -> Vec<MountAttempt> {
    let flag = |name: &'static str| MountOption::flag(name);
    let (first, second) = match target.fstype {
        "ext2" | "ext3" | "ext4" => (vec![], Some(vec![flag("noload")])),
        "xfs" => (vec![flag("nouuid")], Some(vec![flag("nouuid"), flag("norecovery")])),
        "btrfs" => {
            // The top of all subvolumes, whatever the default one is.
            let top = || MountOption::value("subvolid", "5");
            (vec![top()], Some(vec![MountOption::value("rescue", "nologreplay"), top()]))
        }
        _ => (vec![], None),
    };
    let mut attempts = Vec::new();
    if target.backup_superblock.is_none() {
        let only_if_corrupted = false;
        attempts.push(MountAttempt { options: first, replay: true, only_if_corrupted });
        attempts.extend(second.map(|options| MountAttempt {
            options,
            replay: false,
            only_if_corrupted,
        }));
    }
    if target.fstype.starts_with("ext") {
        let copies = match target.backup_superblock {
            Some(copy) => vec![copy],
            None => {
                FIRST_COPIES.into_iter().filter(|copy| *copy < target.length() / 1024).collect()
            }
        };
        attempts.extend(copies.into_iter().map(|copy| MountAttempt {
            options: vec![flag("noload"), MountOption::value("sb", copy.to_string())],
            replay: false,
            only_if_corrupted: target.backup_superblock.is_none(),
        }));
    }
    attempts
}

/// Where mke2fs(8) puts the first copy of the superblock for blocks of 4 KiB and 1 KiB, in units of
/// 1 KiB. The kernel refuses a wrong guess for want of the magic number.
const FIRST_COPIES: [u64; 2] = [131_072, 8_193];

/// The driver: ext4 mounts all three generations, and is the one whose options are used here.
fn kernel_type(fstype: &str) -> &str {
    match fstype {
        "ext2" | "ext3" => "ext4",
        other => other,
    }
}

/// Why no mount of this type can work; `None` if it can.
pub fn why_not_mountable(fstype: &str) -> Option<&'static str> {
    Some(match fstype {
        "crypto_LUKS" => "it is encrypted with LUKS, no key is known",
        "LVM2_member" => "it is a physical volume of LVM, no file system",
        "linux_raid_member" => "it is a member of a RAID array (md), no file system",
        "bcache" => "it is a bcache backing or cache device, no file system",
        "zfs_member" => "it is a member of a ZFS pool",
        "swap" => "it is swap space, no file system",
        _ => return None,
    })
}

fn reason(errno: Errno, target: &MountTarget<'_>) -> String {
    match errno {
        Errno::NODEV => format!("unknown filesystem type '{}'", escape(target.fstype)),
        Errno::PERM | Errno::ACCESS => {
            format!("{}; mounting needs CAP_SYS_ADMIN (a privileged container)", describe(errno))
        }
        Errno::BUSY => format!("{}; it is mounted for writing or held elsewhere", describe(errno)),
        errno => describe(errno),
    }
}

fn options_shown(options: &[MountOption]) -> String {
    let mut shown = String::from("ro");
    for option in options {
        shown.push(',');
        shown.push_str(&option.to_string());
    }
    shown
}
