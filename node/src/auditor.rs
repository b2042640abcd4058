//! The auditor: what a steward does over time for the segments whose records it keeps.
//!
//! It challenges their holders, notices who is gone, and has missing shards rebuilt. One task owns all of the state
//! and feeds the machines of `commonhold-policy`; what they ask for (a challenge, a look at the others' records, a
//! repair) runs beside it and comes back as an event. Decides nothing itself.

mod challenges;
mod evidence;
mod figures;
mod holders;
mod rebuild;
mod repairs;
mod ward;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use commonhold_network::Peer;
use commonhold_policy::{
    audit::{self, Outcome, Sample, containment, schedule::Rate, schedule::Schedule},
    life,
    repair::order::{self, RepairOrder, Times},
    segment_health::Source,
    stewards,
};
use commonhold_protocol::{
    NetworkName, NodeId, SegmentId, ShardIndex, Timestamp,
    ask::{HealthReport, Request, Response},
};
use rand::Rng;
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    challenges::Asked,
    holders::HolderState,
    repairs::{Looked, Repairs},
    ward::Ward,
};
pub use self::{
    challenges::Evidence,
    figures::{AuditFigures, AuditSnapshot},
};
use crate::{clock::Clock, config::Config, holder::Holder, neighbours::Neighbours, records::Kind, steward::Steward};

/// News and questions that wait; who brings more waits, or is left out where it must not.
const QUEUE: usize = 4096;
/// Records read in one go, when all are looked through.
const PAGE: usize = 256;
/// A claim is audited for the first time within this.
const FIRST_AUDIT_MS_MAX: u64 = 60 * 60 * 1000;
/// A node of which nothing was heard is asked whether it is there, at least this often.
const PROBE_MS_MAX: u64 = 15 * 60 * 1000;
const PROBE_MS_MIN: u64 = 500;
/// How long a node may take to say that it is there.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

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
        /// Who brought it; we ourselves after a repair.
        from: NodeId,
    },
    /// Somebody asks how segments are.
    Health {
        /// Which.
        segments: Vec<SegmentId>,
        /// Where the answer goes.
        reply: oneshot::Sender<Vec<Option<HealthReport>>>,
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
    /// What it counts.
    pub figures: Arc<AuditFigures>,
    /// The node's tasks.
    pub tasks: TaskTracker,
}

/// Whose timer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TimerOf {
    Life(NodeId),
    Challenge(NodeId),
    /// The moment at which a holder is challenged for what is due.
    Moment(NodeId),
    Probe(NodeId),
    Repair(SegmentId),
    Epoch,
    /// The moment to see who came and who went.
    Look,
}

/// What was done beside the task.
enum Done {
    Challenged(NodeId, Asked),
    Probed { node: NodeId, about: Option<u64> },
    Looked(SegmentId, Looked),
    Rebuilt(SegmentId, rebuild::Rebuilt),
}

/// The auditor.
pub struct Auditor {
    parts: AuditorParts,
    own: NodeId,
    schedule: Schedule,
    grace_ms: u64,
    times: Times,
    wards: BTreeMap<SegmentId, Ward>,
    holders: BTreeMap<NodeId, HolderState>,
    timers: BinaryHeap<Reverse<(Timestamp, TimerOf)>>,
    /// Nodes that keep records, as they were when the stewards were worked out last.
    members: BTreeSet<NodeId>,
    repairs: Repairs,
    done: mpsc::Sender<Done>,
}

impl Auditor {
    /// Starts the task; it ends with `stop`.
    pub fn start(config: &Config, parts: AuditorParts, stop: CancellationToken) -> AuditorHandle {
        let (news, heard) = mpsc::channel(QUEUE);
        let (done, finished) = mpsc::channel(QUEUE);
        let rate = Rate { every_ms: config.audit.every.as_ms().max(1) };
        let grace_ms = config.audit.grace.as_ms();
        let auditor = Self {
            own: parts.peer.node_id(),
            schedule: Schedule::new(parts.seed, rate),
            grace_ms,
            times: Times::new(config.repair.top_up.as_ms(), grace_ms),
            wards: BTreeMap::new(),
            holders: BTreeMap::new(),
            timers: BinaryHeap::new(),
            members: BTreeSet::new(),
            repairs: Repairs::new(&parts.clock, config.pledge.upload),
            done,
            parts,
        };
        let tasks = auditor.parts.tasks.clone();
        tasks.spawn(async move { stop.run_until_cancelled(auditor.run(heard, finished)).await });
        AuditorHandle(news)
    }

