//! Networks that should not meet do not, even when they know each other's addresses.

use commonhold_network::{AskError, NetworkError, Peer, PeerConfig};
use commonhold_protocol::ask::Request;
use zeroize::Zeroizing;

use crate::harness::{PATIENCE, client_config, config, network, start};

fn with_key(config: PeerConfig, key: u8) -> PeerConfig {
    PeerConfig { network_key: Some(Zeroizing::new([key; 32])), ..config }
}

#[tokio::test]
async fn a_private_network_admits_only_those_with_its_key() {
    let network = network();
    let node = start(with_key(config(&network, 1), 1)).await;
    let (friend, _inbound) = Peer::start(with_key(client_config(&network, 2), 1)).unwrap();
    assert_eq!(friend.bootstrap(&node.addrs).await.unwrap(), 1);
    friend.ask(node.id(), Request::About, PATIENCE).await.unwrap();
    for (number, stranger) in
        [with_key(client_config(&network, 3), 2), client_config(&network, 4)].into_iter().enumerate()
    {
        let (stranger, _inbound) = Peer::start(stranger).unwrap();
        assert_eq!(stranger.bootstrap(&node.addrs).await.unwrap(), 0, "stranger {number}");
        node.introduce_to(&stranger);
        let error = stranger.ask(node.id(), Request::About, PATIENCE).await.unwrap_err();
        assert_eq!(error, AskError::Unreachable { node: node.id() }, "stranger {number}");
    }
    friend.ask(node.id(), Request::About, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_private_network_does_not_listen_on_quic() {
    let mut config = with_key(config(&network(), 1), 1);
    config.listen.push("/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap());
    assert!(matches!(Peer::start(config), Err(NetworkError::PrivateNeedsTcp { .. })));
}

#[tokio::test]
async fn networks_with_different_names_never_meet() {
    for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        let (ours, theirs) = (network(), network());
        let node = start(PeerConfig { listen: vec![listen.parse().unwrap()], ..config(&ours, 1) }).await;
        let other = start(PeerConfig { listen: vec![listen.parse().unwrap()], ..config(&theirs, 2) }).await;
        // Over QUIC the handshake succeeds, and Identify then separates them.
        let _ = other.peer.bootstrap(&node.addrs).await.unwrap();
        other.peer.add_addresses(node.id(), node.addrs.clone());
        let answer = other.peer.ask(node.id(), Request::About, PATIENCE).await;
        assert!(answer.is_err(), "{listen}: {answer:?}");
        crate::harness::eventually("they part", || {
            node.peer.connected().is_empty() && other.peer.connected().is_empty()
        })
        .await;
        assert!(node.peer.known_contacts().is_empty() && other.peer.known_contacts().is_empty());
    }
}

#[tokio::test]
async fn peers_meet_over_quic_and_prefer_tcp() {
    let network = network();
    let listen = ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"];
    let listen: Vec<_> = listen.iter().map(|address| address.parse().unwrap()).collect();
    let node = start(PeerConfig { listen, ..config(&network, 1) }).await;
    crate::harness::eventually("both listeners are up", || {
        let peer = node.peer.clone();
        futures::executor::block_on(peer.listen_addrs()).len() == 2
    })
    .await;
    let addrs = node.peer.listen_addrs().await;
    let quic: Vec<_> = addrs.iter().filter(|address| address.to_string().contains("quic")).cloned().collect();
    let (by_quic, _inbound) = Peer::start(client_config(&network, 2)).unwrap();
    by_quic.add_addresses(node.id(), quic);
    by_quic.ask(node.id(), Request::About, PATIENCE).await.unwrap();
    assert!(by_quic.connected()[0].1.to_string().contains("quic"));
    let (by_tcp, _inbound) = Peer::start(client_config(&network, 3)).unwrap();
    by_tcp.add_addresses(node.id(), addrs);
    by_tcp.ask(node.id(), Request::About, PATIENCE).await.unwrap();
    assert!(by_tcp.connected()[0].1.to_string().contains("tcp"));
}
