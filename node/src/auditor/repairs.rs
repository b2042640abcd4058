//! Repairs: assesses segments, looks at the other stewards' records before acting, and has missing shards rebuilt.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use commonhold_policy::{
    Domain, Standing,
    audit::{CHALLENGE_MAX, Outcome, Sample, containment},
    budget::REPAIR_BYTES_PER_SECOND,
    life::Life,
    placement::Candidate,
    repair::{
        self, Decision,
        order::{self, Action},
        plan::{self, Helper, RepairPlan},
        refusals::Refusals,
        turns::Turns,
    },
    segment_health::{ClaimState, Claimed, SegmentHealth, ShardState, Source},
    stewards,
};
use commonhold_protocol::{
    NodeId, Record, SegmentId, ShardIndex, VerifiedClaim,
    ask::{Request, Response},
    manifest::SEGMENT_BYTES_MAX,
};
use tokio_util::sync::CancellationToken;

use super::{
    Auditor, Done, HolderState, NodeNumber, TimerOf, WardNumber,
    pace::Pace,
    rebuild::{Rebuild, Rebuilt, SourceFault},
    ward::Ordered,
};
use crate::{clock::Clock, config::Rate};

/// How long a steward may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Repairs that run and that wait.
pub(super) struct Repairs {
    pace: Pace,
    turns: Turns<SegmentId>,
    /// To be looked at once it is known whom to ask, and whether that is urgent.
    early: Vec<(SegmentId, bool)>,
    /// What stops those that are rebuilt; the others whose turn it is are being looked at.
    rebuilding: BTreeMap<SegmentId, CancellationToken>,
    /// Segments that lack shards which no node could take.
    resting: BTreeSet<WardNumber>,
    refusals: Refusals<NodeId>,
}

impl Repairs {
    pub(super) fn new(clock: &Arc<Clock>, upload: Option<Rate>, back_off_ms: u64) -> Self {
        let bytes_per_second = upload.map_or(REPAIR_BYTES_PER_SECOND, Rate::bytes_per_second);
        Self {
            pace: Pace::new(clock, bytes_per_second),
            turns: Turns::default(),
            early: Vec::new(),
            rebuilding: BTreeMap::new(),
            resting: BTreeSet::new(),
            refusals: Refusals::new(back_off_ms),
        }
    }

    /// True if a segment lacks shards which no node could take.
    pub(super) fn rests(&self, ward: WardNumber) -> bool {
        self.resting.contains(&ward)
    }

    /// True if it is a segment's turn to be looked at or rebuilt.
    pub(super) fn has_turn(&self, segment: &SegmentId) -> bool {
        self.turns.has(segment)
    }

    /// A segment is not looked after any more: its number may soon be another's.
    pub(super) fn forget(&mut self, ward: WardNumber) {
        self.resting.remove(&ward);
    }

    fn hurry(&mut self, segment: &SegmentId) {
        self.turns.hurry(segment);
        self.early.iter_mut().filter(|(early, _)| early == segment).for_each(|(_, urgent)| *urgent = true);
    }

