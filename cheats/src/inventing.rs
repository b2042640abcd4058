//! Claims for shards that were never held, brought to everyone who might believe them.

use std::{collections::HashSet, sync::PoisonError, time::Duration};

use commonhold_node::Service;
use commonhold_protocol::{
    ClaimLeaf, NetworkName, Record, SegmentId, ShardIndex,
    ask::{ASK_RECORDS_MAX, Request, Response},
};

use crate::cheat::Cheat;

const PATIENCE: Duration = Duration::from_secs(10);

/// The segments that somebody talks of.
pub(crate) fn segments_in(request: &Request, network: &NetworkName) -> Vec<SegmentId> {
    match request {
        Request::KeepRecords { records, .. } => {
            let manifests = records.iter().filter_map(|record| record.manifest.clone().verify(network).ok());
            manifests.map(|manifest| manifest.id()).collect()
        }
        Request::FetchVersions { segments } | Request::FetchHealth { segments } => segments.clone(),
        _ => Vec::new(),
    }
}

impl Cheat {
    /// Claims all that others hold of these segments, once for each, if their records are kept here.
    pub(crate) async fn invent(&self, segments: Vec<SegmentId>) {
        for segments in segments.chunks(ASK_RECORDS_MAX) {
            self.invent_some(segments.to_vec()).await;
        }
    }

    async fn invent_some(&self, segments: Vec<SegmentId>) {
        let own = self.honest.peer().node_id();
        let Some(Response::Records(records)) = self.honest.answer(own, Request::FetchRecords { segments }).await else {
            return;
        };
        let mut invented = Vec::new();
        for record in records.into_iter().flatten() {
            let Ok(manifest) = record.manifest.clone().verify(&self.network) else { continue };
            let segment = manifest.id();
            if !self.claimed.lock().unwrap_or_else(PoisonError::into_inner).insert(segment) {
                continue;
            }
            let claims = record.claims.into_iter().filter_map(|claim| claim.verify(&self.network).ok());
            let held: HashSet<ShardIndex> =
                claims.filter(|claim| claim.holder == own).map(|claim| claim.claim.leaf.index).collect();
            let leaves: Vec<ClaimLeaf> = (0..manifest.coding.n())
                .map(|index| ClaimLeaf { segment, index: ShardIndex(index) })
                .filter(|leaf| !held.contains(&leaf.index))
                .collect();
            invented.push(Record { manifest: record.manifest, claims: self.claim(&leaves), drop: None });
        }
        if invented.is_empty() {
            return;
        }
        tracing::info!(segments = invented.len(), "claiming what was never held");
        let keep = Request::KeepRecords { records: invented, lease: None };
        self.honest.answer(own, keep.clone()).await;
        let peer = self.honest.peer().clone();
        tokio::spawn(async move {
            for (node, _) in peer.connected() {
                // Who does not listen hears it from another.
                let _ = peer.ask(node, keep.clone(), PATIENCE).await;
            }
        });
    }
}
