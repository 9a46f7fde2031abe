//! Member of a ZFS pool (OpenZFS, on-disk specification): four labels of 256 KiB, two at each end,
//! each with a list of names and values at 16 KiB and a ring of uberblocks at 128 KiB.
#![forbid(unsafe_code)]

use super::signature::{FoundFormat, Magic};
use crate::volume::bytes::fields::{be32, be64, field, label, trimmed};
use crate::volume::bytes::source::ByteExtent;

pub(super) const LEAST: u64 = 64 << 20;

const LABEL: u64 = 256 * 1024;
const LIST: u64 = 16 * 1024;
const LIST_READ: u64 = 4096;
const RING: u64 = 128 * 1024;

/// Four uberblocks are wanted, in one label or several. A label's ring is read only where its list
/// begins as one does, so that a probe of anything else touches 16 bytes of each label.
pub(super) fn check(extent: &ByteExtent<'_>, _: &Magic) -> Option<FoundFormat> {
    const WANTED: usize = 4;
    let aligned = extent.size() - extent.size() % LABEL;
    let mut found = 0;
    for start in [0, LABEL, aligned.checked_sub(2 * LABEL)?, aligned.checked_sub(LABEL)?] {
        if !extent.is_covered(start, LABEL) && has_list(extent, start) == Some(true) {
            found += uberblocks(&extent.bytes(start + RING, RING)?);
        }
        if found >= WANTED {
            return Some(names(&extent.bytes(start + LIST, LIST_READ)?));
        }
    }
    None
}

/// Whether the list begins as one in XDR encoding of either byte order (OpenZFS nvlist(9)).
fn has_list(extent: &ByteExtent<'_>, start: u64) -> Option<bool> {
    let head = extent.bytes(start + LIST, 4)?;
    Some(matches!(field(&head, 0, 4)?, [1, 0 | 1, 0, 0]))
}

/// The uberblocks of a ring; the smallest take 1 KiB each, and the writer's byte order holds.
fn uberblocks(ring: &[u8]) -> usize {
    const MAGIC: u64 = 0x00ba_b10c;
    ring.chunks_exact(1024)
        .filter_map(|block| be64(block, 0))
        .filter(|magic| *magic == MAGIC || magic.swap_bytes() == MAGIC)
        .count()
}

/// Identifier and name of the pool, from the pairs at the top of the list.
fn names(list: &[u8]) -> FoundFormat {
    const NUMBER: u32 = 8;
    const TEXT: u32 = 9;
    const NESTED: u32 = 19;
    const HEAD: usize = 12;
    let mut found = FoundFormat::new(None, None);
    let mut depth = 0_u32;
    let mut rest = list.get(HEAD..).unwrap_or_default();
    while let Some(size) = be32(rest, 0).and_then(|size| usize::try_from(size).ok()) {
        if size == 0 {
            let Some(outer) = depth.checked_sub(1) else { break };
            depth = outer;
            rest = rest.get(8..).unwrap_or_default();
            continue;
        }
        let pair = field(rest, 0, size).and_then(|pair| {
            let length = usize::try_from(be32(pair, 8)?).ok()?;
            let value = pair.get(HEAD.checked_add(length.checked_next_multiple_of(4)?)?..)?;
            Some((field(pair, HEAD, length)?, value))
        });
        let Some((name, value)) = pair else { break };
        if be32(value, 0) == Some(NESTED) && value.len() >= 16 {
            depth += 1;
            rest = rest.get(size - value.len() + 16..).unwrap_or_default();
            continue;
        }
        match (name, be32(value, 0), depth) {
            (b"name", Some(TEXT), 0) => {
                let length = be32(value, 8).and_then(|length| usize::try_from(length).ok());
                found.label =
                    length.and_then(|length| label(value, 12, length)).as_deref().and_then(trimmed);
            }
            (b"pool_guid", Some(NUMBER), 0) => {
                found.uuid = be64(value, 8).filter(|id| *id != 0).map(|id| id.to_string());
            }
            _ => {}
        }
        rest = rest.get(size..).unwrap_or_default();
    }
    found
}
