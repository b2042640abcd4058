//! Repairs: assesses segments, looks at the other stewards' records before acting, and has missing shards rebuilt.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use commonhold_policy::{
    Domain, Standing,
    audit::Outcome,
    budget::Budget,
    life::Life,
    placement::Candidate,
    repair::{
        Decision,
        order::{self, Action},
        plan::{self, Helper, RepairPlan},
    },
    segment_health::Source,
};
use commonhold_protocol::{
    NodeId, Record, SegmentId,
    ask::{Request, Response},
};

use super::{
    Auditor, Done, TimerOf,
    rebuild::{Rebuild, Rebuilt, SourceFault},
};
use crate::{clock::Clock, config::Rate};

/// Repairs at once: each takes up to 8 MiB of memory.
const AT_ONCE: usize = 2;
/// Repairs that wait for their turn; those beyond are ordered again when their machines wake.
const WAITING_MAX: usize = 4096;
/// Bytes a second that repairs may move, where the pledge names no limit: 80 Mbit/s.
const BYTES_PER_SECOND: u64 = 10 << 20;
/// How long a steward may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the other stewards said.
pub(super) struct Looked {
    /// One that says it repairs the segment.
    pub(super) working: Option<NodeId>,
}

/// Repairs that run and that wait.
pub(super) struct Repairs {
    pace: Pace,
    running: usize,
    urgent: VecDeque<SegmentId>,
    waiting: VecDeque<SegmentId>,
}

impl Repairs {
    pub(super) fn new(clock: &Arc<Clock>, upload: Option<Rate>) -> Self {
        let bytes_per_second = upload.map_or(BYTES_PER_SECOND, Rate::bytes_per_second);
        Self {
            pace: Pace {
                budget: Arc::new(Mutex::new(Budget::new(clock.now(), bytes_per_second))),
                clock: clock.clone(),
            },
            running: 0,
            urgent: VecDeque::new(),
            waiting: VecDeque::new(),
        }
    }

    fn queue(&mut self, segment: SegmentId, urgent: bool) -> bool {
        let queue = if urgent { &mut self.urgent } else { &mut self.waiting };
        let fits = queue.len() < WAITING_MAX;
        if fits {
            queue.push_back(segment);
        }
        fits
    }

    fn next(&mut self) -> Option<SegmentId> {
        if self.running >= AT_ONCE {
            return None;
        }
        let next = self.urgent.pop_front().or_else(|| self.waiting.pop_front())?;
        self.running += 1;
        Some(next)
    }
}

/// The budget that all repairs share.
#[derive(Clone)]
pub(super) struct Pace {
    budget: Arc<Mutex<Budget>>,
    clock: Arc<Clock>,
}

impl Pace {
    /// Waits until so many bytes may be moved.
    pub(super) async fn spend(&self, bytes: u64) {
        loop {
            let spent = self.budget.lock().unwrap_or_else(PoisonError::into_inner).spend(self.clock.now(), bytes);
            match spent {
                Ok(()) => return,
                Err(until) => {
                    let wait_ms = until.map_or(60_000, |until| until.ms_since(self.clock.now()));
                    tokio::time::sleep(Duration::from_millis(wait_ms.max(1))).await;
                }
            }
        }
    }
}

impl Auditor {
    /// Nodes that might take a shard.
    fn helpers(&self) -> Vec<Helper> {
        let now = self.now();
        let others = self
            .holders
            .iter()
            .filter(|(node, holder)| **node != self.own && holder.life.life() == Life::Up && holder.free_bytes > 0);
        let helper = |(node, holder): (&NodeId, &super::HolderState)| Helper {
            candidate: Candidate {
                node: *node,
                domain: self.parts.neighbours.domain(*node),
                free_bytes: holder.free_bytes,
                standing: Standing::KnownGood,
            },
            trust: holder.reputation.trust(now),
        };
        others.map(helper).collect()
    }

    fn domain_of(&self, node: &NodeId) -> Option<Domain> {
        Some(self.parts.neighbours.domain(*node))
    }

    /// What a segment needs, by what is known now.
    pub(super) fn decide(&mut self, segment: SegmentId) -> Option<Decision> {
        let helpers = self.helpers();
        let ward = self.wards.get(&segment)?;
        let room = plan::room(&ward.health, ward.manifest.shard_length(), &helpers, |node| self.domain_of(node));
        self.wards.get_mut(&segment).map(|ward| ward.decide(room))
    }

    /// Something about a segment changed: see what follows.
    pub(super) fn assess(&mut self, segment: SegmentId) {
        let Some(decision) = self.decide(segment) else { return };
        let Some(rank) = self.wards.get(&segment).map(|ward| ward.rank(&self.own)) else { return };
        self.order(segment, order::Event::Assessed { decision, rank });
    }

    /// Feeds a segment's order of repair, and does what it says.
    pub(super) fn order(&mut self, segment: SegmentId, event: order::Event) {
        let now = self.now();
        let Some(ward) = self.wards.get_mut(&segment) else { return };
        for action in ward.order.handle(now, event) {
            match action {
                Action::Timer { at } => {
                    if let Some(ward) = self.wards.get_mut(&segment) {
                        ward.due = Some(at);
                    }
                    self.wake(at, TimerOf::Repair(segment));
                }
                Action::Look => self.look(segment),
                Action::Repair { urgent } => {
                    if self.repairs.queue(segment, urgent) {
                        self.run_repairs();
                    } else {
                        self.order(segment, order::Event::Failed);
                    }
                }
                // What is being rebuilt is claimed and counted; a shard too many is given up again as surplus.
                Action::Stop => {}
            }
        }
    }

