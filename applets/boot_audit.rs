//! `boot-audit`: what `docker logs` shows of every start, without a secret in it.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Parser;
use molecule_tools::audit::{AuditFacts, AuditRequest, FactLook, NameLookup, UnclearFact};
use molecule_tools::fs::Dir;
use molecule_tools::identity::UserDatabase;
use molecule_tools::log::{self, LogFormat, LogStream};
use molecule_tools::process;
use serde_json::Value;
use tracing::Level;

use crate::applet::{Applet, Context};
use crate::exit::{Exit, Status};
use molecule_tools::config::{self, is_variable_name};

pub const APPLET: Applet = Applet {
    name: "boot-audit",
    summary: "show what a container started with, no secret in it",
    run,
};

/// Where further names come from.
const MORE: &str = "MOLECULE_AUDIT_ENV";

/// Prints who this process runs as, what /configs and /workspace look like, and which variables are
/// set: their names, never a value. A variable that is set but empty counts as unset.
#[derive(Parser)]
#[command(after_help = "Environment: MOLECULE_AUDIT_ENV names further variables to look for, \
                        separated by commas, colons or white space. They follow those of the \
                        configuration; --env comes last.")]
struct Options {
    /// Look at the tree below DIR, with its user names
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Look for the variable NAME too; may be given several times
    #[arg(long, value_name = "NAME")]
    env: Vec<String>,
    /// Print one JSON object instead of the block
    #[arg(long)]
    json: bool,
}

fn run(context: &Context) -> Result<Status, Exit> {
    let options: Options = context.parse()?;
    // Not left to clap: its complaint would repeat the word, which may be a value.
    if !options.env.iter().all(|name| is_variable_name(name)) {
        complain("--env takes a name: letters, digits and underscores only");
        return Err(Exit::Said(Status::Usage));
    }
    let root = Dir::open_operator_path(&options.root)?;
    let facts = gather(&root, options.env);
    match options.json {
        true => log::write_line(LogStream::Stdout, &log::json_text(&facts.to_json(), false)),
        false => print(&facts),
    }
    Ok(Status::Done)
}

/// Prints the block for this process and the tree at `/`.
pub fn boot() {
    match Dir::open_operator_path("/") {
        Ok(root) => print(&gather(&root, Vec::new())),
        Err(error) => complain(&error.to_string()),
    }
}

/// The block, or with MOLECULE_LOG=json the facts as fields of one log line.
fn print(facts: &AuditFacts) {
    let text = match (log::format(), facts.to_json()) {
        (LogFormat::Json, Value::Object(fields)) => {
            log::json_line("boot-audit", Level::INFO, "what this boot started with", fields)
        }
        _ => facts.to_string(),
    };
    log::write_line(LogStream::Stdout, &text);
}

fn complain(what: &str) {
    log::complain(APPLET.name, Level::ERROR, what);
}

fn gather(root: &Dir, asked: Vec<String>) -> AuditFacts {
    let environment = process::environment();
    let config = &config::in_force().audit;
    let mut variables = config.variables.clone();
    for name in more(&environment).into_iter().chain(asked) {
        if !variables.contains(&name) {
            variables.push(name);
        }
    }
    let asked = AuditRequest {
        header: config.header.clone(),
        variables,
        lines: config.lines.iter().map(|line| (line.label.clone(), line.path.clone())).collect(),
    };
    AuditFacts::gather(root, &Users::read(root), &environment, asked)
}

/// The names in [`MORE`]. A word that is no name is not repeated in the complaint: it may be a value.
fn more(environment: &[CString]) -> Vec<String> {
    let list = process::lookup(environment, MORE).unwrap_or_default();
    let separator = |byte: &u8| byte.is_ascii_whitespace() || b",:".contains(byte);
    let mut names = Vec::new();
    for word in list.as_bytes().split(separator).filter(|word| !word.is_empty()) {
        match str::from_utf8(word) {
            Ok(name) if is_variable_name(name) => names.push(name.to_owned()),
            _ => complain(&format!("a word in {MORE} is no name of a variable, left out")),
        }
    }
    names
}

struct Users(Result<UserDatabase, UnclearFact>);

impl Users {
    /// A passwd file that cannot be read is no empty one: names are then unknown, and it is said why.
    /// Without the group file a group is shown as its number, which is as true.
    fn read(root: &Dir) -> Self {
        let users = UserDatabase::read_users(root).map(|(database, _)| database);
        Self(users.map_err(|error| UnclearFact::from(&error)))
    }
}

impl NameLookup for Users {
    fn user(&self, uid: u32) -> FactLook<OsString> {
        let database = self.0.as_ref().map_err(UnclearFact::clone)?;
        match (database.user_by_uid(uid), database.unread()) {
            (None, Some(error)) => Err(UnclearFact::from(&error)),
            (user, _) => Ok(user.map(|user| user.name().to_owned())),
        }
    }
    fn group(&self, gid: u32) -> Option<OsString> {
        Some(self.0.as_ref().ok()?.group_by_gid(gid)?.name().to_owned())
    }
}
