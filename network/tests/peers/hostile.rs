//! Nonsense costs a bounded amount of work, ends the stream that it came on, and in the end the connection.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use commonhold_network::Peer;
use commonhold_protocol::{ask::Request, shard_stream::HEADER_BYTES_MAX};
use futures::{AsyncReadExt, AsyncWriteExt};

use crate::{
    harness::{PATIENCE, client_config, config, eventually, manifest, network, noise, start},
    stranger::Stranger,
};

/// True if the peer ends the stream, soon, and says nothing on it.
async fn ends_without_a_word(stream: &mut libp2p::Stream) -> bool {
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0])).await;
    matches!(ended, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn garbage_on_a_shard_stream_ends_it_and_others_go_on() {
    let network = network();
    let node = start(config(&network, 1)).await;
    let (client, _inbound) = Peer::start(client_config(&network, 2)).unwrap();
    node.introduce_to(&client);
    client.ask(node.id(), Request::About, PATIENCE).await.unwrap();
    let garbage: [Vec<u8>; 3] = [
        u32::MAX.to_le_bytes().to_vec(),
        (HEADER_BYTES_MAX as u32 + 1).to_le_bytes().to_vec(),
        [&8_u32.to_le_bytes()[..], &[0xff; 8]].concat(),
    ];
    for (number, bytes) in garbage.iter().enumerate() {
        let mut stranger = Stranger::connect(&network, node.addrs[0].clone()).await;
        let mut stream = stranger.open(format!("/commonhold/{network}/shard/1")).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        assert!(ends_without_a_word(&mut stream).await, "garbage {number}");
    }
    eventually("three streams have failed", || node.holder.streams_failed.load(Relaxed) == 3).await;
    let manifest = manifest(&network, 1, 4096);
    client
        .store_shard(node.id(), manifest.to_unverified(), commonhold_protocol::ShardIndex(0), None, noise(4096, 1))
        .await
        .unwrap();
}

#[tokio::test]
async fn whoever_keeps_sending_nonsense_is_disconnected() {
    let network = network();
    let node = start(config(&network, 1)).await;
    let mut stranger = Stranger::connect(&network, node.addrs[0].clone()).await;
    let mut opened = 0;
    while opened < 50 {
        let Some(mut stream) = stranger.open(format!("/commonhold/{network}/shard/1")).await else { break };
        opened += 1;
        let _ = stream.write_all(&[0xff; 64]).await;
        let _ = stream.flush().await;
        assert!(ends_without_a_word(&mut stream).await, "stream {opened}");
    }
    assert!((3..20).contains(&opened), "{opened} streams before the peer was disconnected");
    eventually("the stranger is gone", || node.peer.connected().is_empty()).await;
}

#[tokio::test]
async fn a_question_that_announces_too_many_bytes_is_refused_and_the_peer_survives() {
    let network = network();
    let node = start(config(&network, 1)).await;
    let mut stranger = Stranger::connect(&network, node.addrs[0].clone()).await;
    let mut stream = stranger.open(format!("/commonhold/{network}/ask/1")).await.unwrap();
    stream.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    assert!(ends_without_a_word(&mut stream).await);
    let (client, _inbound) = Peer::start(client_config(&network, 2)).unwrap();
    node.introduce_to(&client);
    client.ask(node.id(), Request::About, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn one_peer_cannot_take_all_streams() {
    let network = network();
    let node = start(config(&network, 1)).await;
    let mut stranger = Stranger::connect(&network, node.addrs[0].clone()).await;
    let mut streams = Vec::new();
    for _ in 0..100 {
        let Some(mut stream) = stranger.open(format!("/commonhold/{network}/shard/1")).await else { break };
        let _ = stream.write_all(&[1]).await; // a header that never ends
        let _ = stream.flush().await;
        streams.push(stream);
    }
    eventually("streams are accepted", || node.peer.stats().snapshot().streams_accepted >= 24).await;
    let (client, _inbound) = Peer::start(client_config(&network, 2)).unwrap();
    node.introduce_to(&client);
    let manifest = manifest(&network, 1, 4096);
    client
        .store_shard(node.id(), manifest.to_unverified(), commonhold_protocol::ShardIndex(0), None, noise(4096, 1))
        .await
        .unwrap();
    assert_eq!(node.peer.stats().snapshot().streams_accepted, 25, "24 of the stranger's, and the client's");
}
