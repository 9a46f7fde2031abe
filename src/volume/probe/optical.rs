//! ISO 9660 with Joliet (ECMA-119) and UDF (ECMA-167, OSTA UDF 2.60). Both may share a device.
#![forbid(unsafe_code)]

use super::signature::{FoundFormat, Magic};
use crate::volume::bytes::fields::{be16, field, has, label, le16, le32, utf16};
use crate::volume::bytes::source::ByteExtent;

const DESCRIPTORS: u64 = 0x8000;
const SECTOR: u64 = 2048;

/// ISO 9660: the identifier is the time of the last change.
pub(super) fn iso9660(extent: &ByteExtent<'_>, magic: &Magic) -> Option<FoundFormat> {
    const HIGH_SIERRA: &[u8] = b"CDROM";
    const MOST: u64 = 16;
    if magic.bytes == HIGH_SIERRA {
        let bytes = extent.bytes(DESCRIPTORS, SECTOR)?;
        return Some(FoundFormat::new(None, label(&bytes, 48, 32)));
    }
    let (mut primary, mut joliet) = (None, None);
    for index in 0..MOST {
        let Some(bytes) = extent.bytes(DESCRIPTORS + index * SECTOR, 1024) else { break };
        match *bytes.first()? {
            0xff => break,
            1 if primary.is_none() => primary = Some(bytes),
            2 if joliet.is_none() && is_joliet(&bytes) => joliet = Some(bytes),
            _ => {}
        }
    }
    let primary = primary?;
    let time = |at: usize| {
        let digits = field(&primary, at, 16)?;
        let unset = digits.iter().all(|digit| *digit == b'0') && *primary.get(at + 16)? == 0;
        (!unset).then(|| dashed(digits)).flatten()
    };
    const CREATED: usize = 813;
    const MODIFIED: usize = 830;
    let name = match &joliet {
        Some(joliet) => {
            merged(field(joliet, 40, 32)?, field(&primary, 40, 32)?).or_else(|| wide(joliet, 40))
        }
        None => label(&primary, 40, 32),
    };
    Some(FoundFormat::new(time(MODIFIED).or_else(|| time(CREATED)), name))
}

fn is_joliet(bytes: &[u8]) -> bool {
    [b"%/@", b"%/C", b"%/E"].into_iter().any(|level| has(bytes, 88, level))
}

/// `YYYY-MM-DD-hh-mm-ss-cc`; what is no ASCII is shown as it stands.
fn dashed(digits: &[u8]) -> Option<String> {
    if digits.iter().all(|byte| *byte == 0) {
        return None;
    }
    let mut text = String::with_capacity(22);
    for (index, byte) in digits.iter().enumerate().take_while(|(_, byte)| **byte != 0) {
        if index >= 4 && index % 2 == 0 {
            text.push('-');
        }
        text.push(char::from(*byte));
    }
    Some(text)
}

fn wide(bytes: &[u8], at: usize) -> Option<String> {
    utf16(field(bytes, at, 32)?.chunks_exact(2).filter_map(|pair| be16(pair, 0)))
}

/// The Joliet name has 16 characters of any script, the primary one 32 of a few letters, `_` for the
/// rest. Where one begins the other, together they give the whole name.
fn merged(joliet: &[u8], primary: &[u8]) -> Option<String> {
    let mut units = Vec::new();
    let mut wide = joliet.chunks_exact(2).filter_map(|pair| be16(pair, 0)).peekable();
    for letter in primary.iter().copied() {
        let Some(mut unit) = wide.next() else {
            units.push(letter.into());
            continue;
        };
        if (0xd800..0xdc00).contains(&unit)
            && let Some(low) = wide.next_if(|low| (0xdc00..0xe000).contains(low))
        {
            units.push(unit);
            unit = low;
        }
        let same = u8::try_from(unit).is_ok_and(|byte| byte.eq_ignore_ascii_case(&letter));
        units.push(match letter {
            b'_' => unit,
            _ if unit == u16::from(b'_') => letter.into(),
            _ if same && letter.is_ascii_uppercase() => unit,
            _ if same => letter.into(),
            _ => return None,
        });
    }
    utf16(units.into_iter())
}

pub(super) const UDF_MAGICS: &[Magic] = &[
    Magic::new(DESCRIPTORS, 1, b"BEA01"),
    Magic::new(DESCRIPTORS, 1, b"BOOT2"),
    Magic::new(DESCRIPTORS, 1, b"CD001"),
    Magic::new(DESCRIPTORS, 1, b"CDW02"),
    Magic::new(DESCRIPTORS, 1, b"NSR02"),
    Magic::new(DESCRIPTORS, 1, b"NSR03"),
    Magic::new(DESCRIPTORS, 1, b"TEA01"),
];

