//! What the configuration says, in the form that the steps of the boot take.
#![forbid(unsafe_code)]

use std::path::{Component, Path, PathBuf};

/// Everything that a workspace image may declare. A key that is not in the file has the contract's value.
#[derive(Debug, Clone, Default)]
pub struct WorkspaceConfig {
    /// USER[:GROUP].
    pub user: String,
    /// What a boot ends in.
    pub runtime: RuntimeConfig,
    /// Relative to the root.
    pub restore: Vec<PathBuf>,
    /// What the audit says beside what it always says.
    pub audit: AuditConfig,
    /// In the order in which they are seen to.
    pub directories: Vec<OwnedDirectory>,
    /// Whether ~/.claude/sessions is kept on its volume.
    pub claude_sessions: bool,
    /// Files, after the directories.
    pub files: Vec<ConfigFile>,
    /// Links, after the files.
    pub links: Vec<ConfigLink>,
    /// Programs, in the order in which they are run.
    pub hooks: Vec<ConfigHook>,
    /// Whether the boot sets git credentials where they are enabled.
    pub git_credentials: bool,
    /// Keys that the file has set, with the lines of their values.
    pub lines: Vec<(&'static str, usize)>,
}

/// The program that a boot ends in.
#[derive(Debug, Clone, Default)]
pub struct RuntimeConfig {
    /// A name looked for in PATH, or a path.
    pub command: String,
    /// Before those that the container was started with.
    pub arguments: Vec<String>,
    /// Set for hooks and runtime, once the agent is the user.
    pub environment: Vec<(String, String)>,
}

/// The boot audit.
#[derive(Debug, Clone, Default)]
pub struct AuditConfig {
    /// The words before the time in its first line.
    pub header: String,
    pub variables: Vec<String>,
    pub lines: Vec<AuditLine>,
}

/// A line that shows a file as `ls -ld` does, so never what is in it.
#[derive(Debug, Clone)]
pub struct AuditLine {
    pub label: String,
    pub path: PathBuf,
}

/// A path of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigPath {
    /// Below the user's home, else below the root.
    pub home: bool,
    /// Relative, of plain names only, at least one.
    pub below: PathBuf,
}

impl ConfigPath {
    /// Of `/PATH` or `~/PATH`; else what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (home, rest) = match text.strip_prefix("~/") {
            Some(rest) => (true, rest),
            None if text.starts_with('/') => (false, text),
            None => return Err("has to begin with / or ~/"),
        };
        Ok(Self { home, below: plain_path(rest)? })
    }

    /// Whether it lies below `other`, or is it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.home == other.home && self.below.starts_with(&other.below)
    }
}

/// `text` relative to the root and without "." components, or what is wrong with it.
pub fn plain_path(text: impl AsRef<Path>) -> Result<PathBuf, &'static str> {
    let mut below = PathBuf::new();
    for component in text.as_ref().components() {
        match component {
            Component::Normal(name) => below.push(name),
            Component::ParentDir => return Err("has a \"..\" component"),
            _ => {}
        }
    }
    if below.as_os_str().is_empty() { Err("is the root itself") } else { Ok(below) }
}

/// What of a directory is given to the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnPolicy {
    /// It and everything in it.
    Always,
    /// It; what is in it only if its first entry belongs to root, as it is where the host's uid maps to root
    /// (Docker Desktop).
    IfFirstEntryIsRoots,
    /// It and everything in it, if it belongs to root itself.
    IfRoots,
    /// It and nothing in it.
    Itself,
    /// What is made of it.
    Made,
    /// Nothing: what is made of it is root's.
    Never,
}

/// A directory that the boot sees to.
#[derive(Debug, Clone)]
pub struct OwnedDirectory {
    /// Where it is.
    pub path: ConfigPath,
    /// Whether it is made where it is absent.
    pub make: bool,
    /// Permission bits it has afterwards.
    pub mode: Option<u32>,
    /// What of it is given.
    pub own: OwnPolicy,
}

/// What becomes of something that stands where a link belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OccupiedPolicy {
    /// It stays.
    Keep,
    /// Another link or an empty directory goes; anything else stays, with a warning.
    Replace,
    /// It is renamed.
    Aside,
}

/// A symbolic link that the boot makes.
#[derive(Debug, Clone)]
pub struct ConfigLink {
    /// Where it is.
    pub path: ConfigPath,
    /// What the link holds.
    pub target: String,
    /// What becomes of what stands there.
    pub occupied: OccupiedPolicy,
}

/// A file that the boot makes where it is absent.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    /// Where it is.
    pub path: ConfigPath,
    /// None: it is never made, only given, with its mode.
    pub content: Option<String>,
    /// Permission bits it has afterwards, also if it was there.
    pub mode: Option<u32>,
}

/// A program that is run as the user before the runtime, if it is there.
#[derive(Debug, Clone)]
pub struct ConfigHook {
    /// An absolute path.
    pub command: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// How long it may take.
    pub seconds: u64,
}
