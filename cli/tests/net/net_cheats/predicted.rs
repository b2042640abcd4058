//! Promise: the simulator says beforehand, from the same config, how many shards of those that lack a twentieth of each are
//! found, and when, whether they answer wrongly or not at all.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use commonhold_cheats::{DELETED_PARTS, Kind};
use commonhold_simulations::{Report, Scenario, run};

use super::{
    CODING, EVERY_MS, all_audit_by_schedule, times,
    verdicts::{said_at, verdict},
    whole_again,
};
use crate::harness::{Network, Setup, Tree, noise, poll_until};

const NODES: usize = 12;
const CHEATS: usize = 3;
/// Of shards that are long enough for each to lack about as much.
const SEGMENTS: usize = 32;
const SEGMENT_BYTES: usize = 16 << 20;
/// From the moment on that a cheat runs; by then few are left that it holds and nobody has found.
const WATCHED: Duration = Duration::from_secs(60);
/// How far apart the times may be, and the numbers for each kind: chance alone moves numbers by a tenth, or a fifth where
/// whole challenges fail, and times by a fifth; and on a loaded machine all takes longer. `make compare` holds the mean of
/// some runs to a fifth.
const TIMES_APART_MAX: f64 = 1.0;

#[test]
fn what_is_deleted_is_found_when_the_simulator_says() {
    assert_found_as_simulated(Kind::Deletes, "wrong", 0.5);
}

#[test]
fn what_is_hung_up_on_is_found_when_the_simulator_says() {
    // Of 300 simulated runs one is further off than half, none than this.
    assert_found_as_simulated(Kind::HangsUp, "nothing", 0.6);
}

/// Of cheats of a kind, and what the simulator calls their answers.
fn assert_found_as_simulated(kind: Kind, answers: &str, numbers_apart_max: f64) {
    let simulated = simulate(answers);
    let cheats = simulated.cheats.as_ref().expect("a scenario with cheats");
    let predicted =
        [cheats.found as f64 / f64::from(simulated.runs) / CHEATS as f64, cheats.found_days.mean * 86_400.0];

    let setup = Setup { nodes: NODES, coding: Some(CODING), overlay: Some(&times("1 s")), ..Setup::default() };
    let mut network = Network::start(&setup);
    let (home, _) = network.new_home("home");
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.file("large", &noise(1, SEGMENTS * SEGMENT_BYTES));
    home.put(tree.path(), "/x");
    whole_again(&network, &home, &[]);
    all_audit_by_schedule(&network);
    let mut began = BTreeMap::new();
    for node in 1..=CHEATS {
        let id = network.node_id(node);
        network.stop(node);
        network.start_cheat(node, kind, 1);
        began.insert(id, SystemTime::now());
    }
    let last = began.values().max().copied().expect("cheats");
    poll_until(WATCHED * 2, || last.elapsed().is_ok_and(|watched| watched >= WATCHED).then_some(()));

    let found: Vec<Duration> = found(&network, &began).into_values().filter(|after| *after < WATCHED).collect();
    let mean = found.iter().sum::<Duration>().as_secs_f64() / found.len().max(1) as f64;
    let measured = [found.len() as f64 / CHEATS as f64, mean];
    eprintln!(
        "{}: {:.2} shards of a cheat are found, each after {:.2} s; simulated {:.2} and {:.2} s",
        kind.name(),
        measured[0],
        measured[1],
        predicted[0],
        predicted[1]
    );
    for ((measured, predicted), apart_max) in
        measured.into_iter().zip(predicted).zip([numbers_apart_max, TIMES_APART_MAX])
    {
        let apart = measured / predicted - 1.0;
        assert!(apart.abs() < apart_max, "{measured:.2} is not {predicted:.2}: {:+.0}%", apart * 100.0);
    }
}

/// The network of this test, in the words of a scenario.
fn simulate(answers: &str) -> Report {
    let share = CHEATS as f64 / NODES as f64;
    let text = format!(
        "name = \"cheats\"\nsource = \"seen: this test\"\nduration = \"{} s\"\nruns = 200\n\
         [network]\nnodes = {NODES}\nsegments = {SEGMENTS}\nsegment-size = \"{SEGMENT_BYTES} B\"\ncoding = \"{CODING}\"\n\
         [audit]\nevery = \"{EVERY_MS} ms\"\ngrace = \"60 s\"\n[repair]\ntop-up = \"1 s\"\n\
         [[population]]\nname = \"honest\"\nshare = {}\nlifetime = {{ law = \"never\" }}\n\
         [[population]]\nname = \"cheats\"\nshare = {share}\nlifetime = {{ law = \"never\" }}\n\
         cheat = {{ kind = \"drop\", lost = {}, answers = \"{answers}\" }}\n",
        WATCHED.as_secs(),
        1.0 - share,
        1.0 / DELETED_PARTS as f64,
    );
    let scenario = Scenario::parse(&text, Path::new("cheats.toml"), Path::new(".")).expect("a good scenario");
    run(&scenario, 1)
}

/// When each shard of the cheats was first found, after its holder began to cheat.
fn found(network: &Network, began: &BTreeMap<String, SystemTime>) -> BTreeMap<(String, u8), Duration> {
    let mut found = BTreeMap::new();
    for node in network.nodes() {
        for line in fs::read_to_string(network.node_dir(node).join("log")).unwrap().lines() {
            let Some(verdict) = verdict(line) else { continue };
            let (_, began) = began.iter().find(|(id, _)| id.starts_with(&verdict.holder)).expect("no honest node");
            let after = said_at(line).duration_since(*began).unwrap_or_default();
            let first = found.entry((verdict.segment, verdict.index)).or_insert(after);
            *first = after.min(*first);
        }
    }
    found
}
