//! Stored segments as the network's own nodes see them: what stewards report and who claims what, with no client running
//! and no key of the vault.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use commonhold_protocol::{
    Coding, NetworkName, NodeId, SegmentId,
    ask::{ASK_RECORDS_MAX, HealthReport, Request, Response},
};

use super::{Home, Network, Spy, hex_id};

/// Asking all nodes is work for them and for the machine, so it is not done as often as a state is polled otherwise.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A stored segment.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) id: SegmentId,
    pub(crate) coding: Coding,
    pub(crate) shard_bytes: u64,
}

impl Stored {
    /// All segments of a vault, by what its owner is told. The owner is not needed any more afterwards.
    pub(crate) fn in_vault(home: &Home) -> Vec<Self> {
        let listed = home.json(["segments"]);
        let number = |segment: &serde_json::Value, key: &str| segment[key].as_u64().unwrap();
        let stored = |segment: &serde_json::Value| {
            let counts = [number(segment, "k"), number(segment, "n")].map(|count| u8::try_from(count).unwrap());
            let coding = Coding::new(counts[0], counts[1]).unwrap();
            Self {
                id: SegmentId::from_hex(segment["id"].as_str().unwrap()).unwrap(),
                coding,
                shard_bytes: coding.shard_length(number(segment, "length")),
            }
        };
        listed["segments"].as_array().unwrap().iter().map(stored).collect()
    }
}

/// Who asks the nodes.
pub(crate) struct Watch {
    spy: Spy,
    network: NetworkName,
    nodes: BTreeMap<usize, NodeId>,
}

/// One shard of a segment.
pub(crate) type Shard = (SegmentId, u8);

impl Watch {
    /// Watches the nodes that run now.
    pub(crate) fn on(network: &Network) -> Self {
        let nodes = network.running().into_iter().map(|node| (node, hex_id(&network.node_id(node)))).collect();
        Self { spy: Spy::on(network), network: network.name().parse().unwrap(), nodes }
    }

    /// These nodes die for good: they are asked nothing more. Returns the bytes of the shards that nobody else holds, which
    /// are lost with them.
    pub(crate) fn lose(&mut self, dying: &[usize], stored: &[Stored]) -> u64 {
        let gone: BTreeSet<NodeId> = dying.iter().filter_map(|node| self.nodes.remove(node)).collect();
        let living = self.ids();
        let lost = |holders: &BTreeSet<NodeId>| !holders.is_disjoint(&gone) && holders.is_disjoint(&living);
        let lost = self.claims(stored).into_iter().filter(|(_, holders)| lost(holders));
        let bytes = |segment| stored.iter().find(|stored| stored.id == segment).unwrap().shard_bytes;
        lost.map(|((segment, _), _)| bytes(segment)).sum()
    }

    /// The ids of the nodes that are watched.
    pub(crate) fn ids(&self) -> BTreeSet<NodeId> {
        self.nodes.values().copied().collect()
    }

    /// The node with this id.
    pub(crate) fn number(&self, id: NodeId) -> Option<usize> {
        self.nodes.iter().find(|(_, known)| **known == id).map(|(node, _)| *node)
    }

    /// What each node that is a steward of these segments says of them.
    pub(crate) fn reports(&self, stored: &[Stored]) -> Vec<BTreeMap<usize, HealthReport>> {
        let ids: Vec<SegmentId> = stored.iter().map(|segment| segment.id).collect();
        let mut reports = vec![BTreeMap::new(); stored.len()];
        for (node, id) in &self.nodes {
            // Who has no time to answer says nothing this time.
            let asked = self.spy.try_ask(*id, Request::FetchHealth { segments: ids.clone() });
            let Some(Response::Health(said)) = asked else { continue };
            for (of, report) in reports.iter_mut().zip(said) {
                of.extend(report.map(|report| (*node, report)));
            }
        }
        reports
    }

