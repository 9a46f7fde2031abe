//! The number of the mount that an object was reached through, where statx(2) does not return it: before Linux
//! 5.8, and where it is emulated or filtered.
#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// That of an open object (O_PATH will do), from `mnt_id` of proc_pid_fdinfo(5).
///
/// # Errors
///
/// ENOSYS where there is no /proc that tells; ENOENT would say something about the object.
#[cold]
pub fn mount_id(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let number = fd.as_raw_fd().to_string();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let open = || {
        let directory = rustix::fs::open(c"/proc/self/fdinfo", flags, Mode::empty())?;
        let file = rustix::fs::openat(&directory, number, flags, Mode::empty())?;
        // It is among the first lines.
        let mut text = [0; 512];
        let length = rustix::io::read(&file, &mut text)?;
        parse(&text[..length]).ok_or(Errno::NOSYS)
    };
    open().map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR => Errno::NOSYS,
        other => other,
    })
}

fn parse(text: &[u8]) -> Option<u64> {
    let mut lines = text.split(|&byte| byte == b'\n');
    let number = lines.find_map(|line| line.strip_prefix(b"mnt_id:"))?;
    std::str::from_utf8(number.trim_ascii()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::super::at;
    use super::*;

    #[test]
    fn it_is_the_number_that_statx_returns() {
        for path in ["/", "/proc", "/dev"] {
            let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
            assert_eq!(mount_id(fd.as_fd()).unwrap(), at::stat_fd(&fd).unwrap().mount_id, "{path}");
        }
    }
}
