//! Partition tables: what sfdisk and blkid read, we read, and the content of each partition too.

use std::path::Path;
use std::process::Command;

use molecule_tools::volume::probe::{PartitionKind, PartitionTable, Probe, probe};

use crate::probe::image::{Blkid, Image, Loop, PATH, open};
use crate::support::{self, Case, Need, test_case};

const TOOLS: &[Need] = &[
    Need::Program("blkid"),
    Need::Program("sfdisk"),
    Need::Program("sgdisk"),
    Need::Program("mke2fs"),
    Need::Program("mkfs.xfs"),
    Need::Program("mkfs.fat"),
    Need::Program("mkswap"),
];

pub fn cases() -> Vec<Case> {
    vec![
        test_case!(gpt_of_a_cloud_root_disk, TOOLS),
        test_case!(gpt_backup_counts_when_the_primary_is_damaged, TOOLS),
        test_case!(gpt_with_both_copies_damaged_is_no_table, TOOLS),
        test_case!(gpt_without_its_protective_record_is_no_table, TOOLS),
        test_case!(gpt_wins_over_a_hybrid_mbr, TOOLS),
        test_case!(gpt_of_128_partitions_is_read_within_1_mib, TOOLS),
        test_case!(
            gpt_with_sectors_of_4096_bytes,
            &[
                Need::Root,
                Need::Loop,
                Need::Program("blkid"),
                Need::Program("sfdisk"),
                Need::Program("mke2fs"),
            ]
        ),
        test_case!(mbr_with_logical_partitions, TOOLS),
        test_case!(mbr_chain_that_runs_in_circles_ends, TOOLS),
        test_case!(mbr_with_a_strange_boot_indicator_is_no_table, TOOLS),
        test_case!(partition_beyond_the_end_of_a_truncated_disk, TOOLS),
        test_case!(file_system_over_an_old_table, TOOLS),
    ]
}

impl Image {
    /// Writes a partition table by sfdisk's script.
    fn partition(&self, script: &str) -> &Self {
        sfdisk(&self.path(), script);
        self
    }

    /// What is found, which must be what sfdisk and blkid find.
    #[track_caller]
    fn agreed_partitions(&self) -> Probe {
        let found = self.agreed();
        let oracle = listed(&self.path());
        let ours: Vec<(u32, u64, u64)> =
            found.partitions.iter().map(|p| (p.number, p.start_bytes, p.size_bytes)).collect();
        assert_eq!(oracle, ours, "left: sfdisk, right: ours");
        for part in found.partitions.iter().filter(|part| part.kind != PartitionKind::Extended) {
            let area = [part.start_bytes.to_string(), part.size_bytes.to_string()];
            let content = Blkid::run(&self.path(), &["-O", &area[0], "-S", &area[1]]);
            let oracle = (content.fstype.as_deref(), content.uuid, content.label);
            assert_eq!(oracle, (part.fstype, part.uuid.clone(), part.label.clone()), "{part:?}");
        }
        found
    }
}

#[track_caller]
pub fn sfdisk(device: &Path, script: &str) {
    use std::io::Write as _;
    let mut child = Command::new("sfdisk")
        .args(["-q", "--no-tell-kernel", "--no-reread"])
        .arg(device)
        .env("PATH", PATH)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Number, start and size in bytes of each partition that sfdisk sees.
fn listed(device: &Path) -> Vec<(u32, u64, u64)> {
    let text = support::ok(Command::new("sfdisk").arg("-J").arg(device).env("PATH", PATH));
    let table: serde_json::Value = serde_json::from_str(&text).unwrap();
    let table = &table["partitiontable"];
    let sector = table["sectorsize"].as_u64().unwrap_or(512);
    let number = |node: &str| {
        let digits = node.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap();
        digits.parse().unwrap()
    };
    table["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| {
            let size = part["size"].as_u64().unwrap() * sector;
            (number(part["node"].as_str().unwrap()), part["start"].as_u64().unwrap() * sector, size)
        })
        .collect()
}

const MIB: u64 = 1 << 20;

fn kinds(found: &Probe) -> Vec<(PartitionKind, Option<&'static str>)> {
    found.partitions.iter().map(|part| (part.kind, part.fstype)).collect()
}

