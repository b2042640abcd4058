//! Which shards are due, the challenges to their holders, and what follows from the answers.

use commonhold_policy::{
    audit::{self, Outcome, Sample, containment},
    life,
};
use commonhold_protocol::{ClaimLeaf, SegmentId, ShardIndex, Timestamp};

use super::{
    Auditor, Done, Evidence, NodeNumber, Pending, TimerOf, WardNumber,
    challenges::{self, Asked},
    evidence,
    holders::{Round, Wanted},
};

/// Shards that are drawn for one holder at a time: a few challenges.
const DRAWN_AT_ONCE: usize = 4 * audit::CHALLENGE_MAX;
/// Segments that are looked through before others have their turn: about a millisecond.
pub(super) const LOOKED_AT_ONCE: WardNumber = 4096;

impl Auditor {
    /// An epoch begins: what is due in it?
    pub(super) async fn epoch(&mut self) {
        self.forget_the_lost();
        let now = self.now();
        let epoch = self.schedule.epoch(now);
        self.epoch = epoch;
        for number in 0..self.wards.end() {
            if let Some(segment) = self.wards.segment(number)
                && let Some(ward) = self.wards.get_mut(number)
            {
                ward.due = self.schedule.is_due(&segment, ward.stewards.into(), epoch);
            }
            if number % LOOKED_AT_ONCE == LOOKED_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
        }
        let claimants = self.holders.iter().filter(|(_, _, holder)| holder.claims > 0);
        // After a start, what this epoch has missed so far is made up for once it is known who else is a steward.
        let moments = claimants.map(|(number, node, _)| (self.schedule.moment(node, epoch), number));
        let moments: Vec<(Timestamp, NodeNumber)> = moments.filter(|(at, _)| *at > self.audited_until).collect();
        let settled_at = now.after_ms(self.unsettled_ms());
        for (at, node) in moments {
            self.wake(at.max(settled_at), TimerOf::Moment(node, Wanted::Due));
        }
        let epoch_ms = self.schedule.rate().epoch_ms();
        self.wake(Timestamp((epoch + 1).saturating_mul(epoch_ms)), TimerOf::Epoch);
    }

    /// A holder has claims that this steward has not audited yet.
    pub(super) fn audit_soon(&mut self, node: NodeNumber) {
        let now = self.now();
        let within = self.schedule.rate().first_audit_ms(&mut rand::rng(), self.prove_ms);
        let Some(holder) = self.holders.get_mut(node).filter(|holder| !holder.moment_set) else { return };
        holder.moment_set = true;
        self.wake(now.after_ms(within), TimerOf::Moment(node, Wanted::Unproven));
    }

    /// The moment has come to challenge a holder for these.
    pub(super) fn moment(&mut self, node: NodeNumber, wanted: Wanted) {
        let Some(holder) = self.holders.get_mut(node) else { return };
        if wanted == Wanted::Unproven {
            holder.moment_set = false;
        }
        holder.wanted = holder.wanted.max(Some(wanted));
        self.draw_if_idle(node);
    }

    fn draw_if_idle(&mut self, node: NodeNumber) {
        let draw = Pending::Draw(node);
        let own = self.own;
        // Whoever was never heard of is looked for first ([`Self::probe`]): it need not exist.
        if let Some(is_own) = self.holders.key(node).map(|id| id == own)
            && let Some(holder) = self.holders.get_mut(node)
            && (is_own || holder.exists())
            && holder.containment.is_idle()
            && holder.round().is_some()
            && !self.pending.contains(&draw)
        {
            self.pending.push_back(draw);
        }
    }

    /// Draws from what a holder is to be asked for, if it has answered for all that it was asked before.
    pub(super) async fn draw(&mut self, node: NodeNumber) {
        let mut drawn = Vec::new();
        while drawn.is_empty() {
            let Some(holder) = self.holders.get_mut(node).filter(|holder| holder.containment.is_idle()) else { return };
            let Some(round) = holder.round() else { return };
            let next = self.draw_some(node, round, &mut drawn);
            if let Some(holder) = self.holders.get_mut(node) {
                holder.round = next.map(|next| Round { next, ..round });
            }
            tokio::task::yield_now().await;
        }
        self.contain(node, containment::Event::Due(drawn));
    }

    /// Goes on with a round, for a while or until enough is drawn; says where it is then, none at its end.
    fn draw_some(&self, node: NodeNumber, round: Round, drawn: &mut Vec<Sample>) -> Option<WardNumber> {
        let holder = self.holders.get(node).filter(|holder| !holder.is_given_up())?;
        let groups = self.schedule.rate().groups(holder.shards.max(holder.claims.into()));
        let end = self.wards.end();
        let mut shards = 0;
        for number in round.next..end.min(round.next.saturating_add(LOOKED_AT_ONCE)) {
            let (Some(segment), Some(ward)) = (self.wards.segment(number), self.wards.get(number)) else { continue };
            // By now more stewards may be known than when the epoch began, as after a start.
            let is_due = ward.due && self.schedule.is_due(&segment, ward.stewards.into(), self.epoch);
            let wanted = |state| round.wanted.includes(state, is_due);
            for claim in self.wards.claims(number).filter(|claim| claim.node == node && wanted(claim.state)) {
                let length = ward.shard_length.into();
                // One challenge proves what is new: its record, or a repair, waits for that.
                let groups = if claim.state.is_new() { groups.min(audit::CHALLENGE_MAX as u32) } else { groups };
                drawn.extend(audit::schedule::samples(&mut rand::rng(), segment, claim.index, length, groups));
                shards += 1;
            }
            if shards >= DRAWN_AT_ONCE {
                return Some(number + 1);
            }
        }
        let next = round.next.saturating_add(LOOKED_AT_ONCE);
        (next < end).then_some(next)
    }

