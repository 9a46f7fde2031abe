//! The ioctl(2) requests that have no safe binding, each behind a safe function: block and loop devices
//! (linux/fs.h, linux/loop.h), NVMe (linux/nvme_ioctl.h), btrfs (linux/btrfs.h).

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::ioctl::{Getter, Ioctl, IoctlOutput, Opcode, Setter, Updater, ioctl, opcode};

const BLKROGET: Opcode = opcode::none(0x12, 94);
const LOOP_GET_STATUS64: Opcode = 0x4C05;
const LOOP_CONFIGURE: Opcode = 0x4C0A;
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;
const NVME_IOCTL_ADMIN_CMD: Opcode = opcode::read_write::<AdminCommand>(b'N', 0x41);
const BTRFS_TREE_SEARCH: Opcode = opcode::read_write::<BtrfsSearch>(0x94, 17);
const BTRFS_INO_LOOKUP: Opcode = opcode::read_write::<BtrfsLookup>(0x94, 18);
const BTRFS_SUBVOL_GETFLAGS: Opcode = opcode::read::<u64>(0x94, 25);
const BTRFS_FS_INFO: Opcode = opcode::read::<BtrfsInfo>(0x94, 31);

/// Length in bytes of the page that NVMe's Identify command returns.
pub(super) const IDENTIFY_LENGTH: usize = 4096;

/// Whether the kernel refuses writes to a block device.
pub(super) fn is_block_read_only(device: impl AsFd) -> Result<bool, Errno> {
    // SAFETY: BLKROGET stores one int (block/ioctl.c).
    #[allow(unsafe_code)]
    unsafe { ioctl(device, Getter::<BLKROGET, i32>::new()) }.map(|value| value != 0)
}

/// The index of a free loop device, from /dev/loop-control.
pub(super) fn free_loop(control: impl AsFd) -> Result<i32, Errno> {
    // SAFETY: LOOP_CTL_GET_FREE takes no argument and returns the index.
    #[allow(unsafe_code)]
    unsafe {
        ioctl(control, GetFree)
    }
}

/// Sets up a loop device.
pub(super) fn configure_loop(device: impl AsFd, config: LoopConfig) -> Result<(), Errno> {
    // SAFETY: the opcode takes a pointer to struct loop_config, laid out below.
    #[allow(unsafe_code)]
    unsafe {
        ioctl(device, Setter::<LOOP_CONFIGURE, LoopConfig>::new(config))
    }
}

/// The present setting of a loop device; ENXIO if it is not in use.
pub(super) fn loop_status(device: impl AsFd) -> Result<LoopInfo64, Errno> {
    // SAFETY: the opcode stores a struct loop_info64, laid out below.
    #[allow(unsafe_code)]
    unsafe {
        ioctl(device, Getter::<LOOP_GET_STATUS64, LoopInfo64>::new())
    }
}

/// Has an NVMe controller write its Identify Controller page (CNS 01h) to `page`, within 2 s. A driver
/// other than NVMe returns ENOTTY.
pub(super) fn nvme_identify(
    device: impl AsFd,
    page: &mut [u8; IDENTIFY_LENGTH],
) -> Result<(), Errno> {
    let mut command = AdminCommand {
        opcode: 6,
        address: page.as_mut_ptr().expose_provenance() as u64,
        data_length: IDENTIFY_LENGTH as u32,
        // CNS: the controller's own page.
        cdw10: 1,
        timeout_ms: 2000,
        ..AdminCommand::default()
    };
    // SAFETY: the opcode takes struct nvme_admin_cmd, laid out below; the controller fills
    // `data_length` bytes at `address`, which `page` has.
    #[allow(unsafe_code)]
    unsafe {
        ioctl(device, Updater::<NVME_IOCTL_ADMIN_CMD, AdminCommand>::new(&mut command))
    }
}

/// Number of devices and identifier of a btrfs.
pub(super) fn btrfs_info(dir: impl AsFd) -> Result<BtrfsInfo, Errno> {
    // SAFETY: the opcode stores a struct btrfs_ioctl_fs_info_args, laid out below.
    #[allow(unsafe_code)]
    unsafe {
        ioctl(dir, Getter::<BTRFS_FS_INFO, BtrfsInfo>::new())
    }
}

/// The flags of the subvolume with root directory `dir`.
pub(super) fn btrfs_subvolume_flags(dir: impl AsFd) -> Result<u64, Errno> {
    // SAFETY: the opcode stores one u64.
    #[allow(unsafe_code)]
    unsafe {
        ioctl(dir, Getter::<BTRFS_SUBVOL_GETFLAGS, u64>::new())
    }
}

