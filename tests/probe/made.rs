//! Every format as its own tool makes it is told as blkid tells it.

use crate::probe::image::{Image, Loop, PATH};
use crate::support::{Case, Need, case, test_case};

const BLKID: Need = Need::Program("blkid");

pub fn cases() -> Vec<Case> {
    vec![
        test_case!(ext2_ext3_ext4_are_told_apart, &[BLKID, Need::Program("mke2fs")]),
        test_case!(
            a_damaged_ext_superblock_gives_the_place_of_its_copy,
            &[Need::Program("mke2fs")]
        ),
        test_case!(xfs_old_and_new, &[BLKID, Need::Program("mkfs.xfs")]),
        test_case!(btrfs_with_every_checksum, &[BLKID, Need::Program("mkfs.btrfs")]),
        test_case!(bcache_backing_and_cache_device, &[BLKID, Need::Program("make-bcache")]),
        test_case!(luks_1_and_2, &[BLKID, Need::Program("cryptsetup")]),
        test_case!(
            lvm_physical_volume,
            &[BLKID, Need::Program("pvcreate"), Need::Root, Need::Loop]
        ),
        test_case!(fat_12_16_32, &[BLKID, Need::Program("mkfs.fat")]),
        case("exfat", &[BLKID, Need::Program("mkfs.exfat")], exfat),
        case("ntfs", &[BLKID, Need::Program("mkntfs")], ntfs),
        test_case!(swap_with_every_page_size, &[BLKID, Need::Program("mkswap")]),
        case("f2fs", &[BLKID, Need::Program("mkfs.f2fs")], f2fs),
        case("erofs", &[BLKID, Need::Program("mkfs.erofs")], erofs),
        case("squashfs", &[BLKID, Need::Program("mksquashfs")], squashfs),
        test_case!(iso9660_with_joliet, &[BLKID, Need::Program("genisoimage")]),
        test_case!(udf_alone_and_bridged, &[BLKID, Need::Program("mkudffs")]),
        case("reiserfs", &[BLKID, Need::Program("mkfs.reiserfs")], reiserfs),
        case("jfs", &[BLKID, Need::Program("mkfs.jfs")], jfs),
        case("nilfs2", &[BLKID, Need::Program("mkfs.nilfs2")], nilfs2),
    ]
}

/// The image's type, identifier and label are blkid's, and the type is `name`.
#[track_caller]
fn is(image: &Image, name: &str) {
    let found = image.agreed();
    assert_eq!(found.fstype, Some(name), "{found:?}");
    assert!(found.uuid.is_some() || name == "squashfs", "{found:?}");
}

