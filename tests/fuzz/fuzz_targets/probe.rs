//! No device makes the probe panic or read 1 MiB.
#![no_main]

#[path = "../input.rs"]
mod input;

use std::cell::Cell;
use std::io;

use libfuzzer_sys::fuzz_target;
use molecule_tools::volume::probe::{ReadAt, probe};

struct Counted {
    device: input::Device,
    bytes: Cell<usize>,
}

impl ReadAt for Counted {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.device.read_at(offset, buffer)?;
        self.bytes.set(self.bytes.get() + count);
        assert!(self.bytes.get() < 1 << 20);
        Ok(count)
    }

    fn size(&self) -> std::io::Result<u64> {
        self.device.size()
    }
}

fuzz_target!(|input: &[u8]| {
    if let Some(device) = input::Device::decode(input) {
        let found = probe(&Counted { device, bytes: Cell::new(0) }).unwrap();
        assert!(found.partitions.len() <= 1024);
        assert!(found.ambivalent.is_empty() || found.fstype.is_none());
    }
});