/// Boot loader space, EFI, swap, /boot and an XFS root, as images of distributions have them.
fn disk() -> Image {
    let image = Image::new(420);
    image.partition(
        "label: gpt\n\
         size=1M, type=21686148-6449-6E6F-744E-656564454649, name=bios\n\
         size=16M, type=U, name=EFI\n\
         size=8M, type=S\n\
         size=32M, type=BC13C2FF-59E6-4262-A352-B275FD6F7172, name=böot\n\
         size=320M, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709\n",
    );
    image.place(2 * MIB, &Image::made(16, "mkfs.fat", &["-n", "UEFI"]));
    image.place(18 * MIB, &Image::made(8, "mkswap", &["-q"]));
    image.place(26 * MIB, &Image::made(32, "mke2fs", &["-q", "-F", "-t", "ext4"]));
    image.place(58 * MIB, &Image::made(320, "mkfs.xfs", &["-q", "-L", "root"]));
    image
}

const CLOUD: [(PartitionKind, Option<&str>); 5] = [
    (PartitionKind::BiosBoot, None),
    (PartitionKind::Esp, Some("vfat")),
    (PartitionKind::Swap, Some("swap")),
    (PartitionKind::Linux, Some("ext4")),
    (PartitionKind::Linux, Some("xfs")),
];

fn gpt_of_a_cloud_root_disk() {
    let found = disk().agreed_partitions();
    assert_eq!((found.fstype, found.table), (None, Some(PartitionTable::Gpt)));
    assert_eq!(kinds(&found), CLOUD);
    let names: Vec<Option<&str>> = found.partitions.iter().map(|p| p.name.as_deref()).collect();
    assert_eq!(names, [Some("bios"), Some("EFI"), None, Some("böot"), None]);
}

fn gpt_backup_counts_when_the_primary_is_damaged() {
    // The header's signature, its checksum, a field under the checksum, an entry.
    for offset in [512, 512 + 16, 512 + 40, 1024 + 40] {
        let image = disk();
        image.write(offset, b"\xa5");
        let found = image.agreed_partitions();
        assert_eq!(kinds(&found), CLOUD, "damage at {offset}");
    }
}

fn gpt_with_both_copies_damaged_is_no_table() {
    let image = disk();
    image.write(512, &[0; 512]).write(420 * MIB - 512, &[0; 512]);
    let found = image.agreed();
    assert_eq!((found.table, found.partitions.len()), (None, 0));
}

fn gpt_without_its_protective_record_is_no_table() {
    let image = disk();
    image.write(0, &[0; 512]);
    assert_eq!(image.agreed().table, None);
}

fn gpt_wins_over_a_hybrid_mbr() {
    let image = disk();
    image.run("sgdisk", &["-h", "2:4"]);
    assert_eq!(kinds(&image.agreed_partitions()), CLOUD);
}

fn gpt_of_128_partitions_is_read_within_1_mib() {
    let image = Image::new(160);
    let script: String = (0..127).map(|_| "size=1M\n").collect();
    image.partition(&format!("label: gpt\n{script}size=16M\n"));
    image.place(128 * MIB, &Image::made(16, "mke2fs", &["-q", "-F"]));
    let found = image.agreed();
    assert_eq!(listed(&image.path()).len(), 128);
    assert_eq!(found.partitions.len(), 128);
    // The largest comes first, so it is not the one that the limit leaves out.
    assert_eq!(found.partitions[127].fstype, Some("ext2"));
}

fn gpt_with_sectors_of_4096_bytes() {
    let image = Image::new(64);
    let content = Image::made(32, "mke2fs", &["-q", "-F", "-t", "ext4", "-b", "4096"]);
    let mut command = Command::new("losetup");
    command.args(["--find", "--show", "--sector-size", "4096"]).arg(image.path());
    let device = Loop::named(&mut command);
    sfdisk(Path::new(device.path()), "label: gpt\nstart=1M, size=32M\n");
    std::fs::File::open(device.path()).unwrap().sync_all().unwrap();
    image.place(MIB, &content);
    let found = probe(&open(Path::new(device.path()))).unwrap();
    assert_eq!(kinds(&found), [(PartitionKind::Linux, Some("ext4"))]);
    let oracle = listed(Path::new(device.path()));
    let part = &found.partitions[0];
    assert_eq!(oracle, [(part.number, part.start_bytes, part.size_bytes)]);
    // The image alone does not tell how large its sectors were.
    assert_eq!(image.agreed().table, None);
}

