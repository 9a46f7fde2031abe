//! Images with a few bytes changed, where a probe looks: blkid must say the same, and nothing panics.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;

use molecule_tools::volume::probe::{ReadAt, probe};
use proptest::prelude::{Just, Strategy, any, prop};
use proptest::test_runner::{Config, TestRunner};

use crate::probe::damaged::noise;
use crate::probe::image::{Blkid, Image, open};
use crate::support::{Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    vec![
        test_case!(changed_bytes_read_as_blkid_reads_them, TOOLS),
        test_case!(no_bytes_make_the_probe_panic_or_read_too_much, TOOLS),
    ]
}

const TOOLS: &[Need] = &[
    Need::Program("blkid"),
    Need::Program("mke2fs"),
    Need::Program("mkfs.xfs"),
    Need::Program("mkfs.btrfs"),
    Need::Program("mkfs.fat"),
    Need::Program("mkfs.exfat"),
    Need::Program("mkntfs"),
    Need::Program("mkswap"),
    Need::Program("mkfs.f2fs"),
    Need::Program("mkfs.jfs"),
    Need::Program("mkfs.nilfs2"),
    Need::Program("mkfs.reiserfs"),
    Need::Program("mkudffs"),
    Need::Program("make-bcache"),
    Need::Program("sfdisk"),
];

/// An image, and whether its checksum is one that blkid compares only since 2.39.
struct Base {
    image: Image,
    lately_summed: bool,
}

fn bases() -> Vec<Base> {
    let made = |lately_summed, megabytes, program: &str, options: &[&str]| Base {
        image: Image::made(megabytes, program, options),
        lately_summed,
    };
    let table = |script: &str| {
        let image = Image::new(64);
        crate::probe::tables::sfdisk(&image.path(), script);
        image.place(1 << 20, &Image::made(8, "mke2fs", &["-q", "-F", "-t", "ext3"]));
        Base { image, lately_summed: false }
    };
    let old_ext4 = ["-q", "-F", "-t", "ext4", "-O", "^metadata_csum", "-L", "label"];
    vec![
        made(false, 16, "mke2fs", &["-q", "-F", "-t", "ext2", "-L", "label"]),
        made(false, 16, "mke2fs", &old_ext4),
        made(true, 16, "mke2fs", &["-q", "-F", "-t", "ext4", "-O", "metadata_csum"]),
        made(false, 320, "mkfs.xfs", &["-q", "-m", "crc=0", "-L", "label"]),
        made(true, 320, "mkfs.xfs", &["-q"]),
        made(true, 128, "mkfs.btrfs", &["-q", "-L", "label"]),
        made(false, 4, "mkfs.fat", &["-F", "12", "-n", "LABEL"]),
        made(false, 16, "mkfs.fat", &["-F", "16", "-n", "LABEL"]),
        made(false, 64, "mkfs.fat", &["-F", "32", "-n", "LABEL"]),
        made(true, 32, "mkfs.exfat", &["-L", "label"]),
        made(false, 16, "mkntfs", &["-q", "-F", "-Q", "-L", "label"]),
        made(false, 2, "mkswap", &["-q", "-L", "label"]),
        made(true, 64, "mkfs.f2fs", &["-q", "-l", "label"]),
        made(false, 32, "mkfs.jfs", &["-q", "-L", "label"]),
        made(false, 256, "mkfs.nilfs2", &["-q", "-L", "label"]),
        made(false, 40, "mkfs.reiserfs", &["-q", "-f", "-f", "-l", "label"]),
        made(false, 16, "mkudffs", &["-b", "512", "-l", "label"]),
        made(true, 16, "make-bcache", &["-B"]),
        table("label: gpt\nsize=8M, name=first\nsize=8M\n"),
        table(
            "label: dos\nsize=8M\nsize=40M, type=5\nstart=20480, size=8M\nstart=40960, size=8M\n",
        ),
    ]
}

/// Remembers where it was read.
struct Watched<T> {
    inner: T,
    blocks: Mutex<BTreeSet<u64>>,
}

impl<T: ReadAt> ReadAt for Watched<T> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        let end = offset + buffer.len() as u64;
        self.blocks.lock().unwrap().extend(offset / 512..end.div_ceil(512));
        self.inner.read_at(offset, buffer)
    }

    fn size(&self) -> std::io::Result<u64> {
        self.inner.size()
    }
}

