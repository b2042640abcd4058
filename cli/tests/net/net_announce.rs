//! Promise: a record that all its stewards lost comes back from any of its holders, whether the stewards died for good
//! or lost their disks; what is left of the segment is rebuilt, and what was there all the time is not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, thread,
    time::{Duration, Instant},
};

use commonhold_protocol::{
    Drop, DropKind, NodeId, Record, SegmentId, Unverified, Verified,
    ask::{Refusal, Request},
};
use serde_json::Value;

use super::harness::{Home, Network, Setup, Spy, Tree, assert_same, eventually, hex_id, keys_of, noise, poll_until};

/// Seconds instead of days and hours.
const TIMES: &str = "[audit]\nevery = \"10 s\"\ngrace = \"3 s\"\n\n[repair]\ntop-up = \"1 s\"\n\n\
                     [pledge]\nannounce = \"2 s\"\n";
/// A record comes back within the time of announcing; the rest is for a loaded machine.
const BACK_MAX: Duration = Duration::from_secs(120);
const STEWARDS: usize = 8;
/// One run of 25 needs the second, one of 1,500 the fourth (20,000 draws of ids).
const VAULTS_MAX: usize = 8;

fn segments(home: &Home) -> Vec<Value> {
    let listed = home.run(["segments", "--json"]).expect_code(0).json();
    listed["segments"].as_array().unwrap().clone()
}

fn id_of(segment: &Value) -> SegmentId {
    SegmentId::from_hex(segment["id"].as_str().unwrap()).unwrap()
}

fn holders(segment: &Value) -> BTreeSet<NodeId> {
    segment["holders"].as_array().unwrap().iter().filter_map(Value::as_str).map(hex_id).collect()
}

/// Whether a node's record of a segment names all these holders.
fn knows_all(spy: &Spy, node: NodeId, segment: SegmentId, holders: &BTreeSet<NodeId>) -> bool {
    spy.record(node, segment).is_some_and(|record| claimants(&record, spy).is_superset(holders))
}

fn claimants(record: &Record, spy: &Spy) -> BTreeSet<NodeId> {
    record.claims.iter().map(|claim| claim.clone().verify(&spy.network).unwrap().holder).collect()
}

#[test]
fn a_record_whose_eight_stewards_die_at_once_comes_back_from_its_holders() {
    const NODES: usize = 20;
    let setup = Setup { nodes: NODES, coding: Some("2/8"), overlay: Some(TIMES), ..Setup::default() };
    let mut network = Network::start(&setup);
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.file("large", &noise(2, 6 << 20));
    let spy = Spy::on(&network);
    let ids: BTreeMap<usize, NodeId> = (0..NODES).map(|node| (node, hex_id(&network.node_id(node)))).collect();
    let stewards_of = |segment: SegmentId| -> Vec<usize> {
        ids.iter().filter(|(_, id)| spy.record(**id, segment).is_some()).map(|(node, _)| *node).collect()
    };

    // A segment of which enough is left when its stewards are gone with all that they hold, while somebody keeps the vault's
    // head. Ids that begin alike have the same stewards, of twenty nodes not seldom: then another vault has other ids.
    let found = (0..VAULTS_MAX).find_map(|vault| {
        let (home, phrase) = network.new_home(&format!("home-{vault}"));
        home.put(tree.path(), "/x");
        let shards = network.figures("/shards/held");
        eventually("as many audits are passed as there are shards", || network.figures("/audits/held") >= shards);
        let keeps_head = |node: &usize| !spy.heads(ids[node], keys_of(&phrase).vault_id()).0.is_empty();
        let all = segments(&home);
        let left_of = |segment: &Value, stewards: &[usize]| -> BTreeSet<NodeId> {
            holders(segment).into_iter().filter(|holder| !stewards.iter().any(|node| ids[node] == *holder)).collect()
        };
        let outlives = |segment: &Value| {
            let stewards = stewards_of(id_of(segment));
            let enough = |other: &Value| left_of(other, &stewards).len() >= other["k"].as_u64().unwrap() as usize;
            let head_stays = ids.keys().any(|node| !stewards.contains(node) && keeps_head(node));
            let fits = stewards.len() == STEWARDS && all.iter().all(enough) && head_stays;
            fits.then(|| (id_of(segment), left_of(segment, &stewards), stewards))
        };
        let (segment, left, stewards) = all.iter().find_map(outlives)?;
        Some((home, phrase, segment, left, stewards))
    });
    let (home, phrase, segment, left, stewards) = found.expect("a segment that outlives its stewards");
    for node in &stewards {
        network.kill(*node);
    }
    let killed = Instant::now();
    let alive: Vec<NodeId> = network.running().into_iter().map(|node| ids[&node]).collect();
    assert_eq!(alive.len(), NODES - STEWARDS);
    let back = poll_until(BACK_MAX, || {
        let records = alive.iter().filter_map(|node| spy.record(*node, segment));
        (records.filter(|record| claimants(record, &spy).is_superset(&left)).count() >= STEWARDS).then_some(())
    });
    let kept = alive.iter().filter(|node| spy.record(**node, segment).is_some()).count();
    assert!(back.is_some(), "{kept} of {} nodes keep the record after {:?}", alive.len(), killed.elapsed());
    eprintln!(
        "killed all {STEWARDS} stewards: eight others know all {} holders that are left after {:?}",
        left.len(),
        killed.elapsed()
    );
    assert!(network.figures("/custody/claims_renewed") > 0);

    let whole = poll_until(BACK_MAX, || {
        let segments = segments(&home);
        segments.iter().all(|segment| segment["healthy"] == segment["n"]).then_some(())
    });
    assert!(whole.is_some(), "not whole again: {:?}", segments(&home));
    eprintln!("all segments are whole again after {:?}", killed.elapsed());
    let target = network.scratch().join("back");
    network.cold_home("reader", &phrase, &network.running()[..1]).get("/x", &target).expect_code(0);
    assert_same(tree.path(), &target);
}

