//! Who is there, who is silent, who is gone for good; and what follows for the segments.

use std::time::Duration;

use commonhold_network::CONNECTION_IDLE;
use commonhold_policy::life::{self, Life};
use commonhold_policy::{
    audit::containment,
    segment_health::{ClaimState, Claimed, SegmentHealth},
};
use commonhold_protocol::{
    NodeId, Timestamp,
    ask::{HealthReport, Request, Response},
};

use super::{
    Auditor, Done, HolderState, NodeNumber, Pending, TimerOf, WardNumber, audits::LOOKED_AT_ONCE, holders::Wanted,
};

/// A node of which nothing was heard is asked whether it is there, at least this often.
const PROBE_MS_MAX: u64 = 15 * 60 * 1000;
const PROBE_MS_MIN: u64 = 500;
/// Who was looked for in vain is looked for again after so many times as long as others are asked.
const SEARCH_PROBES: u64 = 8;
/// Nodes that are asked at once: to look for one that does not exist is a walk through the network.
pub(super) const PROBES_AT_ONCE: usize = 32;
/// Nodes that claim something and were never heard of by themselves.
pub(super) const UNSEEN_MAX: usize = 2048;
/// How long a node may take to say that it is there.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);
/// A connection of which something was heard within this has not ended for having carried nothing.
const IN_USE: Duration = CONNECTION_IDLE.saturating_sub(Duration::from_secs(5));
/// Segments that are assessed before others have their turn: each is held against all that might take its shards.
const ASSESSED_AT_ONCE: usize = 32;

/// What a node says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    free_bytes: u64,
    shards: u64,
}

impl Auditor {
    pub(super) fn probe_ms(&self) -> u64 {
        (self.grace_ms / 8).clamp(PROBE_MS_MIN, PROBE_MS_MAX)
    }

    /// The number of a node, which may not have been known yet.
    pub(super) fn meet(&mut self, node: NodeId) -> NodeNumber {
        if let Some(number) = self.holders.number(&node) {
            return number;
        }
        let now = self.now();
        let number = self.holders.insert(node, HolderState::new(now, self.grace_ms, self.schedule.rate()));
        self.unseen += 1;
        if node != self.own {
            self.probe_at(number, now);
        }
        number
    }

    /// The number of a node that claims a shard. None: so many that claim something were never heard of that this one has
    /// to wait until some of them are forgotten.
    pub(super) fn meet_claimant(&mut self, node: NodeId) -> Option<NodeNumber> {
        let is_known = self.holders.number(&node).is_some() || self.parts.neighbours.is_known(&node);
        (is_known || self.unseen < UNSEEN_MAX).then(|| self.meet(node))
    }

    fn probe_at(&mut self, node: NodeNumber, at: Timestamp) {
        if let Some(holder) = self.holders.get_mut(node) {
            holder.probe_due = Some(at);
            self.wake(at, TimerOf::Probe(node));
        }
    }

    /// Asks a node whether it is there, and what it would take.
    pub(super) fn probe(&mut self, number: NodeNumber) {
        let Some(node) = self.holders.key(number).filter(|node| *node != self.own) else { return };
        let (now, every_ms) = (self.now(), self.probe_ms());
        let Some(holder) = self.holders.get_mut(number).filter(|holder| !holder.probing) else { return };
        if let Some(at) = holder.probe_pace.not_before(now, every_ms) {
            if holder.probe_due.is_none_or(|due| at < due) {
                self.probe_at(number, at);
            }
            return;
        }
        if !holder.exists() && !self.parts.neighbours.is_known(&node) {
            let at = *holder.search_at.get_or_insert_with(|| self.searches.next(now));
            if now < at {
                self.probe_at(number, at);
                return;
            }
        }
        holder.probing = true;
        holder.probe_pace.asked(now);
        let (peer, done, neighbours) = (self.parts.peer.clone(), self.done.clone(), self.parts.neighbours.clone());
        let (ours, turns) = (self.parts.clock.clone(), self.probes.clone());
        self.parts.tasks.spawn(async move {
            let _turn = turns.acquire_owned().await;
            let said = match peer.ask(node, Request::About, PROBE_PATIENCE).await {
                Ok(Response::About { free_bytes, shards, clock, steward, domain }) => {
                    neighbours.heard_about(node, steward, domain);
                    ours.witness(neighbours.domain(node), clock);
                    Some(Said { free_bytes, shards })
                }
                _ => None,
            };
            let _ = done.send(Done::Probed { node: number, said }).await;
        });
    }

