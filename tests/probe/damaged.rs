//! Nothing, noise, halves, wrong checksums and two signatures at once.

use std::os::fd::AsFd;

use crate::probe::image::Image;
use crate::support::{Case, Need, test_case};

const BLKID: Need = Need::Program("blkid");

pub fn cases() -> Vec<Case> {
    vec![
        test_case!(zeroes_and_noise_are_nothing, &[BLKID]),
        test_case!(a_file_too_small_for_anything, &[BLKID]),
        test_case!(an_image_cut_off_anywhere, CUT),
        test_case!(a_wrong_checksum_is_no_file_system, SUMMED),
        test_case!(two_signatures_are_ambivalent, &[BLKID, Need::Program("mke2fs")]),
        test_case!(the_second_luks_header_is_found, &[BLKID, Need::Program("cryptsetup")]),
        test_case!(unknown_features_and_larger_than_the_device, CUT),
        test_case!(a_device_that_cannot_be_read_is_an_error, &[Need::Program("mke2fs")]),
    ]
}

/// Numbers that look random and are the same in every run (xorshift64*).
pub fn noise(mut state: u64) -> impl Iterator<Item = u8> {
    std::iter::repeat_with(move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    })
}

fn zeroes_and_noise_are_nothing() {
    for megabytes in [1, 2, 70] {
        let image = Image::new(megabytes);
        let found = image.agreed();
        assert_eq!((found.fstype, found.table, found.ambivalent.len()), (None, None, 0));
    }
    for seed in 1..20 {
        let image = Image::new(2);
        let bytes: Vec<u8> = noise(seed).take(2 << 20).collect();
        image.write(0, &bytes);
        assert_eq!(image.agreed().fstype, None, "seed {seed}");
    }
}

fn a_file_too_small_for_anything() {
    for size in [0, 1, 511, 512, 513, 1024, 1025, 2048, 4096, 65536 + 64, 40960] {
        let image = Image::new(0);
        image.write(0, &vec![0; size]);
        let file = std::fs::File::open(image.path()).unwrap();
        let found = molecule_tools::volume::probe::probe(&file.as_fd());
        assert_eq!(found.unwrap().fstype, None, "{size} bytes");
    }
}

const CUT: &[Need] = &[
    BLKID,
    Need::Program("mke2fs"),
    Need::Program("mkfs.xfs"),
    Need::Program("mkfs.btrfs"),
    Need::Program("mkfs.fat"),
    Need::Program("mkntfs"),
    Need::Program("mkswap"),
    Need::Program("mkfs.nilfs2"),
    Need::Program("mkudffs"),
];

fn an_image_cut_off_anywhere() {
    for (megabytes, program, options) in [
        (16, "mke2fs", &["-q", "-F", "-t", "ext4"][..]),
        (320, "mkfs.xfs", &["-q"]),
        (128, "mkfs.btrfs", &["-q"]),
        (16, "mkfs.fat", &["-n", "NAME"]),
        (16, "mkntfs", &["-q", "-F", "-Q"]),
        (16, "mkswap", &["-q", "-p", "65536"]),
        (256, "mkfs.nilfs2", &["-q"]),
        (16, "mkudffs", &["-b", "512"]),
    ] {
        let image = Image::made(megabytes, program, options);
        for size in [8 << 20, 1 << 20, 1500 << 10, 140_000, 69_632, 65_600, 5000, 2048, 1536, 1100]
        {
            std::fs::File::options().write(true).open(image.path()).unwrap().set_len(size).unwrap();
            let found = image.agreed();
            assert!(found.ambivalent.is_empty(), "{program} cut to {size}: {found:?}");
        }
    }
}

const SUMMED: &[Need] = &[
    Need::Program("mke2fs"),
    Need::Program("mkfs.xfs"),
    Need::Program("mkfs.btrfs"),
    Need::Program("mkfs.f2fs"),
    Need::Program("mkfs.exfat"),
    Need::Program("mkfs.nilfs2"),
    Need::Program("make-bcache"),
];

