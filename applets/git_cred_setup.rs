//! `git-cred-setup`: makes git ask for GitHub credentials, for root and the agent: this program, or the token
//! script of an image that has it.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use clap::Parser;
use molecule_tools::config;
use molecule_tools::error::{Error, Result, escape, os_errno};
use molecule_tools::fs::{Dir, clear_half_made};
use molecule_tools::gitconfig::{self, GitProgram, GitSetting, LIMIT};
use molecule_tools::heartbeat::Heartbeat;
use molecule_tools::identity::{AgentSpec, UserDatabase};
use molecule_tools::log::{self, LogFormat, LogStream};
use molecule_tools::ownership::Owner;
use molecule_tools::process;
use rustix::io::Errno;
use tracing::{info, warn};

use crate::applet::{Applet, Context};
use crate::exit::{Exit, Status};
use crate::{fix_perms, git_credential_molecule, token_refresh};

pub const APPLET: Applet = Applet {
    name: "git-cred-setup",
    summary: "set the GitHub credential helper for root and the agent",
    run,
};

const SCRIPT: &str = "/app/scripts/molecule-git-token-helper.sh";
/// Variable that names another credential helper.
const HELPER_VARIABLE: &str = "MOLECULE_GIT_HELPER";
const NAME: &CStr = c".gitconfig";

/// Sets credential.https://github.com.helper and .useHttpPath in ~/.gitconfig of the caller (root at
/// boot, where $HOME says) and of the agent. All other settings stay; several values of the two keys
/// become one. An agent without a ~/.gitconfig gets a copy of root's.
///
/// A ~/.gitconfig that is a link or no regular file is refused, and so is the agent's if it is
/// somebody else's that the agent may not read. A changed file is a new inode with the old mode.
/// Exit status: 0, 1 if anything could not be done, 2 for bad usage.
#[derive(Parser)]
struct Options {
    /// Where the homes and /etc/passwd are
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// The agent: USER[:GROUP]; without GROUP the group named like the user [default: that of the
    /// configuration, agent]
    #[arg(long, value_name = "SPEC", env = "MOLECULE_AGENT")]
    user: Option<OsString>,
    /// Value of credential.https://github.com.helper (gitcredentials(7)); if it is not given, the script
    /// /app/scripts/molecule-git-token-helper.sh, or without one git-credential-molecule of this program
    #[arg(long, value_name = "CMD", env = HELPER_VARIABLE)]
    helper: Option<OsString>,
}

fn run(context: &Context) -> Result<Status, Exit> {
    let options: Options = context.parse()?;
    log::init(LogFormat::Text);
    log::section("MOLECULE-GIT", LogStream::Stdout);
    let root = Dir::open_operator_path(&options.root)?;
    let helper = options.helper.unwrap_or_else(default_helper);
    let user = options.user.filter(|user| !user.is_empty());
    let user = user.unwrap_or_else(|| OsString::from(&config::in_force().user));
    let failed = set_up(&root, &user, &helper, None);
    Ok(Status::failed_if(failed > 0))
}

/// The script of an image that has one, else this program.
fn default_helper() -> OsString {
    if token_refresh::executable(OsStr::new(SCRIPT)) {
        return format!("!{SCRIPT}").into();
    }
    match std::env::current_exe() {
        Ok(program) => shell_command(&program, git_credential_molecule::APPLET.name),
        // Without /proc: the symlink, which git finds in PATH.
        Err(_) => "molecule".into(),
    }
}

/// A value that makes git run `program word` with a shell.
fn shell_command(program: &Path, word: &str) -> OsString {
    let path = program.as_os_str().as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(byte);
    let quoted = match path.iter().all(plain) {
        true => path.to_vec(),
        // Within quotes a shell sees nothing but their end.
        false => [
            b"'",
            &*path.split(|&byte| byte == b'\'').collect::<Vec<_>>().join(&br"'\''"[..]),
            b"'",
        ]
        .concat(),
    };
    OsString::from_vec([b"!", &*quoted, b" ", word.as_bytes()].concat())
}

/// The credential part of a boot below `root`. Whatever goes wrong is a warning line.
pub fn boot(root: &Dir, user: &OsStr, heart: &Heartbeat) {
    log::section("MOLECULE-GIT", LogStream::Stdout);
    let environment = process::environment();
    let helper = process::setting(&environment, HELPER_VARIABLE).map(OsStr::to_owned);
    set_up(root, user, &helper.unwrap_or_else(default_helper), Some(heart));
}

