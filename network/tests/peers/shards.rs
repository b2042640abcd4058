//! Shards move whole, both ways at once, over few streams.

use std::{sync::atomic::Ordering::Relaxed, time::Instant};

use commonhold_network::{Peer, TransferError};
use commonhold_protocol::{SegmentId, ShardIndex, ask::Refusal, shard_stream::GroupRange};
use futures::future::join_all;

use crate::harness::{Node, client_config, config, manifest, network, noise, start};

const MIB: u64 = 1 << 20;

fn whole(length: u64) -> Vec<GroupRange> {
    vec![GroupRange::whole(length)]
}

#[tokio::test]
async fn a_shard_comes_back_as_it_went() {
    let network = network();
    let node = start(config(&network, 1)).await;
    let (client, _inbound) = Peer::start(client_config(&network, 2)).unwrap();
    node.introduce_to(&client);
    for length in [64, 4096, 256 << 10, (256 << 10) + 64, MIB] {
        let manifest = manifest(&network, (length % 251) as u8, length);
        let shard = noise(length as usize, length);
        let claim = client
            .store_shard(node.id(), manifest.to_unverified(), ShardIndex(0), None, shard.clone())
            .await
            .unwrap()
            .verify(&network)
            .unwrap();
        assert_eq!(claim.holder, node.id());
        let reply = client.read_shard(node.id(), manifest.id(), ShardIndex(0), whole(length), false).await.unwrap();
        assert_eq!(reply.encoded, shard);
    }
    let moved = client.stats().snapshot();
    assert_eq!(moved.shard_bytes_sent, 64 + 4096 + (512 << 10) + 64 + MIB);
    assert_eq!(moved.shard_bytes_received, moved.shard_bytes_sent);
}

#[tokio::test]
async fn refusals_are_told_and_leave_the_stream_usable() {
    let network = network();
    let node = start(config(&network, 1)).await;
    let (client, _inbound) = Peer::start(client_config(&network, 2)).unwrap();
    node.introduce_to(&client);
    let other = crate::harness::network();
    for _ in 0..10 {
        let unknown = SegmentId::from_bytes([5; 32]);
        let error = client.read_shard(node.id(), unknown, ShardIndex(0), whole(64), false).await.unwrap_err();
        assert_eq!(error, TransferError::Refused { node: node.id(), refusal: Refusal::Unknown });
        let foreign = manifest(&other, 1, 64).to_unverified();
        let error = client.store_shard(node.id(), foreign, ShardIndex(0), None, noise(64, 1)).await.unwrap_err();
        assert_eq!(error, TransferError::Refused { node: node.id(), refusal: Refusal::Invalid });
    }
    assert_eq!(client.stats().snapshot().streams_opened, 1);
}

/// A client that was killed before it heard of the claim offers the shard again.
#[tokio::test]
async fn a_shard_that_is_held_already_is_answered_for_and_not_sent() {
    const LENGTH: u64 = 4 * MIB;
    let network = network();
    let node = start(config(&network, 1)).await;
    let (client, _inbound) = Peer::start(client_config(&network, 2)).unwrap();
    node.introduce_to(&client);
    let manifest = manifest(&network, 1, LENGTH);
    let store = async |index| {
        let shard = noise(LENGTH as usize, 1);
        let stored = client.store_shard(node.id(), manifest.to_unverified(), ShardIndex(index), None, shard).await;
        stored.unwrap().verify(&network).unwrap()
    };
    let first = store(0).await;
    assert_eq!(client.stats().snapshot().shard_bytes_sent, LENGTH);
    for _ in 0..3 {
        assert_eq!(store(0).await.claim.leaf, first.claim.leaf);
    }
    assert_eq!(client.stats().snapshot().shard_bytes_sent, LENGTH);
    // The stream is still in step: what is new goes over it as ever.
    assert_eq!(store(1).await.claim.leaf.index, ShardIndex(1));
    let moved = client.stats().snapshot();
    assert_eq!((moved.shard_bytes_sent, moved.streams_opened), (2 * LENGTH, 1));
    // A holder may also want it again.
    node.holder.takes_twice.store(true, Relaxed);
    assert_eq!(store(0).await.claim.leaf, first.claim.leaf);
    assert_eq!(client.stats().snapshot().shard_bytes_sent, 3 * LENGTH);
}

/// A holder whose disk fills up stops reading. A sender that only writes would wait for it until it times out.
#[tokio::test]
async fn a_refusal_in_the_middle_of_a_shard_is_heard_at_once() {
    let network = network();
    let node = start(config(&network, 1)).await;
    *node.holder.full_after.lock().unwrap() = Some(MIB);
    let (client, _inbound) = Peer::start(client_config(&network, 2)).unwrap();
    node.introduce_to(&client);
    let manifest = manifest(&network, 1, 16 * MIB);
    let begin = Instant::now();
    let stored = client.store_shard(node.id(), manifest.to_unverified(), ShardIndex(0), None, noise(16 << 20, 1));
    let error = stored.await.unwrap_err();
    assert_eq!(error, TransferError::Refused { node: node.id(), refusal: Refusal::DiskFull });
    assert!(begin.elapsed().as_secs() < 5, "{:?}", begin.elapsed());
    *node.holder.full_after.lock().unwrap() = None;
    client.store_shard(node.id(), manifest.to_unverified(), ShardIndex(0), None, noise(16 << 20, 1)).await.unwrap();
}

