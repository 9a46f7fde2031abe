//! What an operator wants to know of a container that does not start: who it runs as, what its two
//! volumes look like, which variables are present. Names of variables only, never a value.

mod contents;
mod long_form;

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fmt;

use serde_json::{Map, Value, json};

use crate::error::escape;
use crate::fs::Dir;
use crate::{log, process};

pub use contents::{Contents, MOST_BYTES, MOST_NAMES};
pub use long_form::{Names, long_form};

/// Everything one audit block says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// UTC, `YYYY-MM-DDThh:mm:ssZ`.
    pub time: String,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// The user's name; none if the user database has none for the id.
    pub user: Option<OsString>,
    /// Node name (uname(2)).
    pub hostname: OsString,
    /// WORKSPACE_ID; none if unset or empty.
    pub workspace_id: Option<OsString>,
    /// PLATFORM_URL; none if unset or empty.
    pub platform_url: Option<OsString>,
    /// `/configs` as `ls -ld` shows it, escaped; none if missing.
    pub configs: Option<String>,
    /// The names that `ls /configs` lists, a screenful at most.
    pub configs_contents: Contents,
    /// `/workspace` as `ls -ld` shows it, escaped; none if missing.
    pub workspace: Option<String>,
    /// Names of variables, and whether each is set to something that is not empty.
    pub variables: Vec<(String, bool)>,
}

impl Facts {
    /// Takes them of this process and of the tree below `root`. Never fails: what cannot be found
    /// out counts as missing.
    pub fn gather(
        root: &Dir,
        names: &dyn Names,
        environment: &[CString],
        variables: impl IntoIterator<Item = String>,
    ) -> Self {
        let value = |name: &str| process::lookup(environment, name).filter(|v| !v.is_empty());
        let uid = rustix::process::geteuid().as_raw();
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let line = |name: &CStr| long_form(root, name, names, (now.tv_sec, now.tv_nsec as u32));
        Self {
            time: log::timestamp(),
            uid,
            gid: rustix::process::getegid().as_raw(),
            user: names.user(uid),
            hostname: nix::unistd::gethostname().unwrap_or_default(),
            workspace_id: value("WORKSPACE_ID").map(OsStr::to_owned),
            platform_url: value("PLATFORM_URL").map(OsStr::to_owned),
            configs: line(c"configs"),
            configs_contents: Contents::of(root, c"configs"),
            workspace: line(c"workspace"),
            variables: variables
                .into_iter()
                .map(|name| {
                    let set = value(&name).is_some();
                    (name, set)
                })
                .collect(),
        }
    }

    /// The same facts as one object, for [`log::json_text`]: names and values are as they are (U+FFFD
    /// for what is not UTF-8), the two `ls -ld` lines escaped as in the block. What is missing, unset
    /// or unknown is null.
    pub fn to_json(&self) -> Value {
        let text = |value: &Option<OsString>| Some(value.as_ref()?.to_string_lossy().into_owned());
        let names = self.configs_contents.names.iter();
        let contents: Vec<_> = names.map(|name| name.to_string_lossy()).collect();
        let variables: Map<String, Value> =
            self.variables.iter().map(|(name, set)| (name.clone(), (*set).into())).collect();
        json!({
            "time": self.time,
            "uid": self.uid,
            "gid": self.gid,
            "user": text(&self.user),
            "hostname": self.hostname.to_string_lossy(),
            "workspace_id": text(&self.workspace_id),
            "platform_url": text(&self.platform_url),
            "configs_dir": self.configs,
            "configs_contents": contents,
            "configs_contents_more": self.configs_contents.more,
            "workspace_dir": self.workspace,
            "env": variables,
        })
    }
}

/// The block of the boot log, without a newline at its end.
impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or = |value: &Option<OsString>, other: &str| match value {
            Some(value) => escape(value).to_string(),
            None => other.to_owned(),
        };
        writeln!(f, "----- entrypoint boot {} -----", self.time)?;
        writeln!(f, "uid={} gid={} user={}", self.uid, self.gid, or(&self.user, "unknown"))?;
        let workspace_id = or(&self.workspace_id, "<unset>");
        writeln!(f, "hostname={} workspace_id={workspace_id}", escape(&self.hostname))?;
        writeln!(f, "platform_url={}", or(&self.platform_url, "<unset>"))?;
        writeln!(f, "configs_dir: {}", self.configs.as_deref().unwrap_or("MISSING"))?;
        writeln!(f, "configs_contents: {}", self.configs_contents)?;
        writeln!(f, "workspace_dir: {}", self.workspace.as_deref().unwrap_or("MISSING"))?;
        for (name, set) in &self.variables {
            writeln!(f, "env {name}={}", if *set { "set" } else { "unset" })?;
        }
        f.write_str("------------------------------------------------")
    }
}