    pub(super) fn probed(&mut self, node: NodeNumber, said: Option<Said>) {
        let Some(holder) = self.holders.get_mut(node) else { return };
        holder.probing = false;
        if let Some(said) = &said {
            holder.shards = said.shards;
        }
        let searched = holder.search_at.take().is_some();
        let again_ms = match said {
            // The dead of long ago shall not keep us from looking for others: whoever comes back connects by itself.
            None if searched && holder.is_given_up() => PROBE_MS_MAX,
            None if searched => self.probe_ms() * SEARCH_PROBES,
            _ => self.probe_ms(),
        };
        if searched && said.is_some() {
            self.searches.found();
        }
        self.probe_at(node, self.now().after_ms(again_ms));
        match said {
            Some(_) => self.seen(node),
            None => self.silent(node),
        }
        self.offered(node, said.map_or(0, |said| said.free_bytes));
    }

    /// A connection has ended. If it carried nothing that was its time, and says nothing of the node: to ask whether it is
    /// there would open the next one, which would carry nothing either.
    pub(super) fn disconnected(&mut self, node: NodeNumber) {
        let Some(heard_at) = self.holders.get(node).map(|holder| holder.heard_at) else { return };
        if u128::from(self.now().ms_since(heard_at)) < IN_USE.as_millis() {
            self.probe(node);
        }
    }

    /// No sign of life where one was asked for.
    pub(super) fn silent(&mut self, node: NodeNumber) {
        let noticed_ms = (self.probe_ms() + PROBE_PATIENCE.as_millis() as u64) * 2;
        let Some(holder) = self.holders.get(node) else { return };
        let heard_at = life::silent_since(self.now(), holder.heard_at, noticed_ms);
        self.live(node, life::Event::Silent { heard_at });
    }

    /// A sign of life.
    pub(super) fn seen(&mut self, node: NodeNumber) {
        self.live(node, life::Event::Seen);
        self.contain(node, containment::Event::Alive);
    }

    /// The moment at which a silent node was to be given up.
    pub(super) fn life_timer(&mut self, node: NodeNumber) {
        let away = self.is_cut_off();
        self.live(node, if away { life::Event::WeWereAway } else { life::Event::Timer });
    }

    /// Nearly all nodes are silent: it is we who are away. Those that were never there say nothing of that: a stranger can
    /// sign claims in as many names as it likes, and were these counted, nobody would ever be given up.
    pub(super) fn is_cut_off(&self) -> bool {
        let others = self.holders.iter().filter(|(_, node, holder)| **node != self.own && holder.exists());
        life::we_are_cut_off(others.map(|(_, _, holder)| holder.life.life()))
    }

    pub(super) fn live(&mut self, number: NodeNumber, event: life::Event) {
        let now = self.now();
        let Some(node) = self.holders.key(number) else { return };
        let Some(holder) = self.holders.get_mut(number) else { return };
        if event == life::Event::Seen {
            holder.heard_at = now;
            if !std::mem::replace(&mut holder.seen, true) {
                self.audit_soon(number);
            }
        }
        let Some(holder) = self.holders.get_mut(number) else { return };
        for action in holder.life.handle(now, event) {
            match action {
                life::Action::Timer { at } => {
                    if let Some(holder) = self.holders.get_mut(number) {
                        holder.life_due = Some(at);
                    }
                    self.wake(at, TimerOf::Life(number));
                }
                life::Action::Suspect => {
                    tracing::info!(%node, "a node is silent");
                    self.pending.push_back(Pending::Changed(number));
                }
                life::Action::Lost => {
                    tracing::info!(%node, "a node counts as lost");
                    self.parts.figures.lost_holder();
                    self.pending.push_back(Pending::GivenUp(number));
                }
                life::Action::Returned { was_lost } => {
                    tracing::info!(%node, was_lost, "a node is back");
                    self.pending.push_back(Pending::Changed(number));
                    if was_lost {
                        self.moment(number, Wanted::All);
                    }
                }
            }
        }
    }

