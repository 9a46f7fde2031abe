//! The passwd(5) and group(5) files below a root.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use users::os::unix::{GroupExt as _, UserExt as _};
use users::{Group, User};

use crate::error::{Error, Result, os_errno};
use crate::fs::{Dir, Kind};

/// Most that is read of the passwd file, and of the group file, in bytes: some 160,000 users.
const LIMIT: usize = 16 << 20;

/// Users and groups in the order of their files. Look-ups read the text; only what is found is made a
/// record.
#[derive(Debug, Clone, Default)]
pub struct UserDatabase {
    passwd: Vec<u8>,
    group: Vec<u8>,
    /// Whether the passwd file goes on beyond what was read.
    cut: bool,
}

impl UserDatabase {
    /// Reads `etc/passwd` and `etc/group` below `root`; links are resolved as if `root` were "/". A
    /// file that does not exist is an empty one. What fails is tried once more: the disk of an image
    /// may be on a network. Of a passwd file larger than 16 MiB the lines that lie within count, for the
    /// first line of a name decides; who is not among them is not known to be absent
    /// ([`UserDatabase::unread`]). A group file that large is an error: any line may list the user.
    pub fn read(root: &Dir) -> Result<Self> {
        match Self::read_users(root)? {
            (database, None) => Ok(database),
            (_, Some(error)) => Err(error),
        }
    }

    /// The same for a caller who can do without groups: a group file that cannot be read is an empty one,
    /// and the reason is returned.
    pub fn read_users(root: &Dir) -> Result<(Self, Option<Error>)> {
        let read = |path| read_within(root, path).or_else(|_| read_within(root, path));
        let mut passwd = read(c"etc/passwd")?;
        let cut = passwd.len() > LIMIT;
        if cut {
            let last = passwd.iter().rposition(|&byte| byte == b'\n');
            passwd.truncate(last.map_or(0, |newline| newline + 1));
        }
        let group = read(c"etc/group").and_then(|group| match group.len() > LIMIT {
            true => Err(too_large("/etc/group")),
            false => Ok(group),
        });
        let (group, error) = match group {
            Ok(group) => (group, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        Ok((Self { passwd, group, cut }, error))
    }

    /// Why a user who is not found may be there all the same, if that is so.
    pub fn unread(&self) -> Option<Error> {
        self.cut.then(|| too_large("/etc/passwd"))
    }

    /// The contents of the two files. Lines end with LF; blanks around a line, empty lines and lines
    /// that start with `#` do not count. A group line without a usable gid is skipped.
    pub fn new(passwd: Vec<u8>, group: Vec<u8>) -> Self {
        Self { passwd, group, cut: false }
    }

    /// The first line named `name`, if it is a good one.
    pub fn user_by_name(&self, name: &OsStr) -> Option<User> {
        self.entry_by_name(name)?.user().ok()
    }

    /// The first line with `uid`, if it is a good one.
    pub fn user_by_uid(&self, uid: u32) -> Option<User> {
        self.entry_by_uid(uid)?.user().ok()
    }

    /// The first group named `name`.
    pub fn group_by_name(&self, name: &OsStr) -> Option<Group> {
        self.groups().find(|group| group.name == name.as_bytes()).map(GroupEntry::group)
    }

    /// The first group with `gid`.
    pub fn group_by_gid(&self, gid: u32) -> Option<Group> {
        self.groups().find(|group| group.gid == gid).map(GroupEntry::group)
    }

    /// The gids of all groups whose member list has `name`, in the order of the file. The primary
    /// group of the user is not added, and members are never numbers.
    pub fn groups_of(&self, name: &OsStr) -> Vec<u32> {
        let lists_name = |group: &GroupEntry<'_>| group.members().any(|member| member == name);
        self.groups().filter(lists_name).map(|group| group.gid).collect()
    }

    /// The first line named `name`, good or not.
    pub(super) fn entry_by_name(&self, name: &OsStr) -> Option<UserEntry<'_>> {
        self.users().find(|user| user.name == name.as_bytes())
    }

    /// The first line with `uid`, good or not.
    pub(super) fn entry_by_uid(&self, uid: u32) -> Option<UserEntry<'_>> {
        self.users().find(|user| user.uid == Some(uid))
    }

    fn users(&self) -> impl Iterator<Item = UserEntry<'_>> {
        lines(&self.passwd).map(|(number, line)| UserEntry::parse(number, line))
    }

    fn groups(&self) -> impl Iterator<Item = GroupEntry<'_>> {
        lines(&self.group).filter_map(|(_, line)| GroupEntry::parse(line))
    }
}