    async fn run(mut self, mut heard: mpsc::Receiver<News>, mut finished: mpsc::Receiver<Done>) {
        self.look_around().await;
        self.epoch();
        loop {
            let now = self.now();
            let next = self.timers.peek().map_or(PROBE_MS_MAX, |Reverse((at, _))| at.ms_since(now));
            tokio::select! {
                Some(done) = finished.recv() => self.finished(done).await,
                Some(news) = heard.recv() => self.hear(news).await,
                () = tokio::time::sleep(Duration::from_millis(next)) => self.ring().await,
                else => return,
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.parts.clock.now()
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
            match of {
                TimerOf::Epoch => self.epoch(),
                TimerOf::Look => self.look_around().await,
                TimerOf::Moment(node) => self.challenge_due(node),
                TimerOf::Probe(node) => {
                    if self.holders.get(&node).is_some_and(|holder| holder.probe_due == Some(at)) {
                        self.probe(node);
                    }
                }
                TimerOf::Life(node) => {
                    if self.holders.get(&node).is_some_and(|holder| holder.life_due == Some(at)) {
                        let cut_off = self.is_cut_off();
                        self.live(node, if cut_off { life::Event::WeWereAway } else { life::Event::Timer });
                    }
                }
                TimerOf::Challenge(node) => {
                    if self.holders.get(&node).is_some_and(|holder| holder.challenge_due == Some(at)) {
                        self.contain(node, containment::Event::Timer);
                    }
                }
                TimerOf::Repair(segment) => {
                    if self.wards.get(&segment).is_some_and(|ward| ward.due == Some(at)) {
                        self.order(segment, order::Event::Timer);
                    }
                }
            }
        }
    }

    async fn hear(&mut self, news: News) {
        match news {
            News::Seen(node) => self.seen(node),
            News::Gone(node) => {
                if self.holders.contains_key(&node) {
                    self.probe(node);
                }
            }
            News::Record { segment, from } => self.load(segment, Some(from)).await,
            News::Health { segments, reply } => {
                let reports = segments.iter().map(|segment| self.wards.get(segment).map(Ward::report)).collect();
                let _ = reply.send(reports);
            }
        }
    }

    async fn finished(&mut self, done: Done) {
        match done {
            Done::Probed { node, about } => {
                if let Some(holder) = self.holders.get_mut(&node) {
                    holder.probing = false;
                    holder.free_bytes = about.unwrap_or(0);
                }
                match about {
                    Some(_) => self.seen(node),
                    None => self.live(node, life::Event::Silent),
                }
                self.probe_at(node, self.now().after_ms(self.probe_ms()));
            }
            Done::Challenged(node, asked) => self.challenged(node, asked),
            Done::Looked(segment, looked) => {
                self.load(segment, Some(self.own)).await;
                let Some(decision) = self.decide(segment) else { return };
                self.order(segment, order::Event::Looked { decision, working: looked.working });
            }
            Done::Rebuilt(segment, rebuilt) => self.rebuilt(segment, rebuilt).await,
        }
    }

    fn probe_ms(&self) -> u64 {
        (self.grace_ms / 8).clamp(PROBE_MS_MIN, PROBE_MS_MAX)
    }

    fn probe_at(&mut self, node: NodeId, at: Timestamp) {
        if let Some(holder) = self.holders.get_mut(&node) {
            holder.probe_due = Some(at);
            self.wake(at, TimerOf::Probe(node));
        }
    }

    /// An epoch begins: what is due in it?
    fn epoch(&mut self) {
        let now = self.now();
        let epoch = self.schedule.epoch(now);
        let due: Vec<(NodeId, SegmentId, ShardIndex)> = {
            let is_due =
                |(segment, ward): &(&SegmentId, &Ward)| self.schedule.is_due(segment, ward.stewards.len(), epoch);
            let claims = |(segment, ward): (&SegmentId, &Ward)| {
                let segment = *segment;
                let claims: Vec<_> = ward.health.claims().iter().map(|c| (c.node, segment, c.index)).collect();
                claims
            };
            self.wards.iter().filter(is_due).flat_map(claims).collect()
        };
        for (node, segment, index) in due {
            if let Some(holder) = self.holders.get_mut(&node) {
                holder.due.push((segment, index));
            }
        }
        let waiting = self.holders.iter().filter(|(_, holder)| !holder.due.is_empty());
        let moments: Vec<(Timestamp, NodeId)> =
            waiting.map(|(node, _)| (self.schedule.moment(node, epoch).max(now), *node)).collect();
        for (at, node) in moments {
            self.wake(at, TimerOf::Moment(node));
        }
        let epoch_ms = self.schedule.rate().epoch_ms();
        self.wake(Timestamp((epoch + 1).saturating_mul(epoch_ms)), TimerOf::Epoch);
    }

    /// Who is there, whom a shard could be given to, and whose steward we are now.
    async fn look_around(&mut self) {
        for node in self.parts.neighbours.present(Duration::from_millis(self.grace_ms)) {
            self.meet(node);
        }
        self.look_through().await;
        let at = self.now().after_ms(self.probe_ms());
        self.wake(at, TimerOf::Look);
    }

    /// Goes through all records that are kept: those that are ours to look after, and those that are no more.
    async fn look_through(&mut self) {
        let members = self.parts.neighbours.stewards(Duration::from_millis(self.grace_ms));
        let members: BTreeSet<NodeId> = members.iter().map(|peer| peer.node).collect();
        let changed = std::mem::replace(&mut self.members, members.clone()) != members;
        let mut after: Option<[u8; 32]> = None;
        loop {
            let steward = self.parts.steward.clone();
            let page = tokio::task::spawn_blocking(move || steward.records().list(Kind::Segment, after.as_ref(), PAGE));
            let page = match page.await {
                Ok(Ok(page)) => page,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the records cannot be gone through");
                    return;
                }
                Err(_) => return,
            };
            let Some(last) = page.last() else { break };
            after = Some(last.key);
            for summary in page {
                let segment = SegmentId::from_bytes(summary.key);
                if changed || !self.wards.contains_key(&segment) {
                    self.load(segment, None).await;
                }
            }
        }
    }

