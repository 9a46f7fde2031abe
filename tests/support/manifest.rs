//! A tree as text: every entry with everything about it that a copy has to keep.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use walkdir::WalkDir;

/// Attribute name to value.
pub type Attributes = BTreeMap<&'static str, String>;

/// Path (escaped, relative) to attributes. Mount points below `root` are listed but not entered.
/// Times from `now` on (seconds, [`super::clock::now`]) are shown as "new"; hard links as the first path of their group.
pub fn of(root: &Path, now: i64) -> BTreeMap<String, Attributes> {
    let mut entries = BTreeMap::new();
    let mut first_names = BTreeMap::new();
    let walk = WalkDir::new(root).same_file_system(true).sort_by_file_name();
    for entry in walk {
        let entry = entry.expect("a readable tree");
        let path = entry.path();
        let name = path.strip_prefix(root).expect("below the root").as_os_str();
        let name = name.as_bytes().escape_ascii().to_string();
        let metadata = path.symlink_metadata().expect("stat(2)");
        let kind = metadata.file_type();
        let mut attributes = Attributes::new();
        let mut put = |name, value: String| attributes.insert(name, value);
        put("mode", format!("{:o}", metadata.mode()));
        put("owner", format!("{}:{}", metadata.uid(), metadata.gid()));
        put(
            "mtime",
            match metadata.mtime() >= now {
                true => "new".into(),
                false => format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec()),
            },
        );
        put("xattrs", extended(path));
        if kind.is_file() {
            put("content", shortened(&std::fs::read(path).expect("a readable file")));
        } else if kind.is_symlink() {
            let target = std::fs::read_link(path).expect("readlink(2)");
            put("target", target.as_os_str().as_bytes().escape_ascii().to_string());
        } else if kind.is_block_device() || kind.is_char_device() {
            put("device", metadata.rdev().to_string());
        }
        if !kind.is_dir() && metadata.nlink() > 1 {
            let first = first_names.entry((metadata.dev(), metadata.ino())).or_insert(name.clone());
            put("links", format!("{} {first}", metadata.nlink()));
        }
        entries.insert(name, attributes);
    }
    entries
}

/// Every extended attribute, ACLs included, as `name=value` in order.
fn extended(path: &Path) -> String {
    let mut names = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(path, &mut names[..]).expect("llistxattr(2)");
    let mut shown: Vec<String> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 1 << 16];
            let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..]);
            let value = &value[..length.unwrap_or(0)];
            format!("{}={}", name.escape_ascii(), value.escape_ascii())
        })
        .collect();
    shown.sort();
    shown.join(" ")
}

/// Short content as it is, long content as its length and a checksum (FNV-1a).
fn shortened(bytes: &[u8]) -> String {
    if bytes.len() <= 4096 {
        return bytes.escape_ascii().to_string();
    }
    let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{} bytes, FNV-1a {sum:016x}", bytes.len())
}
