//! The sweep: sees to it that what this steward keeps is kept by all the stewards that should have it.
//!
//! Runs when nodes come, come back or are gone, and now and then in any case. It walks over the kept records in order
//! of their keys, works out who their stewards are among the nodes that are known (a node knows all others near its
//! own id, and the records that it keeps are near it too), asks each what it lacks, and sends that. Bounded: one page
//! of keys, one message at a time, as much rest as work. Each sweep begins at a random key, so that the stewards of a
//! record that all notice a newcomer do not all send it the same.

mod exchange;
mod pull;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use commonhold_network::Peer;
use commonhold_policy::stewards;
use commonhold_protocol::{
    NodeId, SegmentId,
    ask::{ASK_IDS_MAX, Request, Response},
};
use futures::{StreamExt, stream};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use self::exchange::Exchange;
pub use self::pull::ServedVaults;
use crate::{
    neighbours::{Neighbours, StewardPeer},
    records::{Kind, RecordsError, Summary},
    steward::Steward,
};

/// After news of nodes, so that many that come at once are swept at once.
const SETTLE: Duration = Duration::from_millis(750);
/// Without news, nodes are looked at at least this often; more often where the grace time is short.
const LOOK_EVERY: Duration = Duration::from_secs(60);
const LOOK_EVERY_MIN: Duration = Duration::from_secs(1);
/// A steward that was there all the time is gone through again after this time, whatever it was sent before.
const ALL_EVERY: Duration = Duration::from_secs(3600);
/// A steward that comes and goes is swept no more often than this.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// A node that does not answer is left alone for this long.
const SILENT_FOR: Duration = Duration::from_secs(60);
/// How long a node may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// Nodes asked about themselves at once.
const ABOUT_AT_ONCE: usize = 8;

/// What a steward was sent.
#[derive(Debug, Clone, Copy)]
struct Swept {
    /// When the last sweep of it ended.
    at: Instant,
    /// When all was last gone through, whatever was sent before.
    all_at: Instant,
    /// All that was kept then had at most this sequence.
    sequence: u64,
}

/// The sweep.
pub struct Sweep {
    peer: Peer,
    steward: Arc<Steward>,
    neighbours: Arc<Neighbours>,
    served: Arc<ServedVaults>,
    grace: Duration,
    swept: BTreeMap<NodeId, Swept>,
    silent: BTreeMap<NodeId, Instant>,
    /// Who the stewards were in the last sweep.
    members: BTreeSet<NodeId>,
}

impl Sweep {
    /// Nothing swept yet.
    pub fn new(
        peer: Peer,
        steward: Arc<Steward>,
        neighbours: Arc<Neighbours>,
        served: Arc<ServedVaults>,
        grace: Duration,
    ) -> Self {
        Self {
            peer,
            steward,
            neighbours,
            served,
            grace,
            swept: BTreeMap::new(),
            silent: BTreeMap::new(),
            members: BTreeSet::new(),
        }
    }