    /// Reads a record again: its claims, its stewards, and whether we are one of them.
    async fn load(&mut self, segment: SegmentId, from: Option<NodeId>) {
        let candidates = self.parts.neighbours.steward_candidates(Duration::from_millis(self.grace_ms));
        let stewards = stewards::choose(segment.as_bytes(), &candidates);
        let steward = self.parts.steward.clone();
        let read = tokio::task::spawn_blocking(move || steward.wanted_record(&segment)).await;
        let state = match read {
            Ok(Some(state)) if stewards.contains(&self.own) => state,
            _ => {
                if self.wards.remove(&segment).is_some() {
                    let holders: Vec<NodeId> = self.holders.keys().copied().collect();
                    for node in holders {
                        self.contain(node, containment::Event::Forget(segment));
                    }
                }
                return;
            }
        };
        let source = match from {
            Some(node) if node != self.own && !stewards.contains(&node) => Source::Stranger,
            _ => Source::Steward,
        };
        let times = self.times;
        let ward = self.wards.entry(segment).or_insert_with(|| {
            Ward::new(Arc::new(state.manifest().clone()), RepairOrder::new(times), stewards.clone())
        });
        ward.stewards = stewards;
        let claims = state.claims().iter().flat_map(|(index, claims)| {
            let index = *index;
            claims.iter().map(move |claim| (index, claim.holder))
        });
        for new in ward.take_in(claims, source) {
            self.meet(new.holder);
            self.audit_soon(new.holder, segment, new.index);
        }
        self.assess(segment);
    }

    /// A holder that was not known yet.
    fn meet(&mut self, node: NodeId) {
        if self.holders.contains_key(&node) {
            return;
        }
        let now = self.now();
        self.holders.insert(node, HolderState::new(now, self.grace_ms, self.schedule.rate()));
        if node != self.own {
            self.probe_at(node, now);
        }
    }

