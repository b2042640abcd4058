//! Decoding what comes from outside: one error, and the few checks that every format shares.

use bytes::Bytes;
use prost::encoding::{WireType, decode_varint};

/// Why bytes from the network or the disk are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// More bytes than this format allows; nothing was allocated for them.
    #[error("{what}: {bytes} bytes, at most {bytes_max} are allowed")]
    TooLong {
        /// The format.
        what: &'static str,
        /// Bytes given.
        bytes: usize,
        /// Bytes allowed.
        bytes_max: usize,
    },
    /// A version that this program does not know.
    #[error("{what}: version {found} is not known here; a newer commonhold may read it")]
    Version {
        /// The format.
        what: &'static str,
        /// The version found.
        found: u32,
    },
    /// A field is missing, out of range or of the wrong length.
    #[error("{what}: bad field `{field}`")]
    Field {
        /// The format.
        what: &'static str,
        /// The field.
        field: &'static str,
    },
    /// Not the encoding at all.
    #[error("{what}: not decodable")]
    Encoding {
        /// The format.
        what: &'static str,
    },
}

/// Refuses more than `bytes_max` bytes.
pub fn check_length(what: &'static str, bytes: &[u8], bytes_max: usize) -> Result<(), FormatError> {
    if bytes.len() > bytes_max {
        return Err(FormatError::TooLong { what, bytes: bytes.len(), bytes_max });
    }
    Ok(())
}

/// Refuses every version but `known`.
pub fn check_version(what: &'static str, found: u32, known: u32) -> Result<(), FormatError> {
    if found == known { Ok(()) } else { Err(FormatError::Version { what, found }) }
}

/// A field of a message that may occur more than once, or that holds such fields.
pub(crate) struct Repeated {
    /// Its number.
    pub tag: u32,
    /// How often it may occur in one message.
    pub count_max: usize,
    /// The shortest that a valid one can be.
    pub bytes_min: usize,
    /// What may be repeated inside it.
    pub inner: &'static [Self],
}

/// Refuses a message that repeats a field more often than `repeated` allows; a field that is not listed occurs once.
///
/// Prost makes a value of about 100 bytes of each two-byte empty field, and counts can be checked only afterwards:
/// a message of 1 MiB would take more than 50 MiB. So they are counted first, on the bytes as they are.
fn check_repeats(what: &'static str, mut bytes: &[u8], repeated: &[Repeated]) -> Result<(), FormatError> {
    let broken = || FormatError::Encoding { what };
    let mut counts = [0_usize; 16];
    while !bytes.is_empty() {
        let (tag, wire_type) = prost::encoding::decode_key(&mut bytes).map_err(|_| broken())?;
        let length = match wire_type {
            WireType::Varint => {
                decode_varint(&mut bytes).map_err(|_| broken())?;
                0
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => decode_varint(&mut bytes).map_err(|_| broken())?,
            WireType::StartGroup | WireType::EndGroup => return Err(broken()),
        };
        let length = usize::try_from(length).map_err(|_| broken())?;
        let (value, rest) = bytes.split_at_checked(length).ok_or_else(broken)?;
        bytes = rest;
        // A number that no message of ours has: a newer version's field, which prost skips without keeping it.
        let Some(count) = counts.get_mut(tag as usize) else { continue };
        *count += 1;
        let field = repeated.iter().find(|field| field.tag == tag);
        let (count_max, bytes_min) = field.map_or((1, 0), |field| (field.count_max, field.bytes_min));
        if *count > count_max || length < bytes_min {
            return Err(broken());
        }
        if let Some(Repeated { inner, .. }) = field
            && !inner.is_empty()
        {
            check_repeats(what, value, inner)?;
        }
    }
    Ok(())
}

/// Length check, count check, then prost.
pub(crate) fn decode<M: prost::Message + Default>(
    what: &'static str,
    bytes: Bytes,
    bytes_max: usize,
    repeated: &[Repeated],
) -> Result<M, FormatError> {
    check_length(what, &bytes, bytes_max)?;
    check_repeats(what, &bytes, repeated)?;
    M::decode(bytes).map_err(|_| FormatError::Encoding { what })
}

/// A fixed-length field.
pub(crate) fn array<const N: usize>(
    what: &'static str,
    field: &'static str,
    bytes: &[u8],
) -> Result<[u8; N], FormatError> {
    bytes.try_into().map_err(|_| FormatError::Field { what, field })
}

/// A repeated field of at most `count_max` items.
pub(crate) fn check_count(
    what: &'static str,
    field: &'static str,
    count: usize,
    count_max: usize,
) -> Result<(), FormatError> {
    if count <= count_max { Ok(()) } else { Err(FormatError::Field { what, field }) }
}
