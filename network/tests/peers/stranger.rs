//! Peers that are not ours: they get through the handshakes and then do as they like.

use commonhold_network::tcp_transport;
use commonhold_protocol::NetworkName;
use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, identify, identity, kad,
    swarm::{Config, NetworkBehaviour, SwarmEvent},
};
use tokio::sync::{mpsc, oneshot};

/// Writes what it likes on any protocol.
pub(crate) struct Stranger {
    control: libp2p_stream::Control,
    target: PeerId,
}

impl Stranger {
    /// Connects to a peer of `network`.
    pub(crate) async fn connect(network: &NetworkName, address: Multiaddr) -> Self {
        let identity = identity::Keypair::generate_ed25519();
        let behaviour = libp2p_stream::Behaviour::new();
        let control = behaviour.new_control();
        let (transport, id) = (tcp_transport(&identity, network).unwrap(), identity.public().to_peer_id());
        let mut swarm = Swarm::new(transport, behaviour, id, Config::with_tokio_executor());
        swarm.dial(address).unwrap();
        let target = loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { peer_id, .. } => break peer_id,
                SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
                _ => {}
            }
        };
        tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        Self { control, target }
    }

    /// Opens a stream, or fails if the peer has had enough of us.
    pub(crate) async fn open(&mut self, protocol: String) -> Option<Stream> {
        let opened = self.control.open_stream(self.target, StreamProtocol::try_from_owned(protocol).unwrap());
        tokio::time::timeout(std::time::Duration::from_secs(5), opened).await.ok()?.ok()
    }
}

/// A node that answers walks, and tells of others only when it is told to.
pub(crate) struct Gatekeeper {
    pub(crate) addrs: Vec<Multiaddr>,
    introductions: mpsc::Sender<Introduction>,
}

type Introduction = (PeerId, Multiaddr, oneshot::Sender<()>);

#[derive(NetworkBehaviour)]
struct GatekeeperBehaviour {
    kad: kad::Behaviour<kad::store::MemoryStore>,
    identify: identify::Behaviour,
}

impl Gatekeeper {
    pub(crate) async fn start(network: &NetworkName) -> Self {
        let identity = identity::Keypair::generate_ed25519();
        let id = identity.public().to_peer_id();
        let protocol = StreamProtocol::try_from_owned(format!("/commonhold/{network}/kad/1")).unwrap();
        let mut config = kad::Config::new(protocol);
        config.set_kbucket_inserts(kad::BucketInserts::Manual);
        let mut kad = kad::Behaviour::with_config(id, kad::store::MemoryStore::new(id), config);
        kad.set_mode(Some(kad::Mode::Server));
        let version = format!("/commonhold/{network}/1");
        let identify = identify::Behaviour::new(identify::Config::new(version, identity.public()));
        let behaviour = GatekeeperBehaviour { kad, identify };
        let config = Config::with_tokio_executor().with_idle_connection_timeout(crate::harness::PATIENCE);
        let mut swarm = Swarm::new(tcp_transport(&identity, network).unwrap(), behaviour, id, config);
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address.with_p2p(id).unwrap();
            }
        };
        let (introductions, mut introduced) = mpsc::channel::<Introduction>(8);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = swarm.select_next_some() => {}
                    Some((peer, address, done)) = introduced.recv() => {
                        swarm.behaviour_mut().kad.add_address(&peer, address);
                        let _ = done.send(());
                    }
                }
            }
        });
        Self { addrs: vec![address], introductions }
    }

    /// From now on tells whoever asks of the peer that listens there.
    pub(crate) async fn introduce(&self, address: &Multiaddr) {
        let mut address = address.clone();
        let Some(libp2p::multiaddr::Protocol::P2p(peer)) = address.pop() else { panic!("{address} names no peer") };
        let (done, introduced) = oneshot::channel();
        self.introductions.send((peer, address, done)).await.unwrap();
        introduced.await.unwrap();
    }
}
