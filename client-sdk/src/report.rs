//! What an owner can see of the vault from outside: its state, its network, and the health of its segments as the
//! stewards have it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use commonhold_protocol::{
    NodeId, SegmentId,
    ask::{Request, Response},
};
use commonhold_storage_engine::tree::{
    entry::{EntryKind, FileContent},
    map, walk,
};

use crate::{
    error::Error,
    table::{self, SegmentInfo},
    vault::Vault,
    vault_path::VaultPath,
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
    /// The coding that is pinned, as K/N.
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

/// The health of one segment.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SegmentHealth {
    /// The segment's id, in hex.
    pub id: String,
    /// Shards that restore it.
    pub k: u8,
    /// Shards in all.
    pub n: u8,
    /// Bytes of sealed frames.
    pub length: u64,
    /// Who claims each shard, by index, in hex.
    pub holders: Vec<Option<String>>,
    /// Shards whose holder answers.
    pub healthy: usize,
    /// Stewards that keep its record.
    pub stewards: usize,
}

impl Vault {
    /// The state of the vault, from its head and the nodes that answer.
    pub fn status(&self) -> Result<VaultStatus, Error> {
        let state = self.state(&Arc::default())?;
        let written = !state.payload.root.is_empty() || !state.payload.history.is_empty();
        let (mut segments, mut segment_bytes) = (0, 0);
        for (_, info) in self.known_segments()? {
            segments += 1;
            segment_bytes += info.length;
        }
        let candidates = self.session.block_on(self.session.candidates())?;
        Ok(VaultStatus {
            vault: format!("{:#}", self.id()),
            network: self.network().to_string(),
            heads_written: state.version.counters().map(|(_, counter)| counter).sum(),
            devices: state.version.counters().count(),
            written_at_ms: written.then_some(state.payload.written_at.0),
            kept_until_ms: state.lease.map(|lease| lease.valid_until.0),
            segments,
            segment_bytes,
            coding: self.pinned_coding.or(state.payload.coding).map(|coding| coding.to_string()),
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

    /// The health of all segments, or of those that a path needs.
    pub fn segments(&self, path: Option<&VaultPath>) -> Result<Vec<SegmentHealth>, Error> {
        let wanted: BTreeSet<SegmentId> = match path {
            Some(path) => self.segments_of(path)?,
            None => self.known_segments()?.into_keys().collect(),
        };
        let answering: BTreeSet<NodeId> =
            self.session.block_on(self.session.candidates())?.into_iter().map(|candidate| candidate.node).collect();
        wanted.into_iter().map(|id| self.segment_health(id, &answering)).collect()
    }

    fn segments_of(&self, path: &VaultPath) -> Result<BTreeSet<SegmentId>, Error> {
        let state = self.state(&Arc::default())?;
        let entry = self.entry(&self.reader, &state.payload.root, path)?;
        let mut found = BTreeSet::new();
        let mut note = |chunk: &commonhold_storage_engine::chunk_ref::ChunkRef, _: walk::Part| {
            found.insert(chunk.segment);
            true
        };
        match &entry.kind {
            EntryKind::Directory(tree) => walk::directory(&self.reader, tree, &mut note)?,
            EntryKind::File(FileContent::Chunks(root)) => walk::file(&self.reader, root, &mut note)?,
            _ => {}
        }
        Ok(found)
    }

    /// All segments of the vault: those in its table, and those that the head hints.
    fn known_segments(&self) -> Result<BTreeMap<SegmentId, SegmentInfo>, Error> {
        let state = self.state(&Arc::default())?;
        let mut known: BTreeMap<SegmentId, SegmentInfo> =
            state.payload.hints.iter().map(|hint| (hint.id, hint.info.clone())).collect();
        let from = std::ops::Bound::Included(table::SEGMENTS_FROM);
        for entry in map::range(&self.reader, &state.payload.table, from) {
            let (key, value) = entry?;
            known.insert(table::segment_of_key(&key)?, SegmentInfo::decode(value)?);
        }
        Ok(known)
    }

    fn segment_health(&self, id: SegmentId, answering: &BTreeSet<NodeId>) -> Result<SegmentHealth, Error> {
        let stewards = self.session.block_on(self.session.stewards(*id.as_bytes()))?;
        let request = Request::FetchRecords { segments: vec![id] };
        let answers = self.session.block_on(self.session.ask_all(&stewards, &request));
        let mut health: Option<SegmentHealth> = None;
        let mut healthy = BTreeSet::new();
        for (_, answer) in answers {
            let Some(Response::Records(records)) = answer else { continue };
            let Some(record) = records.into_iter().flatten().next() else { continue };
            let Ok(manifest) = record.manifest.verify(self.network()) else { continue };
            if manifest.id() != id || manifest.vault != self.id() {
                continue;
            }
            let coding = manifest.coding;
            let health = health.get_or_insert_with(|| SegmentHealth {
                id: format!("{id:#}"),
                k: coding.k(),
                n: coding.n(),
                length: manifest.length,
                holders: vec![None; usize::from(coding.n())],
                healthy: 0,
                stewards: 0,
            });
            health.stewards += 1;
            for claim in record.claims {
                let Ok(claim) = claim.verify(self.network()) else { continue };
                let index = claim.claim.leaf.index;
                let Some(slot) = health.holders.get_mut(usize::from(index.0)) else { continue };
                let answers = answering.contains(&claim.holder);
                if claim.claim.leaf.segment == id && (slot.is_none() || answers) {
                    *slot = Some(format!("{:#}", claim.holder));
                }
                if answers {
                    healthy.insert(index);
                }
            }
        }
        let info = self.reader.catalog().info(&id);
        let mut health = health.unwrap_or_else(|| SegmentHealth {
            id: format!("{id:#}"),
            k: info.as_ref().map_or(0, |info| info.coding.k()),
            n: info.as_ref().map_or(0, |info| info.coding.n()),
            length: info.as_ref().map_or(0, |info| info.length),
            holders: Vec::new(),
            healthy: 0,
            stewards: 0,
        });
        health.healthy = healthy.len();
        Ok(health)
    }
}
