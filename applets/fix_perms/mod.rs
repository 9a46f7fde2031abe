//! `fix-perms`: gives the user what the platform made for it as root, in the order of the boot.
//!
//! - `steps`: the order of the boot
//! - `sessions`: the link to the volume of sessions
//! - `links`: links that are made
//! - `giver`: making and giving directories, and the count of it
#![forbid(unsafe_code)]

mod giver;
mod links;
mod sessions;
mod steps;

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use molecule_tools::error::{Error, Result};
use molecule_tools::fs::Dir;
use molecule_tools::heartbeat::Heartbeat;
use molecule_tools::identity::{AgentSpec, Identity, UserDatabase};
use molecule_tools::log::{self, LogStream};
use molecule_tools::ownership::{Mode, Owner, Privileges};
use tracing::info;

use crate::applet::{Applet, Context};
use crate::exit::{Exit, Status};
use giver::PermsGiver;
use molecule_tools::config;

pub const APPLET: Applet =
    Applet { name: "fix-perms", summary: "give the agent user its directories", run };

/// Give the agent user its directories: owner and group are changed only where they differ, absent
/// directories are made, no link is followed.
///
/// Without PATH, what /etc/molecule-tools.json says; without such a file: /configs, /workspace (below it only if
/// its first entry belongs to root) with .molecule/chat-uploads, and in the user's home .claude,
/// .molecule-token-cache and Downloads; .claude/sessions becomes a link to /root/.claude/sessions where that
/// exists. With PATH: those trees instead. Exit status: 0, 1 if anything could not be done, 2 for bad usage.
#[derive(Debug, clap::Parser)]
struct Options {
    /// Where /configs, /workspace, /home, /root and /etc/passwd are; PATH is not looked up there
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// USER[:GROUP]; without GROUP the group named like the user [default: that of the configuration, agent]
    #[arg(long, value_name = "SPEC", env = "MOLECULE_AGENT")]
    user: Option<OsString>,
    /// Say what would be changed and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the totals as a JSON object on stdout; log lines go to stderr
    #[arg(long)]
    json: bool,
    /// Trees to give to the user instead; a path with a symbolic link in it is refused
    paths: Vec<PathBuf>,
}

fn run(context: &Context) -> Result<Status, Exit> {
    let options: Options = context.parse()?;
    let stream = if options.json { LogStream::Stderr } else { LogStream::Stdout };
    log::section("MOLECULE-PERMS", stream);
    let mode = if options.dry_run { Mode::DryRun } else { Mode::Apply };
    let root = Dir::open_operator_path(&options.root)?;
    // By hand, the operator sees that it hangs.
    let heart = Heartbeat::new();
    let config = config::in_force();
    let user = options.user.filter(|user| !user.is_empty());
    let user = user.unwrap_or_else(|| OsString::from(&config.user));
    let mut giver = prepare(&root, &user, mode, &heart);
    match options.paths.is_empty() {
        _ if mode == Mode::Apply && !may_change_owners() => {
            giver.failed(&Error::plain("change owners", "this user may not").hint("run it as root"))
        }
        true => steps::boot(&mut giver, config),
        false => options.paths.iter().for_each(|path| give_path(&mut giver, path)),
    }
    summarise(&giver);
    if options.json {
        let tally = giver.tally;
        let report = serde_json::json!({
            "user": user.to_string_lossy(),
            "uid": giver.owner.map(|owner| owner.uid),
            "gid": giver.owner.map(|owner| owner.gid),
            "dry_run": options.dry_run,
            "examined": tally.examined,
            "changed": tally.changed,
            "made": giver.made,
            "failed": tally.failed,
        });
        log::write_line(LogStream::Stdout, &log::json_text(&report, false));
    }
    Ok(Status::failed_if(giver.tally.failed > 0))
}

/// Whether this process is root, or has root's right to give files away.
fn may_change_owners() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    rustix::process::geteuid().is_root()
        || capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::CHOWN))
}

