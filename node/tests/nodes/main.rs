//! Nodes over real sockets in one process, each on a runtime of its own, so that one can be ended at any instant.

mod audits;
mod harness;
mod sweeps;

use std::{fs, time::Duration};

use bytes::Bytes;
use commonhold_network::TransferError;
use commonhold_node::{FsckReport, NodeError, data_dir::DataDirError, fsck, status_of};
use commonhold_policy::{Domain, stewards};
use commonhold_protocol::{
    Claim, ClaimLeaf, DeviceId, Drop, DropKind, Head, Lease, NetworkName, Record, SegmentId, ShardIndex, SigningKey,
    Timestamp, Unverified, VaultId, Verified, Version,
    ask::{Refusal, Request, Response},
    shard_stream::GroupRange,
};
use commonhold_storage_engine::prove::decode_ranges;
use harness::{Client, Segment, TestNode, eventually, network};

const DROPPED_FOR_LONG: &str = "[pledge]\ntrash = \"1 h\"\n";
const DROPPED_FOR_A_MOMENT: &str = "[pledge]\ntrash = \"1 s\"\n";

fn owner() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

fn vault() -> VaultId {
    VaultId::from_bytes(owner().public())
}

fn drop_of(segment: SegmentId, counter: u64, kind: DropKind) -> Unverified<Drop> {
    let drop = Drop { vault: vault(), counter, kind, segments: vec![segment] };
    Verified::sign(drop, &owner(), &network()).to_unverified()
}

fn record(segment: &Segment, claims: Vec<Claim>) -> Record {
    Record { manifest: segment.manifest.to_unverified(), claims, drop: None }
}

/// Reads some groups of a shard, checks their proof, and compares them with what was stored.
async fn read_back(client: &Client, node: &TestNode, segment: &Segment) -> Result<(), TransferError> {
    let manifest = &segment.manifest;
    let ranges = vec![GroupRange { first: 3, count: 2 }, GroupRange { first: 9, count: 1 }];
    let reply = client.read(node, manifest.id(), ranges.clone(), true).await?;
    let sent = reply.manifest.expect("the manifest was asked for").verify(&network()).expect("it is signed");
    let root = sent.root(ShardIndex(0)).expect("a root");
    let pieces = decode_ranges(root, manifest.shard_length(), &ranges, &reply.encoded).expect("a valid proof");
    let groups: u64 =
        ranges.iter().map(|range| range.bytes(manifest.shard_length())).map(|run| run.end - run.start).sum();
    assert_eq!(pieces.iter().map(|piece| piece.end() - piece.start).sum::<u64>(), groups);
    for piece in pieces {
        assert_eq!(piece.concat(), segment.data[piece.start as usize..piece.end() as usize]);
    }
    Ok(())
}

