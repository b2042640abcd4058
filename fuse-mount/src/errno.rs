//! Which error number a system call ends with: every choice is here.

use commonhold_client_sdk::Error;
use fuser::Errno;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FsError {
    /// Nothing has this name.
    #[error("not found")]
    NotFound,
    /// The number stands for nothing any more: the kernel looks the path up again.
    #[error("no longer there")]
    Stale,
    /// Not open, or opened as something else.
    #[error("not an open file")]
    BadHandle,
    /// A folder was expected.
    #[error("not a folder")]
    NotAFolder,
    /// A file was expected.
    #[error("a folder")]
    IsAFolder,
    /// It is not of the kind that this can be done with.
    #[error("not possible with this kind of file")]
    WrongKind,
    /// A name of more than 255 bytes.
    #[error("the name is too long")]
    NameTooLong,
    /// No such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// The caller's buffer is too small.
    #[error("the buffer is too small")]
    BufferTooSmall,
    /// More files are open than [`crate::fs::HANDLES_MAX`].
    #[error("too many open files")]
    TooManyOpen,
    /// The vault cannot be read.
    #[error(transparent)]
    Vault(#[from] Error),
}

impl FsError {
    /// The number for the kernel. What is wrong with the vault has no number of its own, so it goes to the log.
    pub(crate) fn errno(&self, doing: &'static str) -> Errno {
        match self {
            Self::NotFound => Errno::ENOENT,
            Self::Stale => Errno::ESTALE,
            Self::BadHandle => Errno::EBADF,
            Self::NotAFolder => Errno::ENOTDIR,
            Self::IsAFolder => Errno::EISDIR,
            Self::WrongKind => Errno::EINVAL,
            Self::NameTooLong => Errno::ENAMETOOLONG,
            Self::NoAttribute => Errno::NO_XATTR,
            Self::BufferTooSmall => Errno::ERANGE,
            Self::TooManyOpen => Errno::ENFILE,
            Self::Vault(error) => {
                match error {
                    Error::Interrupted => tracing::error!("cannot {doing}: it took too long"),
                    error => tracing::error!("cannot {doing}: {error}"),
                }
                Errno::EIO
            }
        }
    }
}
