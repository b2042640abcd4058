//! Promise: whoever cheats with what it holds is found in the time that the law of audits predicts, and what it held is
//! rebuilt elsewhere; nobody else is blamed, and nothing is lost.
//!
//! One network, in which one honest node after another is started again as one that cheats in its own way: what is
//! held against it and how long that took is told apart by its id in the logs of the others.

mod law;
mod predicted;
mod verdicts;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use commonhold_cheats::Kind;
use commonhold_protocol::{ClaimLeaf, NodeId, SegmentId};

use self::{
    law::{Held, Law, claims},
    verdicts::{Verdict, evidence_convicts, verdicts},
};
use super::harness::{Home, Network, Setup, Spy, Tree, assert_is_of, hex_id, noise, poll_until};

const NODES: usize = 15;
const CODING: &str = "3/6";
/// The stewards' times in seconds instead of days. The grace time is longer than a node takes to start again: none of
/// the cheats is to be found by its absence.
fn times(top_up: &str) -> String {
    format!("[audit]\nevery = \"5 s\"\ngrace = \"60 s\"\n\n[repair]\ntop-up = \"{top_up}\"\n")
}

const EVERY_MS: u64 = 5_000;
/// Each makes a segment of its own, of shards of some 32 chunk groups.
const FILES: u64 = 20;
const FILE_BYTES: usize = 3 * (512 << 10);
/// What a network on a loaded machine may take beyond the law: the start of a node, the moments that the machine was
/// busy elsewhere.
const LOADED: Duration = Duration::from_secs(15);
/// Until every steward sees every shard proven again: top-up and head starts take some seconds, the repairs their
/// time, and a shard that was rebuilt at a node which has just become a cheat is rebuilt once more.
const WHOLE_MAX: Duration = Duration::from_secs(150);
/// Twice the time between two probes, that is a quarter of the grace time, and what a loaded machine takes.
const SCHEDULED_MAX: Duration = Duration::from_secs(60);
/// Until an audit asks for something else that it has deleted: by the law 117 s at the latest in the worst run so far.
const CONVICTED_MAX: Duration = Duration::from_secs(150);

#[test]
fn every_cheat_is_found_in_time_and_its_shards_are_rebuilt_elsewhere() {
    let (mut network, home, phrase, mut stored) = with_files(NODES, "1 s");

    let mut cheats: Vec<Cheat> = Vec::new();
    // Those that stay come last: they are found shard by shard, as they lack little of each.
    let kinds = [Kind::Refuses, Kind::Flips, Kind::Stale, Kind::Forgets, Kind::Invents, Kind::HangsUp, Kind::Deletes];
    assert_eq!(kinds.len() + 1, Kind::ALL.len(), "the one that is silent has a network of its own");
    for (node, kind) in (1..).zip(kinds) {
        let id = network.node_id(node);
        let held = Held::by(&network, &home, &cheats, &id);
        let law = Law::of(kind, &held, EVERY_MS);
        network.stop(node);
        let mut began = Instant::now();
        network.start_cheat(node, kind, 1);
        match kind {
            // There is nothing to be found before somebody relies on it.
            Kind::Forgets => {
                while claims_nothing_new(&network, &home, &cheats, &id, &held) {
                    began = Instant::now();
                    stored.put_more(&home);
                }
            }
            // It claims what it hears of.
            Kind::Invents => {
                began = Instant::now();
                Spy::on(&network).health(hex_id(&id), &segments(&home));
            }
            _ => {}
        }
        let (found, took) = found_in_time(&network, kind, &id, &law, began);
        cheats.push((node, kind, id));
        let repairing = Instant::now();
        whole_again(&network, &home, &cheats);
        somebody_else_has(&network, &home, &cheats, &found);
        eprintln!(
            "{:9} holds {held}: found {:9} after {took:.1?} (predicted: {law}), all whole again {:.1?} later",
            kind.name(),
            found.outcome,
            repairing.elapsed(),
        );
    }

    let all = verdicts(&network);
    let blamed = |verdict: &&Verdict| !cheats.iter().any(|(_, _, id)| id.starts_with(&verdict.holder));
    assert_eq!(all.iter().find(blamed), None, "an honest node is blamed");
    assert_eq!(network.figures("/audits/lost_holders"), 0, "somebody was given up who was there");
    assert!(network.figures("/audits/shards_rebuilt") > 0);
    for (_, kind, id) in &cheats {
        let is_convicted = || evidence_convicts(&network, id) > 0;
        if matches!(kind, Kind::Deletes | Kind::Flips | Kind::Stale) {
            // Where a repair was the first to read what it deleted, it has signed nothing yet.
            let convicted = poll_until(CONVICTED_MAX, || is_convicted().then_some(()));
            assert!(convicted.is_some(), "{kind:?}: no evidence that convicts it");
        } else {
            assert!(!is_convicted(), "{kind:?} signs no lies");
        }
    }

    // Nothing depends on them any more.
    for (node, ..) in &cheats {
        network.kill(*node);
    }
    let back = network.scratch().join("back");
    network.cold_home("reader", &phrase, &[0]).get("/", &back).expect_code(0);
    for file in 0..stored.files {
        let read = |folder: &Path| fs::read(folder.join(name(file))).unwrap();
        assert!(read(&back) == read(stored.tree.path()), "{} is another", name(file));
    }
}

