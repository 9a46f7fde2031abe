//! The purpose of a partition, by its type GUID or type byte.
#![forbid(unsafe_code)]

/// Purpose of a partition, as far as it matters to a search for files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionKind {
    /// EFI system partition.
    Esp,
    /// Space for a boot loader's image; never a file system.
    BiosBoot,
    /// Swap space.
    Swap,
    /// Linux data, a Linux root of any architecture, /home, /srv, /usr, /var.
    Linux,
    /// Physical volume of LVM.
    Lvm,
    /// Member of a Linux RAID array.
    Raid,
    /// The container of logical partitions; it has no content of its own.
    Extended,
    /// Windows data: FAT, NTFS, exFAT; older tools use it for Linux too.
    Windows,
    /// Anything else.
    Other,
}

impl PartitionKind {
    /// By the type GUID of a GPT entry in its usual spelling (UEFI specification; UAPI group,
    /// Discoverable Partitions Specification).
    pub(super) fn of_guid(guid: &str) -> Self {
        match guid {
            "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" => Self::Esp,
            "21686148-6449-6e6f-744e-656564454649" => Self::BiosBoot,
            "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f" => Self::Swap,
            "e6d6d379-f507-44c2-a23c-238f2a3df928" => Self::Lvm,
            "a19d880f-05fc-4d3b-a006-743f0f84911e" => Self::Raid,
            "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7" => Self::Windows,
            // Data, /home, /srv, /usr (x86-64, arm64), /var, /boot, root (x86, x86-64, arm, arm64).
            "0fc63daf-8483-4772-8e79-3d69d8477de4"
            | "933ac7e1-2eb4-4f13-b844-0e14e2aef915"
            | "3b8f8425-20e0-4f3b-907f-1a25a76f98e8"
            | "8484680c-9521-48c6-9c11-b0720656f69e"
            | "b0e01050-ee5f-4390-949a-9101b17104e9"
            | "4d21b016-b534-45c2-a9fb-5c16e091fd2d"
            | "bc13c2ff-59e6-4262-a352-b275fd6f7172"
            | "44479540-f297-41b2-9af7-d131d5f0458a"
            | "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
            | "69dad710-2ce4-4e3c-b16c-21a1d49abed3"
            | "b921b045-1df0-41c3-af44-4c6f280d3fae" => Self::Linux,
            _ => Self::Other,
        }
    }

    /// By the type byte of an MBR record.
    pub(super) fn of_byte(byte: u8) -> Self {
        match byte {
            0xef => Self::Esp,
            0x05 | 0x0f | 0x85 => Self::Extended,
            0x82 => Self::Swap,
            0x83 => Self::Linux,
            0x8e => Self::Lvm,
            0xfd => Self::Raid,
            0x01 | 0x04 | 0x06 | 0x07 | 0x0b | 0x0c | 0x0e => Self::Windows,
            _ => Self::Other,
        }
    }
}
