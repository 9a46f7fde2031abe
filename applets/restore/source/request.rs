//! The request for a source.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use molecule_tools::fs::Dir;

/// The device a control plane attaches a backup at. A file of this name is not what was asked for; a
/// file of any other name is.
pub const DEFAULT_DEVICE: &str = "/dev/xvdb";

/// The request for a source.
pub struct SourceRequest<'a> {
    /// A device node, an image file, `UUID=`, `LABEL=` or a volume id (`vol-...`).
    pub device: &'a OsStr,
    /// The root beneath which `mount_point` is made.
    pub root: &'a Dir,
    /// Where the file system is mounted.
    pub mount_point: &'a Path,
    /// The restore set, relative paths.
    pub paths: &'a [PathBuf],
}
