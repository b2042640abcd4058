//! The trash: shards whose segment the owner dropped. They are no longer served; their space comes back after a while,
//! or early when it is needed, and until then an undrop brings them back.
//!
//! A shard is in the trash because its segment's newest drop says so; nothing is moved or marked on the disk.

use std::sync::Arc;

use commonhold_protocol::{ClaimLeaf, Manifest, SegmentId, Timestamp, VaultId};
use commonhold_storage_engine::store::{ShardStore, StoreError};
use serde::Serialize;

use super::held_of;
use crate::{
    records::{Kind, RecordsError, Summary},
    steward::{Steward, TAG_DROPPED},
};

/// Drops looked at in one step.
const PAGE: usize = 256;
/// How many dropped segments are looked through for space when a shard does not fit.
const ROOM_SEARCH_MAX: usize = 4096;

/// What was given back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TrashReport {
    /// Segments whose shards were removed.
    pub segments: u64,
    /// Shards removed.
    pub shards: u64,
    /// Their bytes on disk.
    pub bytes: u64,
}

impl TrashReport {
    fn add(&mut self, other: Self) {
        self.segments += other.segments;
        self.shards += other.shards;
        self.bytes += other.bytes;
    }
}

/// Why the trash cannot be emptied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrashError {
    #[error(transparent)]
    Records(#[from] RecordsError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Removes the shards that have been in the trash for `trash_ms`.
pub(crate) fn empty_trash(
    store: &ShardStore,
    steward: &Steward,
    now: Timestamp,
    trash_ms: u64,
) -> Result<TrashReport, TrashError> {
    let mut report = TrashReport::default();
    let mut after: Option<[u8; 32]> = None;
    loop {
        let page = steward.records().list(Kind::Drop, after.as_ref(), PAGE)?;
        let Some(last) = page.last() else { return Ok(report) };
        after = Some(last.key);
        for summary in page.iter().filter(|summary| summary.tag == TAG_DROPPED) {
            let segment = SegmentId::from_bytes(summary.key);
            let Some((_, held)) = steward.held_drop(&segment)? else { continue };
            if now.ms_since(held.arrived_at) >= trash_ms {
                report.add(empty_one(store, steward, &segment)?);
            }
        }
    }
}

/// Gives back the space of dropped shards, oldest first, until a shard of `manifest` would fit.
pub(super) fn make_room(store: &Arc<ShardStore>, steward: &Steward, manifest: &Manifest, why: &StoreError) {
    let only_vault = matches!(why, StoreError::VaultLimit { .. }).then_some(manifest.vault);
    // The record on disk is a little longer than the shard; a second shard's worth covers that.
    let needed = manifest.shard_length() * 2;
    match find_room(store, steward, only_vault, needed) {
        Ok(TrashReport { segments: 0, .. }) => {}
        Ok(report) => tracing::info!(?report, "the trash was emptied early, for space"),
        Err(error) => tracing::warn!(%error, "the trash cannot be emptied"),
    }
}

fn find_room(
    store: &ShardStore,
    steward: &Steward,
    only_vault: Option<VaultId>,
    needed: u64,
) -> Result<TrashReport, TrashError> {
    let mut oldest: Vec<Summary> = steward.records().list(Kind::Drop, None, ROOM_SEARCH_MAX)?;
    oldest.retain(|summary| summary.tag == TAG_DROPPED);
    // Later changes have higher sequences, so this is about the order of arrival, without reading the bodies.
    oldest.sort_by_key(|summary| summary.sequence);
    let mut report = TrashReport::default();
    for summary in oldest {
        if report.bytes >= needed {
            break;
        }
        if only_vault.is_some() && steward.records().owner(Kind::Drop, &summary.key)? != only_vault {
            continue;
        }
        report.add(empty_one(store, steward, &SegmentId::from_bytes(summary.key))?);
    }
    Ok(report)
}

fn empty_one(store: &ShardStore, steward: &Steward, segment: &SegmentId) -> Result<TrashReport, TrashError> {
    let held = held_of(store, segment)?;
    let leaves: Vec<ClaimLeaf> = held.iter().map(|held| held.leaf).collect();
    let bytes = held.iter().map(|held| held.bytes).sum();
    let shards = store.remove_all(&leaves)? as u64;
    steward.note_emptied(segment)?;
    Ok(TrashReport { segments: 1, shards, bytes })
}
