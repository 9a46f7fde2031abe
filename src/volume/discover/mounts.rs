//! What is mounted where, from mountinfo (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::super::device::Number;

/// Mounts of block devices.
#[derive(Debug, Clone, Default)]
pub struct Mounts(Vec<Mount>);

#[derive(Debug, Clone)]
struct Mount {
    number: Number,
    source: Vec<u8>,
    point: PathBuf,
}

impl Mounts {
    /// Adds the lines of a mountinfo file; lines of another form are passed over.
    pub fn add(&mut self, mountinfo: &[u8]) {
        self.0.extend(mountinfo.split(|&byte| byte == b'\n').filter_map(parse));
    }

    /// Where block device `number` with kernel name `name` is mounted. The name counts for file
    /// systems that show a number of their own (btrfs).
    pub fn point(&self, number: Number, name: &str) -> Option<&PathBuf> {
        self.0
            .iter()
            .find(|mount| {
                mount.number == number
                    || mount.source.strip_prefix(b"/dev/").is_some_and(|it| it == name.as_bytes())
            })
            .map(|mount| &mount.point)
    }
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let number = super::sysfs::parse_number(fields.nth(2)?)?;
    let point = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    // A variable number of optional fields, then "-", the type, the source.
    let source = unescape(fields.skip_while(|field| *field != b"-").nth(2)?);
    Some(Mount { number, source, point })
}

/// Undoes the kernel's `\NNN` for space, tab, newline and backslash.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if first == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        bytes.push(octal.unwrap_or(first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_parsed(line in "([0-9]{1,4} |[0-9]{1,3}:[0-9]{1,3} |- |\\\\[0-9]{0,3}|[a-z/\n] ?){0,30}") {
            Mounts::default().add(line.as_bytes());
        }

        #[test]
        fn what_the_kernel_escapes_comes_back(name in proptest::collection::vec(1_u8..=255, 1..40)) {
            let escaped: Vec<u8> = name
                .iter()
                .flat_map(|byte| match byte {
                    b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
                    byte => vec![*byte],
                })
                .collect();
            prop_assert_eq!(unescape(&escaped), name);
        }
    }

    #[test]
    fn a_mount_is_found_by_number_and_by_source() {
        let mut mounts = Mounts::default();
        mounts.add(
            b"29 1 259:2 / / rw,relatime shared:1 - xfs /dev/nvme0n1p1 rw\n\
              30 29 0:31 / /a\\040b\\134 rw shared:2 master:3 - btrfs /dev/nvme2n1 rw,subvolid=5\n\
              garbage\n\n40 29 259:9\n",
        );
        let point = |number, name| mounts.point(number, name).map(|p| p.to_str().unwrap());
        assert_eq!(point((259, 2), "nvme0n1p1"), Some("/"));
        assert_eq!(point((259, 5), "nvme2n1"), Some("/a b\\"));
        assert_eq!(point((259, 9), "nvme1n1"), None);
    }
}
