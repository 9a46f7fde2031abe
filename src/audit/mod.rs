//! The facts that an operator needs of a container that does not start: who it runs as, what its two
//! volumes look like, which variables are present. Names of variables only, never a value.
//!
//! - `contents`: the names in a directory
//! - `long_form`: a directory as `ls -ld` shows it
//! - `unclear`: a fact that could not be found out
#![forbid(unsafe_code)]

mod contents;
mod long_form;
mod unclear;

use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::error::escape;
use crate::fs::Dir;
use crate::{log, process};

pub use contents::{DirContents, MOST_BYTES, MOST_NAMES};
pub use long_form::{NameLookup, long_form};
pub use unclear::{FactLook, UnclearFact};

/// What an audit is to say beside what it always says.
#[derive(Debug, Clone)]
pub struct AuditRequest {
    /// The words before the time in the first line.
    pub header: String,
    /// Names of variables.
    pub variables: Vec<String>,
    /// Labels, and the paths (relative to the root) that are shown after them as `ls -ld` does.
    pub lines: Vec<(String, PathBuf)>,
}

/// Everything one audit block says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditFacts {
    /// The words before the time in the first line.
    pub header: String,
    /// UTC, `YYYY-MM-DDThh:mm:ssZ`.
    pub time: String,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// The user's name; `None` if the user database has none for the id.
    pub user: FactLook<OsString>,
    /// Node name (uname(2)).
    pub hostname: FactLook<OsString>,
    /// WORKSPACE_ID; `None` if unset or empty.
    pub workspace_id: Option<OsString>,
    /// PLATFORM_URL; `None` if unset or empty.
    pub platform_url: Option<OsString>,
    /// `/configs` as `ls -ld` shows it, escaped; `None` if missing.
    pub configs: FactLook<String>,
    /// The names that `ls /configs` lists, a screenful at most.
    pub configs_contents: DirContents,
    /// `/workspace` as `ls -ld` shows it, escaped; `None` if missing.
    pub workspace: FactLook<String>,
    /// Names of variables, and whether each is set to something that is not empty.
    pub variables: Vec<(String, bool)>,
    /// Labels, and what stands there as `ls -ld` shows it, escaped; `None` if missing.
    pub lines: Vec<(String, FactLook<String>)>,
}

impl AuditFacts {
    /// Takes them of this process and of the tree below `root`. Never fails: what cannot be found
    /// out is shown as such.
    pub fn gather(
        root: &Dir,
        names: &dyn NameLookup,
        environment: &[CString],
        asked: AuditRequest,
    ) -> Self {
        let value = |name: &str| process::setting(environment, name);
        let uid = rustix::process::geteuid().as_raw();
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let line =
            |path: &str| long_form(root, Path::new(path), names, (now.tv_sec, now.tv_nsec as u32));
        Self {
            header: asked.header,
            time: log::timestamp(),
            uid,
            gid: rustix::process::getegid().as_raw(),
            user: names.user(uid),
            hostname: match nix::unistd::gethostname() {
                Ok(name) => Ok(Some(name)),
                Err(errno) => Err(crate::error::errno_of(errno).into()),
            },
            workspace_id: value("WORKSPACE_ID").map(OsStr::to_owned),
            platform_url: value("PLATFORM_URL").map(OsStr::to_owned),
            configs: line("configs"),
            configs_contents: DirContents::of(root, c"configs"),
            workspace: line("workspace"),
            lines: asked
                .lines
                .into_iter()
                .map(|(label, path)| {
                    let now = (now.tv_sec, now.tv_nsec as u32);
                    (label, long_form(root, &path, names, now))
                })
                .collect(),
            variables: asked
                .variables
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
    /// or unknown is null; what could not be found out is an object with the reason as `error`.
    pub fn to_json(&self) -> Value {
        let text = |value: &OsString| Value::from(value.to_string_lossy());
        let line = |line: &String| Value::from(line.as_str());
        let set = |value: &Option<OsString>| value.as_ref().map(text);
        let variables: Map<String, Value> =
            self.variables.iter().map(|(name, set)| (name.clone(), (*set).into())).collect();
        let lines: Map<String, Value> = self
            .lines
            .iter()
            .map(|(label, shown)| (label.clone(), unclear::json(shown, line)))
            .collect();
        let mut facts = json!({
            "time": self.time,
            "uid": self.uid,
            "gid": self.gid,
            "user": unclear::json(&self.user, text),
            "hostname": unclear::json(&self.hostname, text),
            "workspace_id": set(&self.workspace_id),
            "platform_url": set(&self.platform_url),
            "configs_dir": unclear::json(&self.configs, line),
            "configs_contents": self.configs_contents.to_json(),
            "configs_contents_more": self.configs_contents.more,
            "workspace_dir": unclear::json(&self.workspace, line),
            "env": variables,
        });
        if let (false, Value::Object(facts)) = (lines.is_empty(), &mut facts) {
            facts.insert("lines".into(), lines.into());
        }
        facts
    }
}

/// The block of the boot log, without a newline at its end.
impl fmt::Display for AuditFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &OsString| escape(value).to_string();
        let or_unset = |value: &Option<OsString>| value.as_ref().map_or("<unset>".into(), text);
        let user = unclear::text(&self.user, "unknown", text);
        let hostname = unclear::text(&self.hostname, "", text);
        let workspace_id = or_unset(&self.workspace_id);
        writeln!(f, "----- {} {} -----", escape(&self.header), self.time)?;
        writeln!(f, "uid={} gid={} user={user}", self.uid, self.gid)?;
        writeln!(f, "hostname={hostname} workspace_id={workspace_id}")?;
        writeln!(f, "platform_url={}", or_unset(&self.platform_url))?;
        writeln!(f, "configs_dir: {}", unclear::text(&self.configs, "MISSING", String::clone))?;
        writeln!(f, "configs_contents: {}", self.configs_contents)?;
        writeln!(f, "workspace_dir: {}", unclear::text(&self.workspace, "MISSING", String::clone))?;
        for (label, shown) in &self.lines {
            let shown = unclear::text(shown, "MISSING", String::clone);
            writeln!(f, "{}: {shown}", escape(label))?;
        }
        for (name, set) in &self.variables {
            writeln!(f, "env {name}={}", if *set { "set" } else { "unset" })?;
        }
        f.write_str("------------------------------------------------")
    }
}
