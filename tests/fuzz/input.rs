//! The form of a fuzzer's input: a sparse device. 8 bytes of size, then records of 4 bytes (number of
//! a block of 512 bytes, little-endian) and its 512 bytes; the last record may be short.

use std::collections::BTreeMap;
use std::io;

use molecule_tools::volume::probe::ReadAt;

const BLOCK: usize = 512;

pub struct Device {
    size: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl Device {
    #[allow(dead_code, reason = "the maker of seeds only encodes")]
    pub fn decode(input: &[u8]) -> Option<Self> {
        let (size, records) = input.split_first_chunk::<8>()?;
        let blocks = records
            .chunks(4 + BLOCK)
            .filter_map(|record| {
                let (index, bytes) = record.split_first_chunk::<4>()?;
                Some((u32::from_le_bytes(*index).into(), bytes.to_vec()))
            })
            .collect();
        Some(Self { size: u64::from_le_bytes(*size), blocks })
    }

    #[allow(dead_code, reason = "the fuzz target only decodes")]
    pub fn encode(size: u64, blocks: &BTreeMap<u32, Vec<u8>>) -> Vec<u8> {
        let mut input = size.to_le_bytes().to_vec();
        for (index, bytes) in blocks {
            input.extend(index.to_le_bytes());
            input.extend(bytes);
        }
        input
    }
}

impl ReadAt for Device {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = buffer.len().min(rest);
        let (buffer, _) = buffer.split_at_mut(count);
        buffer.fill(0);
        let block = BLOCK as u64;
        let Some(end) = offset.checked_add(count as u64) else { return Ok(0) };
        for (index, bytes) in self.blocks.range(offset / block..end.div_ceil(block)) {
            for (at, byte) in (index * block..end).zip(bytes).filter(|(at, _)| *at >= offset) {
                buffer[(at - offset) as usize] = *byte;
            }
        }
        Ok(count)
    }

    fn size(&self) -> std::io::Result<u64> {
        Ok(self.size)
    }
}