#[test]
fn records_come_back_from_the_shards_when_every_steward_has_lost_them() {
    const NODES: usize = 8;
    // Nobody is given up here, however long a loaded machine takes to start them all.
    const TIMES: &str = "[audit]\nevery = \"10 s\"\ngrace = \"60 s\"\n\n[repair]\ntop-up = \"1 s\"\n\n\
                         [pledge]\nannounce = \"2 s\"\n";
    let setup = Setup { nodes: NODES, coding: Some("3/6"), overlay: Some(TIMES), ..Setup::default() };
    let mut network = Network::start(&setup);
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.small_files(20);
    tree.file("large", &noise(2, 12 << 20));
    let (home, _) = network.new_home("home");
    home.put(tree.path(), "/x");
    let before: BTreeMap<SegmentId, BTreeSet<NodeId>> =
        segments(&home).iter().map(|segment| (id_of(segment), holders(segment))).collect();
    assert!(before.len() >= 2, "{before:?}");
    for node in 0..NODES {
        network.stop(node);
    }
    for node in 0..NODES {
        fs::remove_dir_all(network.node_dir(node).join("records")).unwrap();
        network.launch(node);
    }
    for node in 0..NODES {
        network.await_node(node, NODES as u64 - 1);
    }
    let spy = Spy::on(&network);
    let nodes: Vec<NodeId> = (0..NODES).map(|node| hex_id(&network.node_id(node))).collect();
    let began = Instant::now();
    let back = poll_until(BACK_MAX, || {
        let knows = |node: &NodeId| before.iter().all(|(segment, holders)| knows_all(&spy, *node, *segment, holders));
        nodes.iter().all(knows).then_some(())
    });
    assert!(back.is_some(), "{} records are kept again", network.figures("/records/segments"));
    eprintln!("{} records on each of {NODES} nodes are back after {:?}", before.len(), began.elapsed());
    for outcome in ["wrong", "refused"] {
        assert_eq!(network.figures(&format!("/audits/{outcome}")), 0, "honest holders were found {outcome}");
    }
    assert_eq!(network.figures("/audits/shards_rebuilt"), 0, "all of them were there");
}