/// Removes the copies of .gitconfig files that a killed run has left, at a boot that sets nothing up. Returns the
/// number of those that stay; each has been logged.
pub fn clear_leftovers() -> usize {
    log::section("MOLECULE-GIT", LogStream::Stdout);
    let failures = gitconfig::clear_leftovers();
    for error in &failures {
        warn!("{error}");
    }
    failures.len()
}

/// Returns the number of failures; each has been logged. At boot somebody watches `heart`, and what is
/// right already is not logged.
fn set_up(root: &Dir, user: &OsStr, helper: &OsStr, heart: Option<&Heartbeat>) -> usize {
    let environment = process::environment();
    let settings: [GitSetting<'_>; 2] = [
        ("credential.https://github.com.helper", helper),
        ("credential.https://github.com.useHttpPath", OsStr::new("true")),
    ];
    let mut failed = clear_leftovers();
    let setup = find_git(&environment).and_then(|git| {
        let (database, left) = (UserDatabase::read(root)?, Cell::new(0));
        Ok(Setup { git, settings, database, heart, left })
    });
    let setup = match setup {
        Ok(setup) => setup,
        Err(error) => {
            warn!("{error}");
            return failed + 1;
        }
    };
    let callers = setup.callers_home(root, &environment);
    let agents = setup.agents_home(root, user);
    let mut count = |result: Result<File>| {
        result.inspect_err(|error| {
            failed += 1;
            warn!("{error}");
        })
    };
    let same = match (&callers, &agents) {
        (Ok(callers), Ok((agents, _))) => same_directory(callers, agents),
        _ => false,
    };
    let template = match callers {
        Ok(_) if same => None,
        Ok(home) => count(setup.callers_file(&home)).ok().filter(|_| shareable(&home)),
        Err(error) => count(Err(error)).ok(),
    };
    let agents = agents.and_then(|(home, owner)| setup.agents_file(&home, owner, template));
    let _ = count(agents);
    failed + setup.left.get()
}

struct Setup<'a> {
    git: GitProgram,
    settings: [GitSetting<'a>; 2],
    database: UserDatabase,
    heart: Option<&'a Heartbeat>,
    /// Copies that could not be removed.
    left: Cell<usize>,
}

impl Setup<'_> {
    /// Removes what a killed run has left of a .gitconfig in `home`.
    fn clear(&self, home: &Dir) {
        if let Err(error) = clear_half_made(home) {
            self.left.set(self.left.get() + 1);
            warn!("{}", error.hint("it may be a half-made .gitconfig; remove it"));
        }
    }

    /// $HOME, as with `git config --global`, else the home of the user database.
    fn callers_home(&self, root: &Dir, environment: &[CString]) -> Result<Dir> {
        use users::os::unix::UserExt as _;
        let uid = rustix::process::geteuid().as_raw();
        let home = process::lookup(environment, "HOME")
            .map(PathBuf::from)
            .filter(|home| home.is_absolute())
            .or_else(|| self.database.user_by_uid(uid).map(|user| user.home_dir().to_owned()))
            .ok_or_else(|| {
                Error::plain("find the caller's home", "HOME is not set and no user has this uid")
            })?;
        self.open_home(root, &home)
    }

    fn open_home(&self, root: &Dir, home: &Path) -> Result<Dir> {
        if let Some(heart) = self.heart {
            heart.enter(0, root.path().join(home));
        }
        root.open_beneath(home)?.ok_or_else(|| Error::on("open", home, "no such directory"))
    }

    fn agents_home(&self, root: &Dir, user: &OsStr) -> Result<(Dir, Owner)> {
        let user = AgentSpec::new(user);
        let identity = user.resolve(&self.database)?;
        let owner = fix_perms::owner(&user, &identity, &self.database)?;
        Ok((self.open_home(root, &identity.home)?, owner))
    }

    fn callers_file(&self, home: &Dir) -> Result<File> {
        let owner = Owner {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        };
        self.clear(home);
        let file = match found(home)? {
            Some(file) if self.has(home, &file)? => {
                self.tell(home, "already set");
                return Ok(file);
            }
            Some(file) => self.edited(home, file.bytes, Some(file.mode))?,
            None => self.edited(home, Vec::new(), None)?,
        };
        self.put(home, file, owner)
    }

    /// `template` is what an absent file is made from.
    fn agents_file(&self, home: &Dir, owner: Owner, template: Option<File>) -> Result<File> {
        self.clear(home);
        let file = match (found(home)?, template) {
            (Some(file), _) if !file.readable(owner) => {
                let reason = "it is somebody else's, and the agent may not read it";
                let error = Error::on("set credentials in", home.join(NAME), reason);
                return Err(error.hint("remove it, or give it to the agent"));
            }
            (Some(file), _) if self.has(home, &file)? => {
                if file.owner == Some(owner) {
                    self.tell(home, "already set");
                    return Ok(file);
                }
                file
            }
            (Some(file), _) => self.edited(home, file.bytes, Some(file.mode))?,
            (None, Some(template)) => template,
            (None, None) => self.edited(home, Vec::new(), None)?,
        };
        self.put(home, file, owner)
    }

    fn put(&self, home: &Dir, file: File, owner: Owner) -> Result<File> {
        if let Some(heart) = self.heart {
            heart.enter(0, home.path());
        }
        home.replace_file(NAME, &file.bytes, file.mode, Some((owner.uid, owner.gid)))?;
        self.tell(home, "set");
        Ok(file)
    }

    fn has(&self, home: &Dir, file: &File) -> Result<bool> {
        self.git.has(&file.bytes, &self.settings).map_err(|error| about(home, &error))
    }

    /// A new file has the mode that git gave it.
    fn edited(&self, home: &Dir, bytes: Vec<u8>, mode: Option<u32>) -> Result<File> {
        let edited = self.git.set(&bytes, &self.settings).map_err(|error| about(home, &error))?;
        if let Some(error) = edited.left {
            self.left.set(self.left.get() + 1);
            warn!("{error}");
        }
        Ok(File { bytes: edited.bytes, mode: mode.unwrap_or(edited.mode), owner: None })
    }

    fn tell(&self, home: &Dir, what: &str) {
        if self.heart.is_none() || what == "set" {
            info!("{}: credentials for https://github.com {what}", escape(&home.join(NAME)));
        }
    }
}

