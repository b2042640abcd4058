//! A stranger that wants all that nodes have to give, as fast as it can: it asks, sends records and shards of vaults
//! that it makes up, and reads what it was let store, on as many streams as it is told to open.
//!
//! Prints what came of it every second, in one line, each figure since the start.

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use commonhold_network::{Limits, Multiaddr, Peer, PeerConfig, Role, StreamLimits, TransferError};
use commonhold_node::clock::Clock;
use commonhold_protocol::{
    Claim, ClaimLeaf, Coding, Manifest, NetworkName, NodeId, Record, SegmentId, ShardIndex, ShardRoot, SigningKey,
    VaultId, Verified,
    ask::{ASK_IDS_MAX, Request, Response},
    shard_stream::GroupRange,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpSocket},
};

/// Bytes of each made-up shard.
const SHARD_BYTES: usize = 256 << 10;
/// Made-up records in one question.
const RECORDS: usize = 16;
/// Questions that are open with each node: as many as it is asked at once, and some that wait.
const ASKS_PER_NODE: usize = 48;
const PATIENCE: Duration = Duration::from_secs(20);
/// After a failure: a node that has thrown us out is not asked in a busy loop.
const PAUSE: Duration = Duration::from_millis(20);

/// What came of it.
#[derive(Default)]
struct Figures {
    answered: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    stored: AtomicU64,
    not_stored: AtomicU64,
    read_bytes: AtomicU64,
    not_read: AtomicU64,
}

impl Figures {
    fn line(&self, connected: usize) -> String {
        let Self { answered, refused, failed, stored, not_stored, read_bytes, not_read } = self;
        let figures = [
            ("answered", answered),
            ("refused", refused),
            ("failed", failed),
            ("stored", stored),
            ("not_stored", not_stored),
            ("read_bytes", read_bytes),
            ("not_read", not_read),
        ];
        let figures = figures.map(|(name, figure)| format!("{name}={}", figure.load(Relaxed)));
        format!("connected={connected} {}", figures.join(" "))
    }
}

fn add(figure: &AtomicU64, more: u64) {
    figure.fetch_add(more, Relaxed);
}

#[derive(Clone)]
struct Flood {
    peer: Peer,
    network: NetworkName,
    figures: Arc<Figures>,
}

/// A way to a node that it sees come from `source`: nodes count what comes from one network together, and a stranger's
/// shall not be counted with what others on this machine do.
async fn relay(source: IpAddr, node: &Multiaddr) -> Result<Multiaddr, Box<dyn std::error::Error>> {
    let address = node.to_string();
    let ["", "ip4", ip, "tcp", port, ..] = address.split('/').collect::<Vec<_>>()[..] else {
        return Err(format!("{address} is not /ip4/.../tcp/...").into());
    };
    let target = SocketAddr::new(ip.parse()?, port.parse()?);
    let listener = TcpListener::bind((source, 0)).await?;
    let own = listener.local_addr()?;
    let from = format!("/ip4/{}/tcp/{}", own.ip(), own.port());
    let relayed = address.replacen(&format!("/ip4/{ip}/tcp/{port}"), &from, 1).parse()?;
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let socket = TcpSocket::new_v4()?;
                socket.bind(SocketAddr::new(source, 0))?;
                let mut far = socket.connect(target).await?;
                copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    Ok(relayed)
}