/// The blocks of 512 bytes that a probe reads and that hold anything, with their content.
fn watched(image: &Image) -> Vec<(u64, Vec<u8>)> {
    let device = Watched { inner: open(&image.path()), blocks: Mutex::default() };
    probe(&device).unwrap();
    let blocks = device.blocks.lock().unwrap().clone();
    let read = |index: u64| {
        let mut bytes = vec![0; 512];
        let count = device.inner.read_at(index * 512, &mut bytes).unwrap();
        bytes.truncate(count);
        (index, bytes)
    };
    blocks.into_iter().map(read).filter(|(_, bytes)| bytes.iter().any(|b| *b != 0)).collect()
}

/// What cannot be shown as text counts as equal, however it is shown.
fn shown(answer: Blkid) -> Blkid {
    let readable = |text: String| text.replace('\u{fffd}', "");
    Blkid { label: answer.label.map(readable), uuid: answer.uuid.map(readable), ..answer }
}

fn changed_bytes_read_as_blkid_reads_them() {
    let rounds: u64 = match std::env::var("PROBE_ROUNDS") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => 12,
    };
    for (index, Base { image, lately_summed }) in (1_u64..).zip(bases()) {
        let intact = image.probe();
        let blocks = watched(&image);
        let file = std::fs::File::options().write(true).open(image.path()).unwrap();
        for round in 0..rounds {
            let mut random = noise(index * 1_000_003 + round + 1);
            let mut number = || {
                let bytes: [u8; 4] = std::array::from_fn(|_| random.next().unwrap());
                u32::from_le_bytes(bytes) as usize
            };
            let mut changes = BTreeMap::new();
            for _ in 0..number() % 4 + 1 {
                let (block, bytes) = &blocks[number() % blocks.len()];
                // Near a byte that means something.
                let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
                let at = (used[number() % used.len()] + number() % 5).min(bytes.len() - 1);
                let value = [0, 0xff, bytes[at] ^ 1 << (number() % 8), number() as u8];
                changes.insert(block * 512 + at as u64, (bytes[at], value[number() % 4]));
            }
            for (at, (_, value)) in &changes {
                file.write_all_at(&[*value], *at).unwrap();
            }
            let found = image.probe();
            let (oracle, ours) = (Blkid::run(&image.path(), &[]), Blkid::of(&found));
            let stricter = lately_summed && found.fstype.is_none();
            if !stricter {
                let what = format!("{:?} round {round}: {changes:?}", intact.fstype);
                assert_eq!(shown(oracle), shown(ours), "left: blkid, right: ours; {what}");
            }
            for (at, (old, _)) in &changes {
                file.write_all_at(&[*old], *at).unwrap();
            }
        }
        assert_eq!(image.probe(), intact);
    }
}

/// A device of which only a few blocks are not zero.
#[derive(Debug, Clone)]
struct Sparse {
    size: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl ReadAt for Sparse {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min(usize::try_from(self.size.saturating_sub(offset)).unwrap());
        for (at, byte) in (offset..).zip(&mut buffer[..count]) {
            let block = self.blocks.get(&(at / 512)).map(Vec::as_slice).unwrap_or_default();
            *byte = block.get((at % 512) as usize).copied().unwrap_or(0);
        }
        Ok(count)
    }

    fn size(&self) -> std::io::Result<u64> {
        Ok(self.size)
    }
}

fn no_bytes_make_the_probe_panic_or_read_too_much() {
    let devices: Vec<Sparse> = bases()
        .iter()
        .map(|base| Sparse {
            size: open(&base.image.path()).size().unwrap(),
            blocks: watched(&base.image).into_iter().collect(),
        })
        .collect();
    let byte = (any::<prop::sample::Index>(), 0..512_usize, any::<u8>());
    let change = (prop::collection::vec(byte, 0..24), prop::option::weighted(0.2, any::<u64>()));
    let strategy = prop::sample::select(devices).prop_flat_map(move |device| {
        (Just(device), change.clone()).prop_map(|(mut device, (changes, size))| {
            let places: Vec<u64> = device.blocks.keys().copied().collect();
            for (place, at, value) in changes {
                let block = device.blocks.get_mut(place.get(&places)).unwrap();
                if let Some(byte) = block.get_mut(at) {
                    *byte = value;
                }
            }
            device.size = size.unwrap_or(device.size);
            device
        })
    });
    let config = Config { cases: 3000, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&strategy, |device| {
            let device = crate::probe::image::Counted { inner: device, bytes: Default::default() };
            let found = probe(&device).unwrap();
            let bytes = device.bytes.into_inner();
            assert!(bytes < 1 << 20, "{bytes} bytes read: {found:?}");
            Ok(())
        })
        .unwrap();
}