#[test]
fn the_scenario_is_of_this_network() {
    assert_is_of("process-tests.toml", NODES, CODING, &times("1 s"));
}

/// Each of its silences has to be waited for, some minutes together: so it has a network of its own, where nothing else is
/// waited for. There is time for many audits of what it still has before the shard is rebuilt: they prove nothing.
#[test]
fn one_that_says_nothing_when_it_is_asked_for_what_it_lacks_is_found_in_time() {
    const NODES: usize = 9;
    const CHEAT: usize = 1;
    let (mut network, home, ..) = with_files(NODES, "10 s");
    let id = network.node_id(CHEAT);
    let held = Held::by(&network, &home, &[], &id);
    let law = Law::of(Kind::Silent, &held, EVERY_MS);
    network.stop(CHEAT);
    let began = Instant::now();
    network.start_cheat(CHEAT, Kind::Silent, 1);
    let (found, took) = found_in_time(&network, Kind::Silent, &id, &law, began);
    somebody_else_has(&network, &home, &[(CHEAT, Kind::Silent, id.clone())], &found);
    eprintln!("{:9} holds {held}: found {:9} after {took:.1?} (predicted: {law})", Kind::Silent.name(), found.outcome);
    let all = verdicts(&network);
    assert!(all.iter().all(|verdict| id.starts_with(&verdict.holder)), "an honest node is blamed: {all:?}");
    assert_eq!(network.figures("/audits/lost_holders"), 0, "somebody was given up who was there");
}

/// So many nodes, an owner and its phrase, and files of it that every steward has proof of.
fn with_files(nodes: usize, top_up: &str) -> (Network, Home, String, Stored) {
    let times = times(top_up);
    let network = Network::start(&Setup { nodes, coding: Some(CODING), overlay: Some(&times), ..Setup::default() });
    let (home, phrase) = network.new_home("home");
    let mut stored = Stored { tree: Tree::new(network.scratch().join("source"), 1), files: 0 };
    for _ in 0..FILES {
        stored.put_more(&home);
    }
    whole_again(&network, &home, &[]);
    all_audit_by_schedule(&network);
    assert_eq!(verdicts(&network), [], "somebody was blamed before anybody cheated");
    (network, home, phrase, stored)
}

/// Waits until a cheat is found, as the law says; what of it was found, and when.
fn found_in_time(network: &Network, kind: Kind, id: &str, law: &Law, began: Instant) -> (Verdict, Duration) {
    let is_its = |verdict: &Verdict| id.starts_with(&verdict.holder);
    let found = poll_until(law.latest() + LOADED, || verdicts(network).into_iter().find(is_its));
    let took = began.elapsed();
    let found = found.unwrap_or_else(|| panic!("{kind:?} is not found after {took:?}; the law says {law}"));
    assert!(is_said_of(kind, &found.outcome), "{kind:?} was found {}", found.outcome);
    (found, took)
}

