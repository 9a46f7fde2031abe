//! The restore set: which paths of a workspace are restored.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use molecule_tools::error::escape;
use tracing::warn;

use molecule_tools::config::{self, plain_path};

/// Variable that names another set, with colons between.
const VARIABLE: &str = "MOLECULE_RESTORE_PATHS";

/// The restore set of this workspace, relative to the root. A path that leads out of the root is left out.
pub fn whole() -> Vec<PathBuf> {
    let list = std::env::var_os(VARIABLE).unwrap_or_default();
    let given: Vec<PathBuf> = list
        .as_bytes()
        .split(|&byte| byte == b':')
        .filter(|path| !path.is_empty())
        .map(OsStr::from_bytes)
        .filter_map(|path| {
            plain_path(path)
                .inspect_err(|reason| warn!("{VARIABLE}: {} {reason}, left out", escape(path)))
                .ok()
        })
        .collect();
    if given.is_empty() { config::in_force().restore.clone() } else { given }
}

/// Takes a path below the root from the command line; another one is bad usage.
#[derive(Clone)]
pub struct PathParser;

impl clap::builder::TypedValueParser for PathParser {
    type Value = PathBuf;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &OsStr,
    ) -> clap::error::Result<PathBuf> {
        plain_path(value).map_err(|reason| {
            let text = format!("--path {} {reason}\n", escape(value));
            clap::Error::raw(clap::error::ErrorKind::ValueValidation, text).with_cmd(command)
        })
    }
}

/// `path` for messages: below the operator's root.
pub fn shown_below(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().as_bytes().is_empty() { root.to_owned() } else { root.join(path) }
}
