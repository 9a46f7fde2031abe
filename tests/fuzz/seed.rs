//! `seed IMAGE OUTPUT`: the blocks of an image that a probe reads, as an input of the fuzzer.

mod input;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use molecule_tools::volume::probe::{ReadAt, probe};

struct Watched {
    image: OwnedFd,
    blocks: RefCell<BTreeMap<u32, Vec<u8>>>,
}

impl ReadAt for Watched {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.image.read_at(offset, buffer)?;
        for (index, bytes) in (offset / 512..).zip(buffer[..count].chunks(512)) {
            if let (Ok(index), true) = (index.try_into(), bytes.iter().any(|byte| *byte != 0)) {
                self.blocks.borrow_mut().insert(index, bytes.to_vec());
            }
        }
        Ok(count)
    }

    fn size(&self) -> std::io::Result<u64> {
        self.image.size()
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, image, output] = arguments.as_slice() else { panic!("usage: seed IMAGE OUTPUT") };
    let image = std::fs::File::open(image).unwrap().into();
    let device = Watched { image, blocks: RefCell::default() };
    println!("{:?}", probe(&device).unwrap().fstype);
    std::fs::write(output, input::Device::encode(device.size().unwrap(), &device.blocks.borrow())).unwrap();
}
