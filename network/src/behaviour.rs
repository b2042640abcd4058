//! The protocols that a peer speaks, put together. Those that a network of its own or a local one does not want are
//! switched off whole.

use std::{sync::Arc, time::Duration};

use libp2p::{
    StreamProtocol, autonat, connection_limits, dcutr, identify, identity, mdns, memory_connection_limits, ping, relay,
    request_response,
    swarm::{InvalidProtocol, NetworkBehaviour, behaviour::toggle::Toggle},
    upnp,
};

use crate::{
    ask::AskCodec,
    config::{PeerConfig, Role},
    errors::NetworkError,
    routing::{Routing, kad_protocol},
    shared::Shared,
    stats::PeerStats,
    streams,
};

/// An answer has to be under way within this, whatever the asker's own patience.
const ASK_TIMEOUT: Duration = Duration::from_secs(60);
/// Questions in progress on one connection, of both sides together. libp2p drops what goes beyond without a word, so
/// either side keeps to half of it.
const ASKS_PER_CONNECTION_MAX: usize = 2 * ASKS_PER_PEER_MAX;
/// Questions that we have open with one peer.
pub(crate) const ASKS_PER_PEER_MAX: usize = 64;
/// Connections to one peer: one, and room for the moment when both dial, or when a hole is punched.
const CONNECTIONS_PER_PEER_MAX: u32 = 4;
/// Connections that are being set up, in each direction.
const CONNECTIONS_PENDING_MAX: u32 = 128;
/// How often a quiet connection is tried.
const PING_EVERY: Duration = Duration::from_secs(10);
/// A ping without an answer for so long has failed.
const PING_TIMEOUT: Duration = Duration::from_secs(8);
/// One relayed connection may last this long: a shard at a slow uplink takes minutes.
const RELAYED_FOR: Duration = Duration::from_secs(60 * 60);

#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    // The limits come first: what they refuse, the others never see.
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) memory: memory_connection_limits::Behaviour,
    pub(crate) routing: Routing,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) asks: request_response::Behaviour<AskCodec>,
    pub(crate) streams: streams::Behaviour,
    pub(crate) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(crate) upnp: Toggle<upnp::tokio::Behaviour>,
    pub(crate) autonat_client: Toggle<autonat::v2::client::Behaviour>,
    pub(crate) autonat_server: Toggle<autonat::v2::server::Behaviour>,
    pub(crate) relay: Toggle<relay::Behaviour>,
    pub(crate) relay_client: Toggle<relay::client::Behaviour>,
    pub(crate) dcutr: Toggle<dcutr::Behaviour>,
}

/// Identify's protocol version: peers that say otherwise are of another network.
pub(crate) fn network_version(config: &PeerConfig) -> String {
    format!("/commonhold/{}/1", config.network)
}

/// Builds the behaviours that `config` asks for.
pub(crate) fn build(
    config: &PeerConfig,
    identity: &identity::Keypair,
    relay_client: Option<relay::client::Behaviour>,
    shared: Arc<Shared>,
    stats: Arc<PeerStats>,
) -> Result<Behaviour, NetworkError> {
    let local = identity.public().to_peer_id();
    let invalid = |error: InvalidProtocol| NetworkError::SetUp { part: "protocol names", reason: error.to_string() };
    let protocol = |name: &str| StreamProtocol::try_from_owned(format!("/commonhold/{}/{name}/1", config.network));
    let limits = &config.limits;

    let connection_limits = connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(CONNECTIONS_PENDING_MAX))
        .with_max_pending_outgoing(Some(CONNECTIONS_PENDING_MAX))
        // A quarter stays for connections that we make: others cannot cut us off by filling every place.
        .with_max_established_incoming(Some(limits.connections_max - limits.connections_max / 4))
        .with_max_established(Some(limits.connections_max))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER_MAX));
    let mdns = config
        .local_discovery
        .then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), local))
        .transpose()
        .map_err(|error| NetworkError::SetUp { part: "local discovery", reason: error.to_string() })?;
    let serves_others = config.relay && config.role == Role::Node;
    let relayed = relay::Config {
        max_circuits: limits.relayed_connections_max,
        max_circuit_duration: RELAYED_FOR,
        max_circuit_bytes: limits.relayed_bytes_max,
        ..relay::Config::default()
    };
    Ok(Behaviour {
        limits: connection_limits::Behaviour::new(connection_limits),
        memory: memory_connection_limits::Behaviour::with_max_bytes(limits.memory_bytes_max),
        routing: Routing::new(local, kad_protocol(&config.network).map_err(invalid)?, config.role, shared),
        identify: identify::Behaviour::new(
            identify::Config::new(network_version(config), identity.public())
                .with_agent_version(concat!("commonhold/", env!("CARGO_PKG_VERSION")).to_owned())
                .with_push_listen_addr_updates(true)
                .with_cache_size(0), // the address book knows better
        ),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_EVERY).with_timeout(PING_TIMEOUT)),
        asks: request_response::Behaviour::with_codec(
            AskCodec::new(stats),
            [(protocol("ask").map_err(invalid)?, request_response::ProtocolSupport::Full)],
            request_response::Config::default()
                .with_request_timeout(ASK_TIMEOUT)
                .with_max_concurrent_streams(ASKS_PER_CONNECTION_MAX),
        ),
        streams: streams::Behaviour::new(protocol("shard").map_err(invalid)?),
        mdns: mdns.into(),
        upnp: config.local_discovery.then(upnp::tokio::Behaviour::default).into(),
        autonat_client: config.relay.then(autonat::v2::client::Behaviour::default).into(),
        autonat_server: serves_others.then(autonat::v2::server::Behaviour::default).into(),
        relay: serves_others.then(|| relay::Behaviour::new(local, relayed)).into(),
        dcutr: relay_client.is_some().then(|| dcutr::Behaviour::new(local)).into(),
        relay_client: relay_client.into(),
    })
}
