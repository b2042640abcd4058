//! What the auditor knows of one node that holds shards, or might.

use std::time::Duration;

use commonhold_policy::{
    audit::{containment::Containment, schedule::Rate},
    life::{Life, NodeLife, ProbePace},
    reputation::Reputation,
    segment_health::ClaimState,
};
use commonhold_protocol::Timestamp;

use super::{WardNumber, challenges::ROUND_TRIP_FIRST};

/// One holder; also a node that only might become one.
pub(super) struct HolderState {
    /// Shards that it claims, of the segments that are looked after here.
    pub(super) claims: u32,
    pub(super) life: NodeLife,
    /// It was heard of since the start by itself, not just as the signer of a claim: a signature needs no node.
    pub(super) seen: bool,
    /// The last sign of it, or when it was first heard of from others.
    pub(super) heard_at: Timestamp,
    pub(super) life_due: Option<Timestamp>,
    pub(super) containment: Containment,
    pub(super) challenge_due: Option<Timestamp>,
    pub(super) reputation: Reputation,
    /// The round that it is asked in now.
    pub(super) round: Option<Round>,
    /// What the last round was for: its answers come later than its end.
    pub(super) last_round: Option<Wanted>,
    /// The round that comes next.
    pub(super) wanted: Option<Wanted>,
    /// The moment of a round of [`Wanted::Unproven`] is set.
    pub(super) moment_set: bool,
    pub(super) round_trip: Duration,
    pub(super) probing: bool,
    pub(super) probe_pace: ProbePace,
    pub(super) probe_due: Option<Timestamp>,
    /// The moment at which one that was never heard of is looked for.
    pub(super) search_at: Option<Timestamp>,
    /// What it would still take, by its own word.
    pub(super) free_bytes: u64,
    /// Shards that it holds in all, by its own word.
    pub(super) shards: u64,
}

/// Which of its claims a holder is asked for; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wanted {
    /// Those that this steward has not audited yet.
    Unproven,
    /// Those of segments that are due in this epoch.
    Due,
    /// In a review after one that it failed: all others, since that one would count against it once more.
    Review,
    All,
}

impl Wanted {
    /// Whether a claim in this state is asked for; `is_due`: its segment is, in this epoch.
    pub(super) fn includes(self, state: ClaimState, is_due: bool) -> bool {
        match self {
            Self::Unproven => state.is_new(),
            Self::Due => is_due || state.is_new(),
            Self::Review => is_due || state != ClaimState::Failed,
            Self::All => true,
        }
    }
}

/// A way through all segments, for the claims of one holder: drawn as it answers, so that nothing is kept of what is
/// due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) wanted: Wanted,
    /// The first segment that was not looked at yet.
    pub(super) next: WardNumber,
}

impl HolderState {
    pub(super) fn new(now: Timestamp, grace_ms: u64, rate: Rate) -> Self {
        Self {
            claims: 0,
            life: NodeLife::new(grace_ms),
            seen: false,
            heard_at: now,
            life_due: None,
            containment: Containment::new(rate),
            challenge_due: None,
            reputation: Reputation::new(now),
            round: None,
            last_round: None,
            wanted: None,
            moment_set: false,
            round_trip: ROUND_TRIP_FIRST,
            probing: false,
            probe_pace: ProbePace::default(),
            probe_due: None,
            search_at: None,
            free_bytes: 0,
            shards: 0,
        }
    }

    /// As far as is known, there is such a node.
    pub(super) fn exists(&self) -> bool {
        self.seen || self.reputation.audits > 0
    }

    /// Whatever it claims counts as lost.
    pub(super) fn is_given_up(&self) -> bool {
        self.reputation.disqualified || matches!(self.life.life(), Life::Lost { .. })
    }

    /// It is asked for all that it claims and has not failed, or will be.
    pub(super) fn is_reviewed(&self) -> bool {
        let reviews = Some(Wanted::Review);
        let is_asked = self.last_round >= reviews && !self.containment.is_idle();
        is_asked || self.wanted.max(self.round.map(|round| round.wanted)) >= reviews
    }

    /// What a claim of it counts as now, by how it was put down ([`super::ward::Wards::set_claims`]).
    pub(super) fn counts_as(&self, claim: ClaimState) -> ClaimState {
        match claim {
            ClaimState::Failed => claim,
            _ if self.is_given_up() => ClaimState::Away,
            ClaimState::Healthy if self.life.life() != Life::Up => ClaimState::Silent,
            _ => claim,
        }
    }

    /// The claims to be asked for in the round, the next one if none is under way.
    pub(super) fn round(&mut self) -> Option<Round> {
        if self.round.is_none() {
            self.round = self.wanted.take().map(|wanted| Round { wanted, next: 0 });
            self.last_round = self.round.map_or(self.last_round, |round| Some(round.wanted));
        }
        self.round
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_includes_those_before_it_and_a_review_not_what_has_just_failed() {
        use ClaimState::{Away, Failed, Healthy, Offered, Silent, Unproven};
        for state in [Healthy, Silent, Unproven, Offered, Away, Failed] {
            let asked = |wanted: Wanted| wanted.includes(state, false);
            assert_eq!([Wanted::Unproven, Wanted::Due].map(asked), [state.is_new(); 2], "{state:?}");
            assert_eq!([Wanted::Review, Wanted::All].map(asked), [state != Failed, true], "{state:?}");
            assert!(Wanted::Due.includes(state, true) && Wanted::Review.includes(state, true), "{state:?} is due");
        }
    }
}
