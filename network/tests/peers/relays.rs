//! A node that nobody can dial holds shards all the same: others reach it through a relay.

use std::time::Duration;

use commonhold_network::{Limits, Peer, PeerConfig};
use commonhold_protocol::{ShardIndex, ask::Request, shard_stream::GroupRange};

use crate::harness::{PATIENCE, client_config, config, eventually, manifest, network, noise, start};

#[tokio::test]
async fn shards_reach_a_node_through_a_relay() {
    let network = network();
    let relaying = |config: PeerConfig| PeerConfig { relay: true, limits: Limits::default(), ..config };
    // A relay offers itself once others have dialled it back, which is what AutoNAT is for.
    let relay = start(relaying(config(&network, 1))).await;
    let tester = start(relaying(config(&network, 2))).await;
    assert_eq!(relay.peer.bootstrap(&tester.addrs).await.unwrap(), 1);
    let through: commonhold_network::Multiaddr = format!("{}/p2p-circuit", relay.addrs[0]).parse().unwrap();

    let deadline = std::time::Instant::now() + Duration::from_secs(40);
    let hidden = loop {
        assert!(std::time::Instant::now() < deadline, "the relay never took a reservation");
        let hidden = PeerConfig { listen: vec![through.clone()], ..relaying(config(&network, 3)) };
        if let Ok(hidden) = tokio::time::timeout(Duration::from_secs(3), start(hidden)).await {
            break hidden;
        }
    };
    assert!(hidden.addrs[0].to_string().contains("p2p-circuit"), "{:?}", hidden.addrs);

    let (client, _inbound) = Peer::start(relaying(client_config(&network, 4))).unwrap();
    hidden.introduce_to(&client);
    client.ask(hidden.id(), Request::About, PATIENCE).await.unwrap();
    let manifest = manifest(&network, 1, 1 << 20);
    let shard = noise(1 << 20, 1);
    client.store_shard(hidden.id(), manifest.to_unverified(), ShardIndex(0), None, shard.clone()).await.unwrap();
    let ranges = vec![GroupRange::whole(1 << 20)];
    let reply = client.read_shard(hidden.id(), manifest.id(), ShardIndex(0), ranges, false).await.unwrap();
    assert_eq!(reply.encoded, shard);
    eventually("the client sees the node behind the relay", || {
        client.connected().iter().any(|(node, _)| *node == hidden.id())
    })
    .await;
}
