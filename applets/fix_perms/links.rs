//! Symbolic links that the boot makes, where nothing is lost by it.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};

use molecule_tools::error::{Error, Result, escape};
use molecule_tools::fs::{Dir, DirListing, Kind, at};
use molecule_tools::log;
use molecule_tools::ownership::Owner;
use rustix::io::Errno;
use tracing::info;

use super::giver::PermsGiver;
use molecule_tools::config::{ConfigLink, OccupiedPolicy};

/// Makes `link` as entry `name` of `above`.
pub fn make(giver: &mut PermsGiver<'_>, above: &Dir, name: &CStr, link: &ConfigLink) {
    let Ok(target) = CString::new(link.target.as_str()) else { return };
    let place = LinkPlace { above, name, target: &target };
    match giver.attempt(place.is_link()) {
        Some(false) => {}
        Some(true) | None => return,
    }
    let stands = match giver.attempt(above.stat_entry(name)) {
        Some(stat) => stat.is_some(),
        None => return,
    };
    match link.occupied {
        OccupiedPolicy::Keep if stands => {}
        OccupiedPolicy::Aside if stands => {
            if giver.dry() || giver.attempt(place.put_aside()).is_some() {
                place.make(giver, Obstacle::Nothing);
            }
        }
        _ => {
            let kept = place.kept("the directory is not empty and stays", "move it away");
            if let Some(obstacle) = giver.attempt(place.obstacle(kept)) {
                place.make(giver, obstacle);
            }
        }
    }
}

/// Where a link belongs.
pub struct LinkPlace<'a> {
    pub above: &'a Dir,
    pub name: &'a CStr,
    pub target: &'a CStr,
}

/// The object that has to go before the link can be made.
pub enum Obstacle {
    Nothing,
    Link,
    Directory { stray: bool },
}

impl LinkPlace<'_> {
    /// False if it is another link or no link, or if there is nothing.
    pub fn is_link(&self) -> Result<bool> {
        self.is_link_in(self.above)
    }

    fn is_link_in(&self, dir: &Dir) -> Result<bool> {
        match dir.read_symlink(self.name) {
            Ok(target) => Ok(*target == *self.target),
            Err(error) if matches!(error.errno(), Some(Errno::INVAL | Errno::NOENT)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub fn kept(&self, reason: &'static str, hint: &'static str) -> Error {
        Error::on("link", self.above.join(self.name), reason).hint(hint)
    }

    /// What has to go: nothing, another link, an empty directory, or one that holds only the link that the old
    /// script's `ln -sfn` put inside it. For any other directory the error is `kept`.
    pub fn obstacle(&self, kept: Error) -> Result<Obstacle> {
        match self.above.stat_entry(self.name)?.map(|stat| stat.kind) {
            None => Ok(Obstacle::Nothing),
            Some(Kind::Symlink) => Ok(Obstacle::Link),
            Some(Kind::Dir) => {
                let dir = self.above.open_dir(self.name)?;
                match DirListing::first(&dir, 2)?.as_slice() {
                    [] => Ok(Obstacle::Directory { stray: false }),
                    [only] if *only.name == *self.name && self.is_link_in(&dir)? => {
                        Ok(Obstacle::Directory { stray: true })
                    }
                    _ => Err(kept),
                }
            }
            Some(kind) => {
                let path = self.above.join(self.name);
                Err(Error::on("link", path, format!("it is {}", kind.noun()))
                    .hint("remove it, so that the link can be made"))
            }
        }
    }

    /// Makes the link in the place of `obstacle`, for the user.
    pub fn make(&self, giver: &mut PermsGiver<'_>, obstacle: Obstacle) -> bool {
        let shown = self.above.join(self.name);
        let owner = giver.owner;
        let made = || {
            self.remove(obstacle)?;
            self.above.make_symlink(self.target, self.name)?;
            owner.map_or(Ok(()), |owner| self.give(owner))
        };
        let done = giver.dry() || giver.attempt(made()).is_some();
        if done {
            giver.note_made(&shown);
        }
        done && !giver.dry()
    }

    /// rmdir(2) itself makes sure that nothing is lost: it fails on a directory that is not empty. The
    /// user may exchange a link for something else before it is removed. It gains nothing: only a name
    /// goes, in a directory of its own, and it has put there itself what then has one name less.
    fn remove(&self, obstacle: Obstacle) -> Result<()> {
        match obstacle {
            Obstacle::Nothing => Ok(()),
            Obstacle::Link => self.above.remove_file(self.name),
            Obstacle::Directory { stray } => {
                if stray {
                    let dir = self.above.open_dir(self.name)?;
                    if self.is_link_in(&dir)? {
                        dir.remove_file(self.name)?;
                    }
                }
                match self.above.remove_dir(self.name) {
                    Err(error) if error.errno() == Some(Errno::NOTEMPTY) => {
                        Err(self.kept("the directory is not empty and stays", "move it away"))
                    }
                    other => other,
                }
            }
        }
    }

    /// Renames what stands there to a name that nothing has.
    fn put_aside(&self) -> Result<()> {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
        for number in 0..100 {
            let suffix = format!(".before-{}-{number}", log::rfc3339(now));
            let name = [self.name.to_bytes(), suffix.as_bytes()].concat();
            let Ok(name) = CString::new(name) else { break };
            if self.above.stat_entry(&name)?.is_none() {
                self.above.rename(self.name, &name)?;
                info!(
                    "{} was put aside as {}",
                    escape(&self.above.join(self.name)),
                    escape(&self.above.join(&name))
                );
                return Ok(());
            }
        }
        Err(self.kept("it could not be put aside", "move it away"))
    }

    /// Gives the new link to the user, who can put something else in its place as soon as it is there, a
    /// second name of a file of root's for instance: what is given is an object that was looked at.
    fn give(&self, owner: Owner) -> Result<()> {
        let handle = self.above.open_handle(self.name)?;
        let fail = |operation| move |errno| self.above.entry_error(operation, self.name, errno);
        let stat = at::stat_fd(&handle).map_err(fail("stat"))?;
        let is_it = stat.kind == Kind::Symlink
            && stat.nlink == 1
            && *at::read_link_fd(&handle).map_err(fail("read symbolic link"))? == *self.target;
        match is_it {
            true => at::chown_fd(&handle, owner.uid, owner.gid).map_err(fail("change owner of")),
            false => {
                let reason = "something else was put in the place of the new link";
                Err(Error::on("give", self.above.join(self.name), reason)
                    .hint("the next boot tries again"))
            }
        }
    }
}
