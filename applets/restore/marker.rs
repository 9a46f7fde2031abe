//! The marker /configs/.restore-completed: whether a restore is done, and its report.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::path::{Path, PathBuf};

use molecule_tools::error::{Error, Result, escape};
use molecule_tools::fs::xattr::XattrTarget;
use molecule_tools::fs::{Dir, Kind, TempName, patiently};
use molecule_tools::log;
use rustix::io::Errno;
use serde_json::Value;
use tracing::warn;

/// Where it lives, below the root.
pub const DIRECTORY: &str = "configs";
/// Its name there.
pub const NAME: &CStr = c".restore-completed";

/// The attribute of a marker that says in which boot of the kernel it was written. After a power cut a new
/// file can have its name and attributes and no content.
const ATTRIBUTE: &CStr = c"user.molecule.boot";
/// How much of a marker is looked at, in bytes: its first lines.
const HEAD: usize = 4096;

/// The kernel's number of this boot (random(4));  `None` where it cannot be read.
pub fn boot_id() -> Option<String> {
    let directory = Dir::open_operator_path("/proc/sys/kernel/random").ok()?;
    let bytes = directory.read_file(c"boot_id", 64).ok()??;
    Some(String::from_utf8_lossy(&bytes).trim_end().to_owned()).filter(|id| !id.is_empty())
}

/// The object in its place.
pub enum RestoreMarker {
    /// Nothing.
    Absent,
    /// A regular file: the restore is done. It was written at this time (seconds and nanoseconds, modification
    /// time), and no runtime has started over what was restored before.
    Present((i64, u32)),
    /// A regular file of an earlier boot of the kernel that ended before all was on the disk. It was written at
    /// this time (seconds and nanoseconds, modification time).
    CutOff((i64, u32)),
    /// Anything else. Nobody but the tree's user can have put it there, so a runtime may have run.
    Odd(Kind),
}

/// Looks at the marker below `root`.
///
/// # Errors
///
/// When the lookup fails for another reason than its absence.
pub fn look(root: &Dir) -> Result<RestoreMarker> {
    let Some(configs) = directory(root)? else { return Ok(RestoreMarker::Absent) };
    let Some(stat) = patiently(|| configs.stat_entry(NAME))? else {
        return Ok(RestoreMarker::Absent);
    };
    if stat.kind != Kind::File {
        return Ok(RestoreMarker::Odd(stat.kind));
    }
    Ok(match is_cut_off(&configs) {
        true => RestoreMarker::CutOff(stat.mtime),
        false => RestoreMarker::Present(stat.mtime),
    })
}

/// The directory that can hold a marker; `None` if there is none.
fn directory(root: &Dir) -> Result<Option<Dir>> {
    match patiently(|| root.open_beneath(Path::new(DIRECTORY))) {
        // A link or a file: there is no directory that could hold one.
        Err(error) if matches!(error.errno(), None | Some(Errno::NOTDIR | Errno::LOOP)) => Ok(None),
        other => other,
    }
}

/// Whether the marker certainly is of an earlier boot of the kernel and was never made durable. One that the old
/// script, an earlier version or somebody else has written is final, and so is one that cannot be read.
fn is_cut_off(configs: &Dir) -> bool {
    let Some(now) = boot_id() else { return false };
    let Ok(file) = configs.open_file(NAME) else { return false };
    let mut head = vec![0; HEAD];
    let Ok(length) = rustix::io::pread(&file, &mut head, 0) else { return false };
    let written_in = match pending(&head[..length]) {
        Some(PendingMarker { boot_id, .. }) => boot_id,
        // Complete, or not a report: the attribute shows whether it was to be one.
        None if head[..length].starts_with(b"{") => return false,
        None => match XattrTarget::fd(&file).get(ATTRIBUTE) {
            Ok(Some(boot_id)) => String::from_utf8_lossy(&boot_id).into_owned(),
            _ => return false,
        },
    };
    written_in != now
}

/// The content of a marker that is not durable yet.
pub struct PendingMarker {
    /// In which boot of the kernel it was written.
    pub boot_id: String,
    /// Where the word `false` stands that says so, in bytes from the start.
    pub offset: u64,
}

/// Reads the first lines of a report; `None` if it is durable or none.
pub fn pending(head: &[u8]) -> Option<PendingMarker> {
    const DURABLE: &str = "\n  \"durable\": false,\n  \"boot_id\": \"";
    let text = std::str::from_utf8(head.get(..head.len().min(512))?).ok()?;
    let at = text.find(DURABLE)?;
    let (boot_id, _) = text[at + DURABLE.len()..].split_once('"')?;
    let offset = at + DURABLE.find("false")?;
    Some(PendingMarker { boot_id: boot_id.to_owned(), offset: offset as u64 })
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
    let text = log::json_text(report, true) + "\n";
    configs.replace_prepared(NAME, text.as_bytes(), mode, None, |file| {
        if let Some(boot_id) = boot_id() {
            // Where the file system keeps none, it does not outlive a power cut either, or is a server's.
            let _ = XattrTarget::fd(&file).set(ATTRIBUTE, boot_id.as_bytes());
        }
    })
}
