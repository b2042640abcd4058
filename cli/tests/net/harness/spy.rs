//! A peer of a test's own on a real network: asks nodes directly, and says to them whatever a test wants said. With a
//! vault's phrase it can act as that vault's owner, which no command lets anybody do wrong.

use std::time::Duration;

use bytes::Bytes;
use commonhold_client_sdk::Phrase;
use commonhold_network::{Limits, Peer, PeerConfig, RangeReply, Role, TransferError};
use commonhold_protocol::{
    Claim, Head, Lease, Manifest, NetworkName, NodeId, Record, SegmentId, ShardIndex, Unverified, VaultId,
    ask::{HealthReport, Refusal, Request, Response},
    shard_stream::GroupRange,
};
use commonhold_storage_engine::{
    keys::VaultKeys,
    prove::{Proven, decode_ranges, root_of},
};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::Network;

const PATIENCE: Duration = Duration::from_secs(20);

/// A peer, and the runtime that it lives on.
pub(crate) struct Spy {
    runtime: Runtime,
    peer: Peer,
    pub(crate) network: NetworkName,
}

impl Spy {
    /// A peer that knows all running nodes.
    pub(crate) fn on(network: &Network) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let name: NetworkName = network.name().parse().unwrap();
        let config = PeerConfig {
            identity_seed: rand::random::<[u8; 32]>().into(),
            network: name.clone(),
            network_key: None,
            listen: Vec::new(),
            role: Role::Client,
            local_discovery: false,
            relay: false,
            limits: Limits::default(),
        };
        let (peer, mut inbound) = {
            let _on = runtime.enter();
            Peer::start(config).unwrap()
        };
        // Nobody asks a client anything; should somebody, the question is dropped.
        runtime.spawn(async move { while inbound.events.recv().await.is_some() {} });
        let spy = Self { runtime, peer, network: name };
        for node in network.running() {
            spy.peer.add_addresses(hex_id(&network.node_id(node)), vec![network.address(node).parse().unwrap()]);
        }
        spy
    }

    /// Asks a node.
    pub(crate) fn ask(&self, node: NodeId, request: Request) -> Response {
        self.runtime.block_on(self.peer.ask(node, request, PATIENCE)).unwrap()
    }

    /// Asks a node; none if it does not answer.
    pub(crate) fn try_ask(&self, node: NodeId, request: Request) -> Option<Response> {
        self.runtime.block_on(self.peer.ask(node, request, PATIENCE)).ok()
    }

    /// Asks a node to keep one object, and gives its verdict.
    pub(crate) fn keep(&self, node: NodeId, request: Request) -> Result<(), Refusal> {
        match self.ask(node, request) {
            Response::Kept(outcomes) if outcomes.len() == 1 => outcomes[0],
            Response::Refused(refusal) => Err(refusal),
            other => panic!("an answer to another question: {other:?}"),
        }
    }

    /// What a node keeps of a segment.
    pub(crate) fn record(&self, node: NodeId, segment: SegmentId) -> Option<Record> {
        match self.ask(node, Request::FetchRecords { segments: vec![segment] }) {
            Response::Records(records) => records.into_iter().next().flatten(),
            other => panic!("an answer to another question: {other:?}"),
        }
    }

    /// How a node sees these segments; none of those of which it is no steward.
    pub(crate) fn health(&self, node: NodeId, segments: &[SegmentId]) -> Vec<Option<HealthReport>> {
        match self.ask(node, Request::FetchHealth { segments: segments.to_vec() }) {
            Response::Health(reports) => reports,
            other => panic!("an answer to another question: {other:?}"),
        }
    }

    /// What a node keeps of a vault.
    pub(crate) fn heads(&self, node: NodeId, vault: VaultId) -> (Vec<Unverified<Head>>, Option<Unverified<Lease>>) {
        match self.ask(node, Request::FetchHeads { vault }) {
            Response::Heads { heads, lease } => (heads, lease),
            other => panic!("an answer to another question: {other:?}"),
        }
    }

    /// Offers a shard to a node.
    pub(crate) fn store(
        &self,
        node: NodeId,
        manifest: Unverified<Manifest>,
        index: u8,
        data: Bytes,
    ) -> Result<Claim, TransferError> {
        self.store_under(node, manifest, index, None, data)
    }

    /// The same with a lease of its vault.
    pub(crate) fn store_under(
        &self,
        node: NodeId,
        manifest: Unverified<Manifest>,
        index: u8,
        lease: Option<Unverified<Lease>>,
        data: Bytes,
    ) -> Result<Claim, TransferError> {
        self.runtime.block_on(self.peer.store_shard(node, manifest, ShardIndex(index), lease, data))
    }

    /// Asks a node for the first chunk group of a shard, with its manifest.
    pub(crate) fn first_group(&self, node: NodeId, segment: SegmentId, index: u8) -> Result<RangeReply, TransferError> {
        let ranges = vec![GroupRange { first: 0, count: 1 }];
        self.runtime.block_on(self.peer.read_shard(node, segment, ShardIndex(index), ranges, true))
    }

    /// Fetches a whole shard and checks it against the root in its owner-signed manifest.
    pub(crate) fn whole_shard(&self, node: NodeId, segment: SegmentId, index: u8) -> Result<Bytes, String> {
        let told = |error: TransferError| error.to_string();
        let manifest = self.first_group(node, segment, index).map_err(told)?.manifest.ok_or("no manifest")?;
        let manifest = manifest.verify(&self.network).map_err(|error| error.to_string())?;
        let (length, index) = (manifest.shard_length(), ShardIndex(index));
        let ranges = vec![GroupRange::whole(length)];
        let read = self.peer.read_shard(node, segment, index, ranges.clone(), false);
        let reply = self.runtime.block_on(read).map_err(told)?;
        let root = manifest.root(index).ok_or("no such shard")?;
        let parts = decode_ranges(root, length, &ranges, &reply.encoded).map_err(|error| error.to_string())?;
        let bytes: Vec<u8> = parts.iter().flat_map(Proven::concat).collect();
        if root_of(&bytes).0 == *root { Ok(bytes.into()) } else { Err("other bytes than were stored".to_owned()) }
    }
}

/// A node id from a status page.
pub(crate) fn hex_id(hex: &str) -> NodeId {
    NodeId::from_hex(hex).unwrap_or_else(|| panic!("{hex:?} is no node id"))
}

/// The shards that the stewards' records say a node holds: segments and indexes, of what `segments --json` printed.
pub(crate) fn claimed_by(segments: &Value, node: &str) -> Vec<(SegmentId, u8)> {
    let mut claimed = Vec::new();
    for segment in segments["segments"].as_array().unwrap() {
        let id = SegmentId::from_hex(segment["id"].as_str().unwrap()).unwrap();
        for (index, holder) in segment["holders"].as_array().unwrap().iter().enumerate() {
            if holder.as_str() == Some(node) {
                claimed.push((id, u8::try_from(index).unwrap()));
            }
        }
    }
    claimed
}

/// The keys that a recovery phrase stands for.
pub(crate) fn keys_of(phrase: &str) -> VaultKeys {
    VaultKeys::derive(&Phrase::parse(phrase).unwrap().secret().unwrap())
}
