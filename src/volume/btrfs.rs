//! Facts of a mounted file system that only btrfs itself has: its device, and its default subvolume
//! (btrfs-ioctl(2), linux/btrfs.h, linux/btrfs_tree.h).
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::discover;
use super::ioctl::{self, BtrfsLookup, BtrfsSearch};
use super::number::DeviceNumber;
use crate::error::{Error, Result};
use crate::fs::{Dir, DirListing};

/// Identifier of the top of all subvolumes.
const TOP: u64 = 5;
/// Inode number of the root of every subvolume.
pub const SUBVOLUME_ROOT: u64 = 256;
/// A subvolume that lies deeper than this in others is not looked for.
const DEPTH: usize = 32;

/// The block device of the file system that `dir` is on; `None` if it is no btrfs or has several.
pub fn device(dir: &Dir) -> Result<Option<DeviceNumber>> {
    let info = match ioctl::btrfs_info(dir) {
        Ok(info) => info,
        Err(Errno::NOTTY) => return Ok(None),
        Err(errno) => return Err(Error::os("ask for the device of", dir.path(), errno)),
    };
    if info.devices != 1 {
        return Ok(None);
    }
    let mut uuid = String::new();
    for (index, byte) in info.fsid.iter().enumerate() {
        let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
        write!(uuid, "{dash}{byte:02x}").unwrap_or_default();
    }
    let devices = Path::new("/sys/fs/btrfs").join(uuid).join("devices");
    let entries = DirListing::read(&Dir::open_operator_path(&devices)?)?;
    let name = entries.first().and_then(|entry| entry.name.to_str().ok()).unwrap_or_default();
    discover::device_number(Path::new("/sys"), "block", name)
}

/// Where the default subvolume is, the one that a plain mount shows: its path below `top`, the top of
/// all subvolumes; empty for the top itself.
pub fn default_subvolume(top: &Dir) -> Result<PathBuf> {
    const ROOT_TREE_DIRECTORY: u64 = 6;
    const DIR_ITEM: u32 = 84;
    const ROOT_BACKREF: u32 = 144;
    let fail =
        |reason: &'static str| Error::on("find the default subvolume of", top.path(), reason);
    let default = search(top, ROOT_TREE_DIRECTORY, DIR_ITEM)?.into_iter().find_map(|item| {
        // struct btrfs_dir_item: key, transaction, lengths, type, name.
        (item.data.get(30..)?.starts_with(b"default")).then(|| number(&item.data, 0))?
    });
    let mut id = default.unwrap_or(TOP);
    let wanted = id;
    let mut path = PathBuf::new();
    for _ in 0..DEPTH {
        if id == TOP {
            return verified(top, &path, wanted)?.ok_or_else(|| fail("it moved")).map(|()| path);
        }
        // struct btrfs_root_ref: directory, sequence, length of the name, name.
        let found = search(top, id, ROOT_BACKREF)?.into_iter().find_map(|item| {
            let length =
                usize::from(u16::from_le_bytes([*item.data.get(16)?, *item.data.get(17)?]));
            let name = item.data.get(18..18 + length)?.to_vec();
            Some((item.offset, number(&item.data, 0)?, name))
        });
        let (parent, directory, name) = found.ok_or_else(|| fail("it is not in the list"))?;
        let above = path_in_subvolume(top, parent, directory)?.1;
        path = match path.as_os_str().is_empty() {
            true => above.join(OsStr::from_bytes(&name)),
            false => above.join(OsStr::from_bytes(&name)).join(path),
        };
        id = parent;
    }
    Err(fail("it lies too deep in other subvolumes"))
}

/// Whether subvolume `id` is at `path`.
fn verified(top: &Dir, path: &Path, id: u64) -> Result<Option<()>> {
    let Some(dir) = top.open_beneath(path)? else { return Ok(None) };
    Ok((path_in_subvolume(&dir, 0, SUBVOLUME_ROOT)?.0 == id).then_some(()))
}

/// Whether the subvolume with root directory `dir` allows no writing, as a snapshot that is kept does.
pub fn is_read_only(dir: &Dir) -> Result<bool> {
    const READ_ONLY: u64 = 2;
    let flags = ioctl::btrfs_subvolume_flags(dir)
        .map_err(|errno| Error::os("ask for the flags of", dir.path(), errno))?;
    Ok(flags & READ_ONLY != 0)
}

/// One item of a tree.
struct Item {
    offset: u64,
    data: Vec<u8>,
}

/// The first items of `kind` that the tree of roots has for `object`: as many as fit a page.
fn search(dir: &Dir, object: u64, kind: u32) -> Result<Vec<Item>> {
    const ROOT_TREE: u64 = 1;
    const HEADER: usize = 32;
    let mut search = BtrfsSearch {
        tree: ROOT_TREE,
        objects: [object; 2],
        offsets: [0, u64::MAX],
        transactions: [0, u64::MAX],
        kinds: [kind; 2],
        items: 64,
        unused: [0; 9],
        buffer: [0; 3992],
    };
    ioctl::btrfs_search(dir, &mut search)
        .map_err(|errno| Error::os("look up subvolumes of", dir.path(), errno))?;
    let mut items = Vec::new();
    let mut rest = &search.buffer[..];
    for _ in 0..search.items {
        // struct btrfs_ioctl_search_header: transaction, object, offset, type, length.
        let (Some(offset), Some(length)) = (number(rest, 16), rest.get(28..HEADER)) else { break };
        let length = length.iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
        let Some(data) = rest.get(HEADER..HEADER + length) else { break };
        items.push(Item { offset, data: data.to_vec() });
        rest = &rest[HEADER + length..];
    }
    Ok(items)
}

/// The identifier of subvolume `tree`, 0 for the one `dir` is in, and the path of its directory with
/// inode number `object`.
fn path_in_subvolume(dir: &Dir, tree: u64, object: u64) -> Result<(u64, PathBuf)> {
    let mut lookup = BtrfsLookup { tree, object, name: [0; 4080] };
    ioctl::btrfs_lookup(dir, &mut lookup)
        .map_err(|errno| Error::os("look up a directory of", dir.path(), errno))?;
    let name = lookup.name.split(|&byte| byte == 0).next().unwrap_or_default();
    let name = name.strip_suffix(b"/").unwrap_or(name);
    Ok((lookup.tree, PathBuf::from(OsStr::from_bytes(name))))
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes: [u8; 8] = bytes.get(at..at + 8)?.try_into().ok()?;
    Some(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_system_is_no_btrfs() {
        let proc = Dir::open_operator_path("/proc").unwrap();
        assert_eq!(device(&proc).unwrap(), None);
        assert!(default_subvolume(&proc).is_err());
    }
}
