//! One node or client per call, over loopback, gone when it is dropped.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use commonhold_network::{Inbound, Limits, Peer, PeerConfig, RangeReply, Role, TransferError};
use commonhold_node::{Config, Node, NodeError, NodeStatus, config::sample, data_dir, status_of};
use commonhold_protocol::{
    Claim, Coding, Manifest, NetworkName, NodeId, SegmentId, ShardIndex, SigningKey, Verified,
    ask::{Request, Response},
    shard_stream::GroupRange,
};
use commonhold_storage_engine::prove::root_of;
use tempfile::TempDir;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

/// Longer than a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn network() -> NetworkName {
    "dev-nodes".parse().expect("a name")
}

/// Looks until `holds`, or fails.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[derive(Debug, Clone, Copy)]
enum End {
    Stop,
    Kill,
}

/// A running node.
pub(crate) struct TestNode {
    folder: Option<TempDir>,
    id: NodeId,
    address: String,
    end: Option<oneshot::Sender<End>>,
    thread: Option<JoinHandle<()>>,
}

impl TestNode {
    pub(crate) async fn start(name: &str, bootstrap: &[&Self], overlay: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("name"), name).expect("a name");
        Self::start_in(folder, bootstrap, overlay).await
    }

    pub(crate) async fn start_in(folder: TempDir, bootstrap: &[&Self], overlay: &str) -> Self {
        let name = std::fs::read_to_string(folder.path().join("name")).expect("a name");
        let mut config = Config::default();
        config.node.domain = Some(name.clone());
        config.node.name = Some(name);
        config.node.listen = Some(vec!["/ip4/127.0.0.1/tcp/0".parse().expect("an address")]);
        config.node.bootstrap = bootstrap.iter().map(|node| node.address.parse().expect("an address")).collect();
        config.network.name = network().as_str().parse().expect("a name");
        config.pledge.disk = "1 GiB".parse().expect("a size");
        config.pledge.keep_free = "1 MiB".parse().expect("a size");
        config.dashboard.listen = ([127, 0, 0, 1], 0).into();
        let path = folder.path().join("node.toml");
        let text = commonhold_node::config::overlay(&sample(&config), overlay, &path).expect("a valid overlay");
        std::fs::write(&path, text).expect("a config");

        // A node that was killed leaves this behind, and nobody must take it for the new one's.
        let _ = std::fs::remove_file(folder.path().join(data_dir::DASHBOARD_FILE));
        let (end, ending) = oneshot::channel();
        let config = Config::load(&path).expect("a valid config");
        let thread = std::thread::spawn(move || run(config, ending));
        let read = |file| data_dir::read(folder.path(), file).expect("a readable folder");
        eventually("the node runs", async || read(data_dir::DASHBOARD_FILE).is_some()).await;
        let address = read(data_dir::ADDRESS_FILE).expect("an address").trim().to_owned();
        let status = status_of(folder.path()).expect("a status");
        let id = NodeId::from_hex(&status.node).expect("an id");
        Self { folder: Some(folder), id, address, end: Some(end), thread: Some(thread) }
    }

    /// Runs a node that is expected to end by itself.
    pub(crate) async fn try_run(config: Config) -> Result<(), NodeError> {
        let data_dir = config.data_dir();
        Node::run(config, data_dir, std::future::pending()).await
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    pub(crate) fn folder(&self) -> &TempDir {
        self.folder.as_ref().expect("a running node has its folder")
    }

    pub(crate) fn config(&self) -> Config {
        Config::load(&self.folder().path().join("node.toml")).expect("a valid config")
    }

    pub(crate) async fn status(&self) -> NodeStatus {
        let folder = self.folder().path().to_owned();
        tokio::task::spawn_blocking(move || status_of(&folder)).await.expect("no panic").expect("a status")
    }

    /// The body of a page of its dashboard.
    pub(crate) async fn get(&self, path: &str) -> String {
        let address =
            data_dir::read(self.folder().path(), data_dir::DASHBOARD_FILE).expect("readable").expect("an address");
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        let get = move || {
            let mut stream = TcpStream::connect(address.lines().next().expect("a line")).expect("a dashboard");
            stream.write_all(request.as_bytes()).expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("answered");
            answer
        };
        let answer = tokio::task::spawn_blocking(get).await.expect("no panic");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        assert!(head.starts_with("HTTP/1.0 200"), "{head}");
        body.to_owned()
    }

    /// Stops it in order.
    pub(crate) async fn stop(mut self) -> TempDir {
        let folder = self.folder.take().expect("a folder");
        tokio::task::spawn_blocking(move || self.end(End::Stop)).await.expect("it stopped without a panic");
        folder
    }

    /// Ends it in the middle of whatever it does: nothing is flushed, nobody is told.
    pub(crate) fn kill(mut self) -> TempDir {
        let folder = self.folder.take().expect("a folder");
        self.end(End::Kill);
        folder
    }

    fn end(&mut self, end: End) {
        if let Some(sender) = self.end.take() {
            let _ = sender.send(end);
        }
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("the node did not panic");
            }
        }
    }
}

