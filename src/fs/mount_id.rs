//! The number of the mount that an object was reached through, where statx(2) does not return it: before Linux
//! 5.8, and where it is emulated or filtered.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd as _};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// That of an open object (O_PATH will do), from `mnt_id` of proc_pid_fdinfo(5).
///
/// # Errors
///
/// ENOSYS where /proc does not tell either.
pub fn mount_id(fd: impl AsFd) -> Result<u64, Errno> {
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let read = || {
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        // It is among the first lines.
        let mut text = [0; 512];
        let length = rustix::io::read(&file, &mut text).ok()?;
        let mut lines = text[..length].split(|&byte| byte == b'\n');
        let number = lines.find_map(|line| line.strip_prefix(b"mnt_id:"))?;
        std::str::from_utf8(number.trim_ascii()).ok()?.parse().ok()
    };
    // Never ENOENT or the like, which would say something about the object.
    read().ok_or(Errno::NOSYS)
}

#[cfg(test)]
mod tests {
    use super::super::at;
    use super::*;

    #[test]
    fn it_is_the_number_that_statx_returns() {
        for path in ["/", "/proc", "/dev"] {
            let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
            assert_eq!(mount_id(&fd).unwrap(), at::stat_fd(&fd).unwrap().mount_id, "{path}");
        }
    }
}
