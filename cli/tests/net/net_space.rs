//! Promise: what its owner drops gives its space back on every disk, and costs nobody else a byte; an old drop that is
//! sent again destroys nothing.

use std::time::Duration;

use commonhold_protocol::{
    Drop, DropKind, NodeId, SegmentId, Unverified, Verified,
    ask::{Refusal, Request},
};
use serde_json::Value;

use super::harness::{
    Home, Network, Setup, Spy, Stored, Tree, assert_same, eventually, hex_id, keys_of, live_bytes, noise, poll_until,
};

const NODES: usize = 8;
const SETTLED_MAX: Duration = Duration::from_secs(60);
const TIMES: &str = "[audit]\nevery = \"10 s\"\ngrace = \"20 s\"\n\n[repair]\ntop-up = \"1 s\"\n\n\
                     [pledge]\ntrash = \"2 s\"\nannounce = \"2 s\"\n";

fn segments(home: &Home) -> Vec<SegmentId> {
    let listed = home.run(["segments", "--json"]).expect_code(0).json();
    let id = |segment: &Value| SegmentId::from_hex(segment["id"].as_str().unwrap()).unwrap();
    listed["segments"].as_array().unwrap().iter().map(id).collect()
}

fn store(network: &Network, name: &str, megabytes: usize) -> (Tree, Home, String) {
    let mut tree = Tree::new(network.scratch().join(format!("source-{name}")), megabytes as u64);
    tree.file("large", &noise(megabytes as u64, megabytes << 20));
    let (home, phrase) = network.new_home(name);
    home.put(tree.path(), "/x");
    (tree, home, phrase)
}

/// The shards of a vault that not just one node holds.
fn odd_shards(home: &Home, spy: &Spy, nodes: &[NodeId]) -> Vec<String> {
    let mut odd = Vec::new();
    for segment in Stored::in_vault(home) {
        for index in 0..segment.coding.n() {
            let holds = |node: &&NodeId| spy.first_group(**node, segment.id, index).is_ok();
            let holders: Vec<&NodeId> = nodes.iter().filter(holds).collect();
            if holders.len() != 1 {
                odd.push(format!("{}/{index} by {holders:?}", segment.id));
            }
        }
    }
    odd
}

#[test]
fn what_is_dropped_gives_its_space_back_and_an_old_drop_destroys_nothing() {
    let setup = Setup { nodes: NODES, coding: Some("3/6"), overlay: Some(TIMES), ..Setup::default() };
    let network = Network::start(&setup);
    let (kept, kept_home, _) = store(&network, "kept", 6);
    let (_, home, phrase) = store(&network, "gone", 24);
    let (spy, keys) = (Spy::on(&network), keys_of(&phrase));
    let nodes: Vec<_> = (0..NODES).map(|node| hex_id(&network.node_id(node))).collect();
    let all = segments(&home);
    // A put on a busy machine leaves some on the way, or to be made by stewards.
    let shards_of = |home| Stored::in_vault(home).iter().map(|segment| u64::from(segment.coding.n())).sum::<u64>();
    let shards_kept = shards_of(&kept_home);
    let shards = shards_kept + shards_of(&home);
    let settled = poll_until(SETTLED_MAX, || (network.figures("/shards/held") == shards).then_some(()));
    if settled.is_none() {
        let held = network.figures("/shards/held");
        let odd: Vec<String> =
            [&kept_home, &home].into_iter().flat_map(|home| odd_shards(home, &spy, &nodes)).collect();
        panic!("{held} shards are held instead of {shards}; not held once: {odd:?}");
    }
    let drop = |counter, kind, segments: &[SegmentId]| -> Unverified<Drop> {
        let drop = Drop { vault: keys.vault_id(), counter, kind, segments: segments.to_vec() };
        Verified::sign(drop, keys.signing(), &spy.network).to_unverified()
    };
    // What the client's own drops were counted by is far below.
    let (first, second, third) = (1 << 40, (1 << 40) + 1, (1 << 40) + 2);

    // Dropped by mistake, and taken back: whoever replays the drop is told that there is a newer word.
    let one = &all[..1];
    let mistaken = drop(first, DropKind::Drop, one);
    for node in &nodes {
        let _ = spy.keep(*node, Request::KeepDrop { drop: mistaken.clone() });
        let _ = spy.keep(*node, Request::KeepDrop { drop: drop(second, DropKind::Undrop, one) });
    }
    for node in &nodes {
        let replayed = spy.keep(*node, Request::KeepDrop { drop: mistaken.clone() });
        assert!(matches!(replayed, Err(Refusal::Outdated | Refusal::Unknown)), "{replayed:?}");
    }
    let uptime = network.figure(0, "/uptime_ms");
    eventually("the time in the trash is well over", || network.figure(0, "/uptime_ms") > uptime + 8_000);
    assert_eq!(network.figures("/shards/held"), shards, "a replayed drop destroyed shards");
    let back = network.scratch().join("back-replayed");
    home.get("/x", &back).expect_code(0);

    let (before, bytes) = (network.volume_bytes(), 2 * (24_u64 << 20));
    for node in &nodes {
        // One that neither holds nor keeps any of it knows nothing of the segments.
        let dropped = spy.keep(*node, Request::KeepDrop { drop: drop(third, DropKind::Drop, &all) });
        assert!(matches!(dropped, Ok(()) | Err(Refusal::Unknown)), "{dropped:?}");
    }
    eventually("all of it is gone", || network.figures("/shards/held") == shards_kept);
    // A shard leaves the index first, and its bytes the disk a moment later.
    eventually("nine tenths of the dropped bytes are back on disk", || {
        before.saturating_sub(network.volume_bytes()) >= bytes / 10 * 9
    });
    network.holds_no_more_than(live_bytes(&Stored::in_vault(&kept_home)));
    let back = network.scratch().join("back");
    kept_home.get("/x", &back).expect_code(0);
    assert_same(kept.path(), &back);
    assert_eq!(network.figures("/audits/refused"), 0, "nobody is blamed for what its owner dropped");
}
