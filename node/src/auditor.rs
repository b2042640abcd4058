//! The auditor: what a steward does over time for the segments whose records it keeps.
//!
//! It challenges their holders, notices who is gone, and has missing shards rebuilt. One task owns all of the state
//! and feeds the machines of `commonhold-policy`; what they ask for (a challenge, a look at the others' records, a
//! repair) runs beside it and comes back as an event. Decides nothing itself.

mod announced;
mod audits;
mod challenges;
mod evidence;
mod figures;
mod holders;
mod kept;
mod lives;
mod loading;
mod pace;
mod proven;
mod rebuild;
mod releases;
mod repairs;
mod table;
mod trials;
mod ward;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use commonhold_network::Peer;
use commonhold_policy::{
    Domain,
    audit::{
        containment,
        schedule::{Rate, Schedule},
    },
    life::SearchPace,
    repair::order::{self, Times},
};
use commonhold_protocol::{
    ClaimLeaf, NetworkName, NodeId, SegmentId, Timestamp,
    ask::{ClaimStanding, HealthReport},
};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::announced::Known;
pub(crate) use self::challenges::proves;
use self::{
    challenges::Asked,
    holders::{HolderState, Wanted},
    lives::Said,
    proven::Proven,
    repairs::Repairs,
    table::Table,
    ward::{Ordered, Wards},
};
pub use self::{
    challenges::Evidence,
    figures::{AuditFigures, AuditSnapshot},
};
#[cfg(any(test, feature = "fuzzing"))]
pub use self::{kept::audits_of_any_bytes, proven::proven_of_any_bytes};
use crate::{clock::Clock, config::Config, holder::Holder, neighbours::Neighbours, steward::Steward};

/// News and questions that wait; who brings more waits, or is left out where it must not.
const QUEUE: usize = 4096;
/// Without anything to do, the timers are looked at this often: the system's clock may have jumped.
const IDLE_MS_MAX: u64 = 60_000;

/// A node, in the auditor's tables.
type NodeNumber = u32;
/// A segment, in the auditor's tables.
type WardNumber = u32;
/// Who keeps records, with their domains: what the stewards of a segment are chosen from.
type Stewards = Arc<[(NodeId, Domain)]>;

/// What the auditor hears.
#[derive(Debug)]
pub enum News {
    /// A node connected, asked or answered something.
    Seen(NodeId),
    /// The connection to a node has ended.
    Gone(NodeId),
    /// The record of a segment changed.
    Record {
        /// Which.
        segment: SegmentId,
        /// Who brought it: we ourselves after a repair, nobody if it is gone.
        from: Option<NodeId>,
    },
    /// A holder gave shards up.
    Released {
        /// The holder.
        holder: NodeId,
        /// Which.
        shards: Vec<ClaimLeaf>,
    },
    /// Somebody asks how segments are.
    Health {
        /// Which.
        segments: Vec<SegmentId>,
        /// Where the answer goes.
        reply: oneshot::Sender<Vec<Option<HealthReport>>>,
    },
    /// A holder asks what is known of its claims.
    Announced {
        /// The holder.
        holder: NodeId,
        /// Which.
        shards: Vec<ClaimLeaf>,
        /// Where the answer goes.
        reply: oneshot::Sender<Vec<(ClaimLeaf, Known)>>,
    },
}

/// The way to the auditor.
#[derive(Debug, Clone)]
pub struct AuditorHandle(mpsc::Sender<News>);

impl AuditorHandle {
    /// Tells it something. What it has no room for, it finds out later by itself.
    pub fn tell(&self, news: News) {
        let _ = self.0.try_send(news);
    }

    /// How segments are, in order; none of those whose steward this node is not.
    pub async fn health(&self, segments: Vec<SegmentId>) -> Option<Vec<Option<HealthReport>>> {
        let (reply, answer) = oneshot::channel();
        self.0.send(News::Health { segments, reply }).await.ok()?;
        answer.await.ok()
    }

    /// What is known of a holder's claims, in order.
    pub async fn standings(
        &self,
        steward: &Arc<Steward>,
        holder: NodeId,
        shards: Vec<ClaimLeaf>,
    ) -> Option<Vec<ClaimStanding>> {
        let (reply, answer) = oneshot::channel();
        self.0.send(News::Announced { holder, shards, reply }).await.ok()?;
        announced::standings(steward.clone(), holder, answer.await.ok()?).await
    }
}

/// All that the auditor works with.
pub struct AuditorParts {
    /// The peer.
    pub peer: Peer,
    /// The network.
    pub network: NetworkName,
    /// The steward whose records it looks after.
    pub steward: Arc<Steward>,
    /// The holder of the same node: its own shards are audited like all others.
    pub holder: Arc<Holder>,
    /// Who the other nodes are.
    pub neighbours: Arc<Neighbours>,
    /// The clock.
    pub clock: Arc<Clock>,
    /// What only this node knows: from it the schedule is drawn.
    pub seed: [u8; 32],
    /// Where evidence is kept.
    pub folder: PathBuf,
    /// The file of what is remembered over a restart.
    pub kept: PathBuf,
    /// The file of the claims that were audited.
    pub proven: PathBuf,
    /// What it counts.
    pub figures: Arc<AuditFigures>,
    /// The node's tasks.
    pub tasks: TaskTracker,
}