#[tokio::test]
async fn a_shard_is_stored_claimed_and_read_back_with_its_proof() {
    let node = TestNode::start("node-0", &[], "").await;
    let client = Client::start(&[&node]).await;
    let segment = Segment::new(&owner(), 1, 300_000, &network());
    let claim = client.store(&node, &segment).await.expect("stored").verify(&network()).expect("a valid claim");
    assert_eq!(claim.holder, node.id());
    assert_eq!(claim.claim.leaf, ClaimLeaf { segment: segment.manifest.id(), index: ShardIndex(0) });
    read_back(&client, &node, &segment).await.expect("read");
    // Sent again by a client that was killed before it heard of the claim.
    let sent = client.shard_bytes_sent();
    let again = client.store(&node, &segment).await.expect("held already").verify(&network()).expect("a valid claim");
    assert_eq!(again.claim.leaf, claim.claim.leaf);
    assert_eq!((sent, client.shard_bytes_sent()), (segment.data.len() as u64, sent), "no byte is sent twice");
    let status = node.status().await;
    assert_eq!(status.traffic.shard_bytes_received, sent);
    assert_eq!((status.shards.held, status.shards.quarantined), (1, 0));
    assert_eq!(status.node, format!("{:#}", node.id()));
    assert!(status.pledge.used_bytes >= 300_000);
    node.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_its_manifest_or_this_network_is_refused() {
    let node = TestNode::start("node-0", &[], "").await;
    let client = Client::start(&[&node]).await;
    let other: NetworkName = "dev-other".parse().expect("a name");
    let elsewhere = Segment::new(&owner(), 1, 100_000, &other);
    let mut wrong = Segment::new(&owner(), 2, 100_000, &network());
    let mut bytes = wrong.data.to_vec();
    bytes[70_000] ^= 1;
    wrong.data = Bytes::from(bytes);
    for segment in [elsewhere, wrong] {
        match client.store(&node, &segment).await {
            Err(TransferError::Refused { refusal: Refusal::Invalid, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    let unknown = client.read(&node, SegmentId::from_bytes([7; 32]), vec![GroupRange { first: 0, count: 1 }], false);
    match unknown.await {
        Err(TransferError::Refused { refusal: Refusal::Unknown, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(node.status().await.shards.held, 0);
}

#[tokio::test]
async fn what_a_node_answered_for_it_has_after_kill_9() {
    let node = TestNode::start("node-0", &[], "").await;
    let client = Client::start(&[&node]).await;
    let segments: Vec<Segment> = (0..8).map(|salt| Segment::new(&owner(), salt, 200_000, &network())).collect();
    let mut records = Vec::new();
    for segment in &segments {
        records.push(record(segment, vec![client.store(&node, segment).await.expect("stored")]));
    }
    let kept = client.ask(&node, Request::KeepRecords { records: records.clone(), lease: None }).await;
    assert_eq!(kept, Response::Kept(vec![Ok(()); 8]));
    // One more is on its way when the node dies.
    let late = Segment::new(&owner(), 99, 4 << 20, &network());
    let storing = client.store(&node, &late);
    let folder = tokio::select! {
        stored = storing => {
            stored.expect("stored");
            node.kill()
        }
        () = tokio::time::sleep(Duration::from_millis(20)) => node.kill(),
    };

    let node = TestNode::start_in(folder, &[], "").await;
    let client = Client::start(&[&node]).await;
    for segment in &segments {
        read_back(&client, &node, segment).await.expect("still held");
    }
    let ids = segments.iter().map(|segment| segment.manifest.id()).collect();
    let fetched = client.ask(&node, Request::FetchRecords { segments: ids }).await;
    assert_eq!(fetched, Response::Records(records.into_iter().map(Some).collect()));
    assert_eq!(node.status().await.shards.quarantined, 0);
}

#[tokio::test]
async fn fsck_rebuilds_lost_indexes_and_a_running_node_is_left_alone() {
    let node = TestNode::start("node-0", &[], "").await;
    let client = Client::start(&[&node]).await;
    let segment = Segment::new(&owner(), 1, 300_000, &network());
    let claim = client.store(&node, &segment).await.expect("stored");
    client.ask(&node, Request::KeepRecords { records: vec![record(&segment, vec![claim])], lease: None }).await;
    let config = node.config();
    assert!(matches!(fsck(&config), Err(commonhold_node::FsckError::DataDir(DataDirError::InUse { .. }))));
    let folder = node.kill();
    for index in ["index", "records/index"] {
        fs::remove_dir_all(folder.path().join(index)).expect("an index");
    }
    let FsckReport { shards, damaged, missing, records, .. } = fsck(&config).expect("a report");
    assert_eq!((shards, damaged, missing, records.kept), (1, 0, 0, 1));
    let node = TestNode::start_in(folder, &[], "").await;
    let client = Client::start(&[&node]).await;
    read_back(&client, &node, &segment).await.expect("read");
    assert_eq!(node.status().await.records.segments, 1);
}

#[tokio::test]
async fn records_heads_leases_and_tombstones_reach_a_node_that_joins() {
    let overlay = "[audit]\nevery = \"2 s\"\n";
    let first = TestNode::start("node-0", &[], overlay).await;
    let client = Client::start(&[&first]).await;
    let (live, dead) = (Segment::new(&owner(), 1, 5000, &network()), Segment::new(&owner(), 2, 5000, &network()));
    // Claims that are true: all records that prove themselves are handed on.
    let claims = [client.store(&first, &live).await.unwrap(), client.store(&first, &dead).await.unwrap()];
    let [claim_live, claim_dead] = claims.map(|claim| vec![claim]);
    let records = vec![record(&live, claim_live), record(&dead, claim_dead)];
    client.ask(&first, Request::KeepRecords { records: records.clone(), lease: None }).await;
    let drop = drop_of(dead.manifest.id(), 1, DropKind::Drop);
    client.ask(&first, Request::KeepDrop { drop: drop.clone() }).await;
    let head = Head {
        vault: vault(),
        version: Version::from_counters([(DeviceId([3; 8]), 1)]),
        nonce: [0; 24],
        sealed: Bytes::from_static(b"sealed"),
    };
    let head = Verified::sign(head, &owner(), &network()).to_unverified();
    let lease = Lease { vault: vault(), counter: 1, valid_until: Timestamp(1 << 50) };
    let lease = Verified::sign(lease, &owner(), &network()).to_unverified();
    client.ask(&first, Request::KeepHead { head: head.clone(), lease: Some(lease.clone()) }).await;

    let second = TestNode::start("node-1", &[&first], overlay).await;
    let joined = Client::start(&[&second]).await;
    let segments = vec![live.manifest.id(), dead.manifest.id()];
    let tombstone = Record { claims: Vec::new(), drop: Some(drop), ..records[1].clone() };
    let wanted = (
        Response::Records(vec![Some(records[0].clone()), Some(tombstone)]),
        Response::Heads { heads: vec![head], lease: Some(lease) },
    );
    eventually("the newcomer has all of it", async || {
        let records = joined.ask(&second, Request::FetchRecords { segments: segments.clone() }).await;
        let heads = joined.ask(&second, Request::FetchHeads { vault: vault() }).await;
        (records, heads) == wanted
    })
    .await;
}

/// Ten nodes, of which eight are stewards of a segment; one of the eight dies. After the grace time, and not by any
/// client's doing, the ninth has the record.
#[tokio::test]
async fn when_a_steward_is_gone_the_next_one_gets_its_records() {
    // Long enough that nobody on a busy machine seems to be gone.
    let overlay = "[audit]\nevery = \"2 s\"\ngrace = \"6 s\"\n";
    let mut nodes = vec![TestNode::start("node-0", &[], overlay).await];
    for number in 1..10 {
        nodes.push(TestNode::start(&format!("node-{number}"), &[&nodes[0]], overlay).await);
    }
    eventually("all know each other", async || {
        let mut known = 0;
        for node in &nodes {
            known += node.status().await.nodes_known;
        }
        known == 90
    })
    .await;
    let candidates: Vec<_> = nodes.iter().map(|node| (node.id(), Domain::new(format!("{:#}", node.id())))).collect();
    let client = Client::start(&nodes.iter().collect::<Vec<_>>()).await;
    let lacks = async |node: &TestNode, id| {
        client.ask(node, Request::LackRecords { segments: vec![id] }).await == Response::Lacking(vec![id])
    };
    let segment = Segment::new(&owner(), 1, 5000, &network());
    let id = segment.manifest.id();
    let chosen = stewards::choose(id.as_bytes(), &candidates);
    assert_eq!(chosen.len(), stewards::STEWARDS);
    let (mut keepers, others): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|node| chosen.contains(&node.id()));
    // Claims that are true: what has proven itself is handed on.
    let claim = client.store(&keepers[1], &segment).await.unwrap();
    for node in &keepers {
        let records = vec![record(&segment, vec![claim.clone()])];
        let kept = client.ask(node, Request::KeepRecords { records, lease: None }).await;
        assert_eq!(kept, Response::Kept(vec![Ok(())]));
    }
    eventually("all have had proof of it", async || {
        for node in &keepers {
            let answer = client.ask(node, Request::FetchHealth { segments: vec![id] }).await;
            let Response::Health(reports) = answer else { panic!("{answer:?}") };
            if reports[0].as_ref().is_none_or(|report| report.healthy != 1) {
                return false;
            }
        }
        true
    })
    .await;
    // Somebody may not yet have heard of all that are stewards, and have taken another for one.
    eventually("no other node has it", async || {
        let mut strays = 0;
        for node in &others {
            strays += usize::from(!lacks(node, id).await);
        }
        strays == 0
    })
    .await;
    let dead = keepers.remove(0);
    let left: Vec<_> = candidates.into_iter().filter(|(node, _)| *node != dead.id()).collect();
    let next = stewards::choose(id.as_bytes(), &left).into_iter().find(|node| !chosen.contains(node));
    let (next, last) = if next == Some(others[0].id()) { (0, 1) } else { (1, 0) };
    drop(dead);
    eventually("the next steward has the record", async || !lacks(&others[next], id).await).await;
    eventually("the last, no steward of it, does not have it", async || lacks(&others[last], id).await).await;
}

#[tokio::test]
async fn a_dropped_shard_is_not_served_and_comes_back_with_an_undrop() {
    let node = TestNode::start("node-0", &[], DROPPED_FOR_LONG).await;
    let client = Client::start(&[&node]).await;
    let segment = Segment::new(&owner(), 1, 300_000, &network());
    client.store(&node, &segment).await.expect("stored");
    let id = segment.manifest.id();
    let kept = client.ask(&node, Request::KeepDrop { drop: drop_of(id, 1, DropKind::Drop) }).await;
    assert_eq!(kept, Response::Kept(vec![Ok(())]));
    for outcome in [read_back(&client, &node, &segment).await, client.store(&node, &segment).await.map(|_| ())] {
        assert!(matches!(outcome, Err(TransferError::Refused { refusal: Refusal::Dropped, .. })), "{outcome:?}");
    }
    let kept = client.ask(&node, Request::KeepDrop { drop: drop_of(id, 2, DropKind::Undrop) }).await;
    assert_eq!(kept, Response::Kept(vec![Ok(())]));
    read_back(&client, &node, &segment).await.expect("served again");
}

#[tokio::test]
async fn the_trash_is_emptied_and_a_dropped_segment_stays_dropped() {
    let node = TestNode::start("node-0", &[], DROPPED_FOR_A_MOMENT).await;
    // Nothing is let go for its age before somebody else has told the time.
    let _other = TestNode::start("node-1", &[&node], "").await;
    let client = Client::start(&[&node]).await;
    let segment = Segment::new(&owner(), 1, 2 << 20, &network());
    client.store(&node, &segment).await.expect("stored");
    let drop = drop_of(segment.manifest.id(), 1, DropKind::Drop);
    client.ask(&node, Request::KeepDrop { drop }).await;
    eventually("the space is given back", async || node.status().await.shards.held == 0).await;
    let again = client.store(&node, &segment).await;
    assert!(matches!(again, Err(TransferError::Refused { refusal: Refusal::Dropped, .. })), "{again:?}");
}

#[tokio::test]
async fn a_node_at_its_limit_refuses_politely_and_serves_on() {
    let node = TestNode::start("node-0", &[], "[pledge]\nvault-max = \"3 MiB\"\n").await;
    let client = Client::start(&[&node]).await;
    let mut stored = Vec::new();
    let refusal = loop {
        let segment = Segment::new(&owner(), stored.len() as u8, 1 << 20, &network());
        match client.store(&node, &segment).await {
            Ok(_) => stored.push(segment),
            Err(TransferError::Refused { refusal, .. }) => break refusal,
            Err(error) => panic!("{error}"),
        }
        assert!(stored.len() < 4, "more than the vault may place");
    };
    assert_eq!(refusal, Refusal::VaultLimit);
    assert!(!stored.is_empty());
    for segment in &stored {
        read_back(&client, &node, segment).await.expect("still served");
    }
}

#[tokio::test]
async fn two_nodes_in_one_folder_are_refused_and_a_stopped_one_leaves_no_signs_of_life() {
    let node = TestNode::start("node-0", &[], "").await;
    let second = TestNode::try_run(node.config()).await;
    match second {
        Err(error @ NodeError::DataDir(DataDirError::InUse { .. })) => {
            assert!(error.to_string().contains("two nodes cannot share a data folder"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    // What a killed node leaves behind may come to name a port that another node has by now.
    let another = TestNode::start("node-1", &[], "").await;
    let of_another = std::fs::read_to_string(another.folder().path().join("dashboard")).unwrap();
    let of_the_dead = std::fs::read_to_string(node.folder().path().join("dashboard")).unwrap();
    let folder = node.stop().await;
    for file in ["pid", "addr", "dashboard"] {
        assert!(!folder.path().join(file).exists(), "{file} is left behind");
    }
    for left_behind in [None, Some((&of_another, &of_the_dead))] {
        if let Some((address, id)) = left_behind {
            let lines = [address.lines().next().unwrap(), id.lines().nth(1).unwrap()];
            std::fs::write(folder.path().join("dashboard"), lines.join("\n")).unwrap();
        }
        let path = folder.path().to_owned();
        let status = tokio::task::spawn_blocking(move || status_of(&path)).await.unwrap();
        let error = status.expect_err("no node runs").to_string();
        assert!(error.contains("no node is running"), "{error}");
    }
    another.stop().await;
}

#[tokio::test]
async fn a_node_finds_its_network_again_without_any_configured_address() {
    let first = TestNode::start("node-0", &[], "").await;
    let second = TestNode::start("node-1", &[&first], "").await;
    eventually("both know each other", async || {
        first.status().await.nodes_known == 1 && second.status().await.nodes_known == 1
    })
    .await;
    let folder = second.stop().await;
    let remembered = fs::read_to_string(folder.path().join("peers")).expect("remembered nodes");
    assert!(remembered.starts_with(&format!("{:#} /", first.id())), "{remembered}");
    let second = TestNode::start_in(folder, &[], "").await;
    eventually("it is back", async || second.status().await.peers >= 1).await;
}

#[tokio::test]
async fn the_dashboard_answers_people_programs_and_prometheus() {
    let node = TestNode::start("attic & co", &[], "").await;
    assert_eq!(node.get("/health").await, "ok\n");
    assert!(node.get("/").await.contains("<h1>attic &amp; co</h1>"));
    assert!(node.get("/metrics").await.contains("commonhold_shards 0\n"));
    let status = node.status().await;
    assert_eq!(status.name.as_deref(), Some("attic & co"));
    assert_eq!(status.network, network().to_string());
}
