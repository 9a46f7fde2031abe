//! Swap space (mkswap(8), linux/swap.h): the signature ends the first page, whatever a page is.
#![forbid(unsafe_code)]

use super::signature::{FoundFormat, Magic};
use crate::volume::bytes::fields::{has, label, le32, uuid};
use crate::volume::bytes::source::ByteExtent;

/// Ten pages.
pub(super) const LEAST: u64 = 40960;

const TUX_ON_ICE: &[u8] = b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c";

macro_rules! at_page_ends {
    ($($signature:literal),*; $($first:expr),*) => {
        &[
            $($first,)*
            $(Magic::new(0, 0xff6, $signature),)*
            $(Magic::new(0, 0x1ff6, $signature),)*
            $(Magic::new(0, 0x3ff6, $signature),)*
            $(Magic::new(0, 0x7ff6, $signature),)*
            $(Magic::new(0, 0xfff6, $signature),)*
        ]
    };
}

pub(super) const MAGICS: &[Magic] = at_page_ends![b"SWAP-SPACE", b"SWAPSPACE2";];

/// A memory image that waits for resuming.
pub(super) const SUSPENDED: &[Magic] = at_page_ends![
    b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001"; Magic::new(0, 0, TUX_ON_ICE)
];

pub(super) fn check(extent: &ByteExtent<'_>, magic: &Magic) -> Option<FoundFormat> {
    if has(&extent.bytes(0, 8)?, 0, TUX_ON_ICE) {
        return None;
    }
    if magic.bytes == b"SWAP-SPACE" {
        return Some(FoundFormat::new(None, None));
    }
    let header = extent.bytes(1024, 512)?;
    let version = le32(&header, 0)?;
    let sound = (version == 1 || version.swap_bytes() == 1) && le32(&header, 4)? != 0;
    sound.then(|| names(&header)).flatten()
}

pub(super) fn suspended(extent: &ByteExtent<'_>, _: &Magic) -> Option<FoundFormat> {
    names(&extent.bytes(1024, 512)?)
}

/// Identifier and label, unless their place holds something else.
fn names(header: &[u8]) -> Option<FoundFormat> {
    let clean = le32(header, 172)? == 0 && le32(header, 176)? == 0;
    let keep = |value: Option<String>| value.filter(|_| clean);
    Some(FoundFormat::new(keep(uuid(header, 12)), keep(label(header, 28, 16))))
}
