//! `--check-config` and `--print-config`: the configuration, checked and shown.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::Path;

use molecule_tools::error::escape;
use molecule_tools::log::{self, LogStream};
use molecule_tools::process;
use serde_json::{Value, json};

use crate::exit::Status;
use molecule_tools::config::{self, DEFAULTS, FILE, KEYS, WorkspaceConfig};

/// Variables that stand above the file: their key, and whether their value is added to it.
const VARIABLES: [(&str, &str, bool); 4] = [
    ("MOLECULE_AGENT", "user", false),
    ("MOLECULE_RUNTIME", "runtime.command", false),
    ("MOLECULE_RESTORE_PATHS", "restore", false),
    ("MOLECULE_AUDIT_ENV", "audit.variables", true),
];

/// `--check-config [FILE]`: each mistake with its place. The file of the container must be root's, as a boot demands.
pub fn check(arguments: &[OsString]) -> Status {
    let path = match arguments {
        [] => Path::new(FILE),
        [path] => Path::new(path),
        _ => return usage("--check-config [FILE]"),
    };
    let checked = config::check(path, path == Path::new(FILE));
    for mistake in &checked.mistakes {
        log::write_line(LogStream::Stderr, mistake);
    }
    match (&checked.text, checked.mistakes.len()) {
        (None, 0) => {
            let line =
                format!("{}: no such file; the built-in configuration is in force", escape(path));
            let stream = if arguments.is_empty() { LogStream::Stdout } else { LogStream::Stderr };
            log::write_line(stream, &line);
            Status::failed_if(!arguments.is_empty())
        }
        (Some(_), 0) => {
            let keys = checked.config.lines.len();
            let line = format!("{}: no mistakes; {keys} of {} keys set", escape(path), KEYS.len());
            log::write_line(LogStream::Stdout, &line);
            Status::Done
        }
        _ => Status::Failed,
    }
}

/// `--print-config`: one line for each key, `KEY = VALUE  # where it comes from`. Values of variables and contents of
/// files, which may be secret, are not shown.
pub fn print(arguments: &[OsString]) -> Status {
    if !arguments.is_empty() {
        return usage("--print-config");
    }
    let checked = config::check(Path::new(FILE), true);
    for mistake in &checked.mistakes {
        log::write_line(LogStream::Stderr, mistake);
    }
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (file, defaults) = (parse(checked.text.as_deref().unwrap_or_default()), parse(DEFAULTS));
    for key in KEYS {
        log::write_line(LogStream::Stdout, &line(key, &checked.config, &file, &defaults));
    }
    Status::failed_if(!checked.mistakes.is_empty())
}

fn line(key: &str, config: &WorkspaceConfig, file: &Value, defaults: &Value) -> String {
    let at = format!("/{}", key.replace('.', "/"));
    let set = config.lines.iter().find(|(set, _)| *set == key);
    let (value, source) = match set {
        Some((_, line)) => (file.pointer(&at), format!("{FILE}:{line}")),
        None => (defaults.pointer(&at), "built in".to_owned()),
    };
    let shown = log::json_text(&without_secrets(key, value.unwrap_or(&Value::Null)), false);
    let environment = process::environment();
    let variable = VARIABLES.iter().find_map(|(variable, of, added)| {
        let value = process::setting(&environment, variable).filter(|_| *of == key)?;
        Some((variable, value, added))
    });
    match variable {
        // A word there that is no name may be a value.
        Some((variable, _, true)) => {
            format!("{key} = {shown}  # {source}, and the names in environment {variable}")
        }
        Some((variable, value, false)) => {
            format!("{key} = \"{}\"  # environment {variable}", escape(value))
        }
        None => format!("{key} = {shown}  # {source}"),
    }
}

fn without_secrets(key: &str, value: &Value) -> Value {
    match (key, value) {
        ("runtime.environment", Value::Object(variables)) => {
            variables.keys().map(|name| (name.clone(), json!("..."))).collect()
        }
        ("files", Value::Array(files)) => {
            let mut files = files.clone();
            for file in &mut files {
                if let Some(content) = file.get_mut("content")
                    && let Some(text) = content.as_str()
                {
                    *content = format!("... ({} bytes)", text.len()).into();
                }
            }
            files.into()
        }
        _ => value.clone(),
    }
}

fn usage(text: &str) -> Status {
    log::write_line(LogStream::Stderr, &format!("usage: molecule-tools {text}"));
    Status::Usage
}