/// Whose timer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TimerOf {
    Life(NodeNumber),
    Challenge(NodeNumber),
    /// The moment at which a holder is challenged for these.
    Moment(NodeNumber, Wanted),
    Probe(NodeNumber),
    Repair(WardNumber),
    /// The time is over in which a record has to prove itself.
    Trial(WardNumber),
    Epoch,
    /// The moment to see who came and who went.
    Look,
}

/// What an event leaves to be done that may go through all segments: in batches, so that the node's other work goes
/// on meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    /// A node is given up: see what follows for all that it claims.
    GivenUp(NodeNumber),
    /// A node fell silent or is back: see what follows where something is missing already.
    Changed(NodeNumber),
    /// A holder can be challenged for what it is to be asked for next.
    Draw(NodeNumber),
}

/// What was done beside the task.
enum Done {
    Challenged(NodeNumber, Asked),
    /// None: it did not answer.
    Probed {
        node: NodeNumber,
        said: Option<Said>,
    },
    /// The other stewards' records are merged.
    Looked {
        segment: SegmentId,
        /// One of them that says it repairs the segment.
        busy: Option<NodeId>,
    },
    /// None: it was stopped.
    Rebuilt(SegmentId, Option<rebuild::Rebuilt>),
}

/// The auditor.
pub struct Auditor {
    parts: AuditorParts,
    own: NodeId,
    schedule: Schedule,
    grace_ms: u64,
    /// Within this a new record has to prove itself.
    prove_ms: u64,
    /// In this time holders tell of all that they hold.
    announce_ms: u64,
    times: Times,
    wards: Wards,
    holders: Table<NodeId, HolderState>,
    /// About so many of them were never heard of by themselves.
    unseen: usize,
    probes: Arc<Semaphore>,
    challenges: challenges::Turns,
    searches: SearchPace,
    /// Wards of which not all shards stand.
    ailing: BTreeSet<WardNumber>,
    /// Wards whose repair is ordered.
    orders: BTreeMap<WardNumber, Ordered>,
    /// When a shard of a segment was last rebuilt here.
    repaired_at: BTreeMap<SegmentId, Timestamp>,
    /// Since when segments that were not looked at since the restart had waited for a top-up.
    waits_since: BTreeMap<SegmentId, Timestamp>,
    /// Since when the records of wards are on trial.
    trials: BTreeMap<WardNumber, Timestamp>,
    /// Until when shards that nobody claims are waited for, of records that come back claim by claim.
    awaited: BTreeMap<WardNumber, Timestamp>,
    /// Those that have proven themselves, to be written down.
    proven: Vec<SegmentId>,
    /// Claims that were audited before the restart, while the records are read for the first time.
    proven_before: Proven,
    /// When these were written down, as long as that is in doubt.
    proven_at: Option<Timestamp>,
    /// Until when what was due was audited before the start.
    audited_until: Timestamp,
    begun_at: Instant,
    /// In which epoch wards are marked as due.
    epoch: u64,
    /// When those that are audited were last written down.
    proven_written_at: Timestamp,
    /// Some of what was written down then is not so any more.
    proven_is_stale: bool,
    /// What is to be done before the next event is heard.
    pending: VecDeque<Pending>,
    timers: BinaryHeap<Reverse<(Timestamp, TimerOf)>>,
    /// As they were when we looked last.
    stewards: Stewards,
    repairs: Repairs,
    /// Of what was written down last.
    written: Option<blake3::Hash>,
    done: mpsc::Sender<Done>,
}