/// Waits until another node than the last of the cheats claims the shard that it was found to lack.
fn somebody_else_has(network: &Network, home: &Home, cheats: &[Cheat], found: &Verdict) {
    let (_, _, id) = &cheats[cheats.len() - 1];
    let is_elsewhere = |(holder, leaf, _): &(NodeId, ClaimLeaf, u32)| {
        let is_it = format!("{}", leaf.segment) == found.segment && leaf.index.0 == found.index;
        is_it && *holder != hex_id(id)
    };
    let elsewhere = poll_until(WHOLE_MAX, || claims(network, home, cheats).iter().any(is_elsewhere).then_some(()));
    assert_eq!(elsewhere, Some(()), "{found:?}: nobody else has it");
}

/// A node that cheats, how, and its id.
type Cheat = (usize, Kind, String);

/// The nodes that run and have not been made cheats.
fn honest(network: &Network, cheats: &[Cheat]) -> Vec<usize> {
    let is_cheat = |node: &usize| cheats.iter().any(|(cheat, ..)| cheat == node);
    network.running().into_iter().filter(|node| !is_cheat(node)).collect()
}

/// What is stored, a file at a time: each gets a segment of its own.
struct Stored {
    tree: Tree,
    files: u64,
}

impl Stored {
    fn put_more(&mut self, home: &Home) {
        let name = name(self.files);
        self.tree.file(&name, &noise(100 + self.files, FILE_BYTES));
        home.put(&self.tree.path().join(&name), &format!("/{name}"));
        self.files += 1;
    }
}

fn name(file: u64) -> String {
    format!("file-{file}")
}

/// What an audit of such a cheat ends with.
fn is_said_of(kind: Kind, outcome: &str) -> bool {
    match kind {
        Kind::Deletes | Kind::Flips | Kind::Stale => outcome == "Wrong",
        Kind::Forgets | Kind::Invents | Kind::Refuses | Kind::HangsUp | Kind::Silent => outcome == "Refused",
    }
}

fn segments(home: &Home) -> Vec<SegmentId> {
    let listed = home.json(["segments"]);
    let id = |segment: &serde_json::Value| SegmentId::from_hex(segment["id"].as_str().unwrap()).unwrap();
    listed["segments"].as_array().unwrap().iter().map(id).collect()
}

fn claims_nothing_new(network: &Network, home: &Home, cheats: &[Cheat], id: &str, before: &Held) -> bool {
    Held::by(network, home, cheats, id).shards() == before.shards()
}

/// Waits until each node audits by its schedule, which the law is about: until it knows who else is a steward, some time
/// after its start, it audits only what is new. What is new is proven when this begins.
fn all_audit_by_schedule(network: &Network) {
    let challenges = |node: usize| network.figure(node, "/audits/challenges");
    let mut waiting: Vec<(usize, u64)> = network.running().into_iter().map(|node| (node, challenges(node))).collect();
    let all = poll_until(SCHEDULED_MAX, || {
        waiting.retain(|(node, before)| challenges(*node) == *before);
        waiting.is_empty().then_some(())
    });
    assert_eq!(all, Some(()), "these audit nothing: {waiting:?}");
}

/// Waits until each honest steward of each segment has proof of all n shards by its own audits.
fn whole_again(network: &Network, home: &Home, cheats: &[Cheat]) {
    let ids = segments(home);
    let honest = honest(network, cheats);
    let spy = Spy::on(network);
    let lacking = || {
        let mut lacking = Vec::new();
        let mut stewards = vec![0; ids.len()];
        for node in &honest {
            for (number, report) in spy.health(hex_id(&network.node_id(*node)), &ids).into_iter().enumerate() {
                let Some(report) = report else { continue };
                stewards[number] += 1;
                if report.suspect > 0 || report.lost > 0 {
                    lacking.push((*node, ids[number], report));
                }
            }
        }
        let unkept = stewards.iter().filter(|stewards| **stewards == 0).count();
        (unkept > 0 || !lacking.is_empty()).then_some((unkept, lacking))
    };
    let whole = poll_until(WHOLE_MAX, || lacking().is_none().then_some(()));
    if whole.is_none() {
        panic!("after {WHOLE_MAX:?} not whole, without a steward and with: {:?}", lacking());
    }
}
