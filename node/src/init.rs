//! `node init`: a commented config and an identity, in a folder that has neither.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use commonhold_protocol::NodeId;

use crate::{
    config::{Config, ConfigError, sample},
    data_dir,
    identity::{Identity, IdentityError},
};

/// The name of a node's config file.
pub const CONFIG_FILE: &str = "node.toml";

/// Why a node cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is one already.
    #[error("{}: exists already; nothing was changed", path.display())]
    Exists {
        /// The config file.
        path: PathBuf,
    },
    /// The options do not make a valid config.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The identity cannot be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A file or folder cannot be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitReport {
    /// The config file.
    pub config: PathBuf,
    /// The new node's id.
    pub node: NodeId,
}

/// Writes `config` with comments to `folder/node.toml`, and makes the node's identity.
pub fn init(folder: &Path, config: &Config) -> Result<InitReport, InitError> {
    let path = folder.join(CONFIG_FILE);
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| InitError::Io { path, source }
    };
    if path.exists() {
        return Err(InitError::Exists { path });
    }
    let text = sample(config);
    let config = Config::parse(&text, &path, folder)?;
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let data_dir = config.data_dir();
    fs::create_dir_all(&data_dir).map_err(failed(&data_dir))?;
    let identity = Identity::load_or_create(&data_dir)?;
    data_dir::write_atomically(&path, text.as_bytes()).map_err(failed(&path))?;
    Ok(InitReport { config: path, node: identity.node_id() })
}
