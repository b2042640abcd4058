//! The sweep: sees to it that what this steward keeps is kept by all the stewards that should have it.
//!
//! Runs when nodes come, come back or are gone, and now and then in any case. It works out who the stewards of the kept
//! records are among the nodes that are known (a node knows all others near its own id, and the records that it keeps
//! are near it too), and compares with each what both should have, by digests of ranges of keys (`ledger`); what
//! differs is sent and fetched (`exchange`). Records whose steward we are no more are handed over and let go (`left`).
//! Heads and leases, a few for each vault, are sent as they change. Bounded: a few nodes at a time, one message at a time
//! to each, as much rest as work.

mod exchange;
mod ledger;
mod left;
mod pull;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use commonhold_network::Peer;
use commonhold_policy::{Domain, stewards, sweep::left_alone_ms};
use commonhold_protocol::{
    NodeId,
    ask::{ASK_IDS_MAX, Request, Response},
};
use futures::{StreamExt, stream};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{exchange::Exchange, left::LeftRecords};
pub use self::{ledger::Ledger, pull::ServedVaults};
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
/// A steward that was there all the time is compared with again after this time; sooner where the grace time is short.
const ALL_EVERY: Duration = Duration::from_secs(3600);
/// A steward that comes and goes is swept no more often than this.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Stewards that are swept at once: mostly we wait for them, and for those who are not there the longest.
const SWEPT_AT_ONCE: usize = 4;
/// How long a node may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// Nodes asked about themselves at once.
const ABOUT_AT_ONCE: usize = 8;

/// When a steward was swept.
#[derive(Debug, Clone, Copy)]
struct Swept {
    at: Instant,
    /// When heads and leases were last sent whatever was sent before.
    all_at: Instant,
    /// All that was kept then had at most this sequence.
    sequence: u64,
}

/// A node that does not answer.
#[derive(Debug, Clone, Copy)]
struct Silence {
    /// When it was last asked.
    asked_at: Instant,
    /// How often in a row, without an answer.
    times: u32,
}

/// How an exchange with a node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answered {
    /// To the end.
    All,
    /// It had no time for us.
    Busy,
    /// It stopped answering.
    Nothing,
}

/// What came of a sweep of one steward.
struct SweptOne {
    node: NodeId,
    answered: Answered,
    at: Instant,
    /// Of the records, when it began.
    sequence: u64,
    /// From which sequence on heads and leases were sent.
    after: u64,
}

/// The sweep.
pub struct Sweep {
    peer: Peer,
    steward: Arc<Steward>,
    neighbours: Arc<Neighbours>,
    served: Arc<ServedVaults>,
    ledger: Arc<Ledger>,
    grace: Duration,
    swept: BTreeMap<NodeId, Swept>,
    left: Mutex<LeftRecords>,
    silent: BTreeMap<NodeId, Silence>,
    /// Who the stewards were in the last sweep.
    members: BTreeSet<NodeId>,
}

