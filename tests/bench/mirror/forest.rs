//! The trees that are copied: small files in many directories, and packs, the same on every machine.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

use crate::support::mounts::{Mounted, ext4_image};

/// `all/small` like a node_modules, `all/packs` like a .git/objects.
pub struct Forest {
    pub files: usize,
    pub directories: usize,
    pub packs: usize,
    pub pack_mebibytes: usize,
}

/// Sizes in bytes as they are spread in a node_modules: a twentieth each.
const SIZES: [usize; 20] = [
    0, 120, 180, 260, 340, 450, 600, 750, 900, 1100, 1400, 1700, 2100, 2600, 3300, 4500, 6500,
    9000, 15_000, 45_000,
];

impl Forest {
    /// With `scale` times as much of everything but packs' number.
    pub fn scaled(self, scale: f64) -> Self {
        let times = |number: usize| ((number as f64 * scale) as usize).max(usize::from(number > 0));
        Self {
            files: times(self.files),
            directories: times(self.directories),
            packs: self.packs,
            pack_mebibytes: times(self.pack_mebibytes),
        }
    }

    /// Makes a fresh ext4 in file `image` with the trees in it; `place` is where it is mounted for
    /// that.
    pub fn plant(&self, image: &Path, place: &Path) {
        eprintln!("planting {} files", self.files);
        let megabytes = self.packs * self.pack_mebibytes + self.files / 100 + 256;
        let inodes = (self.files * 5 / 4 + self.directories * 2 + 20_000).to_string();
        ext4_image(image, megabytes as u64, &["-N", &inodes]);
        let mounted = Mounted::image(image, place, "rw");
        let top = mounted.0.join("all");
        let bytes = noise(1 << 20);
        self.small(&top.join("small"), &bytes);
        self.packs(&top.join("packs"), &bytes);
        mounted.put_away();
    }

    fn small(&self, top: &Path, bytes: &[u8]) {
        let per_directory = self.files.div_ceil(self.directories);
        for directory in 0..self.directories {
            // Packages with a few directories each, two deep.
            let package = directory / 6;
            let path = match directory % 6 {
                0 => top.join(format!("package-{package}")),
                1 => top.join(format!("package-{package}/lib")),
                2 => top.join(format!("package-{package}/dist")),
                deeper => top.join(format!("package-{package}/dist/part{deeper}")),
            };
            std::fs::create_dir_all(&path).unwrap();
            for number in 0..per_directory {
                let seed = directory * per_directory + number;
                let file = path.join(format!("module-{number}.js"));
                let start = seed * 61 % (1 << 19);
                let size = SIZES[seed * 7 % SIZES.len()] + seed % 97;
                finished(
                    &file,
                    &bytes[start..start + size],
                    0o644 + 0o111 * (seed as u32 % 50 / 49),
                );
            }
            if directory % 6 == 0 {
                symlink("module-0.js", path.join("index.js")).unwrap();
            }
        }
    }

    fn packs(&self, top: &Path, bytes: &[u8]) {
        for pack in 0..self.packs {
            std::fs::create_dir_all(top.join("pack")).unwrap();
            let mut file = File::create(top.join(format!("pack/pack-{pack}.pack"))).unwrap();
            for _ in 0..self.pack_mebibytes {
                file.write_all(bytes).unwrap();
            }
            for fan in 0..self.pack_mebibytes.min(256) {
                let path = top.join(format!("{fan:02x}"));
                std::fs::create_dir_all(&path).unwrap();
                for number in 0..6 {
                    let start = (fan * 977 + number * 31) % (1 << 19);
                    let name = format!("{pack}{number:037x}");
                    finished(&path.join(name), &bytes[start..start + 300 + fan * 9], 0o444);
                }
            }
        }
    }
}

fn finished(path: &Path, content: &[u8], mode: u32) {
    let mut file = File::create(path).unwrap();
    file.write_all(content).unwrap();
    chown(path, Some(1000), Some(1000)).unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
    let seconds = 1_700_000_000 + content.len() as i64 * 1000;
    let time = Timespec { tv_sec: seconds, tv_nsec: 123_456_789 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
}

/// Bytes that no file system compresses or skips (a xorshift generator's).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_ne_bytes());
    }
    bytes
}
