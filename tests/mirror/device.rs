//! The devices that faults and benchmarks stand on do what they promise.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::support::device::{Device, Manners};
use crate::support::{Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    let needs = &[Need::Root, Need::Loop, Need::Filesystem("fuse")];
    vec![test_case!(a_device_serves_an_image_and_fails_where_told, needs)]
}

fn a_device_serves_an_image_and_fails_where_told() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    let content: Vec<u8> = (0..8 << 20_u32).map(|at: u32| (at / 4096) as u8).collect();
    std::fs::write(&image, &content).unwrap();
    let slow = Manners { delay: Duration::from_millis(20), bad: Vec::new() };
    let device = Device::of(&image, &directory.path().join("disk"), slow.clone());
    let node = File::open(device.node()).unwrap();
    let mut block = vec![0; 4096];
    node.read_exact_at(&mut block, 3 << 20).unwrap();
    assert_eq!(block, content[3 << 20..][..4096]);
    let bad = Range { start: 7_900_000, end: 7_904_096 };
    device.behave(Manners { bad: vec![bad], ..slow });
    forget_cached(&node);
    let error = node.read_exact_at(&mut block, 7_900_000).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5), "{error}");
    device.behave(Manners::default());
    node.read_exact_at(&mut block, 7_900_000).unwrap();
    assert_eq!(block, content[7_900_000..][..4096]);
}

fn forget_cached(node: &File) {
    let all = rustix::fs::Advice::DontNeed;
    rustix::fs::fadvise(node, 0, None, all).unwrap();
}
