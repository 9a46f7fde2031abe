//! Signatures, and the results of their checks.
#![forbid(unsafe_code)]

use crate::volume::bytes::fields;
use crate::volume::bytes::source::ByteExtent;

/// A signature: `bytes` stand `at` bytes into the structure that begins at `base`.
pub(super) struct Magic {
    base: u64,
    at: u64,
    pub(super) bytes: &'static [u8],
}

impl Magic {
    pub(super) const fn new(base: u64, at: u64, bytes: &'static [u8]) -> Self {
        Self { base, at, bytes }
    }

    /// Where the structure begins, in bytes from the start of the extent.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// libblkid compares within a whole KiB, so what is cut off in the middle of one is not found.
    pub(super) fn is_in(&self, extent: &ByteExtent<'_>) -> bool {
        let offset = self.base + self.at;
        let window = offset - offset % 1024;
        let Some(bytes) = extent.bytes(window, 1024) else { return false };
        usize::try_from(offset - window).is_ok_and(|at| fields::has(&bytes, at, self.bytes))
    }
}

/// The result of a check.
pub(super) struct FoundFormat {
    pub(super) name: &'static str,
    pub(super) uuid: Option<String>,
    pub(super) label: Option<String>,
}

impl FoundFormat {
    /// The type is the row's name.
    pub(super) fn new(uuid: Option<String>, label: Option<String>) -> Self {
        Self::named("", uuid, label)
    }

    /// The check decides between several types.
    pub(super) fn named(name: &'static str, uuid: Option<String>, label: Option<String>) -> Self {
        Self { name, uuid, label }
    }
}

/// The meaning of the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FormatUsage {
    /// A member of something larger: no further search, and a partition table is not the device's.
    Raid,
    /// Encrypted: no further search.
    Crypto,
    /// A file system, swap, a cache.
    Content,
    /// A file system that may share a device with another one.
    Tolerant,
}

/// One row.
pub(super) struct Format {
    pub(super) name: &'static str,
    pub(super) usage: FormatUsage,
    /// Not looked for on anything smaller, in bytes.
    pub(super) least: u64,
    /// The first that is there goes to `check`; no signature at all: `check` looks for itself.
    pub(super) magics: &'static [Magic],
    pub(super) check: fn(&ByteExtent<'_>, &Magic) -> Option<FoundFormat>,
}

impl Format {
    pub(super) fn find(&self, extent: &ByteExtent<'_>) -> Option<FoundFormat> {
        const NONE: Magic = Magic::new(0, 0, b"");
        if extent.size() < self.least {
            return None;
        }
        let magic = match self.magics {
            [] => &NONE,
            magics => magics.iter().find(|magic| magic.is_in(extent))?,
        };
        let found = (self.check)(extent, magic)?;
        Some(match found.name {
            "" => FoundFormat { name: self.name, ..found },
            _ => found,
        })
    }
}