/// git knows the content only; says whose it is.
fn about(home: &Dir, error: &Error) -> Error {
    Error::on("set credentials in", home.join(NAME), error.to_string())
}

fn find_git(environment: &[CString]) -> Result<GitProgram> {
    let none = || {
        Error::plain("set git credentials", "no git in PATH").hint("install git, or correct PATH")
    };
    process::find_own_program("git", environment)?.map(GitProgram::new).ok_or_else(none)
}

/// A ~/.gitconfig that is there or is to be.
struct File {
    bytes: Vec<u8>,
    mode: u32,
    /// None: not there yet.
    owner: Option<Owner>,
}

impl File {
    /// Whether the agent itself may read it: otherwise a copy of it that belongs to the agent would
    /// disclose what somebody moved or linked there. ACLs do not count, to be on the safe side.
    fn readable(&self, agent: Owner) -> bool {
        self.owner.is_some_and(|owner| {
            owner.uid == agent.uid
                || self.mode & 0o004 != 0
                || owner.gid == agent.gid && self.mode & 0o040 != 0
        })
    }
}

fn found(home: &Dir) -> Result<Option<File>> {
    use std::io::Read as _;
    let fd = match home.open_file(NAME) {
        Ok(fd) => fd,
        Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    let fail = |errno| home.entry_error("read", NAME, errno);
    let stat = rustix::fs::fstat(&fd).map_err(fail)?;
    let owner = Some(Owner { uid: stat.st_uid, gid: stat.st_gid });
    let mut file = File { bytes: Vec::new(), mode: stat.st_mode & 0o777, owner };
    let mut content = std::fs::File::from(fd).take(LIMIT as u64 + 1);
    content.read_to_end(&mut file.bytes).map_err(|error| fail(os_errno(&error)))?;
    match file.bytes.len() > LIMIT {
        true => Err(Error::on("read", home.join(NAME), "it is larger than 1 MiB")),
        false => Ok(Some(file)),
    }
}

/// Whether what lies in the caller's `home` is certainly the caller's own, so that the agent may be
/// given a copy as it always was.
fn shareable(home: &Dir) -> bool {
    let user = rustix::process::geteuid().as_raw();
    home.stat().is_ok_and(|stat| stat.uid == user && stat.mode & 0o022 == 0)
}

fn same_directory(one: &Dir, other: &Dir) -> bool {
    matches!((one.stat(), other.stat()), (Ok(one), Ok(other)) if one.same_inode(&other))
}