impl Sweep {
    /// Nothing swept yet. `grace` is how long a steward may be silent, `prove` the time in which a new record has to prove
    /// itself.
    pub fn new(
        peer: Peer,
        steward: Arc<Steward>,
        neighbours: Arc<Neighbours>,
        served: Arc<ServedVaults>,
        ledger: Arc<Ledger>,
        grace: Duration,
        prove: Duration,
    ) -> Self {
        Self {
            peer,
            steward,
            neighbours,
            served,
            ledger,
            grace,
            swept: BTreeMap::new(),
            left: Mutex::new(LeftRecords::new(grace, prove)),
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
        let (neighbours, forgotten_after) = (&self.neighbours, self.silent_for(u32::MAX) * 2);
        self.silent.retain(|node, silence| {
            let is_back = neighbours.connected_at(node).is_some_and(|at| Instant::from_std(at) > silence.asked_at);
            !is_back && silence.asked_at.elapsed() < forgotten_after
        });
        let contacts = self.peer.known_contacts();
        let unknown = contacts.into_iter().map(|contact| contact.node).filter(|node| {
            *node != self.peer.node_id() && self.neighbours.wants_about(node) && !self.is_left_alone(node)
        });
        let unknown: Vec<NodeId> = unknown.collect();
        let this = &*self;
        let asked: Vec<(NodeId, Answered, Instant)> = stream::iter(unknown)
            .map(|node| async move { (node, this.ask_about(node).await, Instant::now()) })
            .buffer_unordered(ABOUT_AT_ONCE)
            .collect()
            .await;
        for (node, answered, at) in asked {
            self.note_answered(node, answered, at);
        }
    }

    fn note_answered(&mut self, node: NodeId, answered: Answered, asked_at: Instant) {
        let before = self.silent.remove(&node).map_or(0, |silence| silence.times);
        let times = match answered {
            Answered::All => return,
            Answered::Busy => 1,
            Answered::Nothing => before.saturating_add(1),
        };
        self.silent.insert(node, Silence { asked_at, times });
    }

    fn is_left_alone(&self, node: &NodeId) -> bool {
        self.silent.get(node).is_some_and(|silence| silence.asked_at.elapsed() < self.silent_for(silence.times))
    }

    /// How long a node is left alone that has not answered so often. Once it connects, that is over.
    fn silent_for(&self, times: u32) -> Duration {
        Duration::from_millis(left_alone_ms(self.grace.as_millis() as u64, times))
    }

    async fn ask_about(&self, node: NodeId) -> Answered {
        let answer = self.peer.ask(node, Request::About, PATIENCE).await;
        let Ok(Response::About { clock, steward, domain, .. }) = answer else { return Answered::Nothing };
        self.neighbours.heard_about(node, steward, domain);
        self.steward.clock().witness(self.neighbours.domain(node), clock);
        Answered::All
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
        // Those who are there are not to wait for those who may not be.
        let mut by_presence: Vec<&StewardPeer> = peers.iter().collect();
        by_presence.sort_by_key(|peer| peer.connected_at.is_none());
        let due: Vec<(NodeId, u64)> =
            by_presence.into_iter().filter_map(|peer| Some((peer.node, self.due(peer)?))).collect();
        if due.is_empty() {
            return Ok(());
        }
        let mut candidates: Vec<_> = peers.into_iter().map(|peer| (peer.node, peer.domain)).collect();
        candidates.push(self.neighbours.own());
        let candidates = Arc::new(candidates);
        tracing::debug!(nodes = due.len(), "sweeping");
        let this = &*self;
        let sweeps = due.into_iter().map(|(node, after)| this.sweep_one(node, after, candidates.clone()));
        let swept: Vec<Result<SweptOne, RecordsError>> =
            stream::iter(sweeps).buffer_unordered(SWEPT_AT_ONCE).collect().await;
        for swept in swept {
            let SweptOne { node, answered, at, sequence, after } = swept?;
            self.note_answered(node, answered, at);
            if answered == Answered::All {
                let before = self.swept.get(&node).filter(|_| after > 0);
                let all_at = before.map_or(at, |swept| swept.all_at);
                self.swept.insert(node, Swept { at, all_at, sequence });
            }
        }
        let ledger = self.ledger.clone();
        let table = blocking(move || ledger.table()).await?;
        self.left.get_mut().unwrap_or_else(PoisonError::into_inner).let_go(&self.steward, &table).await
    }

    /// Compares all records with one steward, hands it what is its and ours no more, and sends it the heads and leases that
    /// it may lack.
    async fn sweep_one(
        &self,
        node: NodeId,
        after: u64,
        candidates: Arc<Vec<(NodeId, Domain)>>,
    ) -> Result<SweptOne, RecordsError> {
        let sequence = self.steward.records().sequence();
        let ledger = self.ledger.clone();
        let table = blocking(move || ledger.table()).await?;
        let mut exchange = Exchange::new(&self.peer, &self.steward, &self.neighbours, node);
        exchange.compare(&table).await?;
        let left = || self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let offered = left().its(node, &table);
        let handed = exchange.offer(&offered).await?;
        left().handed(node, &handed, &table);
        for kind in [Kind::Heads, Kind::Lease] {
            self.send_vaults(kind, node, after, &candidates, &mut exchange).await?;
        }
        Ok(SweptOne { node, answered: exchange.answered(), at: Instant::now(), sequence, after })
    }

    /// How often all is gone through.
    fn all_every(&self) -> Duration {
        (self.grace / 12).clamp(AGAIN_AFTER, ALL_EVERY)
    }

    /// Whether a steward is due, and from which sequence on it may lack heads and leases.
    fn due(&self, peer: &StewardPeer) -> Option<u64> {
        if self.is_left_alone(&peer.node) {
            return None;
        }
        let Some(swept) = self.swept.get(&peer.node) else { return Some(0) };
        let came_back = peer.connected_at.is_some_and(|at| Instant::from_std(at) > swept.at);
        if swept.all_at.elapsed() > ALL_EVERY {
            Some(0)
        } else if swept.at.elapsed() > self.all_every() || (came_back && swept.at.elapsed() > AGAIN_AFTER) {
            Some(swept.sequence)
        } else {
            None
        }
    }

    async fn send_vaults(
        &self,
        kind: Kind,
        node: NodeId,
        after: u64,
        candidates: &Arc<Vec<(NodeId, Domain)>>,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), RecordsError> {
        let mut last = None;
        while exchange.answered() == Answered::All {
            let (steward, candidates) = (self.steward.clone(), candidates.clone());
            let page = blocking(move || {
                let page = steward.records().list(kind, last.as_ref(), ASK_IDS_MAX)?;
                let last = page.last().map(|summary| summary.key);
                let its = |summary: &Summary| stewards::choose(&summary.key, &candidates).contains(&node);
                let its: Vec<Summary> =
                    page.into_iter().filter(|summary| summary.sequence > after).filter(its).collect();
                Ok::<_, RecordsError>((its, last))
            });
            let (its, page_last) = page.await?;
            if page_last.is_none() {
                break;
            }
            last = page_last;
            exchange.offer_vaults(kind, &its, after).await?;
        }
        Ok(())
    }
}

/// Runs what blocks off the runtime's thread. A panic there is passed on.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