    /// A claim that this steward has not audited yet.
    fn audit_soon(&mut self, node: NodeId, segment: SegmentId, index: ShardIndex) {
        let now = self.now();
        let within = FIRST_AUDIT_MS_MAX.min(self.schedule.rate().epoch_ms() / 2).max(1);
        let Some(holder) = self.holders.get_mut(&node) else { return };
        holder.due.push((segment, index));
        if !holder.moment_set {
            holder.moment_set = true;
            // All that comes until then shares its challenges.
            let at = now.after_ms(rand::rng().random_range(within / 4..=within));
            self.wake(at, TimerOf::Moment(node));
        }
    }

    /// The moment has come to challenge a holder for what is due of it.
    fn challenge_due(&mut self, node: NodeId) {
        let mut held = 0;
        let Some(holder) = self.holders.get_mut(&node) else { return };
        holder.moment_set = false;
        let due = std::mem::take(&mut holder.due);
        for ward in self.wards.values() {
            held += ward.claims_of(node).count() as u64;
        }
        let groups = self.schedule.rate().groups(held);
        let mut rng = rand::rng();
        let samples: Vec<Sample> = due
            .into_iter()
            .filter_map(|(segment, index)| {
                let shard_bytes = self.wards.get(&segment)?.manifest.shard_length();
                Some(audit::schedule::samples(&mut rng, segment, index, shard_bytes, groups))
            })
            .flatten()
            .collect();
        if !samples.is_empty() {
            self.contain(node, containment::Event::Due(samples));
        }
    }

    fn is_cut_off(&self) -> bool {
        let others = self.holders.iter().filter(|(node, _)| **node != self.own);
        let (mut known, mut silent) = (0, 0);
        for (_, holder) in others {
            known += 1;
            silent += usize::from(holder.life.life() != life::Life::Up);
        }
        life::we_are_cut_off(silent, known)
    }

    /// A sign of life.
    fn seen(&mut self, node: NodeId) {
        if self.holders.contains_key(&node) {
            self.live(node, life::Event::Seen);
            self.contain(node, containment::Event::Alive);
        }
    }

    fn live(&mut self, node: NodeId, event: life::Event) {
        let now = self.now();
        let Some(holder) = self.holders.get_mut(&node) else { return };
        let actions = holder.life.handle(now, event);
        for action in actions {
            match action {
                life::Action::Timer { at } => {
                    if let Some(holder) = self.holders.get_mut(&node) {
                        holder.life_due = Some(at);
                    }
                    self.wake(at, TimerOf::Life(node));
                }
                life::Action::Suspect => {
                    tracing::info!(%node, "a holder is silent");
                    self.each_ward_of(node, |ward| ward.health.silent(node));
                }
                life::Action::Lost => {
                    tracing::info!(%node, "a holder counts as lost");
                    self.parts.figures.lost_holder();
                    self.each_ward_of(node, |ward| ward.health.lost(node));
                }
                life::Action::Returned { was_lost } => {
                    tracing::info!(%node, was_lost, "a holder is back");
                    let disqualified = self.holders.get(&node).is_some_and(|holder| holder.reputation.disqualified);
                    if !disqualified {
                        self.each_ward_of(node, |ward| ward.health.returned(node));
                        if was_lost {
                            self.review(node);
                        }
                    }
                }
            }
        }
    }

    /// Changes all segments that a node has shards of, and sees what follows.
    fn each_ward_of(&mut self, node: NodeId, change: impl Fn(&mut Ward) -> bool) {
        let mut changed = Vec::new();
        for (segment, ward) in &mut self.wards {
            if ward.health.claims().iter().any(|claim| claim.node == node) && change(ward) {
                changed.push(*segment);
            }
        }
        for segment in changed {
            self.assess(segment);
        }
    }

    /// All that a holder claims is due.
    fn review(&mut self, node: NodeId) {
        let due: Vec<(SegmentId, ShardIndex)> =
            self.wards.iter().flat_map(|(segment, ward)| ward.claims_of(node).map(|index| (*segment, index))).collect();
        if let Some(holder) = self.holders.get_mut(&node) {
            holder.due = due;
        }
        self.challenge_due(node);
    }

