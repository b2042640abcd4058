//! Peers find each other, also after they moved, and walks give the nodes that are really closest.

use std::time::{Duration, Instant};

use commonhold_network::{Multiaddr, Peer};
use commonhold_protocol::{NetworkName, NodeId, ask::Request};

use crate::{
    harness::{Node, PATIENCE, client_config, config, eventually, network, start},
    stranger::Gatekeeper,
};

/// Starts nodes that all know the first one.
async fn start_many(network: &NetworkName, count: u8) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for number in 0..count {
        let node = start(config(network, number)).await;
        if let Some(first) = nodes.first() {
            assert_eq!(node.peer.bootstrap(&first.addrs).await.unwrap(), 1);
        }
        nodes.push(node);
    }
    nodes
}

fn sorted(mut ids: Vec<NodeId>, key: &[u8; 32]) -> Vec<NodeId> {
    ids.sort_by_key(|id| id.distance(key));
    ids
}

async fn closest(peer: &Peer, key: [u8; 32]) -> Vec<NodeId> {
    peer.closest(key).await.unwrap().into_iter().map(|contact| contact.node).collect()
}

#[tokio::test]
async fn walks_give_the_closest_nodes_in_order() {
    let network = network();
    let begin = Instant::now();
    let nodes = start_many(&network, 14).await;
    println!("14 peers joined in {:?}", begin.elapsed());
    let (client, _inbound) = Peer::start(client_config(&network, 99)).unwrap();
    client.bootstrap(&nodes[3].addrs).await.unwrap();
    let ids: Vec<NodeId> = nodes.iter().map(Node::id).collect();
    for number in 0..20 {
        let key = [number; 32];
        let begin = Instant::now();
        assert_eq!(closest(&client, key).await, sorted(ids.clone(), &key), "key {number}");
        assert!(begin.elapsed() < Duration::from_secs(2), "a walk took {:?}", begin.elapsed());
        let own = &nodes[usize::from(number) % nodes.len()];
        let others = ids.iter().copied().filter(|id| *id != own.id()).collect();
        assert_eq!(closest(&own.peer, key).await, sorted(others, &key), "key {number}, asked by a node");
    }
    // A client is never listed.
    for node in &nodes {
        assert!(node.peer.known_contacts().iter().all(|contact| contact.node != client.node_id()));
    }
}

#[tokio::test]
async fn walks_go_on_when_half_of_the_nodes_die() {
    let network = network();
    let nodes = start_many(&network, 14).await;
    let (client, _inbound) = Peer::start(client_config(&network, 99)).unwrap();
    client.bootstrap(&nodes[0].addrs).await.unwrap();
    assert_eq!(closest(&client, [1; 32]).await.len(), 14);
    for node in &nodes[7..] {
        node.peer.shutdown().await;
    }
    let alive: Vec<NodeId> = nodes[..7].iter().map(Node::id).collect();
    for number in 0..10 {
        let key = [number; 32];
        let begin = Instant::now();
        assert_eq!(closest(&client, key).await, sorted(alive.clone(), &key));
        assert!(begin.elapsed() < Duration::from_secs(3), "a walk took {:?}", begin.elapsed());
    }
    // A client that starts cold, and meets the dead only through what others tell it.
    let (cold, _inbound) = Peer::start(client_config(&network, 98)).unwrap();
    cold.bootstrap(&nodes[1].addrs).await.unwrap();
    let begin = Instant::now();
    assert_eq!(closest(&cold, [42; 32]).await, sorted(alive, &[42; 32]));
    assert!(begin.elapsed() < Duration::from_secs(3), "a cold walk took {:?}", begin.elapsed());
}