/// The lines that count, numbered from 1, without the blanks around them.
fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    // Vertical tab included, which `trim_ascii` leaves.
    let is_blank = |byte: &u8| matches!(byte, b'\t'..=b'\r' | b' ');
    text.split(|&byte| byte == b'\n').zip(1..).filter_map(move |(line, number)| {
        let start = line.iter().position(|byte| !is_blank(byte))?;
        let end = line.iter().rposition(|byte| !is_blank(byte))?;
        (line[start] != b'#').then(|| (number, &line[start..=end]))
    })
}

/// One line of the passwd file: `name:password:uid:gid:gecos:home:shell`; fields after the gid may be
/// missing. A line whose ids or home cannot be used counts as well, because the first line of a name
/// or uid decides: a caller who asks for it must be refused, not be given a later line or a default of 0.
pub(super) struct UserEntry<'a> {
    /// Counted from 1.
    pub(super) line: usize,
    name: &'a [u8],
    uid: Option<u32>,
    gid: Option<u32>,
    home: &'a [u8],
}

impl<'a> UserEntry<'a> {
    fn parse(line_number: usize, line: &'a [u8]) -> Self {
        let mut fields = line.split(|&byte| byte == b':');
        let mut next = || fields.next().unwrap_or_default();
        let (name, _password, uid, gid) = (next(), next(), next(), next());
        let (_gecos, home) = (next(), next());
        Self { line: line_number, name, uid: parse_id(uid), gid: parse_id(gid), home }
    }

    /// The line as a record, or the name of the field that is malformed.
    pub(super) fn user(&self) -> Result<User, &'static str> {
        let (uid, gid) = (self.uid.ok_or("uid")?, self.gid.ok_or("gid")?);
        match self.home.contains(&0) {
            true => Err("home"),
            false => Ok(User::new(uid, OsStr::from_bytes(self.name), gid)
                .with_home_dir(OsStr::from_bytes(self.home))),
        }
    }
}

/// One good line of the group file: `name:password:gid:member,member`.
struct GroupEntry<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

impl<'a> GroupEntry<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|&byte| byte == b':');
        let mut next = || fields.next().unwrap_or_default();
        let (name, _password, gid, members) = (next(), next(), next(), next());
        Some(Self { name, gid: parse_id(gid)?, members })
    }

    fn members(&self) -> impl Iterator<Item = &'a OsStr> + use<'a> {
        let members = self.members.split(|&byte| byte == b',');
        members.filter(|member| !member.is_empty()).map(OsStr::from_bytes)
    }

    fn group(self) -> Group {
        let group = Group::new(self.gid, OsStr::from_bytes(self.name));
        self.members().fold(group, |group, member| group.add_member(member))
    }
}

/// A decimal id below 2^32 - 1, which as -1 means "leave as it is" to the kernel.
fn parse_id(field: &[u8]) -> Option<u32> {
    let id: u32 = std::str::from_utf8(field).ok()?.parse().ok()?;
    (id != u32::MAX).then_some(id)
}

fn too_large(path: &str) -> Error {
    Error::on("read all of", path, format!("it is larger than {} MiB", LIMIT >> 20))
        .hint("make it smaller")
}

/// Reads a file below `root`, whose owner is trusted with links inside it: a byte more than [`LIMIT`]
/// at most; empty if absent.
fn read_within(root: &Dir, path: &CStr) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let shown = root.join(path);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let fd = match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        // No such call before Linux 5.6, and older container sandboxes forbid what they do not know.
        Err(Errno::NOSYS | Errno::PERM) => match open_without_links(root, path)? {
            Some(fd) => fd,
            None => return Ok(Vec::new()),
        },
        Err(errno) => return Err(Error::os("open", shown, errno)),
    };
    let stat = rustix::fs::fstat(&fd).map_err(|errno| Error::os("stat", &shown, errno))?;
    match Kind::from_mode(stat.st_mode) {
        Kind::File => {}
        kind => return Err(Error::on("read", shown, format!("it is {}", kind.noun()))),
    }
    let mut bytes = Vec::with_capacity(usize::try_from(stat.st_size).unwrap_or(0).min(LIMIT) + 1);
    std::fs::File::from(fd)
        .take(LIMIT as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::os("read", &shown, os_errno(&error)))?;
    Ok(bytes)
}

/// Opens a file below `root` component by component, where a link is refused; `None` if absent.
fn open_without_links(root: &Dir, path: &CStr) -> Result<Option<OwnedFd>> {
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let Some(parent) = root.open_beneath(parent)? else { return Ok(None) };
    let name = CString::new(name.as_bytes()).unwrap_or_default();
    match parent.open_file(&name) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
