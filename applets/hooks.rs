//! Hooks: programs that an image has run as the agent, when everything else is done and before the runtime starts.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::os::fd::AsFd as _;
use std::time::Duration;

use molecule_tools::error::escape;
use molecule_tools::fs::Dir;
use molecule_tools::log::{self, LogStream};
use molecule_tools::process::Command;
use tracing::{info, warn};

use crate::token_refresh;
use molecule_tools::config::ConfigHook;

/// Runs a hook to its end, if it is there. Whatever goes wrong is a warning line.
pub fn run(hook: &ConfigHook, environment: &[CString]) {
    log::section("MOLECULE-HOOK", LogStream::Stdout);
    let shown = escape(&hook.command).to_string();
    if !token_refresh::executable(hook.command.as_os_str()) {
        return info!("{shown} is not there, or may not be executed");
    }
    let outcome = Dir::open_operator_path(".").and_then(|directory| {
        Command {
            program: &hook.command,
            arguments: hook.arguments.iter().map(OsStr::new).collect(),
            environment,
            directory: directory.as_fd(),
            input: b"",
            limit: None,
            time: Some(Duration::from_secs(hook.seconds)),
        }
        .run()
    });
    match outcome {
        Ok(output) if output.status == 0 => {}
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr);
            let reason = match (&*reason, output.status) {
                // How it is ended when the time is over.
                ("", 137) => format!("it was killed, its {} s may have been over", hook.seconds),
                ("", status) => format!("it ended with status {status}"),
                (reason, _) => escape(reason).to_string(),
            };
            warn!("hook {shown}: {reason}; the boot goes on");
        }
        Err(error) => warn!("{error}; the boot goes on without this hook"),
    }
}
