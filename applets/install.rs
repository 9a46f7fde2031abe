//! `--install DIR`: one symlink per applet, as busybox does; and `--stub NAME`, for an image whose entrypoint has to
//! be a script.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use molecule_tools::error::{Error, Result, escape, os_errno};
use molecule_tools::fs::{Dir, Kind, TempName};
use molecule_tools::log::{self, LogStream};
use tracing::Level;

use crate::applet::Applet;
use crate::exit::Status;
use molecule_tools::config;

const USAGE: &str = "usage: molecule-tools --install DIR [--as-entrypoint FILE]\n       \
    FILE is a path that ends in entrypoint.sh or start.sh";
const STUB_USAGE: &str = "usage: molecule-tools --stub entrypoint.sh|start.sh";
/// Names under which templates have their entrypoint; by each of them this program is the applet of that name.
const DROP_IN: [&str; 2] = ["entrypoint.sh", "start.sh"];

/// Whether a program of this name stands in the place of a template's entrypoint.
pub fn is_drop_in(name: &OsStr) -> bool {
    DROP_IN.iter().any(|drop_in| name == *drop_in)
}

pub fn run(arguments: &[OsString], applets: &[Applet]) -> Status {
    let (directory, entrypoint) = match arguments {
        [directory] => (directory, None),
        [directory, option, file] | [option, file, directory] if option == "--as-entrypoint" => {
            (directory, Some(Path::new(file)))
        }
        _ => return usage(USAGE),
    };
    if !entrypoint.is_none_or(|file| file.file_name().is_some_and(is_drop_in)) {
        return usage(USAGE);
    }
    let mut status = Status::Done;
    let mut report = |path: &Path, made: Result<String>| match made {
        Ok(what) => log::write_line(LogStream::Stdout, &format!("{}: {what}", escape(path))),
        Err(error) => {
            status = Status::Failed;
            log::complain("molecule-tools --install", Level::ERROR, &error.to_string());
        }
    };
    let names = applets.iter().map(|applet| OsStr::new(applet.name));
    make_links(Path::new(directory), names, &mut report);
    if let Some(file) = entrypoint {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        make_links(parent.unwrap_or(Path::new(".")), file.file_name().into_iter(), &mut report);
    }
    status
}

/// A script for templates whose entrypoint is read as text: it has what their checks look for, and is this program.
pub fn stub(arguments: &[OsString]) -> Status {
    let name = match arguments {
        [name] if is_drop_in(name) => name.to_string_lossy(),
        _ => return usage(STUB_USAGE),
    };
    let program = match this_program() {
        Ok(program) => program,
        Err(error) => {
            log::complain("molecule-tools --stub", Level::ERROR, &error.to_string());
            return Status::Failed;
        }
    };
    let text = format!(
        "#!/bin/sh\n\
         # {name}: the boot is that of molecule-tools, which ends in molecule-runtime with every argument.\n\
         # Its audit says of these whether they are set, and never a value:\n\
         for var in {}; do :; done\n\
         # Exactly \"true\" sets git credentials up and keeps them fresh:\n\
         : \"${{ENABLE_GITHUB_MIRROR_CREDENTIALS:-false}}\"\n\
         exec '{}' entrypoint \"$@\"",
        config::in_force().audit.variables.join(" "),
        program.display(),
    );
    log::write_line(LogStream::Stdout, &text);
    Status::Done
}

fn usage(text: &str) -> Status {
    log::write_line(LogStream::Stderr, text);
    Status::Usage
}

/// Links each name in `directory` to this program, and reports its path and what was done.
fn make_links<'a>(
    directory: &Path,
    names: impl Iterator<Item = &'a OsStr>,
    report: &mut impl FnMut(&Path, Result<String>),
) {
    let prepared = Dir::open_operator_path(directory).and_then(|dir| {
        let target = relative(&real_path(&dir)?, &this_program()?);
        let target = CString::new(target.into_os_string().into_vec());
        let refuse = |_| Error::plain("find the path of this program", "it has a NUL byte");
        Ok((dir, target.map_err(refuse)?))
    });
    match prepared {
        Ok((dir, target)) => {
            names.for_each(|name| report(&dir.path().join(name), link(&dir, name, &target)));
        }
        Err(error) => report(directory, Err(error)),
    }
}

/// The way to `program` from `directory`, both absolute and without links: it holds in a copy of the two in
/// another image too.
fn relative(directory: &Path, program: &Path) -> PathBuf {
    let (from, to) = (directory.components(), program.components());
    let common = from.clone().zip(to.clone()).take_while(|(from, to)| from == to).count();
    let up = from.skip(common).map(|_| Component::ParentDir);
    up.chain(to.skip(common)).collect()
}

/// Makes one link under a temporary name and renames it, so that the name never is absent.
fn link(dir: &Dir, name: &OsStr, program: &CString) -> Result<String> {
    let name = CString::new(name.as_bytes()).unwrap_or_default();
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

/// The path of `dir` without links.
fn real_path(dir: &Dir) -> Result<PathBuf> {
    let link = format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd());
    let path = rustix::fs::readlink(link, Vec::new())
        .map_err(|errno| Error::os("find the path of", dir.path(), errno).hint("mount /proc"))?;
    Ok(OsString::from_vec(path.into_bytes()).into())
}

fn this_program() -> Result<PathBuf> {
    std::env::current_exe().map_err(|error| {
        Error::failed("find the path of this program", os_errno(&error)).hint("mount /proc")
    })
}