/// Floods until the process is ended.
pub(crate) async fn run(
    network: NetworkName,
    source: IpAddr,
    streams_per_node: usize,
    nodes: Vec<Multiaddr>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut relayed = Vec::new();
    for node in &nodes {
        relayed.push(relay(source, node).await?);
    }
    let streams =
        StreamLimits { opened_per_peer_max: streams_per_node, opened_max: usize::MAX >> 8, ..StreamLimits::default() };
    let (peer, mut inbound) = Peer::start(PeerConfig {
        identity_seed: rand::random::<[u8; 32]>().into(),
        network: network.clone(),
        network_key: None,
        listen: Vec::new(),
        role: Role::Client,
        local_discovery: false,
        relay: false,
        limits: Limits { streams, ..Limits::default() },
    })?;
    tokio::spawn(async move { while inbound.events.recv().await.is_some() {} });
    peer.bootstrap(&relayed).await?;
    let flood = Flood { peer: peer.clone(), network, figures: Arc::default() };
    // It hears of others too, and may be connected to them by another way.
    let is_relayed = |address: &Multiaddr| relayed.iter().any(|way| address.to_string().starts_with(&way.to_string()));
    for (node, _) in peer.connected().into_iter().filter(|(_, address)| is_relayed(address)) {
        for _ in 0..ASKS_PER_NODE {
            tokio::spawn(flood.clone().ask(node));
        }
        for _ in 0..streams_per_node / 2 {
            tokio::spawn(flood.clone().store_and_read(node));
            tokio::spawn(flood.clone().store_and_read(node));
        }
    }
    loop {
        let mut out = std::io::stdout();
        writeln!(out, "{}", flood.figures.line(peer.connected().len()))?;
        out.flush()?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

impl Flood {
    async fn ask(self, node: NodeId) {
        loop {
            let request = match rand::random::<u8>() % 4 {
                0 => Request::KeepRecords { records: (0..RECORDS).map(|_| self.record()).collect(), lease: None },
                1 => Request::LackRecords { segments: (0..ASK_IDS_MAX).map(|_| random_segment()).collect() },
                2 => Request::FetchRecords { segments: (0..RECORDS).map(|_| random_segment()).collect() },
                _ => Request::FetchHeads { vault: VaultId::from_bytes(rand::random()) },
            };
            match self.peer.ask(node, request, PATIENCE).await {
                Ok(Response::Refused(_)) => add(&self.figures.refused, 1),
                Ok(Response::Kept(outcomes)) if outcomes.iter().all(Result::is_err) => add(&self.figures.refused, 1),
                Ok(_) => add(&self.figures.answered, 1),
                Err(_) => {
                    add(&self.figures.failed, 1);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Stores a shard, reads it for a while, and goes on to the next.
    async fn store_and_read(self, node: NodeId) {
        let mut stored: Option<SegmentId> = None;
        loop {
            let (manifest, data) = self.shard();
            let segment = manifest.id();
            match self.peer.store_shard(node, manifest.to_unverified(), ShardIndex(0), None, data).await {
                Ok(_) => {
                    add(&self.figures.stored, 1);
                    stored = Some(segment);
                }
                Err(error) => {
                    add(&self.figures.not_stored, 1);
                    if !matches!(error, TransferError::Refused { .. }) {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
            let Some(segment) = stored else { continue };
            for _ in 0..8 {
                let ranges = vec![GroupRange::whole(SHARD_BYTES as u64)];
                match self.peer.read_shard(node, segment, ShardIndex(0), ranges, true).await {
                    Ok(reply) => add(&self.figures.read_bytes, reply.encoded.len() as u64),
                    Err(_) => {
                        add(&self.figures.not_read, 1);
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    /// A shard of a vault that there is not.
    fn shard(&self) -> (Verified<Manifest>, Bytes) {
        let mut data = vec![0; SHARD_BYTES];
        data[..32].copy_from_slice(&rand::random::<[u8; 32]>());
        let root = ShardRoot::from_bytes(*blake3::hash(&data).as_bytes());
        (self.manifest(Coding::ONE, vec![root]), data.into())
    }

    /// A record of a vault that there is not, with claims of holders that there are not.
    fn record(&self) -> Record {
        let coding = Coding::new(2, 4).expect("a coding");
        let roots = coding.indices().map(|_| ShardRoot::from_bytes(rand::random())).collect();
        let manifest = self.manifest(coding, roots);
        let segment = manifest.id();
        let now = Clock::default().now();
        let claims = coding.indices().flat_map(|index| {
            let holder = SigningKey::from_seed(&rand::random());
            Claim::sign_batch(&[ClaimLeaf { segment, index }], now, &holder, &self.network)
        });
        Record { manifest: manifest.to_unverified(), claims: claims.collect(), drop: None }
    }

    fn manifest(&self, coding: Coding, roots: Vec<ShardRoot>) -> Verified<Manifest> {
        let owner = SigningKey::from_seed(&rand::random());
        let vault = VaultId::from_bytes(owner.public());
        let manifest = Manifest { vault, salt: rand::random(), coding, length: SHARD_BYTES as u64, roots };
        Verified::sign(manifest, &owner, &self.network)
    }
}

fn random_segment() -> SegmentId {
    SegmentId::from_bytes(rand::random())
}
