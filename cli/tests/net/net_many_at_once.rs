//! Promise: as many holders of a segment as may be lost die at once, for good, and the network makes all whole again,
//! also when the stewards that are at it die in the middle of it. Hardly anything is done twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use commonhold_protocol::{NodeId, SegmentId};

use super::harness::{Network, Setup, Stored, Tree, Watch, assert_same, noise, poll_until};

const NODES: usize = 30;
const CODING: &str = "10/20";
/// n - k - 1: one more than is needed is left.
const DIE_AT_ONCE: usize = 9;
/// Of those that die at once in the second round, so many are stewards that die while they repair.
const DIE_REPAIRING: usize = 2;
/// The times in seconds instead of days. Announcing finds the shards that a steward sent whole, and died before it could
/// record them.
const TIMES: &str = "[audit]\nevery = \"20 s\"\ngrace = \"3 s\"\n\n[repair]\ntop-up = \"1 s\"\n\n\
                     [pledge]\nannounce = \"5 s\"\n";
/// Who takes the places of the dead takes a full segment's shard in a second or two, so that a repair can be caught in its
/// middle. Not much slower: a steward waits for one that is at work four times the head start, which is 2 s here (and ten
/// minutes where the grace time is that of a real network).
const SLOW: &str = "download = \"16 Mbit/s\"\n";
/// Silence and grace take four seconds, the repairs about as long, and a head start of two seconds comes with each
/// steward that dies at it; then all stewards audit what is new. The rest is for a loaded machine.
const WHOLE_MAX: Duration = Duration::from_secs(240);
/// What those that live have sent more than was lost, as a part of that. What a steward had sent when it died is lost
/// with it, and no work done twice by others.
const TWICE_MAX: f64 = 0.05;
/// The same where stewards died at it, on a loaded machine: repairs that take as long as the head starts overlap there.
const TWICE_KILLED_MAX: f64 = 0.25;

#[test]
fn many_at_once_are_made_good_and_stewards_that_die_at_it_are_replaced() {
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

    let mut round = Round::begin(&network, &stored);
    round.kill(&mut network, DIE_AT_ONCE);
    round.end(&network, "at once", TWICE_MAX);

    network.add(DIE_AT_ONCE, Some(&format!("{TIMES}{SLOW}")));
    let mut round = Round::begin(&network, &stored);
    round.kill(&mut network, DIE_AT_ONCE - DIE_REPAIRING);
    for number in 0..DIE_REPAIRING {
        round.kill_a_repairer(&mut network, number == 0);
    }
    round.end(&network, "in the middle of repairs", TWICE_KILLED_MAX);

    let back = network.scratch().join("back");
    network.cold_home("reader", &phrase, &[network.running()[0]]).get("/x", &back).expect_code(0);
    assert_same(tree.path(), &back);
}

/// One time that nodes die, and what comes of it.
struct Round<'s> {
    stored: &'s [Stored],
    watch: Watch,
    before: BTreeMap<usize, [u64; 2]>,
    began: Instant,
    lost_bytes: u64,
    killed: Vec<usize>,
}

impl<'s> Round<'s> {
    fn begin(network: &Network, stored: &'s [Stored]) -> Self {
        let watch = Watch::on(network);
        watch.whole_again(stored, Instant::now(), WHOLE_MAX);
        let before = repaired(network);
        Self { stored, watch, before, began: Instant::now(), lost_bytes: 0, killed: Vec::new() }
    }

    /// Kills so many holders of the largest segment.
    fn kill(&mut self, network: &mut Network, count: usize) {
        let largest = self.stored.iter().max_by_key(|segment| segment.shard_bytes).unwrap();
        let claims = self.watch.claims(std::slice::from_ref(largest));
        let holders: BTreeSet<usize> = claims.into_values().flatten().filter_map(|id| self.watch.number(id)).collect();
        let doomed: Vec<usize> = holders.into_iter().take(count).collect();
        assert_eq!(doomed.len(), count);
        self.lose(&doomed);
        self.began = Instant::now();
        doomed.iter().for_each(|node| network.kill(*node));
        self.killed.extend(doomed);
    }

    /// Counts what is lost with these.
    fn lose(&mut self, nodes: &[usize]) {
        let before = self.watch.ids();
        nodes.iter().for_each(|node| self.watch.forget(*node));
        let living = self.watch.ids();
        let gone: BTreeSet<NodeId> = before.difference(&living).copied().collect();
        for ((segment, _), holders) in self.watch.claims(self.stored) {
            if !holders.is_disjoint(&gone) && holders.is_disjoint(&living) {
                self.lost_bytes += self.stored.iter().find(|stored| stored.id == segment).unwrap().shard_bytes;
            }
        }
    }

    /// Waits until a steward, `first` in rank if that is wanted, repairs a large segment, and kills it then.
    fn kill_a_repairer(&mut self, network: &mut Network, first: bool) {
        let large = self.stored.iter().map(|stored| stored.shard_bytes).max().unwrap();
        let wanted: Vec<Stored> = self.stored.iter().filter(|stored| stored.shard_bytes == large).cloned().collect();
        let is_first = |node: usize, segment: SegmentId| {
            let nearest = self.watch.ids().into_iter().min_by_key(|id| id.distance(segment.as_bytes()));
            nearest.and_then(|id| self.watch.number(id)) == Some(node)
        };
        let last_words = |node: usize, segment: SegmentId| {
            let log = fs::read_to_string(network.node_dir(node).join("log")).unwrap();
            let mut of_it = log.lines().filter(|line| line.contains(&segment.to_string()));
            of_it.rfind(|line| line.contains(" repair")).unwrap_or_default().to_owned()
        };
        let caught = poll_until(WHOLE_MAX, || {
            for (stored, reports) in wanted.iter().zip(self.watch.reports(&wanted)) {
                let working = reports.into_iter().filter(|(_, report)| report.repairing).map(|(node, _)| node);
                for node in working.filter(|node| !first || is_first(*node, stored.id)) {
                    // It may be done by now: it is held, and looked at.
                    network.freeze(node);
                    if last_words(node, stored.id).contains(" repairing ") {
                        return Some((node, stored.id));
                    }
                    network.thaw(node);
                }
            }
            None
        });
        let (node, segment) = caught.expect("somebody repairs a large segment");
        network.kill(node);
        self.killed.push(node);
        eprintln!("node {node} died {:.1?} in, while it repaired {segment}", self.began.elapsed());
        // What it held itself is lost too, whether it was to be repaired already or not.
        self.lose(&[node]);
    }

    /// Waits until all is whole, and counts what that took.
    fn end(self, network: &Network, how: &str, twice_max: f64) {
        let whole = self.watch.whole_again(self.stored, self.began, WHOLE_MAX);
        let now = repaired(network);
        let done = |at: usize| now.iter().map(|(node, now)| now[at] - self.before[node][at]).sum::<u64>() as f64;
        let [read, sent] = [0, 1].map(|at| done(at) / self.lost_bytes as f64);
        eprintln!(
            "{} nodes died {how}, {} bytes lost: all healthy after {whole:.1?}; for each lost byte {read:.3} read and \
             {sent:.3} sent",
            self.killed.len(),
            self.lost_bytes,
        );
        assert!(sent < 1.0 + twice_max, "{sent:.3} bytes were sent for each one that was lost");
    }
}

/// The bytes that each living node has read and sent for repairs.
fn repaired(network: &Network) -> BTreeMap<usize, [u64; 2]> {
    let figures = |node| ["/audits/bytes_read", "/audits/bytes_sent"].map(|figure| network.figure(node, figure));
    network.running().into_iter().map(|node| (node, figures(node))).collect()
}