impl Auditor {
    /// Starts the task; it ends with `stop`.
    pub fn start(config: &Config, parts: AuditorParts, stop: CancellationToken) -> AuditorHandle {
        let (news, heard) = mpsc::channel(QUEUE);
        let (done, finished) = mpsc::channel(QUEUE);
        let rate = Rate { every_ms: config.audit.every.as_ms().max(1) };
        let grace_ms = config.audit.grace.as_ms();
        let times = Times::new(config.repair.top_up.as_ms(), grace_ms);
        let mut auditor = Self {
            own: parts.peer.node_id(),
            schedule: Schedule::new(parts.seed, rate),
            grace_ms,
            prove_ms: config.audit.prove.as_ms().max(1),
            announce_ms: config.pledge.announce.as_ms(),
            times,
            wards: Wards::new(),
            holders: Table::new(),
            unseen: 0,
            probes: Arc::new(Semaphore::new(lives::PROBES_AT_ONCE)),
            challenges: challenges::Turns::new(),
            searches: SearchPace::new(parts.clock.steady(), grace_ms),
            ailing: BTreeSet::new(),
            orders: BTreeMap::new(),
            repaired_at: BTreeMap::new(),
            waits_since: BTreeMap::new(),
            trials: BTreeMap::new(),
            awaited: BTreeMap::new(),
            proven: Vec::new(),
            proven_before: Proven::default(),
            proven_at: None,
            audited_until: Timestamp(0),
            begun_at: Instant::now(),
            epoch: 0,
            proven_written_at: parts.clock.steady(),
            proven_is_stale: false,
            pending: VecDeque::new(),
            timers: BinaryHeap::new(),
            stewards: Arc::new([]),
            repairs: Repairs::new(&parts.clock, config.pledge.upload, times.back_off_ms),
            written: None,
            done,
            parts,
        };
        let tasks = auditor.parts.tasks.clone();
        tasks.spawn(async move {
            auditor.remember().await;
            auditor.remember_proven().await;
            if stop.run_until_cancelled(auditor.begin()).await.is_some() {
                stop.run_until_cancelled(auditor.run(heard, finished)).await;
                auditor.write_proven_down().await;
            }
            auditor.write_down().await;
        });
        AuditorHandle(news)
    }

    /// Reads all that is kept. Until that is done, nothing is known that would be worth writing down.
    async fn begin(&mut self) {
        self.look_around().await;
        self.proven_before = Proven::default();
        self.epoch().await;
    }

    async fn run(&mut self, mut heard: mpsc::Receiver<News>, mut finished: mpsc::Receiver<Done>) {
        loop {
            self.settle().await;
            self.write_proven();
            let now = self.now();
            let next = self.timers.peek().map_or(IDLE_MS_MAX, |Reverse((at, _))| at.ms_since(now).min(IDLE_MS_MAX));
            tokio::select! {
                Some(done) = finished.recv() => {
                    // Who gave a shard up says so before it answers that it has it no more.
                    for _ in 0..heard.len() {
                        match heard.try_recv() {
                            Ok(news) => self.hear(news).await,
                            Err(_) => break,
                        }
                    }
                    self.settle().await;
                    self.finished(done).await;
                }
                Some(news) = heard.recv() => self.hear(news).await,
                () = tokio::time::sleep(Duration::from_millis(next)) => self.ring().await,
                else => return,
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.parts.clock.steady()
    }

    fn wake(&mut self, at: Timestamp, of: TimerOf) {
        self.timers.push(Reverse((at, of)));
    }

    /// Everything whose time has come.
    async fn ring(&mut self) {
        let now = self.now();
        while let Some(Reverse((at, of))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            let due = Some(at);
            let holder = |node| self.holders.get(node);
            match of {
                TimerOf::Epoch => self.epoch().await,
                TimerOf::Look => self.look_around().await,
                TimerOf::Moment(node, wanted) => self.moment(node, wanted),
                TimerOf::Probe(node) if holder(node).is_some_and(|holder| holder.probe_due == due) => self.probe(node),
                TimerOf::Life(node) if holder(node).is_some_and(|holder| holder.life_due == due) => {
                    self.life_timer(node);
                }
                TimerOf::Challenge(node) if holder(node).is_some_and(|holder| holder.challenge_due == due) => {
                    self.contain(node, containment::Event::Timer);
                }
                TimerOf::Trial(ward) => self.try_record(ward),
                TimerOf::Repair(ward) => {
                    if self.orders.get(&ward).is_some_and(|order| order.due == due) {
                        self.order(ward, order::Event::Timer);
                    }
                }
                // Another moment was asked for since.
                TimerOf::Probe(_) | TimerOf::Life(_) | TimerOf::Challenge(_) => {}
            }
        }
    }

    async fn hear(&mut self, news: News) {
        match news {
            News::Seen(node) => {
                if let Some(holder) = self.holders.number(&node) {
                    self.seen(holder);
                }
            }
            News::Gone(node) => {
                if let Some(holder) = self.holders.number(&node) {
                    self.disconnected(holder);
                }
            }
            News::Record { segment, from } => self.load(vec![(segment, true)], from).await,
            News::Released { holder, shards } => self.released(holder, shards).await,
            News::Announced { holder, shards, reply } => {
                let _ = reply.send(self.announced(holder, shards));
            }
            News::Health { segments, reply } => {
                let report = |segment| self.report(self.wards.number(segment)?);
                let _ = reply.send(segments.iter().map(report).collect());
            }
        }
    }

    async fn finished(&mut self, done: Done) {
        match done {
            Done::Probed { node, said } => self.probed(node, said),
            Done::Challenged(node, asked) => self.challenged(node, asked),
            Done::Looked { segment, busy } => self.looked(segment, busy).await,
            Done::Rebuilt(segment, rebuilt) => self.rebuilt(segment, rebuilt).await,
        }
    }
}
