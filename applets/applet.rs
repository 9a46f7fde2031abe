//! The row of an applet in the table of `main`, and its arguments.
#![forbid(unsafe_code)]

use std::ffi::OsString;

use molecule_tools::error::Result;
use molecule_tools::identity::Identity;
use molecule_tools::log::{self, LogStream};
use molecule_tools::process::Inherited;
use tracing::Level;

use crate::exit::{Exit, Status};

/// The input of an applet.
pub struct Context {
    /// The name of the applet.
    pub name: &'static str,
    /// The inherited state of the process; argv included.
    pub inherited: Inherited,
    /// The arguments after the applet's name.
    pub arguments: Vec<OsString>,
}

impl Context {
    /// Parses the arguments with clap. `--help` and bad usage are printed and end the applet.
    pub fn parse<T: clap::Parser>(&self) -> Result<T, Exit> {
        let name = self.name;
        let command = T::command().name(name).bin_name(format!("molecule-tools {name}"));
        let arguments = std::iter::once(OsString::from(name)).chain(self.arguments.iter().cloned());
        let parsed = command
            .version(env!("CARGO_PKG_VERSION"))
            .term_width(80)
            .try_get_matches_from(arguments)
            .and_then(|matches| T::from_arg_matches(&matches));
        parsed.map_err(|error| {
            match error.use_stderr() {
                // It repeats the argument, which may be the name of somebody's file.
                true => log::write_lines(LogStream::Stderr, &error.render().to_string()),
                // A closed stream must not turn a help text into a failure.
                false => drop(error.print()),
            }
            Exit::Said(if error.use_stderr() { Status::Usage } else { Status::Done })
        })
    }
}

impl Context {
    /// Becomes `identity` for good.
    pub fn assume(&self, identity: &Identity) -> Result<()> {
        if let Some(unset) = identity.assume()? {
            log::complain(self.name, Level::WARN, &unset.to_string());
        }
        Ok(())
    }
}

/// One row of the table.
pub struct Applet {
    /// Name on the command line and of the symlink.
    pub name: &'static str,
    /// One line for the list.
    pub summary: &'static str,
    /// Runs it.
    pub run: fn(&Context) -> Result<Status, Exit>,
}
