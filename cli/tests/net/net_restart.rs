//! Promise: a steward that restarts knows which shards were proven to it, and has none proven once more for that: else each
//! start of one with tens of thousands of records would move gigabytes.

use std::time::{Duration, Instant};

use super::harness::{Network, Setup, Stored, Tree, Watch, noise, poll_until};

const NODES: usize = 8;
const STEWARD: usize = 5;
/// What is new is audited within seconds, and then again in a month.
const TIMES: &str = "[audit]\nevery = \"30 d\"\nprove = \"4 s\"\ngrace = \"30 s\"\n";
/// For a loaded machine.
const WHOLE_MAX: Duration = Duration::from_secs(60);

#[test]
fn a_steward_that_restarts_audits_nothing_anew() {
    let mut network =
        Network::start(&Setup { nodes: NODES, coding: Some("4/8"), overlay: Some(TIMES), ..Setup::default() });
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.file("some", &noise(1, 40 << 20));
    let (home, _) = network.new_home("home");
    home.put(tree.path(), "/x");
    let stored = Stored::in_vault(&home);
    let watch = Watch::on(&network);
    // Eight nodes: each is a steward of all.
    watch.whole_again(&stored, Instant::now(), WHOLE_MAX);
    let shards = (stored.len() * NODES) as u64;
    let first = network.figure(STEWARD, "/audits/held");
    assert!(first >= shards, "{first} of {shards} shards were audited, so this shows nothing");

    for round in 0..2 {
        network.stop(STEWARD);
        network.launch(STEWARD);
        network.await_node(STEWARD, NODES as u64 - 1);
        let since = Instant::now();
        let seen = watch.whole_again(&stored, since, WHOLE_MAX);
        // As long as it would take to audit what is new.
        let audited = poll_until(Duration::from_secs(6), || {
            let audited = network.figure(STEWARD, "/audits/held");
            (audited > 0).then_some(audited)
        });
        eprintln!("restart {round}: all of {shards} shards count as healthy after {seen:.1?}; {audited:?} audited");
        assert_eq!(audited, None, "of {shards} shards some were audited once more");
    }
}
