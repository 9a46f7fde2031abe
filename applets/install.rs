//! `--install DIR`: one symlink per applet, as busybox does.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;

use molecule_tools::error::{Error, Result, escape, os_errno};
use molecule_tools::fs::{Dir, Kind, TempName};
use molecule_tools::log::{self, LogStream};
use tracing::Level;

use crate::applet::Applet;
use crate::exit::Status;

pub fn run(arguments: &[OsString], applets: &[Applet]) -> Status {
    let [directory] = arguments else {
        log::write_line(LogStream::Stderr, "usage: molecule-tools --install DIR");
        return Status::Usage;
    };
    let prepared = Dir::open_operator_path(directory).and_then(|dir| Ok((dir, this_program()?)));
    let (dir, program) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            log::complain("molecule-tools --install", Level::ERROR, &error.to_string());
            return Status::Failed;
        }
    };
    let mut status = Status::Done;
    for applet in applets {
        let line = match link(&dir, applet.name, &program) {
            Ok(what) => format!("{}: {what}", escape(&dir.path().join(applet.name))),
            Err(error) => {
                status = Status::Failed;
                log::complain("molecule-tools --install", Level::ERROR, &error.to_string());
                continue;
            }
        };
        log::write_line(LogStream::Stdout, &line);
    }
    status
}

/// Makes one link under a temporary name and renames it, so that the name never is absent.
fn link(dir: &Dir, name: &str, program: &CString) -> Result<String> {
    let name = CString::new(name).unwrap_or_default();
    let shown = escape(std::ffi::OsStr::from_bytes(program.to_bytes())).to_string();
    match dir.stat_entry(&name)?.map(|stat| stat.kind) {
        Some(Kind::Symlink) if dir.read_symlink(&name)? == *program => {
            return Ok(format!("already -> {shown}"));
        }
        None | Some(Kind::Symlink) => {}
        Some(kind) => {
            return Err(Error::on("replace", dir.join(&name), format!("it is {}", kind.noun()))
                .hint("remove it first"));
        }
    }
    let temp = TempName::new();
    dir.make_symlink(program, temp.as_cstr())?;
    dir.rename(temp.as_cstr(), &name).inspect_err(|_| {
        let _ = dir.remove_file(temp.as_cstr());
    })?;
    Ok(format!("-> {shown}"))
}

fn this_program() -> Result<CString> {
    let path = std::env::current_exe().map_err(|error| {
        Error::failed("find the path of this program", os_errno(&error)).hint("mount /proc")
    })?;
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::plain("find the path of this program", "it has a NUL byte"))
}
