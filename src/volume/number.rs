//! Device numbers: as text, and as the kernel packs them.
#![forbid(unsafe_code)]

/// (major, minor) of a device.
pub type DeviceNumber = (u32, u32);

/// `MAJOR:MINOR`
pub fn parse(text: &[u8]) -> Option<DeviceNumber> {
    let (major, minor) = std::str::from_utf8(text).ok()?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The kernel's huge_encode_dev() (linux/kdev_t.h): 12 bits of major number amid 20 of minor.
pub fn from_kernel(device: u64) -> DeviceNumber {
    let bits = |shift: u32, mask: u64| u32::try_from(device >> shift & mask).unwrap_or(0);
    (bits(8, 0xfff), bits(0, 0xff) | bits(12, 0xf_ff00))
}

/// A `dev_t` of the C library's (makedev(3)): `st_dev` or `st_rdev` of stat(2).
pub fn from_stat(device: u64) -> DeviceNumber {
    (rustix::fs::major(device), rustix::fs::minor(device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_header() {
        assert_eq!(from_kernel(0x703), (7, 3));
        assert_eq!(from_kernel(0x1001_03ff), (0x103, 0x100ff));
    }

    #[test]
    fn text_is_two_numbers_with_a_colon() {
        assert_eq!(parse(b"259:3"), Some((259, 3)));
        for broken in [&b"259"[..], b"259:", b":3", b"259:3\n", b"a:b", b"\xff:1"] {
            assert_eq!(parse(broken), None);
        }
    }
}
