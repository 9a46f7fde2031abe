//! The change of identity, and the proof that it cannot be undone.

use nix::unistd::{Gid, Uid, getresgid, getresuid, setgroups, setresgid, setresuid};
use rustix::io::Errno;

use super::Identity;
use crate::error::{Error, Result, describe};

impl Identity {
    /// Gives the whole process these ids and exactly these groups, then verifies that it has them
    /// and, unless the uid is 0, that it cannot become root again. A process that already is this
    /// identity is only verified. After an error the process must not go on to run anything.
    pub fn assume(&self) -> Result<()> {
        if !self.is_current()? {
            if !Uid::effective().is_root() {
                return Err(failed("change identity", nix::Error::EPERM).hint("run it as root"));
            }
            let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            setgroups(&groups).map_err(|errno| match errno {
                nix::Error::EINVAL => failed("set supplementary groups", errno)
                    .hint(format!("{} are too many", groups.len())),
                errno => failed("set supplementary groups", errno).hint("CAP_SETGID is needed"),
            })?;
            setresgid(gid, gid, gid)
                .map_err(|errno| failed("set gid", errno).hint("CAP_SETGID is needed"))?;
            setresuid(uid, uid, uid)
                .map_err(|errno| failed("set uid", errno).hint("CAP_SETUID is needed"))?;
            if !self.is_current()? {
                return Err(Error::plain("verify the identity", "it is not what was asked for"));
            }
        }
        match self.uid {
            0 => Ok(()),
            _ => verify_root_is_out_of_reach(),
        }
    }

    /// Whether real, effective and saved ids and the supplementary groups are exactly these.
    fn is_current(&self) -> Result<bool> {
        let uids = getresuid().map_err(|errno| failed("read uids", errno))?;
        let gids = getresgid().map_err(|errno| failed("read gids", errno))?;
        // Not the C library's, which opens a file of /proc first.
        let groups = rustix::process::getgroups()
            .map_err(|errno| Error::plain("read supplementary groups", describe(errno)))?;
        let mut current: Vec<u32> = groups.into_iter().map(|group| group.as_raw()).collect();
        let mut wanted = self.groups.clone();
        // The kernel keeps them sorted.
        current.sort_unstable();
        wanted.sort_unstable();
        Ok([uids.real, uids.effective, uids.saved].iter().all(|uid| uid.as_raw() == self.uid)
            && [gids.real, gids.effective, gids.saved].iter().all(|gid| gid.as_raw() == self.gid)
            && current == wanted)
    }
}

/// Fails if the process holds a capability or can set its uid to 0, which happens where the kernel
/// was told to keep capabilities over the change of uid (SECBIT_NO_SETUID_FIXUP, capabilities(7)).
fn verify_root_is_out_of_reach() -> Result<()> {
    let hint = "clear the securebits of the caller";
    let sets = rustix::thread::capabilities(None)
        .map_err(|errno| Error::plain("read capabilities", describe(errno)))?;
    if !sets.permitted.is_empty() || !sets.effective.is_empty() {
        return Err(Error::plain("drop privileges", "capabilities are left").hint(hint));
    }
    let root = Uid::from_raw(0);
    match setresuid(root, root, root) {
        Err(nix::Error::EPERM) => Ok(()),
        Err(errno) => Err(failed("verify that root cannot be regained", errno)),
        Ok(()) => Err(Error::plain("drop privileges", "root can be regained").hint(hint)),
    }
}

/// Fails if this program runs, or is installed, with the set-user-ID or set-group-ID bit: it would
/// give its owner's rights to whoever starts it.
pub fn refuse_set_id() -> Result<()> {
    let uids = getresuid().map_err(|errno| failed("read uids", errno))?;
    let gids = getresgid().map_err(|errno| failed("read gids", errno))?;
    // Without /proc only the ids tell.
    let mode = rustix::fs::stat("/proc/self/exe").map_or(0, |stat| stat.st_mode);
    if mode & 0o6000 == 0 && uids.real == uids.effective && gids.real == gids.effective {
        return Ok(());
    }
    Err(Error::plain("run", "this program is installed set-user-ID or set-group-ID")
        .hint("remove the bit: chmod ug-s"))
}

fn failed(operation: &'static str, errno: nix::Error) -> Error {
    Error::plain(operation, describe(Errno::from_raw_os_error(errno as i32)))
}
