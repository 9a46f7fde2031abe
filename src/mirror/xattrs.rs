//! Extended attributes of one object: read, compared, given to another.
//!
//! Values beyond [`HELD`] bytes of an object are not held: they are read again, one at a time, when they
//! are compared or set. A file of xfs or ext4 can have thousands of 64 KiB.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use nix::libc::BTRFS_SUPER_MAGIC;
use rustix::fs::fstatfs;
use rustix::io::Errno;

use super::fault::AttributeFaults;
use crate::fs::xattr::{ACCESS_ACL, CAPABILITY, DEFAULT_ACL, XattrBuffer, XattrTarget};

/// Bytes of values held of one object.
const HELD: usize = 64 * 1024;

/// The xattrs that are mirrored: POSIX ACLs and the user, trusted, security and btrfs name spaces. Other
/// `system.*` names are views of the file system itself.
#[derive(Debug, Default)]
pub(super) struct Xattrs {
    pub access: Option<Vec<u8>>,
    pub default: Option<Vec<u8>>,
    /// Sorted by name; without the values that are not held.
    others: Vec<(CString, Option<Vec<u8>>)>,
    /// A handle of the object, where there are such values.
    object: Option<OwnedFd>,
    /// The list of names is longer than the kernel hands out, so only attributes that grant or take rights are here.
    unlisted: bool,
}

impl Xattrs {
    pub fn read(target: &XattrTarget<'_>) -> Result<Self, Errno> {
        let mut xattrs = Self::default();
        let mut names = match target.list() {
            Err(Errno::TOOBIG) => {
                xattrs.unlisted = true;
                [ACCESS_ACL, DEFAULT_ACL, CAPABILITY].map(CStr::to_owned).into()
            }
            listed => listed?,
        };
        // Equal objects must have the same values held, in whatever order they list them. The one that
        // grants rights is held in any case.
        names.sort_unstable_by(|a, b| {
            (a.as_c_str() != CAPABILITY, a).cmp(&(b.as_c_str() != CAPABILITY, b))
        });
        let mut held = 0;
        for name in names {
            let place = match name.as_c_str() {
                name if name == ACCESS_ACL => &mut xattrs.access,
                name if name == DEFAULT_ACL => &mut xattrs.default,
                name if !is_mirrored(name) => continue,
                _ if held > HELD => {
                    xattrs.others.push((name, None));
                    continue;
                }
                _ => {
                    if let Some(value) = target.get(&name)? {
                        held += value.len();
                        xattrs.others.push((name, Some(value).filter(|_| held <= HELD)));
                    }
                    continue;
                }
            };
            *place = target.get(&name)?;
        }
        xattrs.others.sort_unstable();
        if held > HELD {
            xattrs.object = Some(target.open_handle()?);
        }
        Ok(xattrs)
    }

    /// Whether there are none.
    pub fn is_plain(&self) -> bool {
        self.access.is_none() && self.default.is_none() && self.others.is_empty() && !self.unlisted
    }

    pub fn same_acls(&self, other: &Self) -> bool {
        self.access == other.access && self.default == other.default
    }

    pub fn capability(&self) -> Option<&[u8]> {
        self.held(CAPABILITY)
    }

    /// Drops the file capabilities; whether there were any.
    pub fn drop_capability(&mut self) -> bool {
        let before = self.others.len();
        self.others.retain(|(name, _)| name.as_c_str() != CAPABILITY);
        self.others.len() < before
    }

    /// Whether what is no ACL is the same as `found` at the destination, as far as the file system of
    /// `dst` can keep it.
    pub fn same_others(&self, found: &Self, dst: impl AsFd) -> bool {
        if self.unlisted || found.unlisted {
            return false;
        }
        let foreign = self.others.iter().any(|(name, _)| is_of_btrfs(name)) && !is_btrfs(dst);
        let kept = self.others.iter().filter(|(name, _)| !(foreign && is_of_btrfs(name)));
        let mut buffers = Default::default();
        kept.clone().map(|(name, _)| name).eq(found.others.iter().map(|(name, _)| name))
            && kept.clone().all(|entry| self.same_value(entry, found, &mut buffers))
    }

    /// Whether `entry` of these is in `found` too. One that cannot be read differs.
    fn same_value(
        &self,
        (name, value): &(CString, Option<Vec<u8>>),
        found: &Self,
        buffers: &mut [XattrBuffer; 2],
    ) -> bool {
        let Some(there) = found.find(name) else { return false };
        if let (Some(value), Some(there)) = (value, there) {
            return value == there;
        }
        let [ours, theirs] = buffers;
        match (self.value(name, value, ours), found.value(name, there, theirs)) {
            (Ok(Some(value)), Ok(Some(there))) => value == there,
            _ => false,
        }
    }

