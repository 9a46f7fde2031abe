//! The checksums that superblocks and partition tables carry.
#![forbid(unsafe_code)]

use std::ops::Range;

use crc::{Algorithm, CRC_32_ISCSI, CRC_32_ISO_HDLC, CRC_64_WE, Crc, Table};

type Crc32 = Crc<u32, Table<1>>;

static CRC32C: Crc32 = Crc32::new(&CRC_32_ISCSI);
static CRC32: Crc32 = Crc32::new(&CRC_32_ISO_HDLC);
static BCACHE: Crc<u64, Table<1>> = Crc::<u64, Table<1>>::new(&CRC_64_WE);
static PLAIN: Crc32 = Crc32::new(&PLAIN_ALGORITHM);

/// CRC-32 that is not inverted at the end.
static PLAIN_ALGORITHM: Algorithm<u32> = Algorithm { xorout: 0, ..CRC_32_ISO_HDLC };

/// Whether a stored checksum is the computed one. A fuzzer cannot guess one, an attacker can compute it:
/// when fuzzing, all are right, so that what stands behind them is reached.
pub fn holds<T: PartialEq>(computed: T, stored: T) -> bool {
    cfg!(fuzzing) || computed == stored
}

/// CRC-32C (Castagnoli) with the usual inversions.
pub fn crc32c(bytes: &[u8]) -> u32 {
    CRC32C.checksum(bytes)
}

/// CRC-32C with the bytes of `hole`, where the checksum itself stands, taken as zero.
pub fn crc32c_without(bytes: &[u8], hole: Range<usize>) -> Option<u32> {
    without(&CRC32C, bytes, hole)
}

/// CRC-32 of Ethernet and zlib, with the bytes of `hole` taken as zero.
pub fn crc32_without(bytes: &[u8], hole: Range<usize>) -> Option<u32> {
    without(&CRC32, bytes, hole)
}

/// CRC-32 of Ethernet and zlib.
pub fn crc32(bytes: &[u8]) -> u32 {
    CRC32.checksum(bytes)
}

/// CRC-32 that starts from `seed` and is not inverted at the end (f2fs, LVM, NILFS2).
pub fn crc32_from(seed: u32, bytes: &[u8]) -> u32 {
    let mut digest = PLAIN.digest_with_initial(seed.reverse_bits());
    digest.update(bytes);
    digest.finalize()
}

/// The checksum of a bcache superblock.
pub fn bcache(bytes: &[u8]) -> u64 {
    BCACHE.checksum(bytes)
}

fn without(crc: &'static Crc32, bytes: &[u8], hole: Range<usize>) -> Option<u32> {
    let mut digest = crc.digest();
    digest.update(bytes.get(..hole.start)?);
    for _ in hole.clone() {
        digest.update(&[0]);
    }
    digest.update(bytes.get(hole.end..)?);
    Some(digest.finalize())
}
