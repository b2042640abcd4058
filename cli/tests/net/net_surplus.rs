//! Promise: a shard that is held twice, since its holder came back after it was given up for lost or took it in when its
//! client had given it to another, is given up by one of the two, never by both, and its space comes back.

use std::time::Duration;

use commonhold_protocol::{ClaimLeaf, NodeId, VerifiedClaim};

use super::harness::{
    Network, Setup, Spy, Stored, Tree, assert_same, eventually, hex_id, live_bytes, noise, poll_until,
};

const NODES: usize = 10;
/// Seconds instead of days and hours.
const TIMES: &str = "[audit]\nevery = \"8 s\"\ngrace = \"3 s\"\n\n[repair]\ntop-up = \"1 s\"\n\n\
                     [pledge]\nannounce = \"3 s\"\n";
/// Silence, grace, repair, audits and a round of announcing take some twenty seconds; the rest is for a loaded machine.
const SETTLED_MAX: Duration = Duration::from_secs(120);

#[test]
fn who_comes_back_after_it_was_given_up_gives_up_what_others_hold_by_now() {
    let setup = Setup { nodes: NODES, coding: Some("3/6"), overlay: Some(TIMES), ..Setup::default() };
    let mut network = Network::start(&setup);
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.small_files(20);
    tree.file("large", &noise(2, 20 << 20));
    let (home, phrase) = network.new_home("home");
    home.put(tree.path(), "/x");
    let shards = network.figures("/shards/held");
    eventually("as many audits are passed as there are shards", || network.figures("/audits/held") >= shards);

    let away = [0, 1];
    let lost = network.figures_of(&away, "/shards/held");
    assert!(lost > 0);
    for node in away {
        network.kill(node);
    }
    let whole = poll_until(SETTLED_MAX, || (network.figures("/shards/held") >= shards).then_some(()));
    assert!(whole.is_some(), "{} of {shards} shards are held", network.figures("/shards/held"));
    let twice = network.volume_bytes();
    for node in away {
        network.launch(node);
    }
    for node in away {
        network.await_node(node, NODES as u64 - 1);
    }
    let settled = poll_until(SETTLED_MAX, || {
        (network.figures("/shards/held") == shards && network.figures("/custody/surplus_released") >= lost)
            .then_some(())
    });
    let released = network.figures("/custody/surplus_released");
    let held = network.figures("/shards/held");
    assert!(settled.is_some(), "{held} instead of {shards} shards are held, {released} of {lost} were given up");
    let (once, surplus) = (network.volume_bytes(), network.figures("/custody/surplus_bytes"));
    eprintln!(
        "{lost} of {shards} shards held twice; {released} given up, {surplus} bytes; on disk {twice}, then {once}"
    );
    // Whoever comes back rebuilds nothing of what is given up, though it has not heard yet of those who have it by now.
    assert_eq!(released, lost, "more was given up than was held twice");
    assert!(twice.saturating_sub(once) >= surplus / 10 * 9, "{twice} - {once} bytes on disk, {surplus} were given up");
    network.holds_no_more_than(live_bytes(&Stored::in_vault(&home)));
    for outcome in ["wrong", "refused"] {
        assert_eq!(network.figures(&format!("/audits/{outcome}")), 0, "honest holders were found {outcome}");
    }

    // A client that gave a slow node up sent the shard to another; then the slow one had it as well. A steward's own word
    // would be believed, so it is none, if there is one that neither keeps the record nor a shard.
    let spy = Spy::on(&network);
    let nodes: Vec<_> = (0..NODES).map(|node| hex_id(&network.node_id(node))).collect();
    let scenes = Stored::in_vault(&home).into_iter().map(|Stored { id, .. }| {
        let (stewards, others): (Vec<NodeId>, Vec<NodeId>) =
            nodes.iter().copied().partition(|node| spy.record(*node, id).is_some());
        let record = spy.record(stewards[0], id).expect("a record");
        let claims: Vec<_> = record.claims.iter().map(|claim| claim.clone().verify(&spy.network).unwrap()).collect();
        let holds = |node: &&NodeId| claims.iter().any(|claim| claim.holder == **node);
        let (stranger, steward) = (others.iter().find(|node| !holds(node)), stewards.iter().find(|node| !holds(node)));
        let late = *stranger.or(steward).expect("ten nodes hold six shards");
        (stranger.is_none(), late, claims, record)
    });
    let (_, late, claims, record) = scenes.min_by_key(|(is_steward, ..)| *is_steward).expect("a segment");
    // A claim that was just given up may still stand with one that has not heard of it.
    let held = |claim: &VerifiedClaim| {
        let ClaimLeaf { segment, index } = claim.claim.leaf;
        Some((index, spy.whole_shard(claim.holder, segment, index.0).ok()?))
    };
    let (index, data) = claims.iter().find_map(held).expect("a shard");
    spy.store(late, record.manifest, index.0, data).unwrap();
    assert_eq!(network.figures("/shards/held"), shards + 1);
    let settled = poll_until(SETTLED_MAX, || (network.figures("/shards/held") == shards).then_some(()));
    assert!(settled.is_some(), "what nobody counts is held for ever");

    // Each shard is somewhere: the network can lose any n - k of a segment's holders.
    for node in [2, 3, 4] {
        network.kill(node);
    }
    let target = network.scratch().join("back");
    network.cold_home("reader", &phrase, &[0]).get("/x", &target).expect_code(0);
    assert_same(tree.path(), &target);
}
