//! As whom a thread makes files.
//!
//! A new file belongs to the filesystem user and group id of the thread that makes it
//! (credentials(7)). A root process that takes an owner's ids for that saves the change of owner
//! afterwards, which costs a tenth of copying a small file. Signals, ptrace and resource limits go by
//! other ids and are not touched.
#![forbid(unsafe_code)]

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitiesSecureBits, capabilities_secure_bits, set_capabilities_secure_bits,
};

/// The filesystem ids of the calling thread; its own again when this is dropped.
///
/// Files made with another's ids do not get the blocks that a file system reserves for root.
#[derive(Debug)]
pub struct FsIds {
    own: (u32, u32),
    now: (u32, u32),
    able: bool,
}

impl FsIds {
    /// Of the calling thread, which from here on keeps its capabilities whatever ids it takes
    /// (SECBIT_NO_SETUID_FIXUP of capabilities(7)). A thread that is not root or may not have it
    /// that way (CAP_SETPCAP) keeps its own ids.
    pub fn of_this_thread() -> Self {
        let own = (Uid::effective().as_raw(), Gid::effective().as_raw());
        let keep = || {
            let bits = capabilities_secure_bits()? | CapabilitiesSecureBits::NO_SETUID_FIXUP;
            set_capabilities_secure_bits(bits)
        };
        Self { own, now: own, able: own.0 == 0 && keep().is_ok() }
    }

    /// Of a thread that keeps its own ids and is otherwise left as it is too.
    pub fn unchanged() -> Self {
        let own = (Uid::effective().as_raw(), Gid::effective().as_raw());
        Self { own, now: own, able: false }
    }

    /// Takes the ids `uid` and `gid`, or the thread's own where it may not have both (ids that the
    /// user namespace does not know, no CAP_SETUID or CAP_SETGID).
    pub fn take(&mut self, uid: u32, gid: u32) {
        if self.able && self.now != (uid, gid) {
            self.now = change(uid, gid);
            if self.now != (uid, gid) {
                self.now = change(self.own.0, self.own.1);
            }
        }
    }

    /// User and group id that new files get now.
    pub fn now(&self) -> (u32, u32) {
        self.now
    }

    /// Takes the thread's own ids again; whether it had others.
    pub fn reset(&mut self) -> bool {
        let others = self.now != self.own;
        self.take(self.own.0, self.own.1);
        others
    }

    /// Does `act`, and where it fails with another's ids, once more with the thread's own: what an
    /// owner may not have, root may.
    pub fn attempt<T, E>(&mut self, act: impl Fn() -> Result<T, E>) -> Result<T, E> {
        act().or_else(|error| if self.reset() { act() } else { Err(error) })
    }
}

/// Asks for both ids; the ones there are then. The calls themselves never say that they failed, but
/// an id that cannot be makes them tell the present one (setfsuid(2)).
fn change(uid: u32, gid: u32) -> (u32, u32) {
    setfsgid(Gid::from_raw(gid));
    setfsuid(Uid::from_raw(uid));
    let none = u32::MAX;
    (setfsuid(Uid::from_raw(none)).as_raw(), setfsgid(Gid::from_raw(none)).as_raw())
}

impl Drop for FsIds {
    fn drop(&mut self) {
        self.reset();
    }
}

/// Puts back at its end whether the process may be dumped (PR_SET_DUMPABLE of prctl(2)), which any
/// change of filesystem ids takes from it; without that, root can look into its files in /proc with
/// CAP_SYS_PTRACE only, which a container does not have.
#[derive(Debug)]
pub struct KeepDumpable(bool);

impl KeepDumpable {
    /// As it is now.
    pub fn note() -> Self {
        Self(dumpable_behavior() == Ok(DumpableBehavior::Dumpable))
    }
}

impl Drop for KeepDumpable {
    fn drop(&mut self) {
        if self.0 {
            // It was so before.
            let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
        }
    }
}
