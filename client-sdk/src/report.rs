//! What an owner can see of the vault from outside: its state, and its network.

use std::{collections::BTreeMap, sync::Arc};

use commonhold_protocol::SegmentId;
use commonhold_storage_engine::tree::map;

use crate::{
    error::Error,
    head_payload::HeadPayload,
    health::Outlook,
    reader::Reader,
    table::{self, SegmentInfo},
    vault::Vault,
};

/// The state of a vault.
#[derive(Debug, Clone, serde::Serialize)]
pub struct VaultStatus {
    /// The vault's id, in hex.
    pub vault: String,
    /// The network.
    pub network: String,
    /// Heads that devices have written, in all.
    pub heads_written: u64,
    /// Devices that have written.
    pub devices: usize,
    /// When the newest head was written, in milliseconds since 1970; none if nothing was stored yet.
    pub written_at_ms: Option<u64>,
    /// Until when the vault is kept, in milliseconds since 1970.
    pub kept_until_ms: Option<u64>,
    /// Segments in the vault's table.
    pub segments: u64,
    /// Bytes of sealed frames in them.
    pub segment_bytes: u64,
    /// How well they are kept.
    #[serde(flatten)]
    pub outlook: Outlook,
    /// The coding that is wanted: K/N, or a durability target.
    pub coding: Option<String>,
    /// Nodes that answer.
    pub nodes: usize,
    /// Bytes that they would still take.
    pub free_bytes: u64,
}

/// A node of the network.
#[derive(Debug, Clone, serde::Serialize)]
pub struct PeerInfo {
    /// Its id, in hex.
    pub node: String,
    /// Where it was found.
    pub addresses: Vec<String>,
    /// Its failure domain.
    pub domain: Option<String>,
    /// Bytes that it would still take; none if it did not answer.
    pub free_bytes: Option<u64>,
}

/// This machine's clock beside those of nodes. Each of them may lie; half of them would have to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReport {
    /// How far the median of their clocks is ahead of ours, in milliseconds; negative if it is behind.
    pub nodes_ahead_ms: i64,
    /// Nodes that answered.
    pub nodes: usize,
}

impl Vault {
    /// The state of the vault, from its head and the nodes that answer.
    pub fn status(&self) -> Result<VaultStatus, Error> {
        let state = self.state(&Arc::default())?;
        let written = !state.payload.root.is_empty() || !state.payload.history.is_empty();
        let segments = segments_in(&self.reader, &state.payload)?;
        let candidates = self.session.block_on(self.session.candidates())?;
        Ok(VaultStatus {
            vault: format!("{:#}", self.id()),
            network: self.network().to_string(),
            heads_written: state.version.counters().map(|(_, counter)| counter).sum(),
            devices: state.version.counters().count(),
            written_at_ms: written.then_some(state.payload.written_at.0),
            kept_until_ms: state.lease.map(|lease| lease.valid_until.0),
            segments: segments.len() as u64,
            segment_bytes: segments.values().map(|info| info.length).sum(),
            outlook: self.outlook(&segments)?,
            coding: self.wanted_coding(&state.payload).map(|wanted| wanted.to_string()),
            nodes: candidates.len(),
            free_bytes: candidates.iter().map(|candidate| candidate.free_bytes).sum(),
        })
    }

    /// How this machine's clock compares with those of nodes; none if no node answers.
    pub fn clock(&self) -> Result<Option<ClockReport>, Error> {
        let offsets = self.session.block_on(self.session.clock_offsets())?;
        let median = offsets.get(offsets.len() / 2);
        Ok(median.map(|ahead_ms| ClockReport { nodes_ahead_ms: *ahead_ms, nodes: offsets.len() }))
    }

    /// The nodes of the network that a few walks find.
    pub fn peers(&self) -> Result<Vec<PeerInfo>, Error> {
        let nodes = self.session.block_on(self.session.nodes())?;
        let candidates = self.session.block_on(self.session.candidates())?;
        let found = nodes.into_iter().map(|(node, addresses)| {
            let candidate = candidates.iter().find(|candidate| candidate.node == node);
            PeerInfo {
                node: format!("{node:#}"),
                addresses: addresses.iter().map(ToString::to_string).collect(),
                domain: candidate.map(|candidate| candidate.domain.as_str().to_owned()),
                free_bytes: candidate.map(|candidate| candidate.free_bytes),
            }
        });
        Ok(found.collect())
    }
}

/// All segments that a head knows: those in its table, and those that it hints.
pub(crate) fn segments_in(reader: &Reader, payload: &HeadPayload) -> Result<BTreeMap<SegmentId, SegmentInfo>, Error> {
    let mut known: BTreeMap<SegmentId, SegmentInfo> =
        payload.hints.iter().map(|hint| (hint.id, hint.info.clone())).collect();
    let from = std::ops::Bound::Included(table::SEGMENTS_FROM);
    for entry in map::range(reader, &payload.table, from) {
        let (key, value) = entry?;
        known.insert(table::segment_of_key(&key)?, SegmentInfo::decode(value)?);
    }
    Ok(known)
}
