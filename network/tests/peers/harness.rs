//! Peers on loopback, a holder that keeps shards in memory, and waiting for a state with a deadline.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use commonhold_network::{
    Inbound, Limits, Multiaddr, NoObserver, Observer, Peer, PeerConfig, RangeReply, Role, ShardService, StoreBody,
    serve_stream,
};
use commonhold_protocol::{
    Claim, ClaimLeaf, Coding, Lease, Manifest, NetworkName, NodeId, SegmentId, ShardIndex, ShardRoot, SigningKey,
    Timestamp, Unverified, VaultId, Verified,
    ask::{Refusal, Request, Response},
    shard_stream::GroupRange,
};
use zeroize::Zeroizing;

/// A network of this test's own.
pub(crate) fn network() -> NetworkName {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed)).parse().unwrap()
}

pub(crate) fn seed(number: u8) -> [u8; 32] {
    let mut seed = [7; 32];
    seed[0] = number;
    seed
}

pub(crate) fn config(network: &NetworkName, number: u8) -> PeerConfig {
    PeerConfig {
        identity_seed: Zeroizing::new(seed(number)),
        network: network.clone(),
        network_key: None,
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        role: Role::Node,
        local_discovery: false,
        relay: false,
        limits: Limits::default(),
    }
}

pub(crate) fn client_config(network: &NetworkName, number: u8) -> PeerConfig {
    PeerConfig { listen: vec![], role: Role::Client, ..config(network, number) }
}

/// A running peer that answers.
pub(crate) struct Node {
    pub(crate) peer: Peer,
    pub(crate) holder: Arc<Holder>,
    pub(crate) addrs: Vec<Multiaddr>,
}

impl Node {
    pub(crate) fn id(&self) -> NodeId {
        self.peer.node_id()
    }

    /// Lets `other` know where we listen.
    pub(crate) fn introduce_to(&self, other: &Peer) {
        other.add_addresses(self.id(), self.addrs.clone());
    }
}

pub(crate) async fn start(config: PeerConfig) -> Node {
    start_observed(config, Arc::new(NoObserver)).await
}

pub(crate) async fn start_observed(config: PeerConfig, observer: Arc<dyn Observer>) -> Node {
    let holder = Arc::new(Holder::new(&config));
    let limits = config.limits.streams;
    let (peer, inbound) = Peer::start_observed(config, observer).unwrap();
    let addrs = peer.listen_addrs().await;
    let Inbound { mut asks, mut streams, events } = inbound;
    drop(events);
    let serving = holder.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(ask) = asks.recv() => {
                    let response = match ask.request {
                        Request::About => Response::About {
                            free_bytes: 42,
                            shards: 3,
                            clock: Timestamp(7),
                            steward: true,
                            domain: None,
                        },
                        Request::LackRecords { segments } => Response::Lacking(segments),
                        _ => Response::Refused(Refusal::Unknown),
                    };
                    ask.reply.send(response);
                }
                Some(stream) = streams.recv() => {
                    let holder = serving.clone();
                    tokio::spawn(async move {
                        let ended = serve_stream(stream, &*holder, limits).await;
                        holder.streams_ended.fetch_add(1, Relaxed);
                        if ended.is_err() {
                            holder.streams_failed.fetch_add(1, Relaxed);
                        }
                    });
                }
                else => return,
            }
        }
    });
    Node { peer, holder, addrs }
}

/// Keeps shards in memory and believes whatever it is told.
pub(crate) struct Holder {
    key: SigningKey,
    network: NetworkName,
    pub(crate) shards: Mutex<HashMap<ClaimLeaf, Bytes>>,
    /// The length that shards have here, whatever their manifest says.
    pub(crate) shard_length: Mutex<Option<u64>>,
    /// Refuse in the middle of a body, after so many bytes.
    pub(crate) full_after: Mutex<Option<u64>>,
    /// Take what is held already once more, instead of answering at once that it is.
    pub(crate) takes_twice: AtomicBool,
    pub(crate) streams_ended: AtomicU64,
    pub(crate) streams_failed: AtomicU64,
}

impl Holder {
    fn new(config: &PeerConfig) -> Self {
        Self {
            key: SigningKey::from_seed(&config.identity_seed),
            network: config.network.clone(),
            shards: Mutex::default(),
            shard_length: Mutex::default(),
            full_after: Mutex::default(),
            takes_twice: AtomicBool::default(),
            streams_ended: AtomicU64::default(),
            streams_failed: AtomicU64::default(),
        }
    }
}

impl ShardService for Holder {
    async fn store(
        &self,
        _: NodeId,
        manifest: Unverified<Manifest>,
        index: ShardIndex,
        _: Option<Unverified<Lease>>,
        body: &mut StoreBody,
    ) -> Result<Claim, Refusal> {
        let manifest = manifest.verify(&self.network).map_err(|_| Refusal::Invalid)?;
        let leaf = ClaimLeaf { segment: manifest.id(), index };
        let claim = || Claim::sign_batch(&[leaf], Timestamp(1), &self.key, &self.network).remove(0);
        if !self.takes_twice.load(Relaxed) && self.shards.lock().unwrap().contains_key(&leaf) {
            return Ok(claim());
        }
        let length = self.shard_length.lock().unwrap().unwrap_or(manifest.shard_length());
        let full_after = self.full_after.lock().unwrap().unwrap_or(u64::MAX);
        body.go(length).await.map_err(|_| Refusal::Other)?;
        let mut shard = Vec::with_capacity(length as usize);
        while let Some(piece) = body.next_piece().await.map_err(|_| Refusal::Other)? {
            shard.extend_from_slice(&piece);
            if shard.len() as u64 > full_after {
                return Err(Refusal::DiskFull);
            }
        }
        self.shards.lock().unwrap().insert(leaf, shard.into());
        Ok(claim())
    }

    async fn read(
        &self,
        _: NodeId,
        segment: SegmentId,
        index: ShardIndex,
        _: Vec<GroupRange>,
        _: bool,
    ) -> Result<RangeReply, Refusal> {
        let shard = self.shards.lock().unwrap().get(&ClaimLeaf { segment, index }).cloned();
        Ok(RangeReply { encoded: shard.ok_or(Refusal::Unknown)?, manifest: None })
    }
}

/// A manifest whose shards have `length` bytes.
pub(crate) fn manifest(network: &NetworkName, number: u8, length: u64) -> Verified<Manifest> {
    let key = SigningKey::from_seed(&[9; 32]);
    let manifest = Manifest {
        vault: VaultId::from_bytes(key.public()),
        salt: [number; 16],
        coding: Coding::new(1, 2).unwrap(),
        length,
        roots: vec![ShardRoot::from_bytes([1; 32]); 2],
    };
    assert_eq!(manifest.shard_length(), length);
    Verified::sign(manifest, &key, network)
}

/// Bytes that do not repeat within a piece.
pub(crate) fn noise(length: usize, seed: u64) -> Bytes {
    let mut state = seed | 1;
    let words = (0..length.div_ceil(8)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let mut bytes: Vec<u8> = words.collect();
    bytes.truncate(length);
    bytes.into()
}

/// Polls until `holds`, and fails if that takes too long.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "in vain waited for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
