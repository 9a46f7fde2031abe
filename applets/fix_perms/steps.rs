//! The steps of the boot, each changing only what differs.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::io::Write as _;
use std::path::Path;

use molecule_tools::error::{Error, Result, escape, os_errno};
use molecule_tools::fs::{Dir, DirListing, Kind, at, patiently};
use molecule_tools::ownership::{Owner, Privileges};
use molecule_tools::record;
use tracing::info;

use super::giver::{PermsGiver, ReadyDir};
use super::sessions;

/// Shows the reader which mode the agent works in; the SDK's executor sets it again itself.
const SETTINGS: &[u8] = br#"{
"permissions": {"defaultMode": "bypassPermissions"},
"_note": "Mode is also set programmatically by claude_sdk_executor.py (permission_mode='bypassPermissions'); this file is informational and lets `cat ~/.claude/settings.json` succeed."
}
"#;

/// All steps in the order of the boot.
pub fn boot(giver: &mut PermsGiver<'_>) {
    giver.at(Path::new("configs"));
    giver.give_tree(giver.root, c"configs", Privileges::Take);
    giver.at(Path::new("workspace"));
    workspace(giver);
    giver.at(&giver.home);
    home(giver);
}

/// /workspace itself; everything below only if the entry listed first belongs to root, as it is
/// where the host's uid maps to root (Docker Desktop). Then the directory for uploads, which the
/// upload handler could not make below a .molecule that belongs to root.
fn workspace(giver: &mut PermsGiver<'_>) {
    let Some(Some(workspace)) = giver.attempt(giver.root.open_beneath(Path::new("workspace")))
    else {
        return;
    };
    let everything = giver.attempt(first_entry_is_roots(&workspace)) == Some(true);
    match everything {
        true => giver.give_tree(giver.root, c"workspace", Privileges::Take),
        false => giver.give_directory(&workspace),
    }
    giver.directory(&workspace, Path::new(".molecule/chat-uploads"), 0o777);
    match giver.attempt(workspace.stat_entry(c".molecule")) {
        // A link has had its warning.
        Some(Some(stat)) if stat.kind == Kind::Symlink => {}
        // It was counted before, and nothing has been changed since.
        _ if everything && giver.dry() => {}
        _ => giver.give_tree(&workspace, c".molecule", Privileges::Take),
    }
}

fn home(giver: &mut PermsGiver<'_>) {
    let home = match open_home(giver) {
        None => return,
        Some(ReadyDir::Open(home)) => home,
        Some(ReadyDir::Planned) => {
            let home = giver.root.path().join(giver.home.strip_prefix("/").unwrap_or(&giver.home));
            let claude = home.join(".claude");
            giver.note_made(&claude);
            plan_in_claude(giver, &claude);
            if sessions_volume(giver).flatten().is_some() {
                sessions::give_persistent(giver);
            }
            for name in [".molecule-token-cache", "Downloads"] {
                giver.note_made(&home.join(name));
            }
            return;
        }
    };
    claude(giver, &home);
    let cache = giver.directory(&home, Path::new(".molecule-token-cache"), 0o700);
    if let Some(ReadyDir::Open(cache)) = cache {
        giver.give_directory(&cache);
        if let Some(stat) = giver.attempt(cache.stat())
            && stat.mode != 0o700
        {
            let done = match giver.dry() {
                true => {
                    info!("would make {} mode 0700", escape(cache.path()));
                    Some(())
                }
                false => giver.attempt(cache.chmod(0o700)),
            };
            giver.tally.changed += u64::from(done.is_some());
        }
    }
    if let Some(ReadyDir::Open(downloads)) = giver.directory(&home, Path::new("Downloads"), 0o777) {
        giver.give_directory(&downloads);
    }
}