/// A byte that nothing but the checksum covers. blkid compares these only since 2.39 (nilfs2 always),
/// so what it says depends on its age.
fn a_wrong_checksum_is_no_file_system() {
    for (megabytes, program, options, places) in [
        (16, "mke2fs", &["-q", "-F", "-t", "ext4", "-O", "metadata_csum"][..], &[1024 + 700][..]),
        (320, "mkfs.xfs", &["-q"], &[300]),
        (128, "mkfs.btrfs", &["-q"], &[65536 + 3000]),
        (64, "mkfs.f2fs", &["-q", "-O", "extra_attr,sb_checksum"], &[1024 + 1800]),
        (32, "mkfs.exfat", &[], &[700]),
        (256, "mkfs.nilfs2", &["-q"], &[1024 + 200, (256 << 20) - 4096 + 200]),
        (16, "make-bcache", &["-B"], &[4096 + 100]),
    ] {
        let image = Image::made(megabytes, program, options);
        let intact = image.probe();
        assert!(intact.fstype.is_some(), "{program}");
        for place in places {
            image.write(*place, &[image.byte(*place) ^ 0x10]);
        }
        assert_eq!(image.probe().fstype, None, "{program}");
    }
}

fn two_signatures_are_ambivalent() {
    let image = Image::made(16, "mke2fs", &["-q", "-F", "-t", "ext4"]);
    image.write(0, b"hsqs").write(28, &[4, 0]);
    let found = image.agreed();
    assert_eq!(found.ambivalent, ["ext4", "squashfs"]);
    assert_eq!((found.fstype, found.uuid, found.label), (None, None, None));
    // On what is no larger than a floppy the first one counts.
    let image = Image::made(1, "mke2fs", &["-q", "-F", "-t", "ext2"]);
    image.write(0, b"hsqs").write(28, &[4, 0]);
    assert_eq!(image.agreed().fstype, Some("ext2"));
}

fn the_second_luks_header_is_found() {
    let image = Image::new(32);
    let key = image.path().with_file_name("key");
    std::fs::write(&key, "key").unwrap();
    let options = ["luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2"];
    let cost = ["--pbkdf-force-iterations", "1000", "--key-file", key.to_str().unwrap()];
    image.run("cryptsetup", &[&options[..], &cost].concat());
    image.write(0, &[0; 4096]);
    assert_eq!(image.agreed().fstype, Some("crypto_LUKS"));
}

fn unknown_features_and_larger_than_the_device() {
    // Every incompatible feature: still told, the driver will refuse it.
    let image = Image::made(16, "mke2fs", &["-q", "-F", "-t", "ext4", "-O", "^metadata_csum"]);
    image.write(1024 + 0x60, &[0xf7, 0xff, 0xff, 0xff]);
    assert_eq!(image.agreed().fstype, Some("ext4"));
    // A superblock that counts more blocks than there are.
    let image = Image::made(16, "mke2fs", &["-q", "-F", "-t", "ext2"]);
    image.write(1024 + 4, &[0xff; 4]);
    assert_eq!(image.agreed().fstype, Some("ext2"));
}

/// Fails where a bad sector would.
struct Bad(Vec<u8>);

impl molecule_tools::volume::probe::ReadAt for Bad {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        match offset + buffer.len() as u64 > 1 << 20 {
            true => Err(std::io::Error::from_raw_os_error(5)),
            false => self.0.as_slice().read_at(offset, buffer),
        }
    }

    fn size(&self) -> std::io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

fn a_device_that_cannot_be_read_is_an_error() {
    let image = Image::made(16, "mke2fs", &["-q", "-F", "-t", "ext4"]);
    let mut bytes = std::fs::read(image.path()).unwrap();
    // What could be read is enough.
    let found = molecule_tools::volume::probe::probe(&Bad(bytes.clone())).unwrap();
    assert_eq!(found.fstype, Some("ext4"));
    // Yet not all there may be.
    assert_eq!(found.unread, Some(rustix::io::Errno::IO));
    let whole = molecule_tools::volume::probe::probe(&&bytes[..]).unwrap();
    assert_eq!((whole.fstype, whole.unread), (Some("ext4"), None));
    bytes[1024..2048].fill(0);
    let error = molecule_tools::volume::probe::probe(&Bad(bytes)).unwrap_err().to_string();
    assert!(error.starts_with("read the device: Input/output error"), "{error}");
}
