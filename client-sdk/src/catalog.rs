//! What this process knows of segments: coding and holders, manifests, and who the holders are.
//!
//! Sources, in this order: what was learned in this session, the hints of the head, the vault's segment table, and
//! the segment's stewards (asked by the download itself, when hints do not suffice).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use commonhold_protocol::{Manifest, NodeId, SegmentId, ShardIndex, Verified};
use commonhold_storage_engine::tree::map::TreeRoot;

use crate::{
    head_payload::HeadPayload,
    table::{NodeKey, SegmentInfo},
};

/// Segments remembered at once; each takes one or two KiB. At the limit all are forgotten, and learned anew from
/// hints, tables and stewards.
const SEGMENTS_MAX: usize = 8192;

#[derive(Default)]
struct Known {
    /// Of the heads that were read last; more than one while siblings are not merged.
    tables: Vec<TreeRoot>,
    /// What no table describes; a head holds few.
    hinted: BTreeMap<SegmentId, SegmentInfo>,
    infos: BTreeMap<SegmentId, SegmentInfo>,
    manifests: BTreeMap<SegmentId, Arc<Verified<Manifest>>>,
    nodes: BTreeMap<NodeKey, NodeId>,
}

impl Known {
    fn learn(&mut self, payload: &HeadPayload) {
        if !self.tables.contains(&payload.table) {
            self.tables.push(payload.table.clone());
        }
        self.nodes.extend(payload.nodes.iter().map(|hint| (NodeKey::of(&hint.node), hint.node)));
        self.hinted.extend(payload.hints.iter().map(|hint| (hint.id, hint.info.clone())));
    }
}

/// Shared knowledge of segments.
#[derive(Default)]
pub(crate) struct Catalog(Mutex<Known>);

impl Catalog {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the newest heads say, in place of those before.
    pub(crate) fn learn_heads<'p>(&self, payloads: impl IntoIterator<Item = &'p HeadPayload>) {
        let mut known = self.known();
        known.tables.clear();
        known.hinted.clear();
        payloads.into_iter().for_each(|payload| known.learn(payload));
    }

    /// Takes in what one more head says.
    pub(crate) fn learn_sibling(&self, payload: &HeadPayload) {
        self.known().learn(payload);
    }

    /// The segment tables of the newest heads.
    pub(crate) fn tables(&self) -> Vec<TreeRoot> {
        self.known().tables.clone()
    }

    pub(crate) fn info(&self, segment: &SegmentId) -> Option<SegmentInfo> {
        let known = self.known();
        known.infos.get(segment).or_else(|| known.hinted.get(segment)).cloned()
    }

    pub(crate) fn learn_info(&self, segment: SegmentId, info: SegmentInfo) {
        let mut known = self.known();
        if known.infos.len() >= SEGMENTS_MAX {
            known.infos.clear();
        }
        known.infos.insert(segment, info);
    }

    pub(crate) fn manifest(&self, segment: &SegmentId) -> Option<Arc<Verified<Manifest>>> {
        self.known().manifests.get(segment).cloned()
    }

    pub(crate) fn learn_manifest(&self, segment: SegmentId, manifest: Arc<Verified<Manifest>>) {
        let mut known = self.known();
        if known.manifests.len() >= SEGMENTS_MAX {
            known.manifests.clear();
        }
        known.manifests.insert(segment, manifest);
    }

    pub(crate) fn learn_node(&self, node: NodeId) {
        self.known().nodes.insert(NodeKey::of(&node), node);
    }

    /// Holders whose node is not known yet.
    pub(crate) fn unknown_nodes(&self, info: &SegmentInfo) -> Vec<NodeKey> {
        let known = self.known();
        let mut unknown: Vec<NodeKey> =
            info.holders.iter().flatten().filter(|key| !known.nodes.contains_key(*key)).copied().collect();
        unknown.sort();
        unknown.dedup();
        unknown
    }

    /// The hinted holder of each shard.
    pub(crate) fn holders(&self, info: &SegmentInfo) -> BTreeMap<ShardIndex, NodeId> {
        let known = self.known();
        let holder = |index| Some((index, *known.nodes.get(&info.holder(index)?)?));
        info.coding.indices().filter_map(holder).collect()
    }
}