    /// Ends the repair of a segment, or takes it out of those that wait.
    pub(super) fn stop(&mut self, segment: &SegmentId) {
        self.early.retain(|(early, _)| early != segment);
        self.turns.leave(segment);
        if let Some(stop) = self.rebuilding.get(segment) {
            stop.cancel();
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
    fn named_health(&self, number: WardNumber) -> Option<SegmentHealth> {
        // A number that is claimed with is never given up, see `forget_the_lost`.
        Some(self.health(number)?.map_nodes(|node| self.holders.key(node).unwrap_or(self.own)))
    }

    /// What a segment needs, by what is known now.
    fn decide(&self, number: WardNumber, helpers: &[Helper]) -> Option<Decision> {
        let (ward, health) = (self.wards.get(number)?, self.named_health(number)?);
        let room = plan::room(&health, ward.shard_length.into(), helpers, |node| self.domain_of(node));
        Some(repair::decide(ward.coding, health.counters(), room))
    }

    /// Something about these segments changed: see what follows.
    pub(super) fn assess(&mut self, wards: &[WardNumber]) {
        let mut helpers = None;
        for number in wards {
            let (Some(ward), Some(health)) = (self.wards.get(*number), self.health(*number)) else { continue };
            let rank = ward.rank.into();
            if health.counters().standing() == ward.coding.n() {
                self.ailing.remove(number);
                self.repairs.resting.remove(number);
                if !self.orders.contains_key(number) {
                    // After a restart all of them are taken to stand until they are asked, the dead too.
                    if health.counters().healthy == ward.coding.n()
                        && let Some(segment) = self.wards.segment(*number)
                    {
                        self.waits_since.remove(&segment);
                    }
                    continue;
                }
            } else {
                self.ailing.insert(*number);
                self.make_room(*number, &health);
            }
            let helpers = helpers.get_or_insert_with(|| self.helpers());
            if let Some(decision) = self.decide(*number, helpers) {
                if matches!(decision, Decision::Resting { .. }) {
                    self.repairs.resting.insert(*number);
                } else {
                    self.repairs.resting.remove(number);
                }
                if matches!(decision, Decision::OutOfReach { .. }) {
                    self.prove_now(*number);
                }
                // Claims cost nothing to make up: for a record on trial no other steward is asked anything.
                if self.trials.contains_key(number) {
                    continue;
                }
                self.order(*number, order::Event::Assessed { decision, rank });
            }
        }
    }

    /// Lost claims give way in the record, or the claims that repairs bring, ours or others', would find no room.
    fn make_room(&self, number: WardNumber, health: &SegmentHealth<NodeNumber>) {
        let crowded: Vec<ShardIndex> = health.crowded().collect();
        if crowded.is_empty() {
            return;
        }
        let (Some(segment), Some(named)) = (self.wards.segment(number), self.named_health(number)) else { return };
        let (steward, sender) = (self.parts.steward.clone(), self.parts.neighbours.sender(self.own));
        let neighbours = self.parts.neighbours.clone();
        self.parts.tasks.spawn_blocking(move || {
            let is_known = |node: &NodeId| neighbours.is_known(node);
            let kept = claims_that(&named, |state| !state.is_lost());
            steward.make_room(&sender, &segment, &crowded, &kept, is_known);
        });
    }

    /// A node gave shards up: for a while it takes nothing, whatever it says.
    pub(super) fn rest_from(&mut self, number: NodeNumber) {
        let now = self.now();
        let Some(node) = self.holders.key(number) else { return };
        if let Some(holder) = self.holders.get_mut(number) {
            holder.free_bytes = 0;
        }
        self.repairs.refusals.gave_up(node, now);
    }

    /// A node says what it would take. If that is news for segments that rest, they are assessed anew; one that has room
    /// for any shard had it before.
    pub(super) fn offered(&mut self, number: NodeNumber, free_bytes: u64) {
        let now = self.now();
        let Some(node) = self.holders.key(number) else { return };
        let Some(holder) = self.holders.get_mut(number) else { return };
        let free_bytes = if self.repairs.refusals.is_refusing(&node, now) { 0 } else { free_bytes };
        let before = std::mem::replace(&mut holder.free_bytes, free_bytes);
        if before < SEGMENT_BYTES_MAX && before < free_bytes {
            let resting: Vec<WardNumber> = self.repairs.resting.iter().copied().collect();
            self.assess(&resting);
        }
    }

    /// Feeds a segment's order of repair, and does what it says.
    pub(super) fn order(&mut self, number: WardNumber, event: order::Event) {
        let now = self.now();
        let times = self.times;
        let Some(segment) = self.wards.segment(number) else { return };
        let lacks_some = matches!(event, order::Event::Assessed { decision: Decision::TopUp | Decision::Now, .. });
        let is_at_work = self.orders.get(&number).is_some_and(|order| order.machine.due().is_none());
        // Before it is known who is there, nobody has room or too few are healthy: that ends no wait.
        if lacks_some
            && !is_at_work
            && let Some(since) = self.waits_since.remove(&segment)
        {
            self.orders.insert(number, Ordered::new(times, Some(since.min(now))));
        }
        let order = self.orders.entry(number).or_insert_with(|| Ordered::new(times, None));
        let actions = order.machine.handle(now, event);
        if order.machine.is_idle() {
            self.orders.remove(&number);
        }
        for action in actions {
            match action {
                Action::Timer { at } => {
                    if let Some(order) = self.orders.get_mut(&number) {
                        order.due = Some(at);
                    }
                    self.wake(at, TimerOf::Repair(number));
                }
                Action::Look { urgent } if self.knows_the_others() => self.wait_for_turn(number, segment, urgent),
                Action::Look { urgent } => self.repairs.early.push((segment, urgent)),
                Action::Hurry => self.repairs.hurry(&segment),
                Action::Repair => self.rebuild(segment, number),
                Action::Stop => self.repairs.stop(&segment),
            }
        }
    }

    fn wait_for_turn(&mut self, number: WardNumber, segment: SegmentId, urgent: bool) {
        if self.repairs.turns.wait(segment, urgent) {
            self.next_turn();
        } else {
            self.order(number, order::Event::Failed);
        }
    }

    /// Begins those that came up before it was known whom to ask, if it is by now.
    pub(super) fn begin_early(&mut self) {
        if self.knows_the_others() {
            for (segment, urgent) in std::mem::take(&mut self.repairs.early) {
                if let Some(number) = self.wards.number(&segment) {
                    self.wait_for_turn(number, segment, urgent);
                }
            }
        }
    }

    /// Begins those whose turn has come.
    fn next_turn(&mut self) {
        while let Some(segment) = self.repairs.turns.take_next() {
            self.look(segment);
        }
    }

    /// Fetches the record from the other stewards, and asks whether one of them is at work.
    fn look(&mut self, segment: SegmentId) {
        // One that is silent would be waited for, each time.
        let is_silent = |node: &NodeId| {
            let holder = self.holders.number(node).and_then(|holder| self.holders.get(holder));
            holder.is_some_and(|holder| holder.life.life() != Life::Up)
        };
        let others: Vec<NodeId> = self.other_stewards(&segment).into_iter().filter(|node| !is_silent(node)).collect();
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
            let busy = futures::future::join_all(looks).await.into_iter().flatten().next();
            let _ = done.send(Done::Looked { segment, busy }).await;
        });
    }

