//! `USER[:GROUP]`, each a name or a number.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use users::os::unix::UserExt as _;

use super::{Identity, UserDatabase};
use crate::error::{Error, Result, escape};

/// Largest id that needs no entry in the passwd or group file.
const LARGEST: u32 = i32::MAX as u32;

/// A parsed `USER[:GROUP]`. A part that is a decimal number is always an id, even if a user or group
/// has that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSpec {
    /// None: the caller's own uid.
    user: Option<Part>,
    /// None: the groups of the user.
    group: Option<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Id(u32),
    Name(OsString),
}

impl UserSpec {
    /// Splits at the first two colons; what comes after a second one does not count. A number that
    /// no id can have is refused.
    pub fn parse(spec: &OsStr) -> Result<Self> {
        let mut parts = spec.as_bytes().split(|&byte| byte == b':');
        Ok(Self {
            user: Part::parse(parts.next().unwrap_or_default())?,
            group: Part::parse(parts.next().unwrap_or_default())?,
        })
    }

    /// Looks the parts up. Without a passwd entry a uid keeps the caller's gid, has no supplementary
    /// groups and "/" as home; a group that is named replaces gid and supplementary groups.
    pub fn resolve(&self, database: &UserDatabase) -> Result<Identity> {
        let entry = match &self.user {
            None => database.entry_by_uid(nix::unistd::getuid().as_raw()),
            Some(Part::Id(uid)) => database.entry_by_uid(*uid),
            Some(Part::Name(name)) => database.entry_by_name(name),
        };
        if let (None, Some(error)) = (&entry, database.unread()) {
            return Err(error);
        }
        let mut identity = match (entry, &self.user) {
            (Some(entry), _) => {
                let user = entry.user().map_err(|field| {
                    let reason = format!("its {field} field is malformed");
                    Error::on(format!("use line {} of", entry.line), "/etc/passwd", reason)
                        .hint("correct the line")
                })?;
                Identity {
                    name: (!user.name().is_empty()).then(|| user.name().to_owned()),
                    uid: user.uid(),
                    gid: user.primary_group_id(),
                    groups: Vec::new(),
                    home: user.home_dir().to_owned(),
                }
            }
            (None, None) => without_entry(nix::unistd::getuid().as_raw()),
            (None, Some(Part::Id(uid))) => without_entry(in_range("uid", *uid)?),
            (None, Some(Part::Name(name))) => {
                return Err(Error::plain(
                    format!("find user {}", escape(name)),
                    "no such user in /etc/passwd",
                ));
            }
        };
        match (&self.group, &identity.name) {
            (Some(part), _) => identity.gid = part.resolve_group(database)?,
            (None, Some(name)) => identity.groups = database.groups_of(name),
            (None, None) => {}
        }
        Ok(identity)
    }
}

impl Part {
    /// None for an empty part. A number too large for 64 bits is a name, as is anything with
    /// another character than digits and one leading sign.
    fn parse(part: &[u8]) -> Result<Option<Self>> {
        if part.is_empty() {
            return Ok(None);
        }
        match std::str::from_utf8(part).ok().and_then(|text| text.parse::<i64>().ok()) {
            None => Ok(Some(Self::Name(OsStr::from_bytes(part).to_owned()))),
            Some(number) => match u32::try_from(number) {
                Ok(id) if id != u32::MAX => Ok(Some(Self::Id(id))),
                _ => Err(out_of_range("id", number)),
            },
        }
    }

    fn resolve_group(&self, database: &UserDatabase) -> Result<u32> {
        match self {
            Self::Id(gid) if database.group_by_gid(*gid).is_some() => Ok(*gid),
            Self::Id(gid) => in_range("gid", *gid),
            Self::Name(name) => match database.group_by_name(name) {
                Some(group) => Ok(group.gid()),
                None => Err(Error::plain(
                    format!("find group {}", escape(name)),
                    "no such group in /etc/group",
                )),
            },
        }
    }
}

fn without_entry(uid: u32) -> Identity {
    Identity {
        name: None,
        uid,
        gid: nix::unistd::getgid().as_raw(),
        groups: Vec::new(),
        home: PathBuf::from("/"),
    }
}

fn in_range(what: &'static str, id: u32) -> Result<u32> {
    if id <= LARGEST { Ok(id) } else { Err(out_of_range(what, id.into())) }
}

fn out_of_range(what: &'static str, id: i64) -> Error {
    Error::plain(format!("use {what} {id}"), format!("it is not in the range 0 to {LARGEST}"))
}
