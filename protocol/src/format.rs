//! Decoding what comes from outside: one error, and the few checks that every format shares.

use bytes::Bytes;

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

/// Length check, then prost.
pub(crate) fn decode<M: prost::Message + Default>(
    what: &'static str,
    bytes: Bytes,
    bytes_max: usize,
) -> Result<M, FormatError> {
    check_length(what, &bytes, bytes_max)?;
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
