//! Promise: the ship of Theseus. Of twenty nodes two die for good and two fresh ones join, again and again, until none is
//! left that the folder was stored on; and then, four at a time, until none is left of those that took their place. Nobody
//! of the vault's is there meanwhile. Every byte is still there.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::harness::{Counters, Network, Setup, Stored, Tree, Watch, assert_same, noise};

const NODES: usize = 20;
/// In the first generation, and in the second.
const DIE_AT_ONCE: [usize; 2] = [2, 4];
/// The stewards' times in seconds instead of days.
const TIMES: &str = "[audit]\nevery = \"10 s\"\ngrace = \"2 s\"\n\n[repair]\ntop-up = \"500 ms\"\n";
/// Silence, grace, top-up, the head starts of the ranks, the repair and the first audits by all stewards take five to ten
/// seconds. The rest is for a loaded machine, where a challenge that is not answered in time is repeated with four times the
/// patience.
const WHOLE_MAX: Duration = Duration::from_secs(60);
/// Bytes of rebuilt shards that are sent for each byte that was lost: more than one is work done twice.
const SENT_PER_LOST_MAX: f64 = 1.5;

#[test]
fn every_node_is_replaced_twice_and_every_byte_is_still_there() {
    let mut network =
        Network::start(&Setup { nodes: NODES, coding: Some("5/10"), overlay: Some(TIMES), ..Setup::default() });
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.small_files(100);
    tree.file("large", &noise(2, 20 << 20));
    let (home, phrase) = network.new_home("home");
    home.put(tree.path(), "/x");
    // From here on nobody who knows the vault is there.
    let stored = Stored::in_vault(&home);
    let began = Instant::now();
    let took = Watch::on(&network).whole_again(&stored, began, WHOLE_MAX);
    eprintln!("{} segments; every shard proven to every steward {took:.1?} after the put", stored.len());

    let mut counters = Counters::of(["/audits/bytes_read", "/audits/bytes_sent", "/audits/shards_rebuilt"]);
    let mut all_lost_bytes = 0;
    let mut spans: Vec<Duration> = Vec::new();
    for (die_at_once, generation) in DIE_AT_ONCE.into_iter().zip(1..) {
        let old: BTreeSet<usize> = network.running().into_iter().collect();
        assert_eq!(old.len(), NODES);
        let doomed: Vec<usize> = old.iter().copied().collect();
        for some in doomed.chunks(die_at_once) {
            let [read_before, sent_before, _] = counters.now(&network);
            let mut watch = Watch::on(&network);
            let lost_bytes = watch.lose(some, &stored);

            let killed = Instant::now();
            some.iter().for_each(|node| network.kill(*node));
            network.add(some.len(), Some(TIMES));
            let joined = killed.elapsed();
            let whole = Watch::on(&network).whole_again(&stored, killed, WHOLE_MAX);
            let [read, sent, _] = counters.now(&network);
            let (read, sent) = (read - read_before, sent - sent_before);
            let per_lost = |bytes: u64| bytes as f64 / lost_bytes.max(1) as f64;
            eprintln!(
                "nodes {some:?}: {lost_bytes} bytes lost; others joined after {joined:.1?}; all healthy after \
                 {whole:.1?}; for each lost byte {:.2} read and {:.2} sent",
                per_lost(read),
                per_lost(sent),
            );
            all_lost_bytes += lost_bytes;
            spans.push(whole);
        }
        let left: Vec<usize> = network.running().into_iter().filter(|node| old.contains(node)).collect();
        assert!(left.is_empty(), "of generation {generation} there are left: {left:?}");
    }

    let [read, sent, rebuilt] = counters.now(&network);
    let per_lost = |bytes: u64| bytes as f64 / all_lost_bytes as f64;
    spans.sort_unstable();
    eprintln!(
        "{} losses in {:.0?}: full health after {:.1?} (median), {:.1?} (longest); {rebuilt} shards rebuilt; for each lost \
         byte {:.2} read and {:.2} sent",
        spans.len(),
        began.elapsed(),
        spans[spans.len() / 2],
        spans[spans.len() - 1],
        per_lost(read),
        per_lost(sent),
    );
    assert!(per_lost(sent) < SENT_PER_LOST_MAX, "{sent} bytes were sent for {all_lost_bytes} lost ones");
    for outcome in ["wrong", "refused"] {
        assert_eq!(network.figures(&format!("/audits/{outcome}")), 0, "honest holders were found {outcome}");
    }
    let back = network.scratch().join("back");
    network.cold_home("reader", &phrase, &[network.running()[0]]).get("/x", &back).expect_code(0);
    assert_same(tree.path(), &back);
}
