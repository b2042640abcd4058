//! What a node says to whoever asks: the one way in, between the peer and the parts of the node.

use std::sync::Arc;

use commonhold_network::{Peer, RangeReply, ShardService, StoreBody};
use commonhold_protocol::{
    Claim, Lease, Manifest, NodeId, SegmentId, ShardIndex, Unverified,
    ask::{Refusal, Request, Response},
    shard_stream::GroupRange,
};

use crate::{
    auditor::AuditorHandle,
    cpu_time::blocking,
    holder::Holder,
    neighbours::Neighbours,
    steward::{Sender, Steward},
    sweep::Ledger,
};

/// Answers for a node. The daemon's is [`NodeService`]; whoever wants to know what a network does about a node that
/// does not keep to the rules puts another before it ([`crate::Node::run_as`]).
pub trait Service: ShardService + 'static {
    /// Answers a question; none hangs up without a word.
    fn answer(&self, from: NodeId, request: Request) -> impl Future<Output = Option<Response>> + Send;
}

/// A node that keeps to the rules.
#[derive(Clone)]
pub struct NodeService {
    pub(crate) peer: Peer,
    pub(crate) steward: Arc<Steward>,
    pub(crate) holder: Arc<Holder>,
    pub(crate) neighbours: Arc<Neighbours>,
    pub(crate) auditor: AuditorHandle,
    pub(crate) ledger: Arc<Ledger>,
}

impl NodeService {
    /// The node's peer.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Service for NodeService {
    async fn answer(&self, from: NodeId, request: Request) -> Option<Response> {
        let response = match request {
            Request::Audit(challenge) => self.holder.prove(from, challenge).await,
            Request::FetchHealth { segments } => {
                let health = self.auditor.health(segments).await;
                health.map_or(Response::Refused(Refusal::Stopping), Response::Health)
            }
            Request::Announce { shards } => {
                let standings = self.auditor.standings(&self.steward, from, shards).await;
                standings.map_or(Response::Refused(Refusal::Stopping), Response::Standings)
            }
            request => {
                let (steward, ledger, sender) =
                    (self.steward.clone(), self.ledger.clone(), self.neighbours.sender(from));
                let answered = blocking(move || from_disk(&steward, &ledger, &sender, request)).await;
                answered.unwrap_or_else(|error| {
                    tracing::error!(%error, %from, "a question could not be answered");
                    Response::Refused(Refusal::Other)
                })
            }
        };
        Some(response)
    }
}

/// Answers what takes the disk.
fn from_disk(steward: &Steward, ledger: &Ledger, sender: &Sender, request: Request) -> Response {
    match request {
        Request::FetchDigests { ranges } => {
            ledger.digests(sender.node, &ranges).map_or_else(Response::Refused, Response::Digests)
        }
        Request::ListRecords { range } => {
            ledger.list(sender.node, &range).map_or_else(Response::Refused, Response::Entries)
        }
        request => steward.answer(sender, request),
    }
}

impl ShardService for NodeService {
    async fn store(
        &self,
        from: NodeId,
        manifest: Unverified<Manifest>,
        index: ShardIndex,
        lease: Option<Unverified<Lease>>,
        body: &mut StoreBody,
    ) -> Result<Claim, Refusal> {
        self.holder.store(from, manifest, index, lease, body).await
    }

    async fn read(
        &self,
        from: NodeId,
        segment: SegmentId,
        index: ShardIndex,
        ranges: Vec<GroupRange>,
        want_manifest: bool,
    ) -> Result<RangeReply, Refusal> {
        self.holder.read(from, segment, index, ranges, want_manifest).await
    }
}
