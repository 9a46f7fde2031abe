//! One line per change, in the form of rsync's `--itemize-changes` (rsync(1)), which operators read
//! already: update type, object type, then what differs in the order `cstpoguax`.
#![forbid(unsafe_code)]

use crate::fs::Kind;

/// The differences between source and destination object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Differences {
    /// Content (of a regular file), target (of a link) or device number.
    pub content: bool,
    /// Size of a regular file.
    pub size: bool,
    /// Modification time.
    pub time: bool,
    /// Permission bits.
    pub mode: bool,
    /// Owner.
    pub owner: bool,
    /// Group.
    pub group: bool,
    /// Access or default ACL.
    pub acl: bool,
    /// Other extended attributes.
    pub xattr: bool,
}

impl Differences {
    /// Whether anything differs.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// One change that a run makes, or would make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The object does not exist yet, or one of another type stands in its place.
    Create(Kind),
    /// The object is made anew with other content.
    Replace(Kind, Differences),
    /// Only metadata changes, in place.
    Touch(Kind, Differences),
    /// The name becomes a hard link.
    Link(Kind),
    /// The object is removed.
    Delete(Kind),
}

fn letter(kind: Kind) -> char {
    match kind {
        Kind::File => 'f',
        Kind::Dir => 'd',
        Kind::Symlink => 'L',
        Kind::Block | Kind::Char => 'D',
        Kind::Fifo | Kind::Socket => 'S',
    }
}

fn flags(differences: &Differences) -> String {
    let flag = |set: bool, letter: char| if set { letter } else { '.' };
    [
        flag(differences.content, 'c'),
        flag(differences.size, 's'),
        flag(differences.time, 't'),
        flag(differences.mode, 'p'),
        flag(differences.owner, 'o'),
        flag(differences.group, 'g'),
        '.',
        flag(differences.acl, 'a'),
        flag(differences.xattr, 'x'),
    ]
    .iter()
    .collect()
}

impl Change {
    /// The eleven characters before the name; `*deleting  ` for a removal.
    pub fn itemize(&self) -> String {
        match self {
            Self::Create(Kind::File) => ">f+++++++++".into(),
            Self::Create(kind) => format!("c{}+++++++++", letter(*kind)),
            Self::Replace(Kind::File, differences) => format!(">f{}", flags(differences)),
            Self::Replace(kind, differences) => format!("c{}{}", letter(*kind), flags(differences)),
            Self::Touch(kind, differences) => format!(".{}{}", letter(*kind), flags(differences)),
            Self::Link(kind) => format!("h{}+++++++++", letter(*kind)),
            Self::Delete(_) => "*deleting  ".into(),
        }
    }
}