/// UDF: a descriptor that says so, an anchor at block 256 or 512, and the volume's descriptors.
pub(super) fn udf(extent: &ByteExtent<'_>, _: &Magic) -> Option<FoundFormat> {
    const MOST: u32 = 64;
    const PRIMARY: u16 = 1;
    const LOGICAL: u16 = 6;
    const END: u16 = 8;
    let (block, anchor) = [512_u64, 1024, 2048, 4096].into_iter().find_map(|block| {
        announces_udf(extent, block.max(SECTOR))?;
        Some((block, anchor(extent, block)?))
    })?;
    let count = u32::try_from(u64::from(le32(&anchor, 16)?) / block).ok()?.min(MOST);
    let first = le32(&anchor, 20)?;
    let mut found = FoundFormat::new(None, None);
    let mut integrity = None;
    for location in (first..=u32::MAX).take(usize::try_from(count).ok()?) {
        let descriptor = extent.bytes(u64::from(location) * block, 512)?;
        match le16(&descriptor, 0)? {
            _ if le32(&descriptor, 12)? != location => break,
            0 | END => break,
            PRIMARY if found.uuid.is_none() && is_unicode(&descriptor, 200) => {
                found.uuid = udf_uuid(&text(&descriptor, 72)?);
            }
            LOGICAL => {
                if found.label.is_none() && is_unicode(&descriptor, 20) {
                    found.label = text(&descriptor, 84).and_then(|name| utf16(name.into_iter()));
                }
                let (maps, length) = (le32(&descriptor, 268)?, le32(&descriptor, 432)?);
                let place = le32(&descriptor, 436)?;
                if integrity.is_none() && maps != 0 && length != 0 && place != 0 {
                    integrity = Some((place, length));
                }
            }
            _ => {}
        }
    }
    match integrity {
        Some((place, length)) if length >= DESCRIPTOR => {
            has_integrity(extent, block, place).then_some(found)
        }
        _ => Some(found),
    }
}

/// Length of the longest volume descriptor.
const DESCRIPTOR: u32 = 440;

/// Whether the integrity descriptor and what the implementation keeps in it are within the volume.
fn has_integrity(extent: &ByteExtent<'_>, block: u64, place: u32) -> bool {
    const INTEGRITY: u16 = 9;
    const USE: u32 = 46;
    let start = u64::from(place) * block;
    let Some(bytes) = extent.bytes(start, DESCRIPTOR.into()) else { return false };
    let tables = (le16(&bytes, 0), le32(&bytes, 12), le32(&bytes, 72), le32(&bytes, 76));
    match tables {
        (Some(INTEGRITY), Some(own), Some(partitions), Some(length))
            if own == place && length >= USE =>
        {
            extent.bytes(start + 80 + 8 * u64::from(partitions), USE.into()).is_some()
        }
        _ => true,
    }
}

/// Whether the sequence of structure descriptors, `step` bytes each, holds the one of UDF.
fn announces_udf(extent: &ByteExtent<'_>, step: u64) -> Option<()> {
    const MOST: u64 = 64;
    for index in 0..MOST {
        let descriptor = extent.bytes(DESCRIPTORS + index * step, 7)?;
        match field(&descriptor, 1, 5)? {
            b"NSR02" | b"NSR03" => return Some(()),
            b"BEA01" | b"BOOT2" | b"CD001" | b"CDW02" | b"TEA01" => {}
            _ => return None,
        }
    }
    None
}

fn anchor(extent: &ByteExtent<'_>, block: u64) -> Option<Vec<u8>> {
    const ANCHOR: u16 = 2;
    [256_u32, 512].into_iter().find_map(|location| {
        let bytes = extent.bytes(u64::from(location) * block, 512)?;
        (le32(&bytes, 12)? == location && le16(&bytes, 0)? == ANCHOR).then_some(bytes)
    })
}

fn is_unicode(descriptor: &[u8], at: usize) -> bool {
    has(descriptor, at, b"\0OSTA Compressed Unicode\0")
}

/// A dstring of 128 bytes: width in bits, 126 bytes, length with the width.
fn text(descriptor: &[u8], at: usize) -> Option<Vec<u16>> {
    let raw = field(descriptor, at, 128)?;
    let length = usize::from(*raw.get(127)?).saturating_sub(1).min(126);
    let units = field(raw, 1, length)?;
    match *raw.first()? {
        8 => Some(units.iter().copied().map(u16::from).collect()),
        16 => Some(units.chunks_exact(2).filter_map(|pair| be16(pair, 0)).collect()),
        _ => None,
    }
}

/// The first 16 bytes of the volume set's name if they are hexadecimal digits; otherwise the first 8
/// (or 8 and 4 more) of them written in hexadecimal.
fn udf_uuid(name: &[u16]) -> Option<String> {
    let mut bytes = String::new();
    for unit in char::decode_utf16(name.iter().copied().take_while(|unit| *unit != 0)) {
        let unit = unit.unwrap_or(char::REPLACEMENT_CHARACTER);
        if bytes.len() + unit.len_utf8() > 16 {
            break;
        }
        bytes.push(unit);
    }
    let bytes = bytes.as_bytes();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let plain = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let first = field(bytes, 0, 8)?;
    Some(match digits {
        0..8 => hex(first),
        8..16 => {
            let mut next = bytes.get(8..).unwrap_or_default().to_vec();
            next.resize(4, 0);
            plain(first) + &hex(&next)
        }
        _ => plain(bytes),
    })
}