fn ext2_ext3_ext4_are_told_apart() {
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

fn a_damaged_ext_superblock_gives_the_place_of_its_copy() {
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

fn xfs_old_and_new() {
    for options in [&["-L", "twelve chars"][..], &["-m", "crc=0"], &["-b", "size=1024"]] {
        is(&Image::made(320, "mkfs.xfs", &[&["-q"], options].concat()), "xfs");
    }
}

fn btrfs_with_every_checksum() {
    for checksum in ["crc32c", "xxhash", "sha256", "blake2"] {
        let options = ["-q", "--csum", checksum, "-L", "Ein Name für btrfs"];
        is(&Image::made(128, "mkfs.btrfs", &options), "btrfs");
    }
}

fn bcache_backing_and_cache_device() {
    is(&Image::made(16, "make-bcache", &["-B"]), "bcache");
    is(&Image::made(128, "make-bcache", &["-C"]), "bcache");
}

fn luks_1_and_2() {
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

fn lvm_physical_volume() {
    for sector in ["0", "1", "2", "3"] {
        let image = Image::new(32);
        let device = Loop::over(&image.path());
        let only = format!(
            "devices {{ use_devicesfile = 0 filter = [\"a|^{}$|\", \"r|.*|\"] }}",
            device.path()
        );
        let options = ["-q", "-y", "--labelsector", sector, "--config", &only, device.path()];
        crate::support::ok(std::process::Command::new("pvcreate").args(options).env("PATH", PATH));
        drop(device);
        is(&image, "LVM2_member");
    }
}

fn fat_12_16_32() {
    for (megabytes, options) in [
        (1, &["-F", "12", "-n", "FLOPPY"][..]),
        (4, &["-F", "12", "-i", "deadbeef"]),
        (16, &["-F", "16", "-n", "SIXTEEN"]),
        (64, &["-F", "32", "-n", "THIRTY TWO"]),
        (64, &["-F", "32", "-s", "8"]),
        (256, &["-F", "32", "-S", "4096", "-n", "BIG"]),
    ] {
        is(&Image::made(megabytes, "mkfs.fat", options), "vfat");
    }
}

fn exfat() {
    is(&Image::made(32, "mkfs.exfat", &["-L", "Schöner Tag"]), "exfat");
    is(&Image::made(512, "mkfs.exfat", &[]), "exfat");
}

fn ntfs() {
    is(&Image::made(16, "mkntfs", &["-q", "-F", "-Q", "-L", "Schöne Größe"]), "ntfs");
    is(&Image::made(64, "mkntfs", &["-q", "-F", "-Q", "-c", "65536"]), "ntfs");
}

fn swap_with_every_page_size() {
    for size in ["4096", "8192", "16384", "32768", "65536"] {
        is(&Image::made(2, "mkswap", &["-q", "-p", size, "-L", "pages of it"]), "swap");
    }
}

fn f2fs() {
    is(&Image::made(64, "mkfs.f2fs", &["-q", "-l", "naïve"]), "f2fs");
    is(&Image::made(64, "mkfs.f2fs", &["-q", "-O", "extra_attr,sb_checksum"]), "f2fs");
}

/// A directory to make a read-only file system of.
fn tree(image: &Image) -> String {
    let tree = image.path().with_file_name("tree");
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(tree.join("file"), "content").unwrap();
    tree.to_str().unwrap().to_owned()
}

/// Runs a tool that wants the image's path before the tree's.
fn pack(program: &str, options: &[&str]) -> Image {
    let image = Image::new(0);
    let place = image.path();
    let tree = tree(&image);
    let arguments = [options, &[place.to_str().unwrap(), &tree]].concat();
    crate::support::ok(std::process::Command::new(program).args(arguments).env("PATH", PATH));
    image
}

fn erofs() {
    is(&pack("mkfs.erofs", &["-E", "force-inode-compact"]), "erofs");
    is(&pack("mkfs.erofs", &["-E", "nosbcrc"]), "erofs");
}

fn squashfs() {
    let image = Image::new(0);
    let place = image.path();
    let arguments = [&tree(&image), place.to_str().unwrap(), "-noappend", "-quiet", "-no-progress"];
    crate::support::ok(std::process::Command::new("mksquashfs").args(arguments).env("PATH", PATH));
    is(&image, "squashfs");
}

fn iso9660_with_joliet() {
    for options in [
        &["-V", "PLAIN_NAME"][..],
        &["-J", "-V", "A name longer than sixteen"],
        &["-J", "-input-charset", "utf-8", "-V", "Größe"],
    ] {
        is(&pack("genisoimage", &[&["-quiet"], options, &["-o"]].concat()), "iso9660");
    }
}

fn udf_alone_and_bridged() {
    for options in [
        &["-b", "512", "-l", "small blocks"][..],
        &["-b", "2048", "-l", "Größe"],
        &["-b", "4096", "-l", "名前", "--vsid", "not hexadecimal"],
        &["-b", "512", "--uuid", "0123456789abcdef"],
    ] {
        is(&Image::made(16, "mkudffs", options), "udf");
    }
    // Both formats on one device are no conflict; the first one in the table counts.
    is(&pack("genisoimage", &["-quiet", "-udf", "-V", "BRIDGE", "-o"]), "udf");
}

fn reiserfs() {
    is(&Image::made(40, "mkfs.reiserfs", &["-q", "-f", "-f", "-l", "murder"]), "reiserfs");
}

fn jfs() {
    is(&Image::made(32, "mkfs.jfs", &["-q", "-L", "journaled"]), "jfs");
}

fn nilfs2() {
    let image = Image::made(256, "mkfs.nilfs2", &["-q", "-L", "continuous"]);
    is(&image, "nilfs2");
    image.write(1024, &[0; 1024]);
    is(&image, "nilfs2");
}