    /// The value of `name`: what is held, or read again.
    fn value<'a>(
        &self,
        name: &CStr,
        held: &'a Option<Vec<u8>>,
        buffer: &'a mut XattrBuffer,
    ) -> Result<Option<&'a [u8]>, Errno> {
        match (held, &self.object) {
            (Some(value), _) => Ok(Some(value)),
            (None, Some(object)) => XattrTarget::handle(object).get_into(name, buffer),
            (None, None) => Ok(None),
        }
    }

    fn find(&self, name: &CStr) -> Option<&Option<Vec<u8>>> {
        let place = self.others.binary_search_by(|(other, _)| other.as_c_str().cmp(name)).ok()?;
        Some(&self.others[place].1)
    }

    fn held(&self, name: &CStr) -> Option<&[u8]> {
        self.find(name)?.as_deref()
    }

    /// Removes from `target` what is in `found` and not in these.
    pub fn remove_surplus(&self, target: &XattrTarget<'_>, found: &Self) -> AttributeFaults {
        let mut faults = AttributeFaults::default();
        if found.unlisted {
            faults.add("list all xattrs of", Errno::TOOBIG);
        }
        let acls = [
            (ACCESS_ACL, &self.access, &found.access),
            (DEFAULT_ACL, &self.default, &found.default),
        ];
        let acls =
            acls.into_iter().filter(|(_, wanted, found)| wanted.is_none() && found.is_some());
        // Of a list that is not known nothing is known to be surplus but attributes that grant or take rights.
        let others =
            found.others.iter().map(|(name, _)| name.as_c_str()).filter(|name| {
                self.find(name).is_none() && (!self.unlisted || *name == CAPABILITY)
            });
        for name in acls.map(|(name, ..)| name).chain(others) {
            faults.check("remove xattr of", target.remove(name));
        }
        faults
    }

    /// Sets them on `target`. `found`: those that are there already and need not be set, and whether a
    /// change of owner has just dropped the file capabilities. Those are withheld from a file that could
    /// not be given to its owner (`owned`).
    pub fn set(
        &self,
        target: &XattrTarget<'_>,
        found: Option<(&Self, bool)>,
        owned: bool,
    ) -> AttributeFaults {
        let mut faults = AttributeFaults::default();
        let acls = [
            (ACCESS_ACL, &self.access, found.map(|(found, _)| &found.access), "set ACL of"),
            (
                DEFAULT_ACL,
                &self.default,
                found.map(|(found, _)| &found.default),
                "set default ACL of",
            ),
        ];
        for (name, value, there, operation) in acls {
            if let Some(acl) = value
                && there != Some(value)
            {
                faults.check(operation, target.set(name, acl));
            }
        }
        if self.unlisted {
            faults.add("copy all xattrs to", Errno::TOOBIG);
        }
        let (mut buffers, mut buffer) = Default::default();
        for entry in &self.others {
            let (name, value) = entry;
            let capability = name.as_c_str() == CAPABILITY;
            let there = found.is_some_and(|(found, owner_changed)| {
                !(owner_changed && capability) && self.same_value(entry, found, &mut buffers)
            });
            if there || capability && !owned {
                continue;
            }
            let set = match self.value(name, value, &mut buffer) {
                Ok(Some(value)) => target.set(name, value),
                Ok(None) => Ok(()),
                Err(errno) => {
                    faults.add("read the source's xattr for", errno);
                    continue;
                }
            };
            // A property of another file system.
            if !(set == Err(Errno::OPNOTSUPP) && is_of_btrfs(name)) {
                faults.check("set xattr of", set);
            }
        }
        faults
    }
}

fn is_mirrored(name: &CStr) -> bool {
    let bytes = name.to_bytes();
    // A snapshot's record of a start is of an earlier life.
    name != crate::record::ATTRIBUTE
        && [&b"user."[..], b"trusted.", b"security.", b"btrfs."]
            .iter()
            .any(|space| bytes.starts_with(space))
}

/// A property of files that btrfs shows as an xattr (btrfs-property(8)).
fn is_of_btrfs(name: &CStr) -> bool {
    name.to_bytes().starts_with(b"btrfs.")
}

/// If the file system is not known, the properties are tried: one that cannot be set is reported.
fn is_btrfs(fd: impl AsFd) -> bool {
    fstatfs(fd).map_or(true, |fs| fs.f_type == BTRFS_SUPER_MAGIC)
}