    /// Who claims each shard, living or dead, by the records of all nodes.
    pub(crate) fn claims(&self, stored: &[Stored]) -> BTreeMap<Shard, BTreeSet<NodeId>> {
        let ids: Vec<SegmentId> = stored.iter().map(|segment| segment.id).collect();
        let mut claims: BTreeMap<Shard, BTreeSet<NodeId>> = BTreeMap::new();
        for id in self.nodes.values() {
            for some in ids.chunks(ASK_RECORDS_MAX) {
                let asked = self.spy.try_ask(*id, Request::FetchRecords { segments: some.to_vec() });
                let Some(Response::Records(records)) = asked else { continue };
                let all = records.into_iter().flatten().flat_map(|record| record.claims);
                for claim in all.map(|claim| claim.verify(&self.network).unwrap()) {
                    let leaf = claim.claim.leaf;
                    claims.entry((leaf.segment, leaf.index.0)).or_default().insert(claim.holder);
                }
            }
        }
        claims
    }

    /// The shards that no living node claims.
    pub(crate) fn unclaimed(&self, stored: &[Stored]) -> Vec<Shard> {
        let (claims, living) = (self.claims(stored), self.ids());
        let all = stored.iter().flat_map(|segment| segment.coding.indices().map(|index| (segment.id, index.0)));
        let stands = |shard: &Shard| claims.get(shard).is_some_and(|holders| !holders.is_disjoint(&living));
        all.filter(|shard| !stands(shard)).collect()
    }

    /// What is not as it should be; none once each shard is claimed by a living node, and every steward of each segment
    /// has had proof of all n shards and sees their holders alive.
    pub(crate) fn ailing(&self, stored: &[Stored]) -> Option<String> {
        for (segment, reports) in stored.iter().zip(self.reports(stored)) {
            if reports.is_empty() {
                return Some(format!("nobody is a steward of {}", segment.id));
            }
            let ailing = |report: &&HealthReport| report.healthy < segment.coding.n();
            if let Some((node, report)) = reports.iter().find(|(_, report)| ailing(report)) {
                return Some(format!("node {node} says of {}: {report:?}", segment.id));
            }
        }
        let unclaimed = self.unclaimed(stored);
        (!unclaimed.is_empty()).then(|| format!("no living node claims {unclaimed:?}"))
    }

    /// Waits until nothing ails; says how long after `since` that was.
    #[track_caller]
    pub(crate) fn whole_again(&self, stored: &[Stored], since: Instant, within: Duration) -> Duration {
        loop {
            let Some(ailing) = self.ailing(stored) else { return since.elapsed() };
            assert!(since.elapsed() < within, "not whole after {within:?}: {ailing}");
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// Some counters of all nodes together: of those that were killed, as they were seen last, and of those that were started
/// again, with what they were before.
pub(crate) struct Counters<const N: usize> {
    paths: [&'static str; N],
    seen: BTreeMap<usize, [u64; N]>,
    of_former_lives: [u64; N],
}

impl<const N: usize> Counters<N> {
    /// Of the status figures at `paths`.
    pub(crate) fn of(paths: [&'static str; N]) -> Self {
        Self { paths, seen: BTreeMap::new(), of_former_lives: [0; N] }
    }

    /// What they are now.
    pub(crate) fn now(&mut self, network: &Network) -> [u64; N] {
        for node in network.nodes() {
            if let Some(status) = network.status(node) {
                let figure = |path: &str| status.pointer(path).and_then(serde_json::Value::as_u64).unwrap();
                let now = self.paths.map(figure);
                let before = self.seen.insert(node, now).unwrap_or([0; N]);
                if before.iter().zip(now).any(|(before, now)| now < *before) {
                    self.of_former_lives.iter_mut().zip(before).for_each(|(sum, before)| *sum += before);
                }
            }
        }
        let sum = |at: usize| self.seen.values().map(|figures| figures[at]).sum::<u64>() + self.of_former_lives[at];
        std::array::from_fn(sum)
    }
}
