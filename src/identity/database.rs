//! The passwd(5) and group(5) files below a root.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use users::os::unix::{GroupExt as _, UserExt as _};
use users::{Group, User};

use crate::error::{Error, Result};
use crate::fs::{Dir, Kind};

/// Largest passwd or group file that is read, in bytes; some 100 bytes a line, a million users.
const LIMIT: u64 = 128 << 20;

/// One line of the passwd file.
#[derive(Debug, Clone)]
pub(super) enum Record {
    /// A complete line.
    Good(User),
    /// A line whose ids or home cannot be used. It is kept because the first line of a name or uid
    /// counts: whoever asks for it must be refused, not be given a later line or a default of 0.
    Malformed {
        /// First field.
        name: Vec<u8>,
        /// Third field, where that is a uid.
        uid: Option<u32>,
        /// Counted from 1.
        line: usize,
        /// The field that is wrong.
        field: &'static str,
    },
}

/// Users and groups in the order of their files.
#[derive(Debug, Clone, Default)]
pub struct Database {
    users: Vec<Record>,
    groups: Vec<Group>,
}

impl Database {
    /// Reads `etc/passwd` and `etc/group` below `root`; links are resolved as if `root` were "/". A
    /// file that does not exist is an empty one.
    pub fn read(root: &Dir) -> Result<Self> {
        let passwd = read_within(root, c"etc/passwd")?;
        let group = read_within(root, c"etc/group")?;
        Ok(Self::parse(&passwd, &group))
    }

    /// Parses the contents of the two files. Lines end with LF; blanks around a line, empty lines
    /// and lines that start with `#` do not count. A group line without a usable gid is skipped.
    pub fn parse(passwd: &[u8], group: &[u8]) -> Self {
        Self {
            users: lines(passwd).map(|(number, line)| parse_user(number, line)).collect(),
            groups: lines(group).filter_map(|(_, line)| parse_group(line)).collect(),
        }
    }

    /// The first line named `name`, if it is a good one.
    pub fn user_by_name(&self, name: &OsStr) -> Option<&User> {
        good(self.record_by_name(name)?)
    }

    /// The first line with `uid`, if it is a good one.
    pub fn user_by_uid(&self, uid: u32) -> Option<&User> {
        good(self.record_by_uid(uid)?)
    }

    /// The first group named `name`.
    pub fn group_by_name(&self, name: &OsStr) -> Option<&Group> {
        self.groups.iter().find(|group| group.name() == name)
    }

    /// The first group with `gid`.
    pub fn group_by_gid(&self, gid: u32) -> Option<&Group> {
        self.groups.iter().find(|group| group.gid() == gid)
    }

    /// The gids of all groups whose member list has `name`, in the order of the file. The primary
    /// group of the user is not added, and members are never numbers.
    pub fn groups_of(&self, name: &OsStr) -> Vec<u32> {
        let is_member = |group: &&Group| group.members().iter().any(|member| member == name);
        self.groups.iter().filter(is_member).map(Group::gid).collect()
    }

    /// The first line named `name`, good or not.
    pub(super) fn record_by_name(&self, name: &OsStr) -> Option<&Record> {
        self.users.iter().find(|record| match record {
            Record::Good(user) => user.name() == name,
            Record::Malformed { name: found, .. } => found == name.as_bytes(),
        })
    }

    /// The first line with `uid`, good or not.
    pub(super) fn record_by_uid(&self, uid: u32) -> Option<&Record> {
        self.users.iter().find(|record| match record {
            Record::Good(user) => user.uid() == uid,
            Record::Malformed { uid: found, .. } => *found == Some(uid),
        })
    }
}

fn good(record: &Record) -> Option<&User> {
    match record {
        Record::Good(user) => Some(user),
        Record::Malformed { .. } => None,
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

/// `name:password:uid:gid:gecos:home:shell`; fields after the gid may be missing.
fn parse_user(line_number: usize, line: &[u8]) -> Record {
    let mut fields = line.split(|&byte| byte == b':');
    let mut next = || fields.next().unwrap_or_default();
    let (name, _password, uid, gid, _gecos, home) =
        (next(), next(), next(), next(), next(), next());
    let (uid, gid) = (parse_id(uid), parse_id(gid));
    let malformed =
        |field| Record::Malformed { name: name.to_vec(), uid, line: line_number, field };
    match (uid, gid) {
        (None, _) => malformed("uid"),
        (_, None) => malformed("gid"),
        _ if home.contains(&0) => malformed("home"),
        (Some(uid), Some(gid)) => Record::Good(
            User::new(uid, OsStr::from_bytes(name), gid).with_home_dir(OsStr::from_bytes(home)),
        ),
    }
}

/// `name:password:gid:member,member`; none without a usable gid.
fn parse_group(line: &[u8]) -> Option<Group> {
    let mut fields = line.split(|&byte| byte == b':');
    let mut next = || fields.next().unwrap_or_default();
    let (name, _password, gid, members) = (next(), next(), next(), next());
    let group = Group::new(parse_id(gid)?, OsStr::from_bytes(name));
    let members = members.split(|&byte| byte == b',').filter(|member| !member.is_empty());
    Some(members.fold(group, |group, member| group.add_member(OsStr::from_bytes(member))))
}

/// A decimal id below 2^32 - 1, which as -1 means "leave as it is" to the kernel.
fn parse_id(field: &[u8]) -> Option<u32> {
    let id: u32 = std::str::from_utf8(field).ok()?.parse().ok()?;
    (id != u32::MAX).then_some(id)
}

/// Reads a file below `root`, whose owner is trusted with links inside it; empty if absent.
fn read_within(root: &Dir, path: &CStr) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let shown = root.join(path);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let fd = match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(errno) => return Err(Error::os("open", shown, errno)),
    };
    let stat = rustix::fs::fstat(&fd).map_err(|errno| Error::os("stat", &shown, errno))?;
    match Kind::from_mode(stat.st_mode) {
        Kind::File => {}
        kind => return Err(Error::on("read", shown, format!("it is {}", kind.noun()))),
    }
    let mut bytes = Vec::with_capacity(usize::try_from(stat.st_size).unwrap_or(0).min(1 << 20) + 1);
    std::fs::File::from(fd).take(LIMIT + 1).read_to_end(&mut bytes).map_err(|error| {
        Error::os("read", &shown, Errno::from_io_error(&error).unwrap_or(Errno::IO))
    })?;
    match bytes.len() as u64 > LIMIT {
        true => Err(Error::on("read", shown, format!("it is larger than {LIMIT} bytes"))),
        false => Ok(bytes),
    }
}
