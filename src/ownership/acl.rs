//! POSIX access control lists (acl(5)): letting one user search one directory, and nobody else more.
//!
//! The value of `system.posix_acl_access` is a version, u32 2, and entries of tag u16, permissions
//! u16 (rwx = 421) and id u32, all little-endian (linux/posix_acl_xattr.h).
#![forbid(unsafe_code)]

use rustix::io::Errno;
use tracing::info;

use super::give::Mode;
use crate::error::{Error, Result, escape};
use crate::fs::xattr::{ACCESS_ACL, XattrTarget};
use crate::fs::{Dir, Stat};

const VERSION: u32 = 2;
const NO_ID: u32 = u32::MAX;
const SEARCH: u16 = 1;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// Lets user `uid`, who is in `groups`, search `dir`: by an entry `user:UID:--x`, if the permissions
/// there do not allow it already. What everybody else may do stays. True if an entry was needed.
///
/// The mask that such an entry needs shows as the group bits of the mode (0700 becomes 0710); the
/// owning group itself gets nothing by it.
pub fn let_search(dir: &Dir, uid: u32, groups: &[u32], mode: Mode) -> Result<bool> {
    let fail = |operation, errno| Error::os(operation, dir.path(), errno);
    let stat = dir.stat()?;
    let value =
        XattrTarget::fd(dir).get(ACCESS_ACL).map_err(|errno| fail("read the ACL of", errno))?;
    let acl = match value {
        None => Acl::from_mode(stat.mode),
        Some(value) => Acl::parse(&value).ok_or_else(|| fail("read the ACL of", Errno::INVAL))?,
    };
    if acl.may_search(&stat, uid, groups) {
        return Ok(false);
    }
    if mode == Mode::DryRun {
        info!("would let uid {uid} search {}", escape(dir.path()));
        return Ok(true);
    }
    XattrTarget::fd(dir).set(ACCESS_ACL, &acl.with_search(uid).to_bytes()).map_err(|errno| {
        let error = fail("let the user search", errno);
        match errno {
            Errno::OPNOTSUPP => error.hint("this file system has no ACLs; chmod o+x would do"),
            _ => error,
        }
    })?;
    Ok(true)
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Acl(Vec<Entry>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

impl Acl {
    /// The list that says the same as the permission bits.
    fn from_mode(mode: u32) -> Self {
        let entry =
            |tag, shift: u32| Entry { tag, permissions: (mode >> shift & 7) as u16, id: NO_ID };
        Self(vec![entry(USER_OBJ, 6), entry(GROUP_OBJ, 3), entry(OTHER, 0)])
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let (version, entries) = value.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*version) != VERSION || entries.len() % 8 != 0 {
            return None;
        }
        let entry = |bytes: &[u8]| {
            let &[t0, t1, p0, p1, i0, i1, i2, i3] = bytes else { return None };
            Some(Entry {
                tag: u16::from_le_bytes([t0, t1]),
                permissions: u16::from_le_bytes([p0, p1]),
                id: u32::from_le_bytes([i0, i1, i2, i3]),
            })
        };
        entries.chunks(8).map(entry).collect::<Option<Vec<_>>>().map(Self)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            bytes.extend(entry.tag.to_le_bytes());
            bytes.extend(entry.permissions.to_le_bytes());
            bytes.extend(entry.id.to_le_bytes());
        }
        bytes
    }

    fn permissions(&self, tag: u16) -> Option<u16> {
        self.0.iter().find(|entry| entry.tag == tag).map(|entry| entry.permissions)
    }

    /// The access check of acl(5) for search permission.
    fn may_search(&self, stat: &Stat, uid: u32, groups: &[u32]) -> bool {
        let allows = |permissions: u16| permissions & SEARCH != 0;
        if uid == 0 || uid == stat.uid {
            return uid == 0 || self.permissions(USER_OBJ).is_some_and(allows);
        }
        let mask = self.permissions(MASK).unwrap_or(7);
        if let Some(entry) = self.0.iter().find(|entry| entry.tag == USER && entry.id == uid) {
            return allows(entry.permissions & mask);
        }
        let of_groups: Vec<u16> = self
            .0
            .iter()
            .filter(|entry| match entry.tag {
                GROUP_OBJ => groups.contains(&stat.gid),
                GROUP => groups.contains(&entry.id),
                _ => false,
            })
            .map(|entry| entry.permissions & mask)
            .collect();
        match of_groups.is_empty() {
            true => self.permissions(OTHER).is_some_and(allows),
            false => of_groups.into_iter().any(allows),
        }
    }

    /// Adds search permission for `uid`. What the mask held back from others is taken from their
    /// entries first, because the mask has to grow.
    fn with_search(&self, uid: u32) -> Self {
        let mask = self.permissions(MASK).unwrap_or(7);
        let mut entries = self.0.clone();
        for entry in entries.iter_mut().filter(|e| matches!(e.tag, USER | GROUP_OBJ | GROUP)) {
            entry.permissions &= mask;
        }
        match entries.iter_mut().find(|entry| entry.tag == USER && entry.id == uid) {
            Some(entry) => entry.permissions |= SEARCH,
            None => {
                let after =
                    |entry: &Entry| entry.tag == USER_OBJ || (entry.tag == USER && entry.id < uid);
                let place = entries.iter().take_while(|entry| after(entry)).count();
                entries.insert(place, Entry { tag: USER, permissions: SEARCH, id: uid });
            }
        }
        let group = self.permissions(GROUP_OBJ).unwrap_or(0);
        match entries.iter_mut().find(|entry| entry.tag == MASK) {
            Some(entry) => entry.permissions |= SEARCH,
            None => {
                let place = entries.iter().take_while(|entry| entry.tag < MASK).count();
                let permissions = group | SEARCH;
                entries.insert(place, Entry { tag: MASK, permissions, id: NO_ID });
            }
        }
        Self(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        Acl(entries.iter().map(|&(tag, permissions, id)| Entry { tag, permissions, id }).collect())
    }

    #[test]
    fn a_plain_0700_gets_one_entry_and_a_mask_that_lets_only_it_through() {
        let granted = Acl::from_mode(0o700).with_search(1000);
        let expected = acl(&[
            (USER_OBJ, 7, NO_ID),
            (USER, 1, 1000),
            (GROUP_OBJ, 0, NO_ID),
            (MASK, 1, NO_ID),
            (OTHER, 0, NO_ID),
        ]);
        assert_eq!(granted, expected);
        assert_eq!(Acl::parse(&granted.to_bytes()), Some(expected));
    }

    #[test]
    fn what_the_mask_held_back_stays_held_back() {
        let before = acl(&[
            (USER_OBJ, 7, NO_ID),
            (USER, 7, 5),
            (USER, 7, 2000),
            (GROUP_OBJ, 5, NO_ID),
            (GROUP, 3, 9),
            (MASK, 4, NO_ID),
            (OTHER, 0, NO_ID),
        ]);
        let expected = acl(&[
            (USER_OBJ, 7, NO_ID),
            (USER, 4, 5),
            (USER, 1, 1000),
            (USER, 4, 2000),
            (GROUP_OBJ, 4, NO_ID),
            (GROUP, 0, 9),
            (MASK, 5, NO_ID),
            (OTHER, 0, NO_ID),
        ]);
        assert_eq!(before.with_search(1000), expected);
        assert_eq!(expected.with_search(1000), expected);
    }

    #[test]
    fn a_malformed_list_is_refused() {
        for value in [&b""[..], b"\x02\0\0", b"\x03\0\0\0", b"\x02\0\0\0\x01\0\x07"] {
            assert_eq!(Acl::parse(value), None, "{value:?}");
        }
    }
}