/// Searches a tree of a btrfs; the result replaces `items` and `buffer` of `search`.
pub(super) fn btrfs_search(dir: impl AsFd, search: &mut BtrfsSearch) -> Result<(), Errno> {
    // SAFETY: the opcode takes a struct btrfs_ioctl_search_args, laid out below, and stores no more
    // than fits its buffer.
    #[allow(unsafe_code)]
    unsafe {
        ioctl(dir, Updater::<BTRFS_TREE_SEARCH, BtrfsSearch>::new(search))
    }
}

/// Looks up the path of a directory of a btrfs; the result replaces `tree` and `name` of `lookup`.
pub(super) fn btrfs_lookup(dir: impl AsFd, lookup: &mut BtrfsLookup) -> Result<(), Errno> {
    // SAFETY: the opcode takes a struct btrfs_ioctl_ino_lookup_args, laid out below.
    #[allow(unsafe_code)]
    unsafe {
        ioctl(dir, Updater::<BTRFS_INO_LOOKUP, BtrfsLookup>::new(lookup))
    }
}

/// LOOP_CTL_GET_FREE: the index is the return value.
struct GetFree;

// SAFETY: see the opcode in drivers/block/loop.c (loop_control_ioctl): no argument is read.
#[allow(unsafe_code)]
unsafe impl Ioctl for GetFree {
    type Output = i32;
    const IS_MUTATING: bool = false;
    fn opcode(&self) -> Opcode {
        LOOP_CTL_GET_FREE
    }
    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::null_mut()
    }
    unsafe fn output_from_ptr(
        output: IoctlOutput,
        _: *mut std::ffi::c_void,
    ) -> rustix::io::Result<i32> {
        Ok(output)
    }
}

/// struct loop_info64 of linux/loop.h.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct LoopInfo64 {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) rdevice: u64,
    pub(super) offset: u64,
    pub(super) sizelimit: u64,
    pub(super) number: u32,
    pub(super) encrypt_type: u32,
    pub(super) encrypt_key_size: u32,
    pub(super) flags: u32,
    pub(super) file_name: [u8; 64],
    pub(super) crypt_name: [u8; 64],
    pub(super) encrypt_key: [u8; 32],
    pub(super) init: [u64; 2],
}

impl Default for LoopInfo64 {
    fn default() -> Self {
        Self {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            sizelimit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: 0,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

/// struct loop_config of linux/loop.h (since Linux 5.8).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct LoopConfig {
    pub(super) fd: u32,
    pub(super) block_size: u32,
    pub(super) info: LoopInfo64,
    pub(super) reserved: [u64; 8],
}

/// struct nvme_passthru_cmd of linux/nvme_ioctl.h.
#[repr(C)]
#[derive(Default)]
struct AdminCommand {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    cdw2: u32,
    cdw3: u32,
    metadata: u64,
    address: u64,
    metadata_length: u32,
    data_length: u32,
    cdw10: u32,
    cdw11: u32,
    cdw12: u32,
    cdw13: u32,
    cdw14: u32,
    cdw15: u32,
    timeout_ms: u32,
    result: u32,
}

/// struct btrfs_ioctl_fs_info_args.
#[repr(C)]
pub(super) struct BtrfsInfo {
    pub(super) highest_id: u64,
    pub(super) devices: u64,
    pub(super) fsid: [u8; 16],
    pub(super) rest: [u64; 124],
}

/// struct btrfs_ioctl_search_args.
#[repr(C)]
pub(super) struct BtrfsSearch {
    pub(super) tree: u64,
    pub(super) objects: [u64; 2],
    pub(super) offsets: [u64; 2],
    pub(super) transactions: [u64; 2],
    pub(super) kinds: [u32; 2],
    pub(super) items: u32,
    pub(super) unused: [u32; 9],
    pub(super) buffer: [u8; 3992],
}

/// struct btrfs_ioctl_ino_lookup_args.
#[repr(C)]
pub(super) struct BtrfsLookup {
    pub(super) tree: u64,
    pub(super) object: u64,
    pub(super) name: [u8; 4080],
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn layouts_and_opcodes_are_those_of_the_headers() {
        assert_eq!(size_of::<LoopInfo64>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
        assert_eq!(size_of::<AdminCommand>(), 72);
        assert_eq!(NVME_IOCTL_ADMIN_CMD, 0xC048_4E41);
        assert_eq!(size_of::<BtrfsInfo>(), 1024);
        assert_eq!(size_of::<BtrfsSearch>(), 4096);
        assert_eq!(offset_of!(BtrfsSearch, kinds), 56);
        assert_eq!(offset_of!(BtrfsSearch, buffer), 104);
        assert_eq!(size_of::<BtrfsLookup>(), 4096);
        assert_eq!(BTRFS_TREE_SEARCH, 0xD000_9411);
        assert_eq!(BTRFS_FS_INFO, 0x8400_941F);
    }
}