    /// Does what the last event left to be done.
    pub(super) async fn settle(&mut self) {
        while let Some(pending) = self.pending.pop_front() {
            match pending {
                Pending::GivenUp(node) => self.give_up(node).await,
                Pending::Changed(node) => {
                    // After a restart some may be whole that waited for a top-up before.
                    let waited = self.waits_since.keys().filter_map(|segment| self.wards.number(segment));
                    let ailing: Vec<WardNumber> = self.ailing.iter().copied().chain(waited).collect();
                    for some in ailing.chunks(LOOKED_AT_ONCE as usize) {
                        let its = some.iter().copied().filter(|ward| self.wards.is_claimed_by(*ward, node));
                        self.assess_all(its.collect()).await;
                    }
                }
                Pending::Draw(node) => self.draw(node).await,
            }
        }
    }

    /// All that a node claims is lost.
    async fn give_up(&mut self, node: NodeNumber) {
        self.proven_is_stale = true;
        for first in (0..self.wards.end()).step_by(LOOKED_AT_ONCE as usize) {
            let some = first..self.wards.end().min(first.saturating_add(LOOKED_AT_ONCE));
            let its: Vec<WardNumber> = some.filter(|ward| self.wards.is_claimed_by(*ward, node)).collect();
            for ward in &its {
                // Put down as offered: if the node comes back, all of it has to be audited anew.
                self.change(*ward, |_| ());
            }
            self.assess_all(its).await;
        }
    }

    /// As [`Self::assess`], with pauses.
    async fn assess_all(&mut self, wards: Vec<WardNumber>) {
        for some in wards.chunks(ASSESSED_AT_ONCE) {
            self.assess(some);
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
    }

    /// How the shards of a segment are by now.
    pub(super) fn health(&self, number: WardNumber) -> Option<SegmentHealth<NodeNumber>> {
        let ward = self.wards.get(number)?;
        let claims = self.wards.claims(number).map(|claim| {
            // A number that is claimed with is never given up, see `forget_the_lost`.
            let holder = self.holders.get(claim.node);
            Claimed { state: holder.map_or(ClaimState::Away, |holder| holder.counts_as(claim.state)), ..claim }
        });
        let health = SegmentHealth::restore(ward.coding, claims.collect());
        Some(if self.awaited.contains_key(&number) { health.awaiting_claims(ward.coding) } else { health })
    }

    /// Changes what is known of a segment's shards.
    pub(super) fn change<T>(
        &mut self,
        number: WardNumber,
        change: impl FnOnce(&mut SegmentHealth<NodeNumber>) -> T,
    ) -> Option<T> {
        let mut health = self.health(number)?;
        let done = change(&mut health);
        self.wards.set_claims(number, health.claims());
        Some(done)
    }

    /// How a segment is, for whoever asks.
    pub(super) fn report(&self, number: WardNumber) -> Option<HealthReport> {
        let counters = self.health(number)?.counters();
        let segment = self.wards.segment(number)?;
        Some(HealthReport {
            healthy: counters.healthy,
            suspect: counters.suspect,
            lost: counters.lost.saturating_add(counters.unclaimed),
            repaired_at: self.repaired_at.get(&segment).copied(),
            repairing: self.is_at_work(number),
            resting: self.repairs.rests(number),
        })
    }

    /// True if the segment is being repaired, or is just looked at for that: else two that look at one moment would both
    /// find nobody.
    fn is_at_work(&self, number: WardNumber) -> bool {
        let machine = self.orders.get(&number).map(|order| &order.machine);
        let has_turn = || self.wards.segment(number).is_some_and(|segment| self.repairs.has_turn(&segment));
        machine.is_some_and(|machine| machine.is_repairing() || (machine.is_about_to_repair() && has_turn()))
    }

    /// Forgets nodes that claim nothing that is looked after here and never were there, or were away for so long that their
    /// return would say nothing of how they sleep: who is back sooner has taught us its nights, and is given shards again
    /// by day.
    pub(super) fn forget_the_lost(&mut self) {
        let (now, told_ms) = (self.now(), self.grace_ms.saturating_mul(life::STRETCH_MAX));
        let lost = self.holders.iter().filter(|(_, node, holder)| {
            let is_gone = match holder.life.life() {
                Life::Up => false,
                // Nothing that is under way may come back to another node of the same number.
                Life::Suspect { .. } => !holder.exists() && !holder.probing && holder.containment.is_idle(),
                Life::Lost { since } => now.ms_since(since) > told_ms,
            };
            **node != self.own && holder.claims == 0 && is_gone
        });
        let lost: Vec<NodeNumber> = lost.map(|(number, _, _)| number).collect();
        for number in lost {
            self.holders.remove(number);
        }
        self.unseen = self.holders.iter().filter(|(_, _, holder)| !holder.exists()).count();
    }
}