/// Two nodes joined through a third at the same moment: each looked around before the third had heard of the other, and
/// nothing made them look again for five minutes. Networks of a few nodes were not complete when they said that they
/// were ready.
#[tokio::test]
async fn two_that_joined_at_the_same_moment_meet_when_one_looks_around_again() {
    let network = network();
    let gatekeeper = Gatekeeper::start(&network).await;
    let nodes = [start(config(&network, 1)).await, start(config(&network, 2)).await];
    for node in &nodes {
        assert_eq!(node.peer.bootstrap(&gatekeeper.addrs).await.unwrap(), 1);
        assert_eq!(node.peer.known_contacts().len(), 1, "the gatekeeper alone");
    }
    // Now it has heard of both.
    for node in &nodes {
        gatekeeper.introduce(&node.addrs[0]).await;
    }
    nodes[0].peer.refresh().await.unwrap();
    for (node, other) in [(&nodes[0], nodes[1].id()), (&nodes[1], nodes[0].id())] {
        let knows = || node.peer.known_contacts().iter().any(|contact| contact.node == other);
        eventually("each knows the other", knows).await;
    }
}

#[tokio::test]
async fn dead_bootstrap_addresses_do_not_hold_up_the_living() {
    let network = network();
    let node = start(config(&network, 1)).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port()).parse().unwrap();
    let (client, _inbound) = Peer::start(client_config(&network, 2)).unwrap();
    let begin = Instant::now();
    let mut addresses = vec![dead.clone(); 5];
    addresses.extend(node.addrs.clone());
    assert_eq!(client.bootstrap(&addresses).await.unwrap(), 1);
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    let (alone, _inbound) = Peer::start(client_config(&network, 3)).unwrap();
    assert_eq!(alone.bootstrap(&[dead]).await.unwrap(), 0);
    assert!(alone.closest([1; 32]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_peer_that_moved_is_found_at_its_new_address() {
    let network = network();
    let nodes = start_many(&network, 8).await;
    let moving = nodes[5].id();
    let (client, _inbound) = Peer::start(client_config(&network, 99)).unwrap();
    client.bootstrap(&nodes[0].addrs).await.unwrap();
    // The client knows where it was, and so does everybody else.
    client.ask(moving, Request::About, PATIENCE).await.unwrap();
    nodes[5].peer.shutdown().await;
    let moved = start(config(&network, 5)).await;
    assert_eq!(moved.id(), moving);
    assert_ne!(moved.addrs, nodes[5].addrs);
    moved.peer.bootstrap(&nodes[2].addrs).await.unwrap();

    let begin = Instant::now();
    client.ask(moving, Request::About, PATIENCE).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let (cold, _inbound) = Peer::start(client_config(&network, 98)).unwrap();
    cold.add_addresses(moving, nodes[5].addrs.clone());
    cold.bootstrap(&nodes[7].addrs).await.unwrap();
    cold.ask(moving, Request::About, PATIENCE).await.unwrap();
    // The old address is gone from the tables of those that met it again.
    let old = strip(&nodes[5].addrs[0]);
    eventually("the node that was bootstrapped from forgets the old address", || {
        nodes[2].peer.known_contacts().iter().all(|contact| !contact.addrs.contains(&old))
    })
    .await;
    let found = closest(&cold, *moving.as_bytes()).await;
    assert!(found.contains(&moving));
}

fn strip(address: &Multiaddr) -> Multiaddr {
    let mut address = address.clone();
    address.pop();
    address
}

#[tokio::test]
async fn peers_see_where_others_come_from() {
    let network = network();
    let node = start(config(&network, 1)).await;
    let (client, _inbound) = Peer::start(client_config(&network, 2)).unwrap();
    client.bootstrap(&node.addrs).await.unwrap();
    let (id, address) = client.connected().remove(0);
    assert_eq!(id, node.id());
    assert_eq!(commonhold_network::domain_of(&address).as_deref(), Some("127.0.0.0/24"));
    eventually("the node sees the client", || node.peer.connected().iter().any(|(id, _)| *id == client.node_id()))
        .await;
    client.shutdown().await;
    eventually("the node sees it go", || node.peer.connected().is_empty()).await;
}
