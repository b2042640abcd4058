//! The stewards of segments, as their holder knows them: found with one walk for each neighbourhood of keys, and asked
//! as others are asked, ourselves among them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use commonhold_network::CLOSEST_MAX;
use commonhold_policy::{Domain, stewards::Neighbourhood};
use commonhold_protocol::{
    ClaimLeaf, NodeId, Record, SegmentId, VaultId,
    ask::{ASK_IDS_MAX, Outcome, Request, Response},
};
use futures::future::join_all;
use tokio::time::Instant;

use crate::{
    leases,
    service::{NodeService, Service},
};

/// How long a steward may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// A walk says who the stewards are for this long.
const WALK_GOOD_FOR: Duration = Duration::from_secs(30);

/// The way to the stewards.
pub(crate) struct Colleagues {
    own: NodeService,
    /// What the last walk found, and when.
    near: Option<(Neighbourhood, Instant)>,
}

impl Colleagues {
    /// `own` answers for ourselves.
    pub(crate) fn new(own: NodeService) -> Self {
        Self { own, near: None }
    }

    pub(crate) fn own(&self) -> &NodeService {
        &self.own
    }

    /// The stewards of a segment; nobody if they cannot be found. Cheapest in the order of their places.
    pub(crate) async fn of(&mut self, segment: &SegmentId) -> Vec<NodeId> {
        if let Some((near, at)) = &self.near
            && at.elapsed() < WALK_GOOD_FOR
            && let Some(stewards) = near.stewards_of(segment.as_bytes())
        {
            return stewards;
        }
        let neighbours = &self.own.neighbours;
        let Ok(closest) = self.own.peer.closest(*segment.as_bytes()).await else { return Vec::new() };
        let found: Vec<(NodeId, Domain)> =
            closest.into_iter().map(|contact| (contact.node, neighbours.domain(contact.node))).collect();
        let near = Neighbourhood::new(*segment.as_bytes(), &found, neighbours.own(), CLOSEST_MAX);
        let stewards = near.stewards_of(segment.as_bytes()).unwrap_or_default();
        self.near = Some((near, Instant::now()));
        stewards
    }

    /// These shards, by their stewards.
    pub(crate) async fn by_steward(
        &mut self,
        leaves: impl IntoIterator<Item = ClaimLeaf>,
    ) -> BTreeMap<NodeId, Vec<ClaimLeaf>> {
        let mut by_steward: BTreeMap<NodeId, Vec<ClaimLeaf>> = BTreeMap::new();
        let mut leaves: Vec<ClaimLeaf> = leaves.into_iter().collect();
        leaves.sort_by_cached_key(|leaf| NodeId::place_of(leaf.segment.as_bytes()));
        for leaf in leaves {
            for node in self.of(&leaf.segment).await {
                by_steward.entry(node).or_default().push(leaf);
            }
        }
        by_steward
    }

    /// Asks a steward, which may be ourselves.
    pub(crate) async fn ask(&self, node: NodeId, request: Request) -> Option<Response> {
        if node == self.own.peer.node_id() {
            self.own.answer(node, request).await
        } else {
            self.own.peer.ask(node, request, PATIENCE).await.ok()
        }
    }

    /// Takes our claims to these shards back; which stewards have heard of which.
    pub(crate) async fn release(
        &self,
        by_steward: BTreeMap<NodeId, Vec<ClaimLeaf>>,
    ) -> BTreeMap<ClaimLeaf, BTreeSet<NodeId>> {
        let released = by_steward.into_iter().map(async |(node, leaves)| {
            let mut heard = Vec::new();
            for part in leaves.chunks(ASK_IDS_MAX) {
                let answer = self.ask(node, Request::Release { shards: part.to_vec() }).await;
                if matches!(answer, Some(Response::Kept(outcomes)) if outcomes.iter().all(Result::is_ok)) {
                    heard.extend(part.iter().map(|leaf| (*leaf, node)));
                }
            }
            heard
        });
        let mut by_leaf: BTreeMap<ClaimLeaf, BTreeSet<NodeId>> = BTreeMap::new();
        for (leaf, node) in join_all(released).await.into_iter().flatten() {
            by_leaf.entry(leaf).or_default().insert(node);
        }
        by_leaf
    }

    /// Sends a steward records, after the leases of their vaults; one outcome each, none if it does not answer.
    pub(crate) async fn keep(
        &self,
        node: NodeId,
        records: Vec<Record>,
        vaults: BTreeSet<VaultId>,
    ) -> Option<Vec<Outcome>> {
        if node != self.own.peer.node_id() {
            leases::carry(&self.own.peer, &self.own.steward, node, vaults).await;
        }
        match self.ask(node, Request::KeepRecords { records, lease: None }).await {
            Some(Response::Kept(outcomes)) => Some(outcomes),
            _ => None,
        }
    }

    /// A steward says that these were dropped: the owner's word on it is worth having, the steward's is not.
    pub(crate) async fn hear_drops(&self, node: NodeId, segments: Vec<SegmentId>) {
        if segments.is_empty() {
            return;
        }
        let Some(Response::Records(records)) = self.ask(node, Request::FetchRecords { segments }).await else { return };
        let (steward, sender) = (self.own.steward.clone(), self.own.neighbours.sender(node));
        let keep = move || {
            for drop in records.into_iter().flatten().filter_map(|record| record.drop) {
                steward.answer(&sender, Request::KeepDrop { drop });
            }
        };
        // A panic in there is logged by the runtime.
        let _ = tokio::task::spawn_blocking(keep).await;
    }
}
