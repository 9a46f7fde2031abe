//! Why one step failed: everything the mirror can fail with.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use rustix::io::Errno;

use crate::error::{Error, describe};

/// Which tree a failed operation was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The tree that is read.
    Source,
    /// The tree that is written.
    Destination,
}

/// See the module's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A system call on an object or its content.
    Os { side: Side, operation: &'static str, errno: Errno },
    /// One attribute of an object of the destination. It can be too large for a file system, or beyond
    /// its owner's quota, where there is room for everything else.
    Attribute { operation: &'static str, errno: Errno },
    /// Something at the destination could not be removed.
    Removal { operation: &'static str, errno: Errno },
    /// A directory that was to be removed at the destination has something mounted on it.
    MountedOver,
    /// A directory that was to be removed at the destination lies too deep in others.
    TooDeep,
    /// The source entry is gone since it was listed.
    Vanished,
    /// The source ended before its size.
    Shrunk,
    /// The file is larger than what the destination has left, or (EFBIG) than a file may be there. It has
    /// not been read to its end.
    TooLarge(Errno),
    /// The destination gave the file another modification time.
    TimesNotKept,
    /// The run ends.
    Stopped,
}

/// The result of one step.
pub(super) type Step<T = ()> = Result<T, Fault>;

impl Fault {
    /// For `map_err` of a call that reads the source.
    pub fn source(operation: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| match errno {
            Errno::NOENT => Self::Vanished,
            _ => Self::Os { side: Side::Source, operation, errno },
        }
    }

    /// For `map_err` of a call on the destination.
    pub fn destination(operation: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| match errno {
            Errno::FBIG => Self::TooLarge(errno),
            _ => Self::Os { side: Side::Destination, operation, errno },
        }
    }

    pub fn side(&self) -> Side {
        match self {
            Self::Os { side, .. } => *side,
            Self::Vanished | Self::Shrunk => Side::Source,
            _ => Side::Destination,
        }
    }

    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Os { errno, .. }
            | Self::Attribute { errno, .. }
            | Self::Removal { errno, .. }
            | Self::TooLarge(errno) => Some(*errno),
            _ => None,
        }
    }

    fn operation(&self) -> &'static str {
        match self {
            Self::Os { operation, .. }
            | Self::Attribute { operation, .. }
            | Self::Removal { operation, .. } => operation,
            Self::MountedOver | Self::TooDeep => "remove",
            Self::Vanished | Self::Shrunk | Self::Stopped => "read",
            Self::TooLarge(Errno::FBIG) => "write",
            Self::TooLarge(_) => "allocate space for",
            Self::TimesNotKept => "set times of",
        }
    }

    fn cause(&self) -> &'static str {
        match self {
            Self::MountedOver => "something is mounted there",
            Self::TooDeep => "it lies too deep",
            Self::Vanished => "it vanished",
            Self::Shrunk => "it shrank while it was read",
            Self::TimesNotKept => "the file system does not keep it",
            _ => "the run ends",
        }
    }

    /// Operation and the kernel's reason, one line.
    pub fn reason(&self) -> String {
        let cause = self.errno().map_or_else(|| self.cause().into(), describe);
        format!("{}: {cause}", self.operation())
    }

    /// The line that the log shows of it, about the object at `path`.
    pub fn error(&self, path: PathBuf) -> Error {
        let error = match self.errno() {
            Some(errno) => Error::os(self.operation(), path, errno),
            None => Error::on(self.operation(), path, self.cause()),
        };
        match (self, self.errno()) {
            (Self::MountedOver, _) => error.hint("unmount it, it is left alone with what is in it"),
            (Self::TooDeep, _) => error.hint("remove what is in it by hand"),
            (Self::Shrunk, _) => error.hint("restore again"),
            (Self::TimesNotKept, _) => error.hint("every restore into it will copy everything"),
            (_, Some(Errno::NOSPC | Errno::DQUOT)) => {
                error.hint("free space there and restore again")
            }
            (_, Some(Errno::FBIG)) => error.hint("raise the limit of a file's size (ulimit -f)"),
            (_, Some(Errno::ROFS)) => error.hint("make the destination writable and restore again"),
            (_, Some(Errno::PERM)) if self.side() == Side::Destination => {
                error.hint("look for an immutable file (lsattr) or a missing capability")
            }
            (_, Some(Errno::IO | Errno::UCLEAN)) => {
                error.hint("the volume is damaged; check the snapshot")
            }
            _ => error,
        }
    }

    /// Whether there was no room at the destination for an object or its content.
    pub fn is_full(&self) -> bool {
        let making = matches!(self, Self::Os { side: Side::Destination, .. });
        making && matches!(self.errno(), Some(Errno::NOSPC | Errno::DQUOT))
    }

    /// Whether the destination may not be written there.
    pub fn is_read_only(&self) -> bool {
        self.side() == Side::Destination && self.errno() == Some(Errno::ROFS)
    }
}

/// The attributes of one object that could not be changed. The others are still changed, for content
/// with a wrong attribute is worth more than none.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct AttributeFaults(Vec<(&'static str, Errno)>);

impl AttributeFaults {
    /// Notes the error of a call, if it has failed; whether it has not.
    pub fn check(&mut self, operation: &'static str, result: Result<(), Errno>) -> bool {
        if let Err(errno) = result {
            self.add(operation, errno);
        }
        result.is_ok()
    }

    pub fn add(&mut self, operation: &'static str, errno: Errno) {
        self.0.push((operation, errno));
    }

    pub fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    /// Whether one was a matter of permissions.
    pub fn has_refusal(&self) -> bool {
        self.0.iter().any(|(_, errno)| *errno == Errno::ACCESS)
    }
}

impl IntoIterator for AttributeFaults {
    type Item = Fault;
    type IntoIter = std::iter::Map<
        std::vec::IntoIter<(&'static str, Errno)>,
        fn((&'static str, Errno)) -> Fault,
    >;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().map(|(operation, errno)| Fault::Attribute { operation, errno })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_source_no_longer_has_vanished() {
        assert_eq!(Fault::source("open")(Errno::NOENT), Fault::Vanished);
        let broken = Fault::source("open")(Errno::IO);
        assert_eq!((broken.side(), broken.errno()), (Side::Source, Some(Errno::IO)));
        assert_ne!(Fault::destination("open")(Errno::NOENT), Fault::Vanished);
    }

    #[test]
    fn an_attribute_that_has_no_room_does_not_make_the_destination_full() {
        let attribute = Fault::Attribute { operation: "set xattr of", errno: Errno::NOSPC };
        assert!(!attribute.is_full());
        assert!(Fault::destination("write")(Errno::NOSPC).is_full());
        assert!(!Fault::source("read")(Errno::NOSPC).is_full());
    }

    #[test]
    fn a_line_says_operation_path_cause_and_what_to_do() {
        let line = Fault::Shrunk.error("a/b".into()).to_string();
        assert_eq!(line, "read a/b: it shrank while it was read; restore again");
        assert_eq!(Fault::Shrunk.reason(), "read: it shrank while it was read");
        let line = Fault::destination("write")(Errno::FBIG).error("a".into()).to_string();
        assert!(line.starts_with("write a: ") && line.ends_with("(ulimit -f)"), "{line}");
    }
}
