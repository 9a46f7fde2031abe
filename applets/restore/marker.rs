//! The marker /configs/.restore-completed: whether a restore is done, and its report.

use std::ffi::CStr;
use std::path::{Path, PathBuf};

use molecule_tools::error::{Error, Result, escape};
use molecule_tools::fs::{Dir, Kind, TempName, patiently};
use molecule_tools::log;
use rustix::io::Errno;
use serde_json::Value;
use tracing::warn;

/// Where it lives, below the root.
pub const DIRECTORY: &str = "configs";
/// Its name there.
pub const NAME: &CStr = c".restore-completed";

/// What stands in its place.
pub enum Marker {
    /// Nothing.
    Absent,
    /// A regular file: the restore is done.
    Present,
    /// Anything else. Nobody but the tree's user can have put it there, so a runtime may have run.
    Odd(Kind),
}

/// Looks at the marker below `root`.
///
/// # Errors
///
/// When it cannot be told whether there is one.
pub fn look(root: &Dir) -> Result<Marker> {
    let configs = match patiently(|| root.open_beneath(Path::new(DIRECTORY))) {
        Ok(Some(configs)) => configs,
        Ok(None) => return Ok(Marker::Absent),
        // A link or a file: there is no directory that could hold one.
        Err(error) if matches!(error.errno(), None | Some(Errno::NOTDIR | Errno::LOOP)) => {
            return Ok(Marker::Absent);
        }
        Err(error) => return Err(error),
    };
    Ok(match patiently(|| configs.stat_entry(NAME))?.map(|stat| stat.kind) {
        None => Marker::Absent,
        Some(Kind::File) => Marker::Present,
        Some(kind) => Marker::Odd(kind),
    })
}

/// The path for messages.
pub fn path(root: &Dir) -> PathBuf {
    root.path().join(DIRECTORY).join(".restore-completed")
}

/// Whether a marker can be written, as far as making a file there shows. Without one, every start would
/// restore again, over whatever has been made since.
pub fn is_writable(root: &Dir) -> Result<()> {
    let configs = root.open_beneath(Path::new(DIRECTORY))?;
    // Where there is no such directory yet, the restore will make it.
    let dir = configs.as_ref().unwrap_or(root);
    let temp = TempName::new();
    dir.create_file(temp.as_cstr(), 0o600)?;
    dir.remove_file(temp.as_cstr())
}

/// Writes the marker. A directory in its place is put aside, for it may hold somebody's only copy.
pub fn write(root: &Dir, report: &Value) -> Result<()> {
    let configs = root.open_beneath(Path::new(DIRECTORY))?.ok_or_else(|| {
        Error::on("open", root.path().join(DIRECTORY), "there is no such directory")
    })?;
    if configs.stat_entry(NAME)?.is_some_and(|stat| stat.kind == Kind::Dir) {
        let aside = TempName::new();
        configs.rename(NAME, aside.as_cstr())?;
        let (there, aside) = (configs.join(NAME), configs.join(aside.as_cstr()));
        warn!("{} is in the way of the marker, renamed to {}", escape(&there), escape(&aside));
    }
    let umask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(umask);
    let mode = 0o666 & !umask.as_raw_mode();
    configs.replace_file(NAME, (log::json_text(report, true) + "\n").as_bytes(), mode, None)
}
