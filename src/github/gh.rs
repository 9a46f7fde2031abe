//! The programs that get a fetched token or fetch one: gh, and the shell script of an image that has it.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use super::secret::Secret;
use crate::error::{Error, Result};
use crate::fs::Dir;
use crate::process::{self, Command};

/// gh asks the network, and can wait for ever for a keyring that is not there.
const LIMIT: Duration = Duration::from_secs(30);
/// The script asks the platform and runs gh.
const SCRIPT_LIMIT: Duration = Duration::from_secs(90);
/// Largest file that gh may write, its output included.
const WRITTEN: u64 = 1 << 20;
/// With one of these gh takes that token and stores none.
const VARIABLES: [&str; 4] =
    ["GH_TOKEN", "GITHUB_TOKEN", "GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN"];

/// Gives `token` to gh, if there is one in PATH; whether there is.
///
/// # Errors
///
/// When gh fails or does not come to an end.
pub fn log_in(environment: &[CString], token: &Secret) -> Result<bool> {
    let Some(program) = process::find_own_program("gh", environment)? else { return Ok(false) };
    let environment: Vec<CString> = environment
        .iter()
        .filter(|entry| {
            let name = entry.to_bytes().split(|&byte| byte == b'=').next();
            VARIABLES.iter().all(|variable| name != Some(variable.as_bytes()))
        })
        .cloned()
        .collect();
    let words = ["auth", "login", "--hostname", "github.com", "--with-token"].map(OsStr::new);
    let status = run(&program, &words, &environment, token.expose(), LIMIT)?;
    // Its words are not repeated: it was given a secret.
    match status {
        0 => Ok(true),
        status => Err(Error::on("log in with", program, format!("its status is {status}"))),
    }
}

/// Runs `bash SCRIPT _refresh_gh`, which fetches a token into the same files.
///
/// # Errors
///
/// When there is no bash, or the script fails or does not come to an end.
pub fn run_script(environment: &[CString], script: &OsStr) -> Result<()> {
    let bash = process::find_own_program("bash", environment)?
        .ok_or_else(|| Error::on("run", script, "no bash in PATH"))?;
    let words = [script, OsStr::new("_refresh_gh")];
    match run(&bash, &words, environment, b"", SCRIPT_LIMIT)? {
        0 => Ok(()),
        status => {
            Err(Error::on("refresh the token with", script, format!("its status is {status}")))
        }
    }
}

/// Its exit status. What it prints is dropped.
fn run(
    program: &Path,
    words: &[&OsStr],
    environment: &[CString],
    input: &[u8],
    time: Duration,
) -> Result<u8> {
    let root = Dir::open_operator_path("/")?;
    let command = Command {
        program,
        arguments: words.to_vec(),
        environment,
        directory: root.as_fd(),
        input,
        limit: Some(WRITTEN),
        time: Some(time),
    };
    Ok(command.run()?.status)
}
