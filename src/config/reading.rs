//! From the text of a configuration to its values.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use super::fields::FieldReader;
use super::located::{self, JsonNode, JsonValue};
use super::parts::{
    AuditLine, ConfigFile, ConfigHook, ConfigLink, ConfigPath, OccupiedPolicy, OwnPolicy,
    OwnedDirectory, WorkspaceConfig, plain_path,
};

/// Every key that has a value of its own.
pub const KEYS: [&str; 14] = [
    "user",
    "runtime.command",
    "runtime.arguments",
    "runtime.environment",
    "restore",
    "audit.header",
    "audit.variables",
    "audit.lines",
    "directories",
    "claude_sessions",
    "files",
    "links",
    "hooks",
    "git_credentials",
];

/// Sets in `config` what `text` says. Returns the mistakes: line, column, what is wrong.
pub fn apply(config: &mut WorkspaceConfig, text: &str) -> Vec<(usize, usize, String)> {
    let mut reader = FieldReader::new(text);
    config.lines.clear();
    match located::parse(text) {
        Ok(node) => top(&mut reader, config, &node),
        Err(error) => reader.mistake(error.at, error.what),
    }
    reader.mistakes
}

/// Sets `place` to what `read` makes of a member, if it is there and right.
fn set<T>(
    reader: &mut FieldReader<'_>,
    lines: &mut Vec<(&'static str, usize)>,
    (name, node): (&'static str, Option<&JsonNode>),
    place: &mut T,
    read: impl FnOnce(&mut FieldReader<'_>, &JsonNode, &str) -> Option<T>,
) {
    let Some(node) = node else { return };
    if let Some(value) = read(reader, node, name) {
        *place = value;
        lines.push((name, reader.line(node)));
    }
}

fn top(reader: &mut FieldReader<'_>, config: &mut WorkspaceConfig, node: &JsonNode) {
    let [user, runtime, restore, audit, directories, sessions, files, links, hooks, git] = reader
        .members(
            node,
            "the configuration",
            [
                "user",
                "runtime",
                "restore",
                "audit",
                "directories",
                "claude_sessions",
                "files",
                "links",
                "hooks",
                "git_credentials",
            ],
        );
    let mut lines = Vec::new();
    let (r, l) = (reader, &mut lines);
    set(r, l, ("user", user), &mut config.user, |r, node, name| r.word(node, name));
    if let Some(node) = runtime {
        let known = ["command", "arguments", "environment"];
        let [command, arguments, environment] = r.members(node, "runtime", known);
        let runtime = &mut config.runtime;
        set(r, l, ("runtime.command", command), &mut runtime.command, |r, node, name| {
            r.word(node, name)
        });
        set(r, l, ("runtime.arguments", arguments), &mut runtime.arguments, texts);
        set(r, l, ("runtime.environment", environment), &mut runtime.environment, variables);
    }
    set(r, l, ("restore", restore), &mut config.restore, |r, node, name| {
        let paths = r.list(node, name, |r, node| plain(r, node, name))?;
        if paths.is_empty() {
            r.mistake(node.at, "restore has no path that could be restored");
        }
        Some(paths).filter(|paths| !paths.is_empty())
    });
    if let Some(node) = audit {
        let [header, variables, audit_lines] =
            r.members(node, "audit", ["header", "variables", "lines"]);
        let audit = &mut config.audit;
        set(r, l, ("audit.header", header), &mut audit.header, |r, node, name| r.word(node, name));
        set(r, l, ("audit.variables", variables), &mut audit.variables, |r, node, name| {
            r.list(node, name, |r, node| variable(r, node, name))
        });
        set(r, l, ("audit.lines", audit_lines), &mut audit.lines, |r, node, name| {
            r.list(node, name, audit_line)
        });
    }
    set(r, l, ("directories", directories), &mut config.directories, |r, node, name| {
        r.list(node, name, directory)
    });
    set(r, l, ("claude_sessions", sessions), &mut config.claude_sessions, |r, node, name| {
        r.flag(node, name)
    });
    set(r, l, ("files", files), &mut config.files, |r, node, name| r.list(node, name, file));
    set(r, l, ("links", links), &mut config.links, |r, node, name| r.list(node, name, link));
    set(r, l, ("hooks", hooks), &mut config.hooks, |r, node, name| r.list(node, name, hook));
    set(r, l, ("git_credentials", git), &mut config.git_credentials, |r, node, name| {
        r.flag(node, name)
    });
    config.lines = lines;
}

fn texts(r: &mut FieldReader<'_>, node: &JsonNode, name: &str) -> Option<Vec<String>> {
    r.list(node, name, |r, node| r.text(node, name))
}

fn variables(
    r: &mut FieldReader<'_>,
    node: &JsonNode,
    name: &str,
) -> Option<Vec<(String, String)>> {
    let JsonValue::Object(members) = &node.value else {
        r.mistake(node.at, format!("{name} is {}; an object is needed", node.value.noun()));
        return None;
    };
    let mut variables = Vec::new();
    for (key, value) in members {
        if !is_variable_name(&key.text) {
            r.mistake(key.at, NO_VARIABLE_NAME);
        } else if let Some(value) = r.text(value, name) {
            variables.push((key.text.clone(), value));
        }
    }
    Some(variables)
}

const NO_VARIABLE_NAME: &str =
    "this is no name of a variable: letters, digits and underscores, no digit first";

fn variable(r: &mut FieldReader<'_>, node: &JsonNode, name: &str) -> Option<String> {
    let text = r.text(node, name)?;
    if !is_variable_name(&text) {
        r.mistake(node.at, NO_VARIABLE_NAME);
    }
    Some(text).filter(|text| is_variable_name(text))
}

/// Whether a shell could set it: letters, digits and underscores, no digit first.
pub fn is_variable_name(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.starts_with(|c: char| word(c) && !c.is_ascii_digit()) && name.chars().all(word)
}

/// A path relative to the root.
fn plain(r: &mut FieldReader<'_>, node: &JsonNode, name: &str) -> Option<PathBuf> {
    let text = r.word(node, name)?;
    let path = plain_path(&text);
    path.map_err(|reason| r.mistake(node.at, format!("{name} {reason}"))).ok()
}

fn path(r: &mut FieldReader<'_>, member: Option<&JsonNode>, of: &JsonNode) -> Option<ConfigPath> {
    let node = r.needed(member, of, "path")?;
    let text = r.word(node, "path")?;
    ConfigPath::parse(&text).map_err(|reason| r.mistake(node.at, format!("path {reason}"))).ok()
}

/// The value of an optional member: `None` if it is wrong, `Some(None)` if it is absent.
fn optional<T>(
    member: Option<&JsonNode>,
    read: impl FnOnce(&JsonNode) -> Option<T>,
) -> Option<Option<T>> {
    match member {
        Some(node) => read(node).map(Some),
        None => Some(None),
    }
}

fn audit_line(r: &mut FieldReader<'_>, node: &JsonNode) -> Option<AuditLine> {
    let [label, path] = r.members(node, "an item of audit.lines", ["label", "path"]);
    let label = r.needed(label, node, "label").and_then(|node| r.word(node, "label"));
    let path = r.needed(path, node, "path").and_then(|node| plain(r, node, "path"));
    Some(AuditLine { label: label?, path: path? })
}

fn directory(r: &mut FieldReader<'_>, node: &JsonNode) -> Option<OwnedDirectory> {
    const POLICIES: [(&str, OwnPolicy); 6] = [
        ("always", OwnPolicy::Always),
        ("if-first-entry-is-roots", OwnPolicy::IfFirstEntryIsRoots),
        ("if-roots", OwnPolicy::IfRoots),
        ("itself", OwnPolicy::Itself),
        ("made", OwnPolicy::Made),
        ("never", OwnPolicy::Never),
    ];
    let [name, make, mode, own] =
        r.members(node, "an item of directories", ["path", "make", "mode", "own"]);
    let path = path(r, name, node);
    let make = optional(make, |node| r.flag(node, "make"));
    let mode = optional(mode, |node| r.mode(node, "mode"));
    let own = r.needed(own, node, "own").and_then(|node| r.choice(node, "own", &POLICIES));
    Some(OwnedDirectory { path: path?, make: make?.unwrap_or(false), mode: mode?, own: own? })
}

fn file(r: &mut FieldReader<'_>, node: &JsonNode) -> Option<ConfigFile> {
    let [name, content, mode] = r.members(node, "an item of files", ["path", "content", "mode"]);
    let path = path(r, name, node);
    let content = optional(content, |node| r.text(node, "content"));
    let mode = optional(mode, |node| r.mode(node, "mode"));
    Some(ConfigFile { path: path?, content: content?, mode: mode? })
}

fn link(r: &mut FieldReader<'_>, node: &JsonNode) -> Option<ConfigLink> {
    const POLICIES: [(&str, OccupiedPolicy); 3] = [
        ("keep", OccupiedPolicy::Keep),
        ("replace", OccupiedPolicy::Replace),
        ("aside", OccupiedPolicy::Aside),
    ];
    let [name, target, occupied] =
        r.members(node, "an item of links", ["path", "target", "occupied"]);
    let path = path(r, name, node);
    let target = r.needed(target, node, "target").and_then(|node| r.word(node, "target"));
    let occupied = optional(occupied, |node| r.choice(node, "occupied", &POLICIES));
    let occupied = occupied?.unwrap_or(OccupiedPolicy::Replace);
    Some(ConfigLink { path: path?, target: target?, occupied })
}

fn hook(r: &mut FieldReader<'_>, node: &JsonNode) -> Option<ConfigHook> {
    /// A day: a boot waits for it.
    const LONGEST: u64 = 86_400;
    let [command, arguments, seconds] =
        r.members(node, "an item of hooks", ["command", "arguments", "seconds"]);
    let command = r.needed(command, node, "command").and_then(|node| {
        let text = r.word(node, "command")?;
        if !text.starts_with('/') {
            r.mistake(node.at, "command has to begin with /");
        }
        Some(PathBuf::from(text)).filter(|path| path.is_absolute())
    });
    let arguments = optional(arguments, |node| texts(r, node, "arguments"));
    let seconds = optional(seconds, |node| r.number(node, "seconds", LONGEST));
    let seconds = seconds?.unwrap_or(60);
    Some(ConfigHook { command: command?, arguments: arguments?.unwrap_or_default(), seconds })
}
