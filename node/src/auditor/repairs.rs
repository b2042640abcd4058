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
        self, Decision,
        order::{self, Action},
        plan::{self, Helper, RepairPlan},
    },
    segment_health::{SegmentHealth, Source},
    stewards,
};
use commonhold_protocol::{
    NodeId, Record, SegmentId, VerifiedClaim,
    ask::{Request, Response},
};

use super::{
    Auditor, Done, HolderState, NodeNumber, TimerOf, WardNumber,
    rebuild::{Rebuild, Rebuilt, SourceFault},
    ward::{Ordered, Ward},
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
            .filter(|(_, node, holder)| **node != self.own && holder.life.life() == Life::Up && holder.free_bytes > 0);
        let helper = |(_, node, holder): (NodeNumber, &NodeId, &HolderState)| Helper {
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

    /// The health of a segment with nodes by name, as plans want it.
    fn named_health(&self, ward: &Ward) -> SegmentHealth {
        // A number that is claimed with is never given up, see `forget_the_lost`.
        ward.health.map_nodes(|node| self.holders.key(node).unwrap_or(self.own))
    }

    /// What a segment needs, by what is known now.
    fn decide(&self, ward: &Ward, helpers: &[Helper]) -> Decision {
        let health = self.named_health(ward);
        let room = plan::room(&health, ward.shard_length, helpers, |node| self.domain_of(node));
        repair::decide(ward.coding, health.counters(), room)
    }

    /// Something about these segments changed: see what follows.
    pub(super) fn assess(&mut self, wards: &[WardNumber]) {
        let mut helpers = None;
        for number in wards {
            let Some(ward) = self.wards.get(*number) else { continue };
            let whole = ward.health.counters().standing() == ward.coding.n();
            if whole && ward.order.is_none() {
                continue;
            }
            let helpers = helpers.get_or_insert_with(|| self.helpers());
            let (decision, rank) = (self.decide(ward, helpers), ward.rank.into());
            if let Decision::OutOfReach { .. } = decision {
                self.prove_now(*number);
            }
            self.order(*number, order::Event::Assessed { decision, rank });
        }
    }

    /// Feeds a segment's order of repair, and does what it says.
    pub(super) fn order(&mut self, number: WardNumber, event: order::Event) {
        let now = self.now();
        let times = self.times;
        let Some(ward) = self.wards.get_mut(number) else { return };
        let order = ward.order.get_or_insert_with(|| Ordered::new(times));
        let actions = order.machine.handle(now, event);
        if order.machine.is_idle() {
            ward.order = None;
        }
        for action in actions {
            match action {
                Action::Timer { at } => {
                    if let Some(order) = self.wards.get_mut(number).and_then(|ward| ward.order.as_mut()) {
                        order.due = Some(at);
                    }
                    self.wake(at, TimerOf::Repair(number));
                }
                Action::Look => self.look(number),
                Action::Repair { urgent } => {
                    let Some(segment) = self.wards.key(number) else { return };
                    if self.repairs.queue(segment, urgent) {
                        self.run_repairs();
                    } else {
                        self.order(number, order::Event::Failed);
                    }
                }
                // What is under way is finished and claimed: a shard too many costs space, and no node gives one up yet.
                Action::Stop => {}
            }
        }
    }

    /// Fetches the record from the other stewards, and asks whether one of them is at work.
    fn look(&mut self, number: WardNumber) {
        let Some(segment) = self.wards.key(number) else { return };
        let others = self.other_stewards(&segment);
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
            let _ = done.send(Done::Looked { segment, working }).await;
        });
    }

    fn other_stewards(&self, segment: &SegmentId) -> Vec<NodeId> {
        let stewards = stewards::choose(segment.as_bytes(), &self.stewards);
        stewards.into_iter().filter(|node| *node != self.own).collect()
    }

    /// The others were looked at: is it still to be repaired?
    pub(super) async fn looked(&mut self, segment: SegmentId, working: Option<NodeId>) {
        self.load(vec![(segment, true)], Some(self.own)).await;
        let Some(number) = self.wards.number(&segment) else { return };
        let Some(ward) = self.wards.get(number) else { return };
        let decision = self.decide(ward, &self.helpers());
        self.order(number, order::Event::Looked { decision, working });
    }

    fn run_repairs(&mut self) {
        while let Some(segment) = self.repairs.next() {
            let Some((number, plan)) = self.plan(&segment) else {
                self.repairs.running -= 1;
                if let Some(number) = self.wards.number(&segment) {
                    self.order(number, order::Event::Failed);
                }
                continue;
            };
            tracing::info!(%segment, %number, shards = plan.targets.len(), "repairing");
            let (steward, done) = (self.parts.steward.clone(), self.done.clone());
            let (peer, network) = (self.parts.peer.clone(), self.parts.network.clone());
            let (own, pace) = ((self.own, self.parts.holder.clone()), self.repairs.pace.clone());
            self.parts.tasks.spawn(async move {
                let read = move || steward.manifest(&segment).map(|known| (steward.running_lease(&known.vault), known));
                let rebuilt = match tokio::task::spawn_blocking(read).await {
                    Ok(Some((lease, manifest))) => {
                        let manifest = Arc::new(manifest);
                        let targets = plan.targets.into_iter().map(|(index, place)| (index, place.node)).collect();
                        Rebuild { peer, network, manifest, lease, sources: plan.sources, targets, own, pace }
                            .run()
                            .await
                    }
                    // Dropped meanwhile.
                    Ok(None) | Err(_) => Rebuilt::default(),
                };
                let _ = done.send(Done::Rebuilt(segment, rebuilt)).await;
            });
        }
    }

    fn plan(&self, segment: &SegmentId) -> Option<(WardNumber, RepairPlan)> {
        let number = self.wards.number(segment)?;
        let ward = self.wards.get(number)?;
        let (health, helpers) = (self.named_health(ward), self.helpers());
        let plan = plan::plan(&mut rand::rng(), ward.coding, &health, ward.shard_length, &helpers, |node| {
            self.domain_of(node)
        });
        Some((number, plan?))
    }

    /// A repair has ended: its claims go into the record, here and at the other stewards.
    pub(super) async fn rebuilt(&mut self, segment: SegmentId, rebuilt: Rebuilt) {
        self.repairs.running -= 1;
        let Rebuilt { claims, refused, faults, bytes_read, bytes_sent } = rebuilt;
        self.parts.figures.repaired(claims.len() as u64, bytes_read, bytes_sent);
        tracing::info!(%segment, claimed = claims.len(), refused = refused.len(), faults = faults.len(), "repaired");
        for (_, node) in refused {
            if let Some(holder) = self.holders.number(&node).and_then(|holder| self.holders.get_mut(holder)) {
                // Until it says anew what it would take.
                holder.free_bytes = 0;
            }
        }
        for (index, node, fault) in faults {
            let Some(holder) = self.holders.number(&node) else { continue };
            match fault {
                SourceFault::Absent => self.probe(holder),
                SourceFault::Wrong => self.verdict(holder, segment, index, Outcome::Wrong),
            }
        }
        let now = self.now();
        if let Some(number) = self.wards.number(&segment) {
            let event = if claims.is_empty() { order::Event::Failed } else { order::Event::Repaired };
            if let Some(ward) = self.wards.get_mut(number).filter(|_| !claims.is_empty()) {
                ward.repaired_at = Some(now);
            }
            let claimed = claims.iter().map(|claim| (claim.claim.leaf.index, claim.holder)).collect();
            self.take_claims(number, claimed, Source::Steward);
            self.keep_claims(segment, claims).await;
            self.order(number, event);
            self.assess(&[number]);
        }
        self.run_repairs();
    }

    /// Writes new claims into the record: ours at once, the other stewards' as they answer.
    async fn keep_claims(&mut self, segment: SegmentId, claims: Vec<VerifiedClaim>) {
        let steward = self.parts.steward.clone();
        let manifest = tokio::task::spawn_blocking(move || steward.manifest(&segment)).await;
        let Ok(Some(manifest)) = manifest else { return };
        if claims.is_empty() {
            return;
        }
        let claims = claims.into_iter().map(|claim| claim.claim).collect();
        let record = Record { manifest: manifest.to_unverified(), claims, drop: None };
        let request = Request::KeepRecords { records: vec![record], lease: None };
        let (steward, sender) = (self.parts.steward.clone(), self.parts.neighbours.sender(self.own));
        let own = request.clone();
        let _ = tokio::task::spawn_blocking(move || steward.answer(&sender, own)).await;
        for node in self.other_stewards(&segment) {
            let (peer, request) = (self.parts.peer.clone(), request.clone());
            self.parts.tasks.spawn(async move {
                if let Err(error) = peer.ask(node, request, PATIENCE).await {
                    tracing::debug!(%error, %node, "a steward has not heard of a repair; the sweep will tell it");
                }
            });
        }
    }
}