/// With the default times a holder announces a shard once a week, and a new record has an hour to prove itself.
#[test]
fn holders_whose_turns_lie_further_apart_than_a_trial_lasts_bring_a_record_back() {
    const NODES: usize = 10;
    const TIMES: &str = "[audit]\nevery = \"10 s\"\ngrace = \"60 s\"\nprove = \"3 s\"\n\n[repair]\ntop-up = \"1 s\"\n\n\
                         [pledge]\nannounce = \"96 s\"\n";
    /// More than two trials: one that has ended may have begun another at a steward that was told of the record.
    const APART: Duration = Duration::from_secs(7);
    let setup = Setup { nodes: NODES, coding: Some("3/5"), overlay: Some(TIMES), ..Setup::default() };
    let mut network = Network::start(&setup);
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.file("small", &noise(2, 1 << 20));
    let (home, _) = network.new_home("home");
    home.put(tree.path(), "/x");
    let before: BTreeMap<SegmentId, BTreeSet<NodeId>> =
        segments(&home).iter().map(|segment| (id_of(segment), holders(segment))).collect();
    let ids: Vec<NodeId> = (0..NODES).map(|node| hex_id(&network.node_id(node))).collect();
    for node in 0..NODES {
        network.stop(node);
        fs::remove_dir_all(network.node_dir(node).join("records")).unwrap();
    }
    // Those that could take a shard are there first, and then one holder after the other.
    let (segment, its_holders) = before.first_key_value().expect("a segment");
    let (holding, free): (Vec<usize>, Vec<usize>) = (0..NODES).partition(|node| its_holders.contains(&ids[*node]));
    assert!(!free.is_empty(), "nobody could take what looks missing, so this shows little");
    let began = Instant::now();
    for (node, others) in free.iter().chain(&holding).copied().zip(0..) {
        network.start_again(node, others);
        if holding.contains(&node) {
            thread::sleep(APART);
        }
    }
    let spy = Spy::on(&network);
    let back = poll_until(BACK_MAX, || {
        let knowing = ids.iter().filter(|node| knows_all(&spy, **node, *segment, its_holders));
        (knowing.count() >= STEWARDS).then_some(())
    });
    let records = network.figures("/records/segments");
    assert!(back.is_some(), "{records} records are kept again, after {:?}", began.elapsed());
    eprintln!("the record was back after {:?}, with {records} in all", began.elapsed());
    assert_eq!(network.figures("/audits/shards_rebuilt"), 0, "all of them were there");
}

/// A drop leaves a tombstone without claims, and after an undrop the claims come with the holders' turns: days later. One
/// steward slept through the undrop.
#[test]
fn a_segment_that_was_dropped_by_mistake_has_a_record_again_though_a_steward_missed_that() {
    const NODES: usize = 8;
    const TIMES: &str = "[audit]\nevery = \"10 s\"\ngrace = \"60 s\"\nprove = \"3 s\"\n\n[repair]\ntop-up = \"1 s\"\n\n\
                         [pledge]\nannounce = \"24 s\"\n";
    let setup = Setup { nodes: NODES, coding: Some("3/6"), overlay: Some(TIMES), ..Setup::default() };
    let network = Network::start(&setup);
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.file("small", &noise(2, 1 << 20));
    let (home, phrase) = network.new_home("home");
    home.put(tree.path(), "/x");
    let before: BTreeMap<SegmentId, BTreeSet<NodeId>> =
        segments(&home).iter().map(|segment| (id_of(segment), holders(segment))).collect();
    let (segment, its_holders) = before.first_key_value().expect("a segment");
    let ids: Vec<NodeId> = (0..NODES).map(|node| hex_id(&network.node_id(node))).collect();
    let sleeper = (0..NODES).find(|node| !its_holders.contains(&ids[*node])).expect("who holds none of it");
    let (spy, keys) = (Spy::on(&network), keys_of(&phrase));
    let word = |counter, kind| -> Unverified<Drop> {
        let drop = Drop { vault: keys.vault_id(), counter, kind, segments: vec![*segment] };
        Verified::sign(drop, keys.signing(), &spy.network).to_unverified()
    };
    // What the client's own drops were counted by is far below.
    let (mistaken, mended) = (word(1 << 40, DropKind::Drop), word((1 << 40) + 1, DropKind::Undrop));
    for node in &ids {
        let dropped = spy.keep(*node, Request::KeepDrop { drop: mistaken.clone() });
        assert!(matches!(dropped, Ok(()) | Err(Refusal::Unknown)), "{dropped:?}");
    }
    network.freeze(sleeper);
    let awake = || (0..NODES).filter(|node| *node != sleeper).map(|node| ids[node]);
    for node in awake() {
        let _ = spy.keep(node, Request::KeepDrop { drop: mended.clone() });
    }
    let began = Instant::now();
    eventually("no claim has proven the record in time", || awake().all(|node| spy.record(node, *segment).is_none()));
    network.thaw(sleeper);
    let back =
        poll_until(BACK_MAX, || ids.iter().all(|node| knows_all(&spy, *node, *segment, its_holders)).then_some(()));
    assert!(back.is_some(), "no record of it on all {NODES} nodes {:?} after the undrop", began.elapsed());
    eprintln!("all {NODES} stewards keep the record again {:?} after the undrop", began.elapsed());
    let target = network.scratch().join("back");
    network.cold_home("reader", &phrase, &network.running()[..1]).get("/x", &target).expect_code(0);
    assert_same(tree.path(), &target);
}
