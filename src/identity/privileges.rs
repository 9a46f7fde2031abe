//! The change of identity, and the proof that it cannot be undone.
#![forbid(unsafe_code)]

use std::fmt;

use nix::unistd::{Gid, Uid, getresgid, getresuid, setgroups, setresgid, setresuid};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

use super::Identity;
use crate::error::{Error, Result, errno_of};

/// Groups named in a line, at most; the kernel allows 65536 (NGROUPS_MAX).
const NAMED: usize = 32;

impl Identity {
    /// Gives the whole process these ids and exactly these groups, then verifies that it has them
    /// and, unless the uid is 0, that it holds no capability and cannot become root again. Whether it
    /// may is the kernel's to say: root may, and a holder of CAP_SETUID and CAP_SETGID. After an
    /// error the process must not go on to run anything.
    ///
    /// A process that has the ids already but may not set groups, as in a container without
    /// capabilities, keeps the groups it has. They are returned where they differ. It is refused
    /// where root's group (0) is among them and was not asked for; other groups come from the user who
    /// started the process, which could run the command with them itself.
    pub fn assume(&self) -> Result<Option<UnsetGroups>> {
        let before = Ids::of_this_process()?;
        let mut unset = None;
        if !before.are(self) {
            let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
            match setgroups(&groups) {
                Ok(()) => self.set_ids()?,
                Err(nix::Error::EPERM) if before.match_ids_of(self) => {
                    unset = Some(UnsetGroups::between(&before.groups, self)?);
                }
                Err(nix::Error::EINVAL) => {
                    return Err(failed("set supplementary groups", nix::Error::EINVAL)
                        .hint(format!("{} are too many", groups.len())));
                }
                Err(errno) => return Err(refused("set supplementary groups", errno, "CAP_SETGID")),
            }
            let now = Ids::of_this_process()?;
            let as_asked = match unset {
                Some(_) => now.match_ids_of(self),
                None => now.are(self),
            };
            if !as_asked {
                return Err(Error::plain("verify the identity", "it is not what was asked for"));
            }
        }
        if self.uid != 0 {
            give_up_all_capabilities(before.are_roots())?;
            verify_root_is_out_of_reach()?;
        }
        Ok(unset.filter(|unset| !unset.is_empty()))
    }

    fn set_ids(&self) -> Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        setresgid(gid, gid, gid).map_err(|errno| refused("set gid", errno, "CAP_SETGID"))?;
        setresuid(uid, uid, uid).map_err(|errno| refused("set uid", errno, "CAP_SETUID"))
    }
}

/// Supplementary groups of a process that may not set them, beside those it should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsetGroups {
    /// Asked for, and not had.
    missing: Vec<u32>,
    /// Had, and not asked for.
    kept: Vec<u32>,
}

impl UnsetGroups {
    /// The primary group is no difference: the process has its rights by the gid.
    fn between(current: &[u32], wanted: &Identity) -> Result<Self> {
        let without = |groups: &[u32], others: &[u32]| -> Vec<u32> {
            let counts = |group: &u32| *group != wanted.gid && !others.contains(group);
            let mut rest: Vec<u32> = groups.iter().copied().filter(counts).collect();
            rest.sort_unstable();
            rest.dedup();
            rest
        };
        let kept = without(current, &wanted.groups);
        if kept.contains(&0) {
            return Err(refused("leave root's group", nix::Error::EPERM, "CAP_SETGID"));
        }
        Ok(Self { missing: without(&wanted.groups, current), kept })
    }

    fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.kept.is_empty()
    }
}

impl fmt::Display for UnsetGroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("set supplementary groups: Operation not permitted; it goes on")?;
        for (what, groups) in [(" without", &self.missing), (" and keeps", &self.kept)] {
            if !groups.is_empty() {
                f.write_str(what)?;
            }
            for group in groups.iter().take(NAMED) {
                write!(f, " {group}")?;
            }
            if groups.len() > NAMED {
                write!(f, " and {} more", groups.len() - NAMED)?;
            }
        }
        Ok(())
    }
}

/// Who a process is: real, effective and saved ids, supplementary groups sorted.
struct Ids {
    uids: [u32; 3],
    gids: [u32; 3],
    groups: Vec<u32>,
}