/// Two primary partitions and three logical ones.
fn old_disk() -> Image {
    let image = Image::new(128);
    image.partition(
        "label: dos\n\
         size=16M, type=c, bootable\n\
         size=16M, type=83\n\
         size=80M, type=5\n\
         start=100352, size=8M, type=83\n\
         start=133120, size=16M, type=82\n\
         start=168960, size=8M, type=8e\n",
    );
    image.place(MIB, &Image::made(16, "mkfs.fat", &[]));
    image.place(17 * MIB, &Image::made(16, "mke2fs", &["-q", "-F"]));
    image.place(100352 * 512, &Image::made(8, "mke2fs", &["-q", "-F", "-t", "ext3"]));
    image.place(133120 * 512, &Image::made(16, "mkswap", &["-q"]));
    image
}

const OLD: [(PartitionKind, Option<&str>); 6] = [
    (PartitionKind::Windows, Some("vfat")),
    (PartitionKind::Linux, Some("ext2")),
    (PartitionKind::Extended, None),
    (PartitionKind::Linux, Some("ext3")),
    (PartitionKind::Swap, Some("swap")),
    (PartitionKind::Lvm, None),
];

fn mbr_with_logical_partitions() {
    let found = old_disk().agreed_partitions();
    assert_eq!(found.table, Some(PartitionTable::Dos));
    assert_eq!(kinds(&found), OLD);
    let numbers: Vec<u32> = found.partitions.iter().map(|part| part.number).collect();
    assert_eq!(numbers, [1, 2, 3, 5, 6, 7]);
}

fn mbr_chain_that_runs_in_circles_ends() {
    const EXTENDED: u64 = 33 * MIB;
    let record = |image: &Image| {
        let bytes = std::fs::read(image.path()).unwrap();
        let at = usize::try_from(EXTENDED).unwrap();
        bytes[at..at + 512].to_vec()
    };
    // The first extended boot record is that of partition 5, which starts behind the second one.
    let image = old_disk();
    let mut first = record(&image);
    assert_eq!(&first[510..], b"\x55\xaa");
    // Its link leads to itself: relative start 0, then to a record that leads back.
    first[446 + 16 + 8..446 + 16 + 12].copy_from_slice(&0_u32.to_le_bytes());
    image.write(EXTENDED, &first);
    let found = image.agreed();
    assert_eq!(kinds(&found), OLD[..4]);
    for back in [1_u32, 7, 2048] {
        let image = old_disk();
        let mut first = record(&image);
        let data = (100352 - u32::try_from(EXTENDED / 512).unwrap() - back).to_le_bytes();
        first[446 + 16 + 8..446 + 16 + 12].copy_from_slice(&back.to_le_bytes());
        image.write(EXTENDED, &first);
        first[446 + 8..446 + 12].copy_from_slice(&data);
        image.write(EXTENDED + u64::from(back) * 512, &first);
        assert_eq!(kinds(&image.agreed()), OLD[..4], "back to {back}");
    }
}

fn mbr_with_a_strange_boot_indicator_is_no_table() {
    let image = old_disk();
    image.write(446 + 16, b"\x01");
    assert_eq!(image.agreed().table, None);
}

fn partition_beyond_the_end_of_a_truncated_disk() {
    let image = disk();
    std::fs::File::options().write(true).open(image.path()).unwrap().set_len(60 * MIB).unwrap();
    // The backup is gone and the primary does not fit: no GPT, for blkid neither.
    assert_eq!(image.agreed().table, None);
    let image = old_disk();
    std::fs::File::options().write(true).open(image.path()).unwrap().set_len(20 * MIB).unwrap();
    let found = image.agreed();
    // What remains of partition 2 is probed; the others have nothing left.
    assert_eq!(kinds(&found)[..3], [OLD[0], OLD[1], OLD[2]]);
}

fn file_system_over_an_old_table() {
    let image = disk();
    image.write(0, &[0; 1024]);
    image.run("mke2fs", &["-q", "-F", "-t", "ext4"]);
    let found = image.agreed();
    assert_eq!((found.fstype, found.table), (Some("ext4"), None));
    // A table in the first sector of a file system: both are told.
    let table = std::fs::read(old_disk().path()).unwrap()[..512].to_vec();
    image.write(0, &table);
    let found = image.agreed();
    assert_eq!((found.fstype, found.table), (Some("ext4"), Some(PartitionTable::Dos)));
}
