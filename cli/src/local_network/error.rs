//! What can go wrong with a local network.

use std::{
    io,
    path::{Path, PathBuf},
};

use commonhold_node::{ConfigError, data_dir::DataDirError};

/// Why a local network did not start, or could not be added to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalNetworkError {
    #[error("{}: not empty", dir.display())]
    NotEmpty { dir: PathBuf },
    #[error("no local network is running in {}", dir.display())]
    NotRunning { dir: PathBuf },
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: {reason}", path.display())]
    State { path: PathBuf, reason: String },
    #[error(transparent)]
    NodeConfig(#[from] ConfigError),
    #[error("{name} has ended: {how}; its last words:\n{last_words}")]
    NodeEnded { name: String, how: String, last_words: String, log: PathBuf },
    #[error("the network is not ready after {seconds} s: {waiting_for}")]
    NotReady { seconds: u64, waiting_for: String },
    #[error(transparent)]
    Client(#[from] commonhold_client_sdk::Error),
    #[error("interrupted")]
    Interrupted,
}

/// Says on which path what was tried.
pub(super) trait IoContext<T> {
    fn doing(self, action: &'static str, path: &Path) -> Result<T, LocalNetworkError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn doing(self, action: &'static str, path: &Path) -> Result<T, LocalNetworkError> {
        self.map_err(|source| LocalNetworkError::Io { action, path: path.to_owned(), source })
    }
}

impl<T> IoContext<T> for Result<T, DataDirError> {
    fn doing(self, action: &'static str, path: &Path) -> Result<T, LocalNetworkError> {
        self.map_err(|error| match error {
            DataDirError::Io { path, source } => LocalNetworkError::Io { action, path, source },
            error @ DataDirError::InUse { .. } => {
                LocalNetworkError::State { path: path.to_owned(), reason: error.to_string() }
            }
        })
    }
}
