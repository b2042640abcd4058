//! Questions are answered, refused when they are too long, and fail fast when nobody is there.

use std::time::{Duration, Instant};

use commonhold_network::{AskError, Peer};
use commonhold_protocol::{
    NodeId, SegmentId,
    ask::{Request, Response},
};

use crate::harness::{PATIENCE, client_config, config, network, start};

#[tokio::test]
async fn a_question_is_answered_and_its_bytes_are_counted() {
    let network = network();
    let node = start(config(&network, 1)).await;
    let (client, _inbound) = Peer::start(client_config(&network, 2)).unwrap();
    node.introduce_to(&client);
    let answer = client.ask(node.id(), Request::About, PATIENCE).await.unwrap();
    assert!(matches!(answer, Response::About { free_bytes: 42, .. }), "{answer:?}");
    let many: Vec<_> = (0..1000_u32)
        .map(|number| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&number.to_le_bytes());
            SegmentId::from_bytes(id)
        })
        .collect();
    let answer = client.ask(node.id(), Request::LackRecords { segments: many.clone() }, PATIENCE).await.unwrap();
    assert_eq!(answer, Response::Lacking(many));
    let moved = client.stats().snapshot();
    assert!(moved.ask_bytes_sent > 32_000 && moved.ask_bytes_received > 32_000, "{moved:?}");
}

#[tokio::test]
async fn a_question_longer_than_a_message_may_be_is_not_sent_and_harms_nothing() {
    let network = network();
    let node = start(config(&network, 1)).await;
    let (client, _inbound) = Peer::start(client_config(&network, 2)).unwrap();
    node.introduce_to(&client);
    let segments = vec![SegmentId::from_bytes([3; 32]); 40_000];
    let error = client.ask(node.id(), Request::FetchRecords { segments }, PATIENCE).await.unwrap_err();
    assert!(matches!(error, AskError::TooLong { .. }), "{error}");
    client.ask(node.id(), Request::About, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_dead_peer_fails_at_once_the_second_time() {
    let network = network();
    let (client, _inbound) = Peer::start(client_config(&network, 2)).unwrap();
    // Takes connections and never says a word, as a machine that has just lost its power does.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port()).parse().unwrap();
    let key = commonhold_protocol::SigningKey::from_seed(&[77; 32]);
    let dead = NodeId::from_bytes(key.public());
    client.add_addresses(dead, vec![address]);

    let begin = Instant::now();
    let error = client.ask(dead, Request::About, PATIENCE).await.unwrap_err();
    assert_eq!(error, AskError::Unreachable { node: dead });
    assert!(begin.elapsed() < Duration::from_secs(9), "the first time took {:?}", begin.elapsed());
    let begin = Instant::now();
    for _ in 0..50 {
        let error = client.ask(dead, Request::About, PATIENCE).await.unwrap_err();
        assert_eq!(error, AskError::Unreachable { node: dead });
    }
    assert!(begin.elapsed() < Duration::from_millis(500), "50 more times took {:?}", begin.elapsed());
}

#[tokio::test]
async fn a_node_of_which_nothing_is_known_is_unreachable() {
    let network = network();
    let (client, _inbound) = Peer::start(client_config(&network, 2)).unwrap();
    let nobody = NodeId::from_bytes(commonhold_protocol::SigningKey::from_seed(&[78; 32]).public());
    let error = client.ask(nobody, Request::About, PATIENCE).await.unwrap_err();
    assert_eq!(error, AskError::Unreachable { node: nobody });
}

#[tokio::test]
async fn after_shutdown_nothing_hangs() {
    let network = network();
    let node = start(config(&network, 1)).await;
    let (client, _inbound) = Peer::start(client_config(&network, 2)).unwrap();
    node.introduce_to(&client);
    client.ask(node.id(), Request::About, PATIENCE).await.unwrap();
    client.shutdown().await;
    client.shutdown().await;
    assert_eq!(client.ask(node.id(), Request::About, PATIENCE).await, Err(AskError::Stopped));
    assert!(client.closest([1; 32]).await.is_err());
    assert!(client.bootstrap(&node.addrs).await.is_err());
}