/// The ownership part of a boot below `root`. Whatever goes wrong is a warning line. `restored`: the
/// restore before it has come to its end.
pub fn boot(root: &Dir, user: &OsStr, restored: bool, heart: &Heartbeat) {
    log::section("MOLECULE-PERMS", LogStream::Stdout);
    let mode = if restored { Mode::Apply } else { Mode::SpareUnfinished };
    let mut giver = prepare(root, user, mode, heart);
    steps::boot(&mut giver, config::in_force());
    summarise(&giver);
}

fn summarise(giver: &PermsGiver<'_>) {
    let tally = giver.tally;
    if tally.changed + giver.made == 0 {
        return;
    }
    let (changed, made, failed) = (tally.changed, giver.made, tally.failed);
    match giver.mode {
        Mode::Apply | Mode::SpareUnfinished => {
            info!("changed {changed} entries, made {made}, {failed} failed")
        }
        Mode::DryRun => info!("would change {changed} entries, make {made}, {failed} failed"),
    }
}

/// Looks the user up. Without one, directories are still made, but nothing is given to anybody.
fn prepare<'a>(root: &'a Dir, user: &OsStr, mode: Mode, heart: &'a Heartbeat) -> PermsGiver<'a> {
    let user = AgentSpec::new(user);
    let mut giver = PermsGiver::new(root, mode, heart);
    let looked_up =
        UserDatabase::read(root).and_then(|database| Ok((user.resolve(&database)?, database)));
    match looked_up {
        Ok((identity, database)) => {
            match owner(&user, &identity, &database) {
                Ok(owner) => giver.owner = Some(owner),
                Err(error) => giver.failed(&error),
            }
            giver.home = identity.home;
            giver.groups = identity.groups;
            giver.groups.push(identity.gid);
        }
        Err(error) => {
            // Where a user of that name would have its home; the boot goes on to the point where it
            // has to become that user.
            if let Some(name) = user.user().filter(|name| !name.as_bytes().contains(&b'/')) {
                giver.home = Path::new("/home").join(name);
            }
            giver.failed(&error.hint("nothing is given to that user"));
        }
    }
    giver
}

/// The uid of the user, and the gid of the group that was asked for or else of the group that has the
/// user's name, which need not be the user's primary group.
pub fn owner(spec: &AgentSpec<'_>, identity: &Identity, database: &UserDatabase) -> Result<Owner> {
    let gid = match (&identity.name, spec.names_group()) {
        (_, true) => Some(identity.gid),
        (Some(name), false) => database.group_by_name(name).map(|group| group.gid()),
        (None, false) => None,
    };
    match gid {
        Some(gid) => Ok(Owner { uid: identity.uid, gid }),
        None => Err(Error::plain("find the user's group", "no group has the user's name")
            .hint("nothing is given to that user; name one as USER:GROUP")),
    }
}

/// Gives the tree at `path`. Not even the operator's path is followed through links: it may lead
/// through directories in which somebody else makes them.
fn give_path(giver: &mut PermsGiver<'_>, path: &Path) {
    if giver.owner.is_none() {
        return;
    }
    let start = if path.is_absolute() { "/" } else { "." };
    let outcome = Dir::open_operator_path(start).and_then(|start| {
        let Some(name) = path.file_name() else {
            return Err(Error::on("give", path, "it has no last component")
                .hint("name the directory by its own name"));
        };
        let name = CString::new(name.as_bytes())
            .map_err(|_| Error::on("give", path, "it has a NUL byte"))?;
        let parent = start.open_beneath(path.parent().unwrap_or(Path::new("")))?;
        let absent = || Error::on("give", path, "it does not exist");
        let parent = parent.ok_or_else(absent)?;
        parent.stat_entry(&name)?.ok_or_else(absent)?;
        Ok((parent, name))
    });
    match outcome {
        Ok((parent, name)) => {
            giver.give_tree(&parent, &name, Privileges::Leave);
        }
        Err(error) => giver.failed(&error),
    }
}
