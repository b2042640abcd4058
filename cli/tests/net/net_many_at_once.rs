//! Promise: as many holders of a segment as may be lost die at once, for good, and the network makes all whole again.
//! Hardly anything is done twice.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::harness::{Counters, Network, Setup, Stored, Tree, Watch, assert_same, noise};

const NODES: usize = 30;
const CODING: &str = "10/20";
/// n - k - 1: one more than is needed is left.
const DIE_AT_ONCE: usize = 9;
/// The stewards' times in seconds instead of days.
const TIMES: &str = "[audit]\nevery = \"20 s\"\ngrace = \"3 s\"\n\n[repair]\ntop-up = \"1 s\"\n";
/// Silence and grace take four seconds, the repairs about as long; then all stewards audit what is new. The rest is for a
/// loaded machine.
const WHOLE_MAX: Duration = Duration::from_secs(240);
/// What is sent more than was lost, as a part of that.
const TWICE_MAX: f64 = 0.05;

#[test]
fn many_at_once_are_made_good_and_hardly_anything_is_done_twice() {
    let mut network =
        Network::start(&Setup { nodes: NODES, coding: Some(CODING), overlay: Some(TIMES), ..Setup::default() });
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.small_files(100);
    tree.file("large", &noise(2, 96 << 20));
    let (home, phrase) = network.new_home("home");
    home.put(tree.path(), "/x");
    let stored = Stored::in_vault(&home);
    let took = Watch::on(&network).whole_again(&stored, Instant::now(), WHOLE_MAX);
    eprintln!("{} segments; every shard proven to every steward {took:.1?} after the put", stored.len());

    let mut watch = Watch::on(&network);
    let largest = stored.iter().max_by_key(|segment| segment.shard_bytes).unwrap();
    let claims = watch.claims(std::slice::from_ref(largest));
    let holders: BTreeSet<usize> = claims.into_values().flatten().filter_map(|id| watch.number(id)).collect();
    let doomed: Vec<usize> = holders.into_iter().take(DIE_AT_ONCE).collect();
    assert_eq!(doomed.len(), DIE_AT_ONCE);
    let mut counters = Counters::of(["/audits/bytes_read", "/audits/bytes_sent"]);
    let before = counters.now(&network);
    let lost_bytes = watch.lose(&doomed, &stored);

    let began = Instant::now();
    doomed.iter().for_each(|node| network.kill(*node));
    let whole = watch.whole_again(&stored, began, WHOLE_MAX);
    let now = counters.now(&network);
    let [read, sent] = [0, 1].map(|at| (now[at] - before[at]) as f64 / lost_bytes as f64);
    eprintln!(
        "{DIE_AT_ONCE} nodes died at once, {lost_bytes} bytes lost: all healthy after {whole:.1?}; for each lost byte \
         {read:.3} read and {sent:.3} sent"
    );
    assert!(sent < 1.0 + TWICE_MAX, "{sent:.3} bytes were sent for each one that was lost");

    let back = network.scratch().join("back");
    network.cold_home("reader", &phrase, &[network.running()[0]]).get("/x", &back).expect_code(0);
    assert_same(tree.path(), &back);
}
