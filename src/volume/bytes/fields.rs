//! Numbers, identifiers and names out of raw bytes; what is not there is `None`, never a panic.
#![forbid(unsafe_code)]

macro_rules! number {
    ($name:ident, $type:ty, $from:ident) => {
        /// The number at byte `at`.
        pub fn $name(bytes: &[u8], at: usize) -> Option<$type> {
            let end = at.checked_add(size_of::<$type>())?;
            Some(<$type>::$from(bytes.get(at..end)?.try_into().ok()?))
        }
    };
}

number!(le16, u16, from_le_bytes);
number!(le32, u32, from_le_bytes);
number!(le64, u64, from_le_bytes);
number!(be16, u16, from_be_bytes);
number!(be32, u32, from_be_bytes);
number!(be64, u64, from_be_bytes);

/// `length` bytes at byte `at`.
pub fn field(bytes: &[u8], at: usize, length: usize) -> Option<&[u8]> {
    bytes.get(at..at.checked_add(length)?)
}

/// Whether `expected` stands at byte `at`.
pub fn has(bytes: &[u8], at: usize, expected: &[u8]) -> bool {
    field(bytes, at, expected.len()) == Some(expected)
}

/// The 16 bytes at `at` as blkid prints an identifier; `None` when they are all zero.
pub fn uuid(bytes: &[u8], at: usize) -> Option<String> {
    let raw: [u8; 16] = field(bytes, at, 16)?.try_into().ok()?;
    let number = u128::from_be_bytes(raw);
    (number != 0).then(|| {
        let hex = format!("{number:032x}");
        let mut text = String::with_capacity(36);
        for (index, digit) in hex.chars().enumerate() {
            if matches!(index, 8 | 12 | 16 | 20) {
                text.push('-');
            }
            text.push(digit);
        }
        text
    })
}

/// An identifier that mixes byte orders as Microsoft and EFI do (UEFI specification, appendix A).
pub fn guid(bytes: &[u8], at: usize) -> Option<String> {
    let raw: [u8; 16] = field(bytes, at, 16)?.try_into().ok()?;
    let [a, b, c, d, e, f, g, h, rest @ ..] = raw;
    let mut swapped = [d, c, b, a, f, e, h, g].to_vec();
    swapped.extend_from_slice(&rest);
    uuid(&swapped, 0)
}

/// The four bytes at `at` as the serial number of a FAT volume: `ABCD-EF01`; `None` when zero.
pub fn serial(bytes: &[u8], at: usize) -> Option<String> {
    let number = le32(bytes, at)?;
    (number != 0).then(|| format!("{:04X}-{:04X}", number >> 16, number & 0xffff))
}

/// A name of at most `length` bytes: up to the first NUL, without white space at its end; `None` when
/// nothing is left. Bytes that are no UTF-8 become U+FFFD.
pub fn label(bytes: &[u8], at: usize, length: usize) -> Option<String> {
    let raw = field(bytes, at, length)?;
    let raw = raw.split(|byte| *byte == 0).next()?;
    trimmed(&String::from_utf8_lossy(raw))
}

/// `name` without white space at its end; `None` when nothing is left.
pub fn trimmed(name: &str) -> Option<String> {
    let name = name.trim_end_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    (!name.is_empty()).then(|| name.to_owned())
}

/// A name of 16-bit units up to the first zero; a lone half of a surrogate pair becomes U+FFFD.
pub fn utf16(units: impl Iterator<Item = u16>) -> Option<String> {
    let name: String = char::decode_utf16(units.take_while(|unit| *unit != 0))
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    trimmed(&name)
}

/// [`utf16`] of the `length` bytes at `at`, low byte first.
pub fn utf16_le(bytes: &[u8], at: usize, length: usize) -> Option<String> {
    utf16(field(bytes, at, length)?.chunks_exact(2).filter_map(|pair| le16(pair, 0)))
}