    /// Fetches the record from the other stewards, and asks whether one of them is at work.
    fn look(&mut self, segment: SegmentId) {
        let Some(ward) = self.wards.get(&segment) else { return };
        let others: Vec<NodeId> = ward.stewards.iter().copied().filter(|node| *node != self.own).collect();
        let (peer, done) = (self.parts.peer.clone(), self.done.clone());
        let (steward, neighbours) = (self.parts.steward.clone(), self.parts.neighbours.clone());
        self.parts.tasks.spawn(async move {
            let looks = others.into_iter().map(|node| {
                let (peer, steward, neighbours) = (peer.clone(), steward.clone(), neighbours.clone());
                async move {
                    let request = Request::FetchRecords { segments: vec![segment] };
                    if let Ok(Response::Records(records)) = peer.ask(node, request, PATIENCE).await {
                        let records: Vec<Record> = records.into_iter().flatten().take(1).collect();
                        let sender = neighbours.sender(node);
                        let merge = move || steward.answer(&sender, Request::KeepRecords { records, lease: None });
                        let _ = tokio::task::spawn_blocking(merge).await;
                    }
                    let request = Request::FetchHealth { segments: vec![segment] };
                    let Ok(Response::Health(reports)) = peer.ask(node, request, PATIENCE).await else { return None };
                    reports.into_iter().flatten().next().filter(|report| report.repairing).map(|_| node)
                }
            });
            let working = futures::future::join_all(looks).await.into_iter().flatten().next();
            let _ = done.send(Done::Looked(segment, Looked { working })).await;
        });
    }

    fn run_repairs(&mut self) {
        while let Some(segment) = self.repairs.next() {
            let Some(plan) = self.plan(segment) else {
                self.repairs.running -= 1;
                self.order(segment, order::Event::Failed);
                continue;
            };
            let Some(ward) = self.wards.get(&segment) else { continue };
            tracing::info!(%segment, shards = plan.targets.len(), "repairing");
            let rebuild = Rebuild {
                peer: self.parts.peer.clone(),
                network: self.parts.network.clone(),
                manifest: ward.manifest.clone(),
                sources: plan.sources,
                targets: plan.targets.into_iter().map(|(index, place)| (index, place.node)).collect(),
                own: (self.own, self.parts.holder.clone()),
                pace: self.repairs.pace.clone(),
            };
            let done = self.done.clone();
            self.parts.tasks.spawn(async move {
                let rebuilt = rebuild.run().await;
                let _ = done.send(Done::Rebuilt(segment, rebuilt)).await;
            });
        }
    }

    fn plan(&self, segment: SegmentId) -> Option<RepairPlan> {
        let ward = self.wards.get(&segment)?;
        let (coding, shard_bytes) = (ward.manifest.coding, ward.manifest.shard_length());
        let helpers = self.helpers();
        plan::plan(&mut rand::rng(), coding, &ward.health, shard_bytes, &helpers, |node| self.domain_of(node))
    }

    /// A repair has ended: its claims go into the record, here and at the other stewards.
    pub(super) async fn rebuilt(&mut self, segment: SegmentId, rebuilt: Rebuilt) {
        self.repairs.running -= 1;
        let Rebuilt { claims, refused, faults, bytes_read, bytes_sent } = rebuilt;
        self.parts.figures.repaired(claims.len() as u64, bytes_read, bytes_sent);
        tracing::info!(%segment, claimed = claims.len(), refused = refused.len(), faults = faults.len(), "repaired");
        for (_, node) in refused {
            if let Some(holder) = self.holders.get_mut(&node) {
                // Until it says anew what it would take.
                holder.free_bytes = 0;
            }
        }
        for (index, node, fault) in faults {
            match fault {
                SourceFault::Absent => self.probe(node),
                SourceFault::Wrong => self.verdict(node, segment, index, Outcome::Wrong),
            }
        }
        let now = self.now();
        let succeeded = !claims.is_empty();
        if let Some(ward) = self.wards.get_mut(&segment)
            && succeeded
        {
            ward.repaired_at = Some(now);
            let manifest = ward.manifest.to_unverified();
            let record =
                Record { manifest, claims: claims.iter().map(|claim| claim.claim.clone()).collect(), drop: None };
            let new = ward.take_in(claims.iter().map(|c| (c.claim.leaf.index, c.holder)), Source::Steward);
            let stewards = ward.stewards.clone();
            for claim in new {
                self.meet(claim.holder);
                self.audit_soon(claim.holder, segment, claim.index);
            }
            self.keep_claims(record, stewards).await;
        }
        let event = if succeeded { order::Event::Repaired } else { order::Event::Failed };
        self.order(segment, event);
        self.assess(segment);
        self.run_repairs();
    }

    /// Writes new claims into the record: ours at once, the other stewards' as they answer.
    async fn keep_claims(&mut self, record: Record, stewards: Vec<NodeId>) {
        let request = Request::KeepRecords { records: vec![record], lease: None };
        let (steward, sender) = (self.parts.steward.clone(), self.parts.neighbours.sender(self.own));
        let own = request.clone();
        let _ = tokio::task::spawn_blocking(move || steward.answer(&sender, own)).await;
        for node in stewards.into_iter().filter(|node| *node != self.own) {
            let (peer, request) = (self.parts.peer.clone(), request.clone());
            self.parts.tasks.spawn(async move {
                if let Err(error) = peer.ask(node, request, PATIENCE).await {
                    tracing::debug!(%error, %node, "a steward has not heard of a repair; the sweep will tell it");
                }
            });
        }
    }
}
