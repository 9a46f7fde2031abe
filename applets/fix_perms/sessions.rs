//! ~/.claude/sessions: a link to the volume that the platform mounts at /root/.claude/sessions, or
//! a plain directory where there is no such volume.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::path::Path;

use molecule_tools::error::{Result, escape};
use molecule_tools::fs::{Dir, patiently};
use molecule_tools::ownership::{Privileges, acl};
use tracing::info;

use super::giver::PermsGiver;
use super::links::LinkPlace;

const NAME: &CStr = c"sessions";
const VOLUME: &CStr = c"/root/.claude/sessions";
const KEPT: &str = "the directory is not empty and stays";
const MOVE: &str =
    "sessions in it are not on the volume; move them to /root/.claude/sessions and remove it";

/// Sees to the link in `claude`, if there is a ~/.claude, and to the volume.
pub fn see_to(giver: &mut PermsGiver<'_>, claude: Option<&Dir>) {
    let look = || giver.root.open_beneath(Path::new("root/.claude/sessions"));
    // After an error sessions stay where they are: a directory in the place of the link would
    // keep them off their volume for good.
    let Some(volume) = giver.attempt(patiently(look)) else { return };
    if let Some(claude) = claude {
        let linked = match &volume {
            Some(volume) => giver.attempt(belong_elsewhere(claude, volume)),
            None => Some(false),
        };
        match linked {
            Some(true) => link_volume(giver, claude),
            Some(false) => make_plain(giver, claude),
            None => {}
        }
    }
    if volume.is_some() {
        give_persistent(giver);
    }
}

/// Without a volume: a directory. The link of an earlier boot (it may come from a restored
/// snapshot) leads nowhere then, and is replaced.
fn make_plain(giver: &mut PermsGiver<'_>, claude: &Dir) {
    let place = LinkPlace { above: claude, name: NAME, target: VOLUME };
    let Some(linked) = giver.attempt(place.is_link()) else { return };
    if linked {
        if giver.dry() {
            giver.note_made(&claude.join(NAME));
            return;
        }
        if giver.attempt(claude.remove_file(NAME)).is_none() {
            return;
        }
    }
    giver.directory(claude, Path::new("sessions"), 0o777);
}

/// Makes the link where nothing is lost by it.
fn link_volume(giver: &mut PermsGiver<'_>, claude: &Dir) {
    let place = LinkPlace { above: claude, name: NAME, target: VOLUME };
    match giver.attempt(place.is_link()) {
        Some(false) => {}
        Some(true) | None => return,
    }
    let Some(obstacle) = giver.attempt(place.obstacle(place.kept(KEPT, MOVE))) else { return };
    if place.make(giver, obstacle) {
        info!("linked {} to the sessions volume", escape(&claude.join(NAME)));
    }
}

/// Gives /root/.claude, as the boot always has, and lets the user pass through /root (which
/// nobody but root may search) and through nothing else.
fn give_persistent(giver: &mut PermsGiver<'_>) {
    let Some(Some(root)) = giver.attempt(giver.root.open_beneath(Path::new("root"))) else {
        return;
    };
    giver.give_tree(&root, c".claude", Privileges::Take);
    if let Some(owner) = giver.owner {
        let granted = acl::let_search(&root, owner.uid, &giver.groups, giver.mode);
        if giver.attempt(granted) == Some(true) {
            giver.tally.changed += 1;
        }
    }
}

/// False if ~/.claude/sessions is the volume already, by a mount or because the user is root.
fn belong_elsewhere(claude: &Dir, volume: &Dir) -> Result<bool> {
    match claude.stat_entry(NAME)? {
        Some(stat) => Ok(!stat.same_inode(&volume.stat()?)),
        None => Ok(true),
    }
}