    /// Feeds a holder's containment, and does what it says.
    fn contain(&mut self, node: NodeId, event: containment::Event) {
        let now = self.now();
        let Some(holder) = self.holders.get_mut(&node) else { return };
        for action in holder.containment.handle(now, event) {
            match action {
                containment::Action::Ask { samples, asked_before } => self.ask(node, samples, asked_before),
                containment::Action::Verdict { segment, index, outcome } => self.verdict(node, segment, index, outcome),
                containment::Action::Unreachable => {
                    self.parts.figures.outcome(Outcome::Unreachable);
                    self.live(node, life::Event::Silent);
                }
                containment::Action::Review => self.review(node),
                containment::Action::Timer { at } => {
                    if let Some(holder) = self.holders.get_mut(&node) {
                        holder.challenge_due = Some(at);
                    }
                    self.wake(at, TimerOf::Challenge(node));
                }
            }
        }
    }

    fn verdict(&mut self, node: NodeId, segment: SegmentId, index: ShardIndex, outcome: Outcome) {
        self.parts.figures.outcome(outcome);
        if outcome != Outcome::Held {
            tracing::warn!(%node, %segment, %index, ?outcome, "a holder failed an audit");
        }
        let Some(holder) = self.holders.get_mut(&node) else { return };
        let disqualified = holder.reputation.count(outcome);
        if let Some(ward) = self.wards.get_mut(&segment)
            && ward.health.audited(index, node, outcome)
        {
            self.assess(segment);
        }
        if disqualified {
            tracing::warn!(%node, "a holder is trusted with nothing more");
            self.each_ward_of(node, |ward| ward.health.lost(node));
        }
    }

    /// Sends a challenge.
    fn ask(&mut self, node: NodeId, samples: Vec<Sample>, asked_before: u32) {
        let known = |sample: Sample| Some((sample.clone(), self.wards.get(&sample.segment)?.manifest.clone()));
        let known: Option<Vec<_>> = samples.into_iter().map(known).collect();
        let round_trip = self.holders.get(&node).map_or(challenges::ROUND_TRIP_FIRST, |holder| holder.round_trip);
        let (parts, done, own) = (&self.parts, self.done.clone(), self.own);
        let (peer, network, holder) = (parts.peer.clone(), parts.network.clone(), parts.holder.clone());
        parts.figures.challenge();
        parts.tasks.spawn(async move {
            let asked = match known {
                // A segment that was dropped meanwhile: what is left is asked for again.
                None => Asked::Answered { answers: Vec::new(), evidence: None, round_trip },
                Some(samples) => {
                    let own_holder = (node == own).then_some(holder);
                    challenges::ask(peer, network, node, own_holder, samples, asked_before, round_trip).await
                }
            };
            let _ = done.send(Done::Challenged(node, asked)).await;
        });
    }

    fn challenged(&mut self, node: NodeId, asked: Asked) {
        match asked {
            Asked::Answered { answers, evidence, round_trip } => {
                if let Some(holder) = self.holders.get_mut(&node) {
                    holder.round_trip = (holder.round_trip * 3 + round_trip) / 4;
                }
                if let Some(evidence) = evidence {
                    self.keep_evidence(node, *evidence);
                }
                self.live(node, life::Event::Seen);
                self.contain(node, containment::Event::Answered(answers));
            }
            Asked::Unanswered => {
                let connected = self.parts.peer.connected().iter().any(|(peer, _)| *peer == node);
                self.contain(node, containment::Event::Unanswered { connected });
            }
        }
    }

    /// Asks a node whether it is there, and what it would take.
    fn probe(&mut self, node: NodeId) {
        let Some(holder) = self.holders.get_mut(&node) else { return };
        if holder.probing || node == self.own {
            return;
        }
        holder.probing = true;
        let (peer, done, neighbours) = (self.parts.peer.clone(), self.done.clone(), self.parts.neighbours.clone());
        self.parts.tasks.spawn(async move {
            let about = match peer.ask(node, Request::About, PROBE_PATIENCE).await {
                Ok(Response::About { free_bytes, steward, domain, .. }) => {
                    neighbours.heard_about(node, steward, domain);
                    Some(free_bytes)
                }
                _ => None,
            };
            let _ = done.send(Done::Probed { node, about }).await;
        });
    }
}
