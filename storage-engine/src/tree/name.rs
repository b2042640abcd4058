//! Names of directory entries. A [`Name`] that exists is fit to be a file's name: no path can be smuggled through it.

use std::fmt;

use bytes::Bytes;

/// The most bytes of a name, as on every common file system.
pub const NAME_BYTES_MAX: usize = 255;

/// Why bytes are not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No bytes at all.
    #[error("a name is empty")]
    Empty,
    /// More than [`NAME_BYTES_MAX`] bytes.
    #[error("a name has {bytes} bytes, at most {NAME_BYTES_MAX} are allowed")]
    TooLong {
        /// Bytes given.
        bytes: usize,
    },
    /// `.` or `..`.
    #[error("`.` and `..` are not names")]
    Dots,
    /// A slash or a NUL byte.
    #[error("a name holds a slash or a NUL byte")]
    Forbidden,
}

/// One component of a path: 1 to 255 bytes, any but `/` and NUL, and neither `.` nor `..`. Not necessarily UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Bytes);

impl Name {
    /// The name with these bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, NameError> {
        let bytes = bytes.into();
        match bytes.as_ref() {
            [] => Err(NameError::Empty),
            long if long.len() > NAME_BYTES_MAX => Err(NameError::TooLong { bytes: long.len() }),
            b"." | b".." => Err(NameError::Dots),
            other if other.iter().any(|byte| matches!(byte, b'/' | 0)) => Err(NameError::Forbidden),
            _ => Ok(Self(bytes)),
        }
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// With every byte that is not UTF-8 replaced; for people, not for opening files.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({:?})", String::from_utf8_lossy(&self.0))
    }
}