/// The user's home, made for the user if absent.
fn open_home(giver: &mut PermsGiver<'_>) -> Option<ReadyDir> {
    let home = giver.home.clone();
    if home.as_os_str().is_empty() {
        // No user to have one, which has had its warning.
        return None;
    }
    let Some(name) = home.file_name() else {
        let error = Error::on("use home directory", home, "it is no directory of the user's")
            .hint("give the user a home in /etc/passwd");
        giver.failed(&error);
        return None;
    };
    // The directories that lead to it are not the user's.
    let owner = giver.owner.take();
    let above = giver.directory(giver.root, home.parent().unwrap_or(Path::new("")), 0o777);
    giver.owner = owner;
    match above? {
        ReadyDir::Open(above) => giver.directory(&above, Path::new(name), 0o777),
        ReadyDir::Planned => {
            giver.note_made(&giver.root.path().join(home.strip_prefix("/").unwrap_or(&home)));
            Some(ReadyDir::Planned)
        }
    }
}

/// ~/.claude with the directories and the settings file that the SDK expects.
fn claude(giver: &mut PermsGiver<'_>, home: &Dir) {
    // After an error sessions stay where they are: a directory in the place of the link would
    // keep them off their volume for good.
    let volume = sessions_volume(giver);
    match giver.directory(home, Path::new(".claude"), 0o777) {
        Some(ReadyDir::Open(claude)) => {
            let linked = match &volume {
                Some(Some(volume)) => giver.attempt(sessions::belong_elsewhere(&claude, volume)),
                Some(None) => Some(false),
                None => None,
            };
            if linked == Some(false) {
                sessions::make_plain(giver, &claude);
            }
            giver.directory(&claude, Path::new("session-env"), 0o777);
            settings(giver, &claude);
            giver.give_tree(home, c".claude", Privileges::Take);
            if linked == Some(true) {
                sessions::link_volume(giver, &claude);
            }
        }
        Some(ReadyDir::Planned) => plan_in_claude(giver, &home.path().join(".claude")),
        None => {}
    }
    if volume.flatten().is_some() {
        sessions::give_persistent(giver);
    }
}

/// The directory that the platform mounts for sessions, if it does. None after a warning.
fn sessions_volume(giver: &mut PermsGiver<'_>) -> Option<Option<Dir>> {
    let look = || giver.root.open_beneath(Path::new("root/.claude/sessions"));
    giver.attempt(patiently(look))
}

/// In a dry run, what would be made in a ~/.claude that is absent.
fn plan_in_claude(giver: &mut PermsGiver<'_>, claude: &Path) {
    for name in ["sessions", "session-env", "settings.json"] {
        giver.note_made(&claude.join(name));
    }
}

fn settings(giver: &mut PermsGiver<'_>, claude: &Dir) {
    let name = c"settings.json";
    match giver.attempt(claude.stat_entry(name)) {
        Some(None) => {
            let made = match giver.dry() {
                true => Some(()),
                false => giver.attempt(write_settings(claude, name, giver.owner)),
            };
            if made.is_some() {
                giver.note_made(&claude.join(name));
            }
        }
        Some(Some(stat)) if stat.kind != Kind::File => {
            let error =
                Error::on("make", claude.join(name), format!("{} stands there", stat.kind.noun()))
                    .hint("put a regular file there");
            giver.failed(&error);
        }
        _ => {}
    }
}

fn first_entry_is_roots(dir: &Dir) -> Result<bool> {
    // A record of this program's own is not what the platform or the agent has put there.
    let first = DirListing::first(dir, 2)?.into_iter().find(|entry| *entry.name != *record::FILE);
    match first {
        Some(entry) => Ok(dir.stat_entry(&entry.name)?.is_some_and(|stat| stat.uid == 0)),
        None => Ok(false),
    }
}

fn write_settings(claude: &Dir, name: &CStr, owner: Option<Owner>) -> Result<()> {
    let mut file = std::fs::File::from(claude.create_file(name, 0o666)?);
    if let Some(owner) = owner {
        // Where this fails, so does the walk that follows, and says so.
        let _ = at::chown_fd(&file, owner.uid, owner.gid);
    }
    file.write_all(SETTINGS).map_err(|error| {
        // Half a file would be taken for the user's own at the next boot.
        let _ = claude.remove_made(name, &file);
        claude.entry_error("write", name, os_errno(&error))
    })
}
