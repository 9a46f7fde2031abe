//! `git-credential-molecule`: answers git's questions for GitHub credentials.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsString};

use clap::Parser;
use molecule_tools::error::Error;
use molecule_tools::github::broker;
use molecule_tools::github::cache::TokenCache;
use molecule_tools::github::credential::{
    AskpassPrompt, CAPABILITIES, CredentialRequest, USERNAME,
};
use molecule_tools::log::{self, LogStream};
use molecule_tools::process;
use rustix::io::Errno;
use tracing::Level;

use crate::applet::{Applet, Context};
use crate::exit::{Exit, Status};

pub const APPLET: Applet =
    Applet { name: "git-credential-molecule", summary: "answer git with a GitHub token", run };

/// A credential helper for git (gitcredentials(7)): `helper = molecule`. It answers for https://github.com and
/// https://gist.github.com, and is silent about every other server.
///
/// The token is the cached one, else one from the platform, else that of GITHUB_TOKEN or GH_TOKEN.
/// PLATFORM_URL, WORKSPACE_ID, MOLECULE_ORG_ID and CONFIGS_DIR say whom to ask. Exit status: 0, 1 if
/// there is no token to be had.
#[derive(Parser)]
#[command(
    after_help = "As GIT_ASKPASS it answers the prompts for these two servers and no others."
)]
struct Options {
    /// get, store (which does nothing), erase (of a token that was refused), capability; or a prompt of
    /// git's; what git may ask for one day is passed over
    #[arg(value_name = "OPERATION")]
    operation: OsString,
}

fn run(context: &Context) -> Result<Status, Exit> {
    let options: Options = context.parse()?;
    process::hide_memory();
    let environment = process::environment();
    let operation = options.operation.to_string_lossy();
    match &*operation {
        "get" => get(&environment),
        "erase" => erase(&environment),
        // What is written must have been read, or git gets a signal.
        "store" => Ok(CredentialRequest::read(std::io::stdin()).map(|_| Status::Done)?),
        "capability" => {
            log::write_line(LogStream::Stdout, CAPABILITIES);
            Ok(Status::Done)
        }
        text => match AskpassPrompt::parse(text) {
            Some(prompt) => answer(prompt, &environment),
            None => Ok(Status::Done),
        },
    }
}

fn get(environment: &[CString]) -> Result<Status, Exit> {
    let request = CredentialRequest::read(std::io::stdin())?;
    if !request.is_github() {
        return Ok(Status::Done);
    }
    let obtained = broker::obtain(environment)?;
    complain(&obtained.warnings);
    write(&request.answer(&obtained))
}

fn erase(environment: &[CString]) -> Result<Status, Exit> {
    let request = CredentialRequest::read(std::io::stdin())?;
    if let Some(refused) = request.password().filter(|_| request.is_github()) {
        TokenCache::open(environment)?.forget(refused)?;
    }
    Ok(Status::Done)
}

fn answer(prompt: AskpassPrompt, environment: &[CString]) -> Result<Status, Exit> {
    match prompt {
        AskpassPrompt::Username => {
            log::write_line(LogStream::Stdout, USERNAME);
            Ok(Status::Done)
        }
        AskpassPrompt::Password => {
            let obtained = broker::obtain(environment)?;
            complain(&obtained.warnings);
            write(obtained.token.expose())?;
            write(b"\n")
        }
        AskpassPrompt::Foreign => Ok(Status::Failed),
    }
}

fn write(bytes: &[u8]) -> Result<Status, Exit> {
    // Not through the buffer of standard output, which would keep a copy.
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(rustix::stdio::stdout(), rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::failed("answer git", errno).into()),
        }
    }
    Ok(Status::Done)
}

fn complain(warnings: &[Error]) {
    for error in warnings {
        log::complain(APPLET.name, Level::WARN, &error.to_string());
    }
}
