//! Who is there, who is silent, who is gone for good; and what follows for the segments.

use std::time::Duration;

use commonhold_policy::life::{self, Life};
use commonhold_policy::{audit::containment, segment_health::SegmentHealth};
use commonhold_protocol::{
    NodeId, Timestamp,
    ask::{Request, Response},
};

use super::{Auditor, Done, HolderState, NodeNumber, TimerOf, WardNumber};

/// A node of which nothing was heard is asked whether it is there, at least this often.
const PROBE_MS_MAX: u64 = 15 * 60 * 1000;
const PROBE_MS_MIN: u64 = 500;
/// How long a node may take to say that it is there.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

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
        if node != self.own {
            self.probe_at(number, now);
        }
        number
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
        let Some(holder) = self.holders.get_mut(number).filter(|holder| !holder.probing) else { return };
        holder.probing = true;
        let (peer, done, neighbours) = (self.parts.peer.clone(), self.done.clone(), self.parts.neighbours.clone());
        let ours = self.parts.clock.clone();
        self.parts.tasks.spawn(async move {
            let free_bytes = match peer.ask(node, Request::About, PROBE_PATIENCE).await {
                Ok(Response::About { free_bytes, clock, steward, domain }) => {
                    neighbours.heard_about(node, steward, domain);
                    ours.witness(neighbours.domain(node), clock);
                    Some(free_bytes)
                }
                _ => None,
            };
            let _ = done.send(Done::Probed { node: number, free_bytes }).await;
        });
    }

    pub(super) fn probed(&mut self, node: NodeNumber, free_bytes: Option<u64>) {
        let Some(holder) = self.holders.get_mut(node) else { return };
        holder.probing = false;
        holder.free_bytes = free_bytes.unwrap_or(0);
        self.probe_at(node, self.now().after_ms(self.probe_ms()));
        match free_bytes {
            Some(_) => self.seen(node),
            None => self.live(node, life::Event::Silent),
        }
    }

    /// A sign of life.
    pub(super) fn seen(&mut self, node: NodeNumber) {
        self.live(node, life::Event::Seen);
        self.contain(node, containment::Event::Alive);
    }

    /// The moment at which a silent node was to be given up.
    pub(super) fn life_timer(&mut self, node: NodeNumber) {
        let others = self.holders.iter().filter(|(_, node, _)| **node != self.own);
        let (mut known, mut silent) = (0, 0);
        for (_, _, holder) in others {
            known += 1;
            silent += usize::from(holder.life.life() != Life::Up);
        }
        let away = life::we_are_cut_off(silent, known);
        self.live(node, if away { life::Event::WeWereAway } else { life::Event::Timer });
    }

    pub(super) fn live(&mut self, number: NodeNumber, event: life::Event) {
        let now = self.now();
        let Some(node) = self.holders.key(number) else { return };
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
                    self.each_ward_of(number, |health| health.silent(number));
                }
                life::Action::Lost => {
                    tracing::info!(%node, "a node counts as lost");
                    self.parts.figures.lost_holder();
                    self.each_ward_of(number, |health| health.lost(number));
                }
                life::Action::Returned { was_lost } => {
                    tracing::info!(%node, was_lost, "a node is back");
                    let disqualified = self.holders.get(number).is_some_and(|holder| holder.reputation.disqualified);
                    if !disqualified {
                        self.each_ward_of(number, |health| health.returned(number));
                        if was_lost {
                            self.review(number);
                        }
                    }
                }
            }
        }
    }

    /// Changes all segments that a node claims shards of, and sees what follows.
    pub(super) fn each_ward_of(&mut self, node: NodeNumber, change: impl Fn(&mut SegmentHealth<NodeNumber>) -> bool) {
        let Some(holder) = self.holders.get(node) else { return };
        let wards = holder.wards.iter().copied();
        let changed: Vec<WardNumber> =
            wards.filter(|ward| self.wards.get_mut(*ward).is_some_and(|ward| change(&mut ward.health))).collect();
        self.assess(&changed);
    }

    /// Forgets nodes that are lost and claim nothing that is looked after here.
    pub(super) fn forget_the_lost(&mut self) {
        let lost = self.holders.iter().filter(|(_, node, holder)| {
            **node != self.own && holder.wards.is_empty() && matches!(holder.life.life(), Life::Lost { .. })
        });
        let lost: Vec<NodeNumber> = lost.map(|(number, _, _)| number).collect();
        for number in lost {
            self.holders.remove(number);
        }
    }
}
