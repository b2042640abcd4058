//! `node fsck`: checks what lies on the disk and builds both indexes anew. The node must not run.

use commonhold_storage_engine::store::{self, StoreError};
use serde::Serialize;

use crate::{
    config::Config,
    data_dir::{DataDir, DataDirError},
    node::RECORDS_FOLDER,
    records::{OpenReport, RecordStore, RecordsError},
};

/// Why the check did not end.
#[derive(Debug, thiserror::Error)]
pub enum FsckError {
    /// The data folder cannot be used, or a node runs there.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The shards cannot be checked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The records cannot be checked.
    #[error(transparent)]
    Records(#[from] RecordsError),
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FsckReport {
    /// Shards held, each verified against its root.
    pub shards: u64,
    /// Shards whose bytes do not fit their root: quarantined.
    pub damaged: u64,
    /// Shards that the old index knew and that are nowhere: quarantined.
    pub missing: u64,
    /// Bytes that belonged to no shard and were given back.
    pub orphaned_bytes: u64,
    /// Bytes of the shards, with their headers and trees.
    pub bytes: u64,
    /// Bytes of the volumes on the disk.
    pub disk_bytes: u64,
    /// The record logs.
    pub records: OpenReport,
}

/// Checks the node of this config.
pub fn fsck(config: &Config) -> Result<FsckReport, FsckError> {
    let data_dir = DataDir::lock(&config.data_dir())?;
    let shards = store::fsck(data_dir.path(), config.network_name())?;
    let records_max = config.pledge.records.of(config.pledge.disk.0);
    let (_, records) = RecordStore::rebuild(&data_dir.path().join(RECORDS_FOLDER), records_max)?;
    Ok(FsckReport {
        shards: shards.shards,
        damaged: shards.damaged,
        missing: shards.missing,
        orphaned_bytes: shards.orphaned_bytes,
        bytes: shards.bytes,
        disk_bytes: shards.disk_bytes,
        records,
    })
}
