//! How connections are made: TCP (TLS, Yamux) and QUIC, names resolved, optionally behind a pre-shared key, and
//! through relays.
//!
//! Over TCP peers of two networks never get as far as speaking; over QUIC, Identify separates them.

mod crossing;
mod mux;
mod tls;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use commonhold_protocol::NetworkName;
use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        Endpoint,
        muxing::StreamMuxerBox,
        transport::{
            Boxed, DialOpts, ListenerId, OptionalTransport, PortUse, TransportError, TransportEvent,
            dummy::DummyTransport, map_err::MapErr, timeout,
        },
        upgrade,
    },
    dns, identity,
    multiaddr::Protocol,
    pnet::{PnetConfig, PreSharedKey},
    quic, relay, tcp,
};

use self::{crossing::Uncrossed, mux::Yamux, tls::Tls};
use crate::errors::NetworkError;

/// A direct connection has to be up, handshakes included, within this; so long a silent address costs.
const DIAL_TIMEOUT: Duration = Duration::from_secs(4);
/// The same through a relay, which first has to reach the other side.
const RELAYED_DIAL_TIMEOUT: Duration = Duration::from_secs(15);
/// Whoever connects to us has to finish the handshakes within this.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);
/// QUIC costs nearly twice the CPU of TCP here, so TCP gets this head start where a peer offers both.
const QUIC_DELAY: Duration = Duration::from_millis(300);

type Connected = (PeerId, StreamMuxerBox);

/// What the transport needs to know.
pub(crate) struct TransportConfig<'a> {
    pub(crate) identity: &'a identity::Keypair,
    pub(crate) network: &'a NetworkName,
    pub(crate) network_key: Option<[u8; 32]>,
    pub(crate) relay: bool,
}

/// The transport, and the relay client's behaviour if relays are to be used.
pub(crate) fn build(
    config: &TransportConfig<'_>,
) -> Result<(Boxed<Connected>, Option<relay::client::Behaviour>), NetworkError> {
    let tls = Tls::new(config.identity, config.network)?;
    let private = config.network_key.map(|key| PnetConfig::new(PreSharedKey::new(key)));
    let tcp = match private {
        Some(private) => Uncrossed::new(
            socket()
                .and_then(move |socket, _| private.handshake(socket))
                .upgrade(upgrade::Version::V1Lazy)
                .authenticate(tls.clone())
                .multiplex(Yamux)
                .boxed(),
        )
        .boxed(),
        None => over_tcp(tls.clone()),
    };
    let quic = if private.is_some() {
        OptionalTransport::none()
    } else {
        let quic = quic::tokio::Transport::new(quic::Config::new(config.identity));
        OptionalTransport::some(quic.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))))
    };
    let direct = quic.or_transport(tcp).map(|connected, _| connected.into_inner()).boxed();
    let named = resolve_names(direct)?;

    let mut relay_behaviour = None;
    let all = if config.relay {
        let (relayed, behaviour) = relay::client::new(config.identity.public().to_peer_id());
        relay_behaviour = Some(behaviour);
        let relayed = relayed.upgrade(upgrade::Version::V1Lazy).authenticate(tls).multiplex(Yamux).boxed();
        relayed.or_transport(named).map(|connected, _| connected.into_inner()).boxed()
    } else {
        named
    };
    let paced = DialPace { inner: all, reuse_port: config.relay };
    Ok((timeout::TransportTimeout::with_ingoing_timeout(paced, ACCEPT_TIMEOUT).boxed(), relay_behaviour))
}

/// Connections of a network's peers over TCP, without all that a [`crate::Peer`] is: what a program needs that speaks to
/// peers in its own way.
pub fn tcp_transport(identity: &identity::Keypair, network: &NetworkName) -> Result<Boxed<Connected>, NetworkError> {
    Ok(over_tcp(Tls::new(identity, network)?))
}

fn over_tcp(tls: Tls) -> Boxed<Connected> {
    Uncrossed::new(socket().upgrade(upgrade::Version::V1Lazy).authenticate(tls).multiplex(Yamux).boxed()).boxed()
}

fn socket() -> MapErr<tcp::tokio::Transport, fn(io::Error) -> io::Error> {
    tcp::tokio::Transport::new(tcp::Config::default().nodelay(true)).map_err(with_source)
}

/// Why a socket failed. As the source of what is made of it on the way up, it can be told from there; an error of the
/// system has no source, and would be lost among those of the upgrades.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct SocketError(#[source] io::Error);

fn with_source(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), SocketError(error))
}

/// Lets names be dialled. On a machine without a resolver configuration they cannot be, and addresses work as ever.
fn resolve_names(direct: Boxed<Connected>) -> Result<Boxed<Connected>, NetworkError> {
    // The library keeps the transport when it fails, so the configuration is first tried on one that does nothing.
    if let Err(error) = dns::tokio::Transport::system(DummyTransport::<Connected>::new()) {
        tracing::warn!(%error, "no resolver configuration: host names in addresses will not resolve");
        return Ok(direct);
    }
    let named = dns::tokio::Transport::system(direct)
        .map_err(|error| NetworkError::SetUp { part: "name resolution", reason: error.to_string() })?;
    Ok(named.boxed())
}

/// True if the address is for QUIC.
pub(crate) fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::Udp(_) | Protocol::Quic | Protocol::QuicV1))
}

/// Gives TCP its head start and every dial its deadline.
///
/// Ports are reused only where a NAT may have to be pierced: reuse costs a second dial where two cross ([`crossing`]).
struct DialPace {
    inner: Boxed<Connected>,
    reuse_port: bool,
}

impl Transport for DialPace {
    type Output = Connected;
    type Error = std::io::Error;
    type ListenerUpgrade = <Boxed<Connected> as Transport>::ListenerUpgrade;
    type Dial = BoxFuture<'static, Result<Connected, std::io::Error>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        let relayed = address.iter().any(|part| part == Protocol::P2pCircuit);
        let limit = if relayed { RELAYED_DIAL_TIMEOUT } else { DIAL_TIMEOUT };
        // Punching a hole is a matter of timing; there both sides dial at once.
        let delay = is_quic(&address) && !relayed && options.role == Endpoint::Dialer;
        let port_use = if self.reuse_port { options.port_use } else { PortUse::New };
        let dial = self.inner.dial(address, DialOpts { port_use, ..options })?;
        Ok(async move {
            if delay {
                tokio::time::sleep(QUIC_DELAY).await;
            }
            let dial = tokio::time::timeout(limit, dial).map_err(|_| std::io::ErrorKind::TimedOut.into());
            dial.await.and_then(|connected| connected)
        }
        .boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}