    fn other_stewards(&self, segment: &SegmentId) -> Vec<NodeId> {
        let stewards = stewards::choose(segment.as_bytes(), &self.stewards);
        stewards.into_iter().filter(|node| *node != self.own).collect()
    }

    /// The others were looked at: is it still to be repaired?
    pub(super) async fn looked(&mut self, segment: SegmentId, busy: Option<NodeId>) {
        self.load(vec![(segment, true)], Some(self.own)).await;
        if let Some(number) = self.wards.number(&segment)
            && let Some(decision) = self.decide(number, &self.helpers())
        {
            let offers = self.offers(number);
            if offers.is_some() {
                self.prove_now(number);
            }
            let busy = busy.or(offers);
            self.order(number, order::Event::Looked { decision, busy });
        }
        if !self.repairs.rebuilding.contains_key(&segment) {
            self.repairs.turns.end(&segment);
        }
        self.next_turn();
    }

    /// A node that claims a missing shard and has yet to be audited.
    fn offers(&self, number: WardNumber) -> Option<NodeId> {
        let health = self.health(number)?;
        let offered =
            |claim: &&Claimed<_>| claim.state == ClaimState::Offered && health.state(claim.index) == ShardState::Lost;
        health.claims().iter().find(offered).and_then(|claim| self.holders.key(claim.node))
    }

    fn rebuild(&mut self, segment: SegmentId, number: WardNumber) {
        let Some(plan) = self.plan(number) else {
            self.order(number, order::Event::Failed);
            return;
        };
        tracing::info!(%segment, %number, shards = plan.targets.len(), "repairing");
        let stop = CancellationToken::new();
        self.repairs.rebuilding.insert(segment, stop.clone());
        let (steward, done) = (self.parts.steward.clone(), self.done.clone());
        let (peer, network) = (self.parts.peer.clone(), self.parts.network.clone());
        let (own, pace) = ((self.own, self.parts.holder.clone()), self.repairs.pace.clone());
        let figures = self.parts.figures.clone();
        self.parts.tasks.spawn(async move {
            let read = move || steward.manifest(&segment).map(|known| (steward.running_lease(&known.vault), known));
            let rebuilt = match tokio::task::spawn_blocking(read).await {
                Ok(Some((lease, manifest))) => {
                    let manifest = Arc::new(manifest);
                    let targets = plan.targets.into_iter().map(|(index, place)| (index, place.node)).collect();
                    let sources = plan.sources;
                    let rebuild = Rebuild { peer, network, manifest, lease, sources, targets, own, pace, figures };
                    // What was sent when it is stopped is given up by its holders.
                    rebuild.run(&stop).await
                }
                // Dropped meanwhile.
                Ok(None) | Err(_) => Some(Rebuilt::default()),
            };
            let _ = done.send(Done::Rebuilt(segment, rebuilt)).await;
        });
    }

    fn plan(&self, number: WardNumber) -> Option<RepairPlan> {
        let (ward, health, helpers) = (self.wards.get(number)?, self.named_health(number)?, self.helpers());
        plan::plan(&mut rand::rng(), ward.coding, &health, ward.shard_length.into(), &helpers, |node| {
            self.domain_of(node)
        })
    }