impl std::ops::Drop for TestNode {
    fn drop(&mut self) {
        self.end(End::Kill);
    }
}

fn run(config: Config, ending: oneshot::Receiver<End>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (kill, killed) = oneshot::channel();
        let stopped = async move {
            match ending.await {
                Ok(End::Stop) => {}
                Ok(End::Kill) | Err(_) => {
                    let _ = kill.send(());
                    std::future::pending().await
                }
            }
        };
        let data_dir = config.data_dir();
        tokio::select! {
            ended = Node::run(config, data_dir, stopped) => ended.expect("the node runs"),
            Ok(()) = killed => {}
        }
    });
    // Whatever still runs on it ends here.
    drop(runtime);
}

/// A segment of one shard and its copy.
pub(crate) struct Segment {
    pub(crate) manifest: Verified<Manifest>,
    pub(crate) data: Bytes,
}

impl Segment {
    pub(crate) fn new(owner: &SigningKey, salt: u8, length: u64, network: &NetworkName) -> Self {
        let coding = Coding::new(1, 2).expect("a coding");
        let mut data = vec![0; coding.shard_length(length) as usize];
        blake3::Hasher::new().update(&[salt]).finalize_xof().fill(&mut data[..length as usize]);
        let (root, _) = root_of(&data);
        let vault = commonhold_protocol::VaultId::from_bytes(owner.public());
        let manifest = Manifest { vault, salt: [salt; 16], coding, length, roots: vec![root; 2] };
        Self { manifest: Verified::sign(manifest, owner, network), data: data.into() }
    }
}

/// A client's peer.
pub(crate) struct Client {
    peer: Peer,
    _inbound: Inbound,
}

impl Client {
    pub(crate) async fn start(nodes: &[&TestNode]) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).expect("randomness");
        let (peer, inbound) = Peer::start(PeerConfig {
            identity_seed: seed,
            network: network(),
            network_key: None,
            listen: Vec::new(),
            role: Role::Client,
            local_discovery: false,
            relay: false,
            limits: Limits::default(),
        })
        .expect("a peer");
        let addresses: Vec<_> = nodes.iter().map(|node| node.address.parse().expect("an address")).collect();
        assert_eq!(peer.bootstrap(&addresses).await.expect("connected"), nodes.len());
        Self { peer, _inbound: inbound }
    }

    pub(crate) fn shard_bytes_sent(&self) -> u64 {
        self.peer.stats().snapshot().shard_bytes_sent
    }

    /// Bytes of questions sent and of answers received.
    pub(crate) fn ask_bytes(&self) -> (u64, u64) {
        let stats = self.peer.stats().snapshot();
        (stats.ask_bytes_sent, stats.ask_bytes_received)
    }

    pub(crate) async fn store(&self, node: &TestNode, segment: &Segment) -> Result<Claim, TransferError> {
        let manifest = segment.manifest.to_unverified();
        self.peer.store_shard(node.id, manifest, ShardIndex(0), None, segment.data.clone()).await
    }

    pub(crate) async fn read(
        &self,
        node: &TestNode,
        segment: SegmentId,
        ranges: Vec<GroupRange>,
        want_manifest: bool,
    ) -> Result<RangeReply, TransferError> {
        self.peer.read_shard(node.id, segment, ShardIndex(0), ranges, want_manifest).await
    }

    pub(crate) async fn ask(&self, node: &TestNode, request: Request) -> Response {
        self.peer.ask(node.id, request, PATIENCE).await.expect("an answer")
    }
}
