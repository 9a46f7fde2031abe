//! Every format as its own tool makes it is told as blkid tells it.

use crate::image::Image;
use crate::support::{Case, Need, case};

const BLKID: Need = Need::Program("blkid");

pub fn cases() -> Vec<Case> {
    vec![
        case("ext2_ext3_ext4_are_told_apart", &[BLKID, Need::Program("mke2fs")], ext),
        case(
            "a_damaged_ext_superblock_gives_the_place_of_its_copy",
            &[Need::Program("mke2fs")],
            ext_backup,
        ),
        case("xfs_old_and_new", &[BLKID, Need::Program("mkfs.xfs")], xfs),
        case("btrfs_with_every_checksum", &[BLKID, Need::Program("mkfs.btrfs")], btrfs),
        case("bcache_backing_and_cache_device", &[BLKID, Need::Program("make-bcache")], bcache),
        case("luks_1_and_2", &[BLKID, Need::Program("cryptsetup")], luks),
    ]
}

/// The image's type, identifier and label are blkid's, and the type is `name`.
fn is(image: &Image, name: &str) {
    let found = image.agreed();
    assert_eq!(found.fstype, Some(name), "{found:?}");
    assert!(found.uuid.is_some() || matches!(name, "squashfs" | "squashfs3"), "{found:?}");
}

fn ext() {
    for (name, options) in [
        ("ext2", &["-t", "ext2", "-L", "a label"][..]),
        ("ext2", &["-t", "ext2", "-b", "4096"]),
        ("ext3", &["-t", "ext3"]),
        ("ext4", &["-t", "ext4", "-L", "sixteen letters!"]),
        ("ext4", &["-t", "ext4", "-O", "^metadata_csum,^64bit", "-b", "2048"]),
        ("ext4", &["-t", "ext4", "-O", "metadata_csum,64bit"]),
        ("ext4", &["-t", "ext4", "-O", "^has_journal"]),
        ("ext4", &["-t", "ext4", "-O", "bigalloc"]),
        ("jbd", &["-O", "journal_dev", "-b", "4096"]),
    ] {
        let image = Image::made(16, "mke2fs", &[&["-q", "-F"], options].concat());
        is(&image, name);
    }
}

fn ext_backup() {
    for (block_size, megabytes, place) in [(1024, 16, 8193), (2048, 64, 32768), (4096, 256, 131072)]
    {
        let size = block_size.to_string();
        let options = ["-q", "-F", "-t", "ext4", "-L", "kept", "-b", &size];
        let image = Image::made(megabytes, "mke2fs", &options);
        let intact = image.probe();
        image.write(1024, &[0; 1024]);
        let damaged = image.agreed();
        assert_eq!(damaged.fstype, None);
        let backup = damaged.ext_backup.unwrap();
        assert_eq!(
            (backup.fstype, backup.block_size, backup.superblock),
            ("ext4", block_size, place)
        );
        assert_eq!((backup.uuid, backup.label), (intact.uuid, intact.label));
    }
}

fn xfs() {
    for options in [&["-L", "twelve chars"][..], &["-m", "crc=0"], &["-b", "size=1024"]] {
        is(&Image::made(320, "mkfs.xfs", &[&["-q"], options].concat()), "xfs");
    }
}

fn btrfs() {
    for checksum in ["crc32c", "xxhash", "sha256", "blake2"] {
        let options = ["-q", "--csum", checksum, "-L", "Ein Name für btrfs"];
        is(&Image::made(128, "mkfs.btrfs", &options), "btrfs");
    }
}

fn bcache() {
    is(&Image::made(16, "make-bcache", &["-B"]), "bcache");
    is(&Image::made(128, "make-bcache", &["-C"]), "bcache");
}

fn luks() {
    for options in [&["--type", "luks1"][..], &["--type", "luks2", "--label", "secret place"]] {
        let image = Image::new(32);
        let key = image.path().with_file_name("key");
        std::fs::write(&key, "key").unwrap();
        let cheap = ["luksFormat", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
        let key = ["--key-file", key.to_str().unwrap()];
        image.run("cryptsetup", &[&cheap[..], options, &key].concat());
        is(&image, "crypto_LUKS");
    }
}