    /// Feeds a holder's containment, and does what it says.
    pub(super) fn contain(&mut self, node: NodeNumber, event: containment::Event) {
        let now = self.now();
        let Some(holder) = self.holders.get_mut(node) else { return };
        for action in holder.containment.handle(now, event) {
            match action {
                containment::Action::Ask { samples, asked_before } => self.ask(node, samples, asked_before),
                containment::Action::Verdict { segment, index, outcome } => self.verdict(node, segment, index, outcome),
                containment::Action::Released { segment, index } => {
                    self.hear_release(node, ClaimLeaf { segment, index });
                }
                containment::Action::Unreachable => {
                    self.parts.figures.outcome(Outcome::Unreachable);
                    self.silent(node);
                }
                containment::Action::Review => self.moment(node, Wanted::Review),
                containment::Action::Timer { at } => {
                    if let Some(holder) = self.holders.get_mut(node) {
                        holder.challenge_due = Some(at);
                    }
                    self.wake(at, TimerOf::Challenge(node));
                }
            }
        }
        self.draw_if_idle(node);
    }

    /// An audit of a shard has ended.
    pub(super) fn verdict(&mut self, number: NodeNumber, segment: SegmentId, index: ShardIndex, outcome: Outcome) {
        self.parts.figures.outcome(outcome);
        let Some(node) = self.holders.key(number) else { return };
        if outcome != Outcome::Held {
            self.proven_is_stale = true;
            tracing::warn!(%node, %segment, %index, ?outcome, "a holder failed an audit");
        }
        let disqualified = self.holders.get_mut(number).is_some_and(|holder| holder.reputation.count(outcome));
        if let Some(ward) = self.wards.number(&segment)
            && self.change(ward, |health| health.audited(index, number, outcome)) == Some(true)
        {
            self.assess(&[ward]);
            self.try_record(ward);
        }
        if disqualified {
            tracing::warn!(%node, "a holder is trusted with nothing more");
            self.pending.push_back(Pending::GivenUp(number));
        }
    }

    /// Sends a challenge.
    fn ask(&mut self, number: NodeNumber, samples: Vec<Sample>, asked_before: u32) {
        let Some(node) = self.holders.key(number) else { return };
        let round_trip = self.holders.get(number).map_or(challenges::ROUND_TRIP_FIRST, |holder| holder.round_trip);
        let (parts, done) = (&self.parts, self.done.clone());
        let asking = challenges::Asking {
            peer: parts.peer.clone(),
            network: parts.network.clone(),
            steward: parts.steward.clone(),
            holder: node,
            own: (node == self.own).then(|| parts.holder.clone()),
            asked_before,
            round_trip,
        };
        parts.figures.challenge();
        let turns = self.challenges.clone();
        parts.tasks.spawn(async move {
            let asked = asking.ask(samples, turns).await;
            let _ = done.send(Done::Challenged(number, asked)).await;
        });
    }

    pub(super) fn challenged(&mut self, node: NodeNumber, asked: Asked) {
        match asked {
            Asked::Answered { answers, evidence, round_trip } => {
                if let Some(holder) = self.holders.get_mut(node) {
                    holder.round_trip = (holder.round_trip * 3 + round_trip.min(challenges::ROUND_TRIP_MAX)) / 4;
                }
                if let Some(evidence) = evidence {
                    self.keep_evidence(node, *evidence);
                }
                self.live(node, life::Event::Seen);
                self.contain(node, containment::Event::Answered(answers));
            }
            Asked::Unanswered => {
                let id = self.holders.key(node);
                let connected = self.parts.peer.connected().iter().any(|(peer, _)| Some(*peer) == id);
                self.contain(node, containment::Event::Unanswered { connected });
            }
            Asked::Gone(segments) => {
                for segment in &segments {
                    self.forget(segment);
                }
                self.contain(node, containment::Event::Gone(segments));
            }
        }
    }

    fn keep_evidence(&self, node: NodeNumber, found: Evidence) {
        let Some(node) = self.holders.key(node) else { return };
        let folder = self.parts.folder.clone();
        self.parts.tasks.spawn_blocking(move || {
            if let Err(error) = evidence::keep(&folder, node, &found) {
                tracing::warn!(%error, folder = %folder.display(), "evidence cannot be kept");
            }
        });
    }
}
