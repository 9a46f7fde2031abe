//! What a workspace image declares of its boot: `/etc/molecule-tools.json`, over the values of the contract.
//!
//! - `reading`: from text to values
//! - `fields`: members of objects, and mistakes
//! - `located`: JSON with places
//! - `parts`: the values
#![forbid(unsafe_code)]

mod fields;
mod located;
mod parts;
mod reading;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::LazyLock;

use crate::error::{Error, Result, escape};
use crate::fs::Dir;
use crate::log;
use crate::process;
use tracing::Level;

pub use parts::{
    ConfigFile, ConfigHook, ConfigLink, ConfigPath, OccupiedPolicy, OwnPolicy, OwnedDirectory,
    RuntimeConfig, WorkspaceConfig, plain_path,
};
pub use reading::{KEYS, is_variable_name};

/// The file. Nobody but root may be able to change it.
pub const FILE: &str = "/etc/molecule-tools.json";
/// The values without a file, in the form of one.
pub const DEFAULTS: &str = include_str!("defaults.json");
/// Largest file, in bytes.
const LARGEST: usize = 1 << 20;

/// What a file holds, and what is wrong in it.
#[derive(Debug, Default)]
pub struct CheckedConfig {
    /// The values; where the file has none or a wrong one, those of the contract.
    pub config: WorkspaceConfig,
    /// The text of the file; `None` if there is none.
    pub text: Option<String>,
    /// One line each, with the place.
    pub mistakes: Vec<String>,
}

/// The configuration of the container that this program runs in. Mistakes in the file are logged the first time;
/// what they concern has the contract's values.
pub fn in_force() -> &'static WorkspaceConfig {
    static CONFIG: LazyLock<WorkspaceConfig> = LazyLock::new(|| {
        let checked = check(Path::new(FILE), true);
        for mistake in &checked.mistakes {
            log::complain("molecule-tools", Level::WARN, mistake);
        }
        checked.config
    });
    &CONFIG
}

/// Reads the file at `path`; `trusted`: only if nobody but root can change it.
pub fn check(path: &Path, trusted: bool) -> CheckedConfig {
    let mut checked = CheckedConfig::default();
    reading::apply(&mut checked.config, DEFAULTS);
    checked.config.lines.clear();
    let text = match read(path, trusted) {
        Ok(Some(text)) => text,
        Ok(None) => return checked,
        Err(error) => {
            checked.mistakes.push(format!("{error}; the built-in configuration is in force"));
            return checked;
        }
    };
    for (line, column, what) in reading::apply(&mut checked.config, &text) {
        checked.mistakes.push(format!("{}:{line}:{column}: {what}", escape(path)));
    }
    checked.text = Some(text);
    checked
}

fn read(path: &Path, trusted: bool) -> Result<Option<String>> {
    let real = match trusted {
        true => process::find_own_file(path, "read configuration", "give it to root, mode 0644")?,
        false => Some(path.to_owned()),
    };
    let Some(real) = real else { return Ok(None) };
    let name = real.file_name().unwrap_or_default();
    let name = CString::new(name.as_bytes())
        .map_err(|_| Error::on("read configuration", path, "it has a NUL byte"))?;
    let above = real.parent().filter(|above| !above.as_os_str().is_empty());
    let directory = Dir::open_operator_path(above.unwrap_or(Path::new(".")))?;
    let Some(bytes) = directory.read_file(&name, LARGEST)? else { return Ok(None) };
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::on("read configuration", path, "it is not UTF-8"))?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_mistake_and_set_every_key() {
        let mut config = WorkspaceConfig::default();
        assert_eq!(reading::apply(&mut config, DEFAULTS), []);
        assert_eq!(config.lines.len(), reading::KEYS.len());
    }
}
