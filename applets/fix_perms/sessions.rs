//! ~/.claude/sessions: a link to the volume that the platform mounts at /root/.claude/sessions, or
//! a plain directory where there is no such volume.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::path::Path;

use molecule_tools::error::{Error, Result, escape};
use molecule_tools::fs::{Dir, DirListing, Kind, at};
use molecule_tools::ownership::{Owner, Privileges, acl};
use rustix::io::Errno;
use tracing::info;

use super::giver::PermsGiver;

const NAME: &CStr = c"sessions";
const VOLUME: &CStr = c"/root/.claude/sessions";

/// Without a volume: a directory. The link of an earlier boot (it may come from a restored
/// snapshot) leads nowhere then, and is replaced.
pub(super) fn make_plain(giver: &mut PermsGiver<'_>, claude: &Dir) {
    let Some(linked) = giver.attempt(is_link_to_volume(claude, NAME)) else { return };
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

/// Makes the link where nothing is lost by it: nothing there, another link, an empty directory,
/// or one that holds only the link that earlier boots put inside it.
pub(super) fn link_volume(giver: &mut PermsGiver<'_>, claude: &Dir) {
    match giver.attempt(is_link_to_volume(claude, NAME)) {
        Some(false) => {}
        Some(true) | None => return,
    }
    let Some(clear) = giver.attempt(may_be_replaced(claude)) else { return };
    if giver.dry() {
        giver.note_made(&claude.join(NAME));
        return;
    }
    let owner = giver.owner;
    let made = clear.remove(claude).and_then(|()| {
        claude.make_symlink(VOLUME, NAME)?;
        match owner {
            Some(owner) => give_link(claude, owner),
            None => Ok(()),
        }
    });
    if giver.attempt(made).is_some() {
        giver.note_made(&claude.join(NAME));
        info!("linked {} to the sessions volume", escape(&claude.join(NAME)));
    }
}

/// Gives /root/.claude, as the boot always has, and lets the user pass through /root (which
/// nobody but root may search) and through nothing else.
pub(super) fn give_persistent(giver: &mut PermsGiver<'_>) {
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

/// Gives the new link to the user, who can put something else in its place as soon as it is there, a
/// second name of a file of root's for instance: what is given is an object that was looked at.
fn give_link(claude: &Dir, owner: Owner) -> Result<()> {
    let handle = claude.open_handle(NAME)?;
    let fail = |operation| move |errno| claude.entry_error(operation, NAME, errno);
    let stat = at::stat_fd(&handle).map_err(fail("stat"))?;
    let is_it = stat.kind == Kind::Symlink
        && stat.nlink == 1
        && *at::read_link_fd(&handle).map_err(fail("read symbolic link"))? == *VOLUME;
    match is_it {
        true => at::chown_fd(&handle, owner.uid, owner.gid).map_err(fail("change owner of")),
        false => {
            let reason = "something else was put in the place of the new link";
            Err(Error::on("give", claude.join(NAME), reason).hint("the next boot tries again"))
        }
    }
}

/// False if ~/.claude/sessions is the volume already, by a mount or because the user is root.
pub(super) fn belong_elsewhere(claude: &Dir, volume: &Dir) -> Result<bool> {
    match claude.stat_entry(NAME)? {
        Some(stat) => Ok(!stat.same_inode(&volume.stat()?)),
        None => Ok(true),
    }
}

/// The object that has to go before the link can be made.
enum Obstacle {
    Nothing,
    Link,
    Directory { stray: bool },
}

impl Obstacle {
    /// rmdir(2) itself makes sure that nothing is lost: it fails on a directory that is not empty. The
    /// user may exchange a link for something else before it is removed. It gains nothing: only a name
    /// goes, in a directory of its own, and it has put there itself what then has one name less.
    fn remove(self, claude: &Dir) -> Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Link => claude.remove_file(NAME),
            Self::Directory { stray } => {
                if stray {
                    let sessions = claude.open_dir(NAME)?;
                    if is_link_to_volume(&sessions, NAME)? {
                        sessions.remove_file(NAME)?;
                    }
                }
                match claude.remove_dir(NAME) {
                    Err(error) if error.errno() == Some(Errno::NOTEMPTY) => Err(kept(claude)),
                    other => other,
                }
            }
        }
    }
}

fn may_be_replaced(claude: &Dir) -> Result<Obstacle> {
    match claude.stat_entry(NAME)?.map(|stat| stat.kind) {
        None => Ok(Obstacle::Nothing),
        Some(Kind::Symlink) => Ok(Obstacle::Link),
        Some(Kind::Dir) => {
            let sessions = claude.open_dir(NAME)?;
            match DirListing::first(&sessions, 2)?.as_slice() {
                [] => Ok(Obstacle::Directory { stray: false }),
                [only] if *only.name == *NAME && is_link_to_volume(&sessions, NAME)? => {
                    Ok(Obstacle::Directory { stray: true })
                }
                _ => Err(kept(claude)),
            }
        }
        Some(kind) => Err(Error::on("link", claude.join(NAME), format!("it is {}", kind.noun()))
            .hint("remove it, so that sessions are kept on their volume")),
    }
}

fn kept(claude: &Dir) -> Error {
    Error::on("link", claude.join(NAME), "the directory is not empty and stays").hint(
        "sessions in it are not on the volume; move them to /root/.claude/sessions and remove it",
    )
}

/// False if it is another link or no link, or if there is nothing.
fn is_link_to_volume(dir: &Dir, name: &CStr) -> Result<bool> {
    match dir.read_symlink(name) {
        Ok(target) => Ok(*target == *VOLUME),
        Err(error) if matches!(error.errno(), Some(Errno::INVAL | Errno::NOENT)) => Ok(false),
        Err(error) => Err(error),
    }
}