    /// A repair has ended: its claims go into the record, here and at the other stewards. None: it was stopped.
    pub(super) async fn rebuilt(&mut self, segment: SegmentId, rebuilt: Option<Rebuilt>) {
        self.repairs.rebuilding.remove(&segment);
        self.repairs.turns.end(&segment);
        if let Some(rebuilt) = rebuilt {
            self.take_rebuilt(segment, rebuilt).await;
        } else {
            tracing::info!(%segment, "a repair was stopped: it is not needed any more, or cannot be done now");
        }
        self.next_turn();
    }

    async fn take_rebuilt(&mut self, segment: SegmentId, rebuilt: Rebuilt) {
        let Rebuilt { claims, refused, faults, bytes_read, bytes_sent } = rebuilt;
        let (now, told_at) = (self.now(), self.parts.clock.now());
        self.parts.figures.repaired(told_at, claims.len() as u64);
        let (placed, refusing, faulty) = (claims.len(), refused.len(), faults.len());
        if placed > 0 {
            tracing::info!(%segment, placed, refusing, faulty, bytes_read, bytes_sent, "repaired");
        } else {
            tracing::warn!(%segment, refusing, faulty, bytes_read, bytes_sent, "a repair placed nothing");
        }
        for (_, node) in refused {
            if let Some(holder) = self.holders.number(&node).and_then(|holder| self.holders.get_mut(holder)) {
                holder.free_bytes = 0;
            }
            if faulty == 0 {
                self.repairs.refusals.refused(node, now);
            }
        }
        for (index, node, fault) in faults {
            let Some(holder) = self.holders.number(&node) else { continue };
            match fault {
                SourceFault::Absent => self.probe(holder),
                SourceFault::Wrong(range) => {
                    let groups: Vec<u32> = (range.first..range.first + range.count).collect();
                    let sample = |groups: &[u32]| Sample { segment, index, groups: groups.to_vec() };
                    let samples = groups.chunks(CHALLENGE_MAX).map(sample).collect();
                    self.contain(holder, containment::Event::Failed(samples));
                    self.verdict(holder, segment, index, Outcome::Wrong);
                }
            }
        }
        if let Some(number) = self.wards.number(&segment) {
            let event = if claims.is_empty() { order::Event::Failed } else { order::Event::Repaired };
            if !claims.is_empty() {
                self.repaired_at.insert(segment, told_at);
            }
            let claimed = claims.iter().map(|claim| (claim.claim.leaf.index, claim.holder)).collect();
            self.take_claims(number, claimed, Source::Own);
            self.keep_claims(segment, claims).await;
            self.order(number, event);
            self.assess(&[number]);
        }
    }

    /// Writes new claims into the record: ours at once, the other stewards' as they answer.
    async fn keep_claims(&mut self, segment: SegmentId, claims: Vec<VerifiedClaim>) {
        let steward = self.parts.steward.clone();
        let manifest = tokio::task::spawn_blocking(move || steward.manifest(&segment)).await;
        let Ok(Some(manifest)) = manifest else { return };
        if claims.is_empty() {
            return;
        }
        let rebuilt: Vec<ShardIndex> = claims.iter().map(|claim| claim.claim.leaf.index).collect();
        let claims = claims.into_iter().map(|claim| claim.claim).collect();
        let record = Record { manifest: manifest.to_unverified(), claims, drop: None };
        let request = Request::KeepRecords { records: vec![record], lease: None };
        let standing = self.wards.number(&segment).and_then(|number| self.named_health(number));
        let standing = standing.map(|health| claims_that(&health, ClaimState::stands)).unwrap_or_default();
        let (steward, sender) = (self.parts.steward.clone(), self.parts.neighbours.sender(self.own));
        let (own, neighbours) = (request.clone(), self.parts.neighbours.clone());
        let keep = move || {
            // Whoever claims what nobody believes (a stranger can) has no place beside a claim that we know is true.
            steward.make_room(&sender, &segment, &rebuilt, &standing, |node| neighbours.is_known(node));
            steward.answer(&sender, own)
        };
        let _ = tokio::task::spawn_blocking(keep).await;
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

fn claims_that(health: &SegmentHealth, are: impl Fn(ClaimState) -> bool) -> Vec<(ShardIndex, NodeId)> {
    let claims = health.claims().iter().filter(|claim| are(claim.state));
    claims.map(|claim| (claim.index, claim.node)).collect()
}