/// libp2p-stream over Yamux was reported to stand still when both ends write much at once (rust-libp2p issue 5410): over
/// one connection, so nobody can dial the one that does not listen, and it dials once.
#[tokio::test]
async fn both_ends_send_64_mib_at_once_over_one_connection() {
    let network = network();
    let (a, b) = (start(config(&network, 1)).await, start(client_config(&network, 2)).await);
    assert_eq!(b.peer.bootstrap(&a.addrs).await.unwrap(), 1);
    let length = 64 * MIB;
    for node in [&a, &b] {
        *node.holder.shard_length.lock().unwrap() = Some(length);
    }
    let manifest = manifest(&network, 1, 64);
    let shard = noise(length as usize, 3);
    let send = |from: &Node, to: &Node| {
        let (peer, to) = (from.peer.clone(), to.id());
        let (manifest, shard) = (manifest.to_unverified(), shard.clone());
        async move { peer.store_shard(to, manifest, ShardIndex(0), None, shard).await }
    };
    let begin = Instant::now();
    let (there, back) = tokio::join!(send(&a, &b), send(&b, &a));
    there.unwrap();
    back.unwrap();
    let seconds = begin.elapsed().as_secs_f64();
    println!("64 MiB each way in one process: {:.0} MiB/s in all", 128.0 / seconds);
    for node in [&a, &b] {
        assert_eq!(node.holder.shards.lock().unwrap().values().next().unwrap(), &shard);
    }
    // And with many streams each way.
    for node in [&a, &b] {
        *node.holder.shard_length.lock().unwrap() = Some(8 * MIB);
    }
    let shard = noise(8 << 20, 4);
    let sends = (0..16).map(|number| {
        let (from, to) = if number % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let (manifest, shard) = (manifest.to_unverified(), shard.clone());
        async move { from.peer.store_shard(to.id(), manifest, ShardIndex(number), None, shard).await }
    });
    for sent in join_all(sends).await {
        sent.unwrap();
    }
    for node in [&a, &b] {
        assert_eq!(node.peer.stats().snapshot().connections_made, 1);
    }
}

#[tokio::test]
async fn three_hundred_exchanges_use_one_stream() {
    let network = network();
    let node = start(config(&network, 1)).await;
    let (client, _inbound) = Peer::start(client_config(&network, 2)).unwrap();
    node.introduce_to(&client);
    let manifest = manifest(&network, 1, 4096);
    for number in 0..150_u8 {
        let shard = noise(4096, number.into());
        client.store_shard(node.id(), manifest.to_unverified(), ShardIndex(number), None, shard.clone()).await.unwrap();
        let reply = client.read_shard(node.id(), manifest.id(), ShardIndex(number), whole(4096), false).await.unwrap();
        assert_eq!(reply.encoded, shard);
    }
    let moved = client.stats().snapshot();
    assert_eq!((moved.streams_opened, moved.streams_retried), (1, 0));
}

#[tokio::test]
async fn two_hundred_transfers_at_once_all_succeed() {
    let network = network();
    let node = start(config(&network, 1)).await;
    let (client, _inbound) = Peer::start(client_config(&network, 2)).unwrap();
    node.introduce_to(&client);
    let manifest = manifest(&network, 1, 64 << 10);
    let stores = (0..200_u8).map(|number| {
        let (client, manifest, to) = (client.clone(), manifest.to_unverified(), node.id());
        async move { client.store_shard(to, manifest, ShardIndex(number), None, noise(64 << 10, number.into())).await }
    });
    for stored in join_all(stores).await {
        stored.unwrap();
    }
    assert_eq!(node.holder.shards.lock().unwrap().len(), 200);
    let opened = client.stats().snapshot().streams_opened;
    assert!(opened <= 8, "{opened} streams to one peer");
}

#[tokio::test]
async fn streams_that_died_with_a_peer_are_replaced() {
    let network = network();
    let node = start(config(&network, 1)).await;
    let (client, _inbound) = Peer::start(client_config(&network, 2)).unwrap();
    node.introduce_to(&client);
    node.holder.takes_twice.store(true, Relaxed);
    let manifest = manifest(&network, 1, 4096);
    let store = || client.store_shard(node.id(), manifest.to_unverified(), ShardIndex(0), None, noise(4096, 1));
    for stored in join_all((0..8).map(|_| store())).await {
        stored.unwrap();
    }
    node.peer.shutdown().await;
    let again = start(config(&network, 1)).await;
    assert_eq!(again.id(), node.id());
    again.introduce_to(&client);
    store().await.unwrap();
    store().await.unwrap();
}
