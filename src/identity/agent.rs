//! The user that a boot gives the workspace to and becomes.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{Identity, UserDatabase, UserSpec};
use crate::error::{Error, Result, escape};

/// Who it is if nobody says.
pub const DEFAULT_AGENT: &str = "agent";

/// A `USER[:GROUP]` that means root only if it says so. In a template like `${USER}:${GROUP}` a part
/// may turn out empty, and an image may list anybody as uid or gid 0: neither must make a runtime
/// run as root.
#[derive(Debug, Clone)]
pub struct AgentSpec<'a> {
    user: &'a [u8],
    group: &'a [u8],
    text: &'a OsStr,
}

impl<'a> AgentSpec<'a> {
    /// The value of a variable or an option; an empty one is [`DEFAULT_AGENT`].
    pub fn new(text: &'a OsStr) -> Self {
        let text = if text.is_empty() { OsStr::new(DEFAULT_AGENT) } else { text };
        let mut parts = text.as_bytes().split(|&byte| byte == b':');
        let mut next = || parts.next().unwrap_or_default();
        Self { user: next(), group: next(), text }
    }

    /// The user part, if there is one.
    pub fn user(&self) -> Option<&'a OsStr> {
        (!self.user.is_empty()).then(|| OsStr::from_bytes(self.user))
    }

    /// Whether the group is named, so that the user's own groups do not count.
    pub fn names_group(&self) -> bool {
        !self.group.is_empty()
    }

    /// Looks it up as [`UserSpec::resolve`] does, and refuses a spec without a user part, uid 0 unless
    /// the user part is `root` or `0`, and gid 0 unless it comes with that uid or the group part is
    /// `root` or `0`. Supplementary groups are the group file's to say, 0 included.
    pub fn resolve(&self, database: &UserDatabase) -> Result<Identity> {
        let refuse = |reason: &'static str, hint: &'static str| {
            Err(Error::plain(format!("use {} as the agent", escape(self.text)), reason).hint(hint))
        };
        if self.user.is_empty() {
            return refuse("its user part is empty", "name the user: USER or USER:GROUP");
        }
        let identity = UserSpec::parse(self.text)?.resolve(database)?;
        let names_root = |part: &[u8]| part == b"root" || part == b"0";
        if identity.uid == 0 && !names_root(self.user) {
            return refuse("its uid is 0", "correct /etc/passwd; only root or 0 means root");
        }
        let own_group = identity.uid == 0 && !self.names_group();
        if identity.gid == 0 && !own_group && !names_root(self.group) {
            return refuse(
                "its gid is 0",
                "name its group: USER:GROUP; only root or 0 means root's",
            );
        }
        Ok(identity)
    }
}
