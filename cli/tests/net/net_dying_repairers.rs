//! Promise: stewards that die in the middle of a repair, the first in rank among them, are replaced by the next, and hardly
//! anything is done twice.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use commonhold_protocol::SegmentId;

use super::harness::{Counters, Network, Setup, Stored, Tree, Watch, assert_same, noise, poll_until};

/// Enough for n, whoever dies.
const NODES: usize = 16;
const CODING: &str = "5/10";
/// Die first, so that there is something to repair; two more die at that.
const HOLDERS: usize = 2;
/// The times in seconds instead of days; and nodes take a full segment's shard in two seconds, so that a repair can be
/// caught in its middle. Not much slower: a steward waits for one that is at work four times the head start, which is 2 s
/// here (and ten minutes where the grace time is that of a real network).
const OVERLAY: &str = "[audit]\nevery = \"20 s\"\ngrace = \"3 s\"\n\n[repair]\ntop-up = \"1 s\"\n\n\
                       [pledge]\ndownload = \"16 Mbit/s\"\n";
/// Silence and grace take four seconds, the repairs about as long, and a head start of two seconds comes with each
/// steward that dies at it; then all stewards audit what is new. The rest is for a loaded machine.
const WHOLE_MAX: Duration = Duration::from_secs(120);
/// What those that live have sent more than was lost, as a part of that. What a steward had sent when it died is lost
/// with it, and no work done twice by others.
const TWICE_MAX: f64 = 0.05;

#[test]
fn stewards_that_die_while_they_repair_are_replaced() {
    let mut network =
        Network::start(&Setup { nodes: NODES, coding: Some(CODING), overlay: Some(OVERLAY), ..Setup::default() });
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    // Nothing else: what others were just sending to a node that dies is sent again, and no work done twice.
    tree.file("large", &noise(2, 32 << 20));
    let (home, phrase) = network.new_home("home");
    home.put(tree.path(), "/x");
    let stored = Stored::in_vault(&home);
    Watch::on(&network).whole_again(&stored, Instant::now(), WHOLE_MAX);

    // Of who dies, what it had done before: what it sent while it repaired is lost with it.
    let mut counters = Counters::of(["/audits/bytes_read", "/audits/bytes_sent"]);
    let before = counters.now(&network);
    let mut losses = Losses { stored: &stored, watch: Watch::on(&network), began: Instant::now(), lost_bytes: 0 };
    losses.kill_holders(&mut network);
    losses.kill_a_repairer(&mut network, true);
    losses.kill_a_repairer(&mut network, false);
    let whole = losses.watch.whole_again(&stored, losses.began, WHOLE_MAX);

    let now = counters.now(&network);
    let lost_bytes = losses.lost_bytes;
    let [read, sent] = [0, 1].map(|at| (now[at] - before[at]) as f64 / lost_bytes as f64);
    eprintln!("{lost_bytes} bytes lost: all healthy after {whole:.1?}; for each {read:.3} read and {sent:.3} sent");
    assert!(sent < 1.0 + TWICE_MAX, "{sent:.3} bytes were sent for each one that was lost");

    let back = network.scratch().join("back");
    network.cold_home("reader", &phrase, &[network.running()[0]]).get("/x", &back).expect_code(0);
    assert_same(tree.path(), &back);
}

/// What dies, and what is lost with it.
struct Losses<'s> {
    stored: &'s [Stored],
    watch: Watch,
    began: Instant,
    lost_bytes: u64,
}

impl Losses<'_> {
    /// Kills holders of the largest segment that are no first stewards of large ones: these are to die while they repair.
    fn kill_holders(&mut self, network: &mut Network) {
        let largest = self.stored.iter().max_by_key(|segment| segment.shard_bytes).unwrap();
        let claims = self.watch.claims(std::slice::from_ref(largest));
        let firsts: Vec<Option<usize>> = self.large().iter().map(|stored| self.first(stored.id)).collect();
        let holders: BTreeSet<usize> = claims.into_values().flatten().filter_map(|id| self.watch.number(id)).collect();
        let doomed: Vec<usize> =
            holders.into_iter().filter(|node| !firsts.contains(&Some(*node))).take(HOLDERS).collect();
        assert_eq!(doomed.len(), HOLDERS);
        self.lost_bytes += self.watch.lose(&doomed, self.stored);
        self.began = Instant::now();
        doomed.iter().for_each(|node| network.kill(*node));
    }

    /// Waits until a steward, `first` in rank if that is wanted, repairs a large segment, and kills it then.
    fn kill_a_repairer(&mut self, network: &mut Network, first: bool) {
        let wanted = self.large();
        let last_words = |node: usize, segment: SegmentId| {
            let log = fs::read_to_string(network.node_dir(node).join("log")).unwrap();
            let mut of_it = log.lines().filter(|line| line.contains(&segment.to_string()));
            of_it.rfind(|line| line.contains(" repair")).unwrap_or_default().to_owned()
        };
        let caught = poll_until(WHOLE_MAX, || {
            for (stored, reports) in wanted.iter().zip(self.watch.reports(&wanted)) {
                let working = reports.into_iter().filter(|(_, report)| report.repairing).map(|(node, _)| node);
                for node in working.filter(|node| !first || self.first(stored.id) == Some(*node)) {
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
        eprintln!("node {node} died {:.1?} in, while it repaired {segment}", self.began.elapsed());
        // What it held itself is lost too, whether it was to be repaired already or not.
        self.lost_bytes += self.watch.lose(&[node], self.stored);
    }

    fn large(&self) -> Vec<Stored> {
        let large = self.stored.iter().map(|stored| stored.shard_bytes).max().unwrap();
        self.stored.iter().filter(|stored| stored.shard_bytes == large).cloned().collect()
    }

    /// The first in rank of the stewards of a segment.
    fn first(&self, segment: SegmentId) -> Option<usize> {
        let nearest = self.watch.ids().into_iter().min_by_key(|id| id.distance(segment.as_bytes()));
        nearest.and_then(|id| self.watch.number(id))
    }
}
