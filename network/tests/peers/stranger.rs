//! A peer that is not ours: it gets through the handshakes and then writes what it likes on any protocol.

use commonhold_protocol::NetworkName;
use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, Transport,
    core::upgrade,
    identity, noise,
    swarm::{Config, SwarmEvent},
    tcp, yamux,
};

pub(crate) struct Stranger {
    control: libp2p_stream::Control,
    target: PeerId,
}

impl Stranger {
    /// Connects to a peer of `network`.
    pub(crate) async fn connect(network: &NetworkName, address: Multiaddr) -> Self {
        let identity = identity::Keypair::generate_ed25519();
        let noise = noise::Config::new(&identity).unwrap().with_prologue(format!("commonhold/{network}").into_bytes());
        let transport = tcp::tokio::Transport::new(tcp::Config::default())
            .upgrade(upgrade::Version::V1Lazy)
            .authenticate(noise)
            .multiplex(yamux::Config::default())
            .boxed();
        let behaviour = libp2p_stream::Behaviour::new();
        let control = behaviour.new_control();
        let mut swarm = Swarm::new(transport, behaviour, identity.public().to_peer_id(), Config::with_tokio_executor());
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