    /// Sweeps until `stop`; `news` says that nodes came or went.
    pub async fn run(mut self, news: Arc<Notify>, stop: CancellationToken) {
        let look_every = (self.grace / 2).clamp(LOOK_EVERY_MIN, LOOK_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = news.notified() => {}
                () = tokio::time::sleep(look_every) => {}
            }
            let work = async {
                tokio::time::sleep(SETTLE).await;
                self.look().await;
                if let Err(error) = self.sweep().await {
                    tracing::warn!(%error, "a sweep ended early");
                }
                self.served.pull_due(&self.peer, &self.steward, &self.neighbours).await;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = work => {}
            }
        }
    }

    /// Learns who is there, and what they say of themselves.
    async fn look(&mut self) {
        self.neighbours.set_connected(&self.peer.connected());
        self.silent.retain(|_, since| since.elapsed() < SILENT_FOR);
        let contacts = self.peer.known_contacts();
        let unknown = contacts.into_iter().map(|contact| contact.node).filter(|node| {
            *node != self.peer.node_id() && self.neighbours.wants_about(node) && !self.silent.contains_key(node)
        });
        let unknown: Vec<NodeId> = unknown.collect();
        let this = &*self;
        let asked: Vec<(NodeId, bool)> = stream::iter(unknown)
            .map(|node| async move { (node, this.ask_about(node).await) })
            .buffer_unordered(ABOUT_AT_ONCE)
            .collect()
            .await;
        for (node, answered) in asked {
            if !answered {
                self.silent.insert(node, Instant::now());
            }
        }
    }

    async fn ask_about(&self, node: NodeId) -> bool {
        let answer = self.peer.ask(node, Request::About, PATIENCE).await;
        let Ok(Response::About { clock, steward, domain, .. }) = answer else { return false };
        self.neighbours.heard_about(node, steward, domain);
        self.steward.clock().witness(self.neighbours.domain(node), clock);
        true
    }

    /// One sweep over all that is kept, for those who are due.
    async fn sweep(&mut self) -> Result<(), RecordsError> {
        let peers = self.neighbours.stewards(self.grace);
        let members: BTreeSet<NodeId> = peers.iter().map(|peer| peer.node).collect();
        // When a steward is gone, others take over its keys, also those who were sent all of theirs before.
        let lost_some = self.members.iter().any(|node| !members.contains(node));
        if lost_some {
            self.swept.clear();
        }
        self.swept.retain(|node, _| members.contains(node));
        self.members = members;
        let mut due: BTreeMap<NodeId, Exchange> = BTreeMap::new();
        for peer in &peers {
            if let Some(after) = self.due(peer) {
                due.insert(peer.node, Exchange::new(peer.node, after));
            }
        }
        if due.is_empty() {
            return Ok(());
        }
        let mut candidates: Vec<_> = peers.into_iter().map(|peer| (peer.node, peer.domain)).collect();
        candidates.push(self.neighbours.own());
        let candidates = Arc::new(candidates);
        let sequence = self.steward.records().sequence();
        tracing::debug!(nodes = due.len(), "sweeping");
        for kind in [Kind::Segment, Kind::Heads, Kind::Lease] {
            self.sweep_kind(kind, &candidates, &mut due).await?;
        }
        let now = Instant::now();
        for (node, exchange) in due {
            match exchange.finish() {
                Some(all) => {
                    let all_at = if all { now } else { self.swept.get(&node).map_or(now, |swept| swept.all_at) };
                    self.swept.insert(node, Swept { at: now, all_at, sequence });
                }
                None => {
                    self.silent.insert(node, now);
                }
            }
        }
        Ok(())
    }

    /// Whether a steward is due, and from which sequence on it may lack what it need not be asked about.
    fn due(&self, peer: &StewardPeer) -> Option<u64> {
        if self.silent.contains_key(&peer.node) {
            return None;
        }
        let Some(swept) = self.swept.get(&peer.node) else { return Some(0) };
        let came_back = peer.connected_at.is_some_and(|at| Instant::from_std(at) > swept.at);
        if swept.all_at.elapsed() > ALL_EVERY {
            Some(0)
        } else if came_back && swept.at.elapsed() > AGAIN_AFTER {
            Some(swept.sequence)
        } else {
            None
        }
    }

    async fn sweep_kind(
        &self,
        kind: Kind,
        candidates: &Arc<Vec<(NodeId, commonhold_policy::Domain)>>,
        due: &mut BTreeMap<NodeId, Exchange>,
    ) -> Result<(), RecordsError> {
        let start: [u8; 32] = rand::random();
        let mut after = Some(start);
        let mut wrapped = false;
        loop {
            let (steward, candidates) = (self.steward.clone(), candidates.clone());
            let page = blocking(move || page(&steward, kind, after, wrapped.then_some(start), &candidates)).await?;
            match page.last {
                Some(last) => after = Some(last),
                None if wrapped => return Ok(()),
                None => {
                    after = None;
                    wrapped = true;
                    continue;
                }
            }
            for (node, summaries) in page.by_steward {
                if let Some(exchange) = due.get_mut(&node) {
                    exchange.offer(&self.peer, &self.steward, &self.neighbours, kind, summaries).await?;
                }
            }
        }
    }
}

/// A page of kept entries, by who should have them besides us.
struct Page {
    by_steward: BTreeMap<NodeId, Vec<Summary>>,
    last: Option<[u8; 32]>,
}

fn page(
    steward: &Steward,
    kind: Kind,
    after: Option<[u8; 32]>,
    until: Option<[u8; 32]>,
    candidates: &[(NodeId, commonhold_policy::Domain)],
) -> Result<Page, RecordsError> {
    let mut summaries = steward.records().list(kind, after.as_ref(), ASK_IDS_MAX)?;
    summaries.retain(|summary| until.is_none_or(|until| summary.key <= until));
    let last = summaries.last().map(|summary| summary.key);
    let mut by_steward: BTreeMap<NodeId, Vec<Summary>> = BTreeMap::new();
    for summary in summaries {
        for node in stewards::choose(&summary.key, candidates) {
            by_steward.entry(node).or_default().push(summary);
        }
    }
    Ok(Page { by_steward, last })
}

/// The ids of segments.
fn segments(summaries: &[Summary]) -> Vec<SegmentId> {
    summaries.iter().map(|summary| SegmentId::from_bytes(summary.key)).collect()
}

/// Runs what blocks off the runtime's thread. A panic there is passed on.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