impl Ids {
    fn of_this_process() -> Result<Self> {
        let uids = getresuid().map_err(|errno| failed("read uids", errno))?;
        let gids = getresgid().map_err(|errno| failed("read gids", errno))?;
        // Not the C library's, which opens a file of /proc first.
        let groups = rustix::process::getgroups()
            .map_err(|errno| Error::failed("read supplementary groups", errno))?;
        let mut groups: Vec<u32> = groups.into_iter().map(|group| group.as_raw()).collect();
        groups.sort_unstable();
        Ok(Self {
            uids: [uids.real, uids.effective, uids.saved].map(Uid::as_raw),
            gids: [gids.real, gids.effective, gids.saved].map(Gid::as_raw),
            groups,
        })
    }

    fn match_ids_of(&self, wanted: &Identity) -> bool {
        self.uids == [wanted.uid; 3] && self.gids == [wanted.gid; 3]
    }

    fn are(&self, wanted: &Identity) -> bool {
        let mut groups = wanted.groups.clone();
        groups.sort_unstable();
        self.match_ids_of(wanted) && self.groups == groups
    }

    fn are_roots(&self) -> bool {
        self.uids.contains(&0)
    }
}

/// For a process that goes on as the user it was started as: gives up its capabilities for good. True
/// if it had some. Fails if it is root after all.
pub fn give_up_capabilities() -> Result<bool> {
    if Ids::of_this_process()?.are_roots() {
        return Err(Error::plain("go on as the same user", "that user is root"));
    }
    give_up_all_capabilities(false)
}

/// Makes every set of capabilities empty, the ambient one by that too, which is never more than what
/// is both permitted and inheritable (capabilities(7)). True if one was not.
///
/// The kernel takes the capabilities of a process that was root (`was_root`) with its uid, unless it
/// was set otherwise (SECBIT_NO_SETUID_FIXUP). A command must not inherit that: its own programs
/// that drop root, like sudo(8), would not lose theirs.
fn give_up_all_capabilities(was_root: bool) -> Result<bool> {
    let read = || {
        rustix::thread::capabilities(None)
            .map_err(|errno| Error::failed("read capabilities", errno))
    };
    let sets = read()?;
    let held = sets.permitted | sets.effective;
    let fixup_off = || {
        let bits = rustix::thread::capabilities_secure_bits();
        bits.map_or(true, |bits| bits.contains(CapabilitiesSecureBits::NO_SETUID_FIXUP))
    };
    if !held.is_empty() && (was_root || fixup_off()) {
        return Err(Error::plain("drop privileges", "capabilities are left").hint(SECUREBITS));
    }
    if (held | sets.inheritable).is_empty() {
        return Ok(false);
    }
    let none = CapabilitySet::empty();
    let empty = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, empty)
        .map_err(|errno| Error::failed("give up capabilities", errno))?;
    match read()? == empty {
        true => Ok(true),
        false => Err(Error::plain("drop privileges", "capabilities are left")),
    }
}

const SECUREBITS: &str = "clear the securebits of the caller";

/// Fails if the process can set its uid to 0.
fn verify_root_is_out_of_reach() -> Result<()> {
    let root = Uid::from_raw(0);
    match setresuid(root, root, root) {
        // EINVAL: the user namespace has no uid 0.
        Err(nix::Error::EPERM | nix::Error::EINVAL) => Ok(()),
        Err(errno) => Err(failed("verify that root cannot be regained", errno)),
        Ok(()) => Err(Error::plain("drop privileges", "root can be regained").hint(SECUREBITS)),
    }
}

/// Fails if this program runs, or is installed, with the set-user-ID or set-group-ID bit: it would
/// give its owner's rights to any user who starts it.
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

/// The kernel did not let it be done; `capability` is what that takes.
fn refused(operation: &'static str, errno: nix::Error, capability: &'static str) -> Error {
    let error = failed(operation, errno);
    match errno {
        nix::Error::EPERM if Uid::effective().is_root() => {
            error.hint(format!("{capability} is needed"))
        }
        nix::Error::EPERM => error.hint("run it as root, or with CAP_SETUID and CAP_SETGID"),
        nix::Error::EINVAL => error.hint("this user namespace does not have that id"),
        _ => error,
    }
}

fn failed(operation: &'static str, errno: nix::Error) -> Error {
    Error::failed(operation, errno_of(errno))
}
