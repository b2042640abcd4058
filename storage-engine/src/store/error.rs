//! What can go wrong in the store, and what of it another node is told.

use std::{io, path::PathBuf};

use commonhold_protocol::{
    ClaimLeaf, NetworkName, ShardIndex, ShardRoot, VaultId, ask::Refusal, shard_stream::READ_RANGES_MAX,
};

use super::disk::{VolumeNumber, is_full};

/// Why the store did not do what it was asked. It goes on after each of these.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The pledge has no room for this shard.
    #[error("the pledge of {pledge_bytes} bytes has no room for {needed_bytes} more")]
    PledgeFull {
        /// Bytes of the record.
        needed_bytes: u64,
        /// The pledge.
        pledge_bytes: u64,
    },
    /// The file system has no room, or less than is to stay free.
    #[error("the disk has no room for {needed_bytes} bytes above the {keep_free_bytes} that stay free")]
    DiskFull {
        /// Bytes that were to be written.
        needed_bytes: u64,
        /// The floor.
        keep_free_bytes: u64,
    },
    /// The vault has placed here as much as one vault may.
    #[error("vault {vault}: it may place {vault_bytes_max} bytes here, and this would be more")]
    VaultLimit {
        /// The vault.
        vault: VaultId,
        /// What one vault may place.
        vault_bytes_max: u64,
    },
    /// More shards are being written than the store takes at once.
    #[error("{writers_max} shards are being written already")]
    Busy {
        /// The most at once.
        writers_max: usize,
    },
    /// This very shard is being written by someone else.
    #[error("shard {} of {} is being written already", .leaf.index, .leaf.segment)]
    BeingWritten {
        /// The shard.
        leaf: ClaimLeaf,
    },
    /// The shard is held already.
    #[error("shard {} of {} is held already", .leaf.index, .leaf.segment)]
    AlreadyHeld {
        /// The shard.
        leaf: ClaimLeaf,
    },
    /// The shard is not held.
    #[error("shard {} of {} is not held", .leaf.index, .leaf.segment)]
    NotHeld {
        /// The shard.
        leaf: ClaimLeaf,
    },
    /// The shard is on this disk no longer as it was stored; it is quarantined.
    #[error("shard {} of {} is damaged", .leaf.index, .leaf.segment)]
    Damaged {
        /// The shard.
        leaf: ClaimLeaf,
    },
    /// The segment has no such shard.
    #[error("index {index}: the segment has {shards} shards")]
    Index {
        /// The index asked for.
        index: ShardIndex,
        /// Shards of the segment.
        shards: u8,
    },
    /// More or fewer bytes came than the shard has.
    #[error("{bytes} bytes came for a shard of {shard_length}")]
    Length {
        /// Bytes that came, as far as they were counted.
        bytes: u64,
        /// Bytes of the shard.
        shard_length: u64,
    },
    /// The bytes that came are not the shard that the manifest names.
    #[error("the bytes hash to {found}, the manifest says {expected}")]
    Root {
        /// The root in the manifest.
        expected: ShardRoot,
        /// The root of what came.
        found: ShardRoot,
    },
    /// The chunk groups asked for are none, too many, out of order or beyond the shard's end.
    #[error("chunk groups out of order, beyond the end, or not 1 to {READ_RANGES_MAX} runs")]
    Ranges,
    /// The disk failed.
    #[error("{doing} volume {volume}")]
    Volume {
        /// What was being done.
        doing: &'static str,
        /// Where.
        volume: VolumeNumber,
        /// What the system said.
        source: io::Error,
    },
    /// The disk failed.
    #[error("{doing} {}", .path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier write to this volume failed, or its file was taken away; what was not yet durable there is lost.
    #[error("volume {volume} has failed")]
    VolumeFailed {
        /// The volume.
        volume: VolumeNumber,
    },
    /// The index failed. It is rebuilt from the volumes when the store is opened again.
    #[error("the index failed")]
    Sled(#[from] sled::Error),
    /// Another process has the store open.
    #[error("{} is in use by another process", .path.display())]
    InUse {
        /// The store's label.
        path: PathBuf,
    },
    /// The store belongs to another network.
    #[error("the store belongs to network {found}, not {expected}")]
    OtherNetwork {
        /// The network asked for.
        expected: NetworkName,
        /// The network that the store was made for.
        found: NetworkName,
    },
    /// The store's label is not readable, and no volume tells what it said.
    #[error("{} is damaged, and no volume has a copy of what it said", .path.display())]
    Label {
        /// The store's label.
        path: PathBuf,
    },
    /// The store is being closed.
    #[error("the store is closing")]
    Stopping,
}

impl StoreError {
    /// What another node is told. A shard that is held already is not a failure: ask for a claim instead.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::PledgeFull { .. } => Refusal::PledgeFull,
            Self::DiskFull { .. } => Refusal::DiskFull,
            Self::VaultLimit { .. } => Refusal::VaultLimit,
            Self::Busy { .. } | Self::BeingWritten { .. } => Refusal::Busy,
            Self::NotHeld { .. } => Refusal::Unknown,
            Self::Damaged { .. } => Refusal::Damaged,
            Self::Index { .. } | Self::Length { .. } | Self::Root { .. } | Self::Ranges => Refusal::Invalid,
            Self::Volume { source, .. } | Self::File { source, .. } if is_full(source) => Refusal::DiskFull,
            Self::Volume { .. } | Self::File { .. } | Self::VolumeFailed { .. } | Self::Sled(_) => Refusal::DiskError,
            Self::Stopping => Refusal::Stopping,
            Self::AlreadyHeld { .. } | Self::InUse { .. } | Self::OtherNetwork { .. } | Self::Label { .. } => {
                Refusal::Other
            }
        }
    }

    pub(crate) fn volume(doing: &'static str, volume: VolumeNumber) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Volume { doing, volume, source }
    }

    pub(crate) fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }
}
