//! How a steward sees the shards of one segment: healthy, suspect, lost, unclaimed.
//!
//! Fed by the steward's own audits and by the lives of the holders, and by nobody's word: a claim is not healthy
//! before this steward has audited it itself, and no message can make a shard lost. An audit that passes changes
//! nothing; the work is per lost node. Which segments a node has shards of is the driver's index.
//!
//! The rules for claims, each with its attack:
//!
//! - **A claim that comes later than the record itself counts for nothing before it is audited**, whoever brings it: else
//!   claims in the names of nodes that do not exist would make whole what is lost, for the grace time and then again.
//! - **A claim never displaces another holder's** that is not lost, and there are at most [`CLAIMS_PER_INDEX_MAX`].
//! - **A stranger's claim is taken only for an index that is unclaimed or lost**: else a stranger could use up the
//!   places beside each honest holder's. From a fellow steward, claims are taken while there is room, or the two sides
//!   of a healed partition would never learn of each other's repairs; a lying one costs an audit for each.
//! - **A holder that failed its audit of a shard has lost it** until it passes one; that it was away meanwhile, or
//!   claims it again, changes nothing.

use commonhold_protocol::{Coding, NodeId, ShardIndex, record::CLAIMS_PER_INDEX_MAX};

use crate::audit::Outcome;

/// How many of a segment's n shards are in which state; each index is counted once, by its best claim.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Audited by this steward, and the holder is up.
    pub healthy: u8,
    /// Claimed by the record as this steward first read it and not yet audited, or the holder is silent.
    pub suspect: u8,
    /// Every claim failed, or its holder is lost, or it was brought later and is not yet audited.
    pub lost: u8,
    /// Nobody claims it, and nobody is waited for ([`SegmentHealth::awaiting_claims`]).
    pub unclaimed: u8,
}

impl Counters {
    /// Shards that are not known to be missing: repair goes by these, since most suspects wake up again.
    pub fn standing(self) -> u8 {
        self.healthy + self.suspect
    }
}

/// The state of one shard, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShardState {
    /// See [`Counters::healthy`].
    Healthy,
    /// See [`Counters::suspect`].
    Suspect,
    /// See [`Counters::lost`].
    Lost,
    /// See [`Counters::unclaimed`].
    Unclaimed,
}

/// The state of one claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClaimState {
    /// Audited, and its holder is up.
    Healthy,
    /// Audited, but its holder is silent for now.
    Silent,
    /// Not yet audited by this steward, but in the record as it first read it: to be audited at once.
    Unproven,
    /// Brought later and not yet audited, or not since its holder came back from being lost: to be audited at once, and
    /// counted as lost until then.
    Offered,
    /// Its holder is lost.
    Away,
    /// An audit failed.
    Failed,
}

impl ClaimState {
    fn shard(self) -> ShardState {
        match self {
            Self::Healthy => ShardState::Healthy,
            Self::Silent | Self::Unproven => ShardState::Suspect,
            Self::Offered | Self::Away | Self::Failed => ShardState::Lost,
        }
    }

    fn of_the_lost(self) -> Self {
        if self == Self::Failed { self } else { Self::Away }
    }

    /// True if it makes its shard stand.
    pub fn stands(self) -> bool {
        self.shard() < ShardState::Lost
    }

    /// True if it was found lost: it gives way to other claims.
    pub fn is_lost(self) -> bool {
        matches!(self, Self::Away | Self::Failed)
    }

    /// True if it is to be audited at once.
    pub fn is_new(self) -> bool {
        matches!(self, Self::Unproven | Self::Offered)
    }
}

/// Who brings a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// This steward itself: it is in the record as it was first read here, or came of our own repair.
    Own,
    /// Another of the record's stewards.
    Steward,
    /// Anybody else, the holder included.
    Stranger,
}

/// A claim as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed<N> {
    /// The shard.
    pub index: ShardIndex,
    /// Its state.
    pub state: ClaimState,
    /// Who claims it.
    pub node: N,
}

/// The counters of one segment. `N` names nodes: [`NodeId`] in a node, a number where millions of segments are kept
/// in memory at once.
#[derive(Debug, Clone)]
pub struct SegmentHealth<N = NodeId> {
    n: u8,
    /// By index, then in the order in which they came.
    claims: Vec<Claimed<N>>,
    counters: Counters,
    awaits_claims: bool,
}

impl<N: Copy + Eq> SegmentHealth<N> {
    /// A segment of which nothing is claimed.
    pub fn new(coding: Coding) -> Self {
        let counters = Counters { unclaimed: coding.n(), ..Counters::default() };
        Self { n: coding.n(), claims: Vec::new(), counters, awaits_claims: false }
    }

    /// A segment with these claims, which [`Self::claims`] of another gave: by index, each of a segment's shards.
    pub fn restore(coding: Coding, claims: Vec<Claimed<N>>) -> Self {
        let mut health = Self { n: coding.n(), claims, counters: Counters::default(), awaits_claims: false };
        for index in coding.indices() {
            let state = health.state(index);
            *health.counter(state) += 1;
        }
        health
    }

    /// The same while claims are awaited ([`crate::repair::claims_awaited_until`]): what nobody claims, or has yet to prove,
    /// is not known to be missing, so it is suspect and not rebuilt. Not where too few shards are left to wait: once one is
    /// known to be lost, a quarter of the parity has to stand.
    pub fn awaiting_claims(self, coding: Coding) -> Self {
        let few = coding.k() + (coding.n() - coding.k()).div_ceil(4);
        let is_lost = |claims: &[Claimed<N>]| claims.iter().all(|claim| claim.state.is_lost());
        let none_is_lost = !self.of_each_claimed().any(is_lost);
        Self { awaits_claims: none_is_lost || self.counters.standing() >= few, ..self }
    }

    /// How many shards are in which state.
    pub fn counters(&self) -> Counters {
        let Counters { healthy, suspect, lost, unclaimed } = self.counters;
        if !self.awaits_claims {
            return self.counters;
        }
        let offered = self.of_each_claimed().filter(|claims| is_only_offered(claims)).count() as u8;
        Counters { healthy, suspect: suspect + offered + unclaimed, lost: lost - offered, unclaimed: 0 }
    }

    /// The claims of each shard that has some.
    fn of_each_claimed(&self) -> impl Iterator<Item = &[Claimed<N>]> {
        self.claims.chunk_by(|one, next| one.index == next.index)
    }

    /// All claims, by index.
    pub fn claims(&self) -> &[Claimed<N>] {
        &self.claims
    }

    /// The same with other names for the nodes; `name` gives different ones for different nodes.
    pub fn map_nodes<M: Copy + Eq>(&self, name: impl Fn(N) -> M) -> SegmentHealth<M> {
        let claims =
            self.claims.iter().map(|claim| Claimed { index: claim.index, state: claim.state, node: name(claim.node) });
        SegmentHealth {
            n: self.n,
            claims: claims.collect(),
            counters: self.counters,
            awaits_claims: self.awaits_claims,
        }
    }

    /// The state of a shard.
    pub fn state(&self, index: ShardIndex) -> ShardState {
        best(&self.claims[self.range(index)])
    }

    /// Shards that are lost with as many claims as a record holds, lost ones among them: one of these has to leave it
    /// before a repair can bring another.
    pub fn crowded(&self) -> impl Iterator<Item = ShardIndex> + '_ {
        let all = (0..self.n).map(ShardIndex).filter(|index| self.state(*index) == ShardState::Lost);
        all.filter(|index| {
            let claims = &self.claims[self.range(*index)];
            claims.len() >= CLAIMS_PER_INDEX_MAX && claims.iter().any(|claim| claim.state.is_lost())
        })
    }

    /// Shards that a repair rebuilds: lost, or claimed by nobody, as far as nobody is waited for.
    pub fn missing(&self) -> impl Iterator<Item = ShardIndex> + '_ {
        // One walk along the claims, which are by index.
        let mut claimed = self.of_each_claimed().peekable();
        (0..self.n).map(ShardIndex).filter(move |index| match claimed.next_if(|claims| claims[0].index == *index) {
            Some(claims) => best(claims) >= ShardState::Lost && !(self.awaits_claims && is_only_offered(claims)),
            None => !self.awaits_claims,
        })
    }

    /// Takes a claim in if the rules allow it; true if it is new. `evicted` is told of the claim that made room, if one had
    /// to: a lost one, and for one of ours also one that was only offered.
    pub fn claim(&mut self, index: ShardIndex, node: N, source: Source, evicted: &mut Option<N>) -> bool {
        let range = self.range(index);
        let kept = &self.claims[range.clone()];
        let state = self.state(index);
        let open = matches!(state, ShardState::Lost | ShardState::Unclaimed);
        if index.0 >= self.n || kept.iter().any(|claim| claim.node == node) || (!open && source == Source::Stranger) {
            return false;
        }
        let mut at = range.end;
        if kept.len() >= CLAIMS_PER_INDEX_MAX {
            let may_go = |state: ClaimState| state.is_lost() || (source == Source::Own && !state.stands());
            let worst = range.clone().filter(|at| may_go(self.claims[*at].state));
            let Some(worst) = worst.max_by_key(|at| (self.claims[*at].state, std::cmp::Reverse(*at))) else {
                return false;
            };
            *evicted = Some(self.claims.remove(worst).node);
            at -= 1;
        }
        let new = if source == Source::Own { ClaimState::Unproven } else { ClaimState::Offered };
        self.claims.insert(at, Claimed { index, state: new, node });
        self.recount(index, state);
        true
    }

    /// An audit of this steward has ended; true if the counters changed. Being unreachable is [`Self::silent`]'s
    /// matter and changes nothing here.
    pub fn audited(&mut self, index: ShardIndex, node: N, outcome: Outcome) -> bool {
        let state = match outcome {
            Outcome::Held => ClaimState::Healthy,
            Outcome::Wrong | Outcome::Refused | Outcome::Contradicted => ClaimState::Failed,
            Outcome::Unreachable => return false,
        };
        let range = self.range(index);
        let claims = &mut self.claims[range];
        let Some(at) = claims.iter().position(|claim| claim.node == node) else { return false };
        let before = best(claims);
        claims[at].state = state;
        let after = best(claims);
        self.count(before, after)
    }

    /// A holder is silent; true if the counters changed.
    pub fn silent(&mut self, node: N) -> bool {
        self.each_of(node, |state| if state == ClaimState::Healthy { ClaimState::Silent } else { state })
    }

    /// A holder is lost, or disqualified; true if the counters changed.
    pub fn lost(&mut self, node: N) -> bool {
        self.each_of(node, ClaimState::of_the_lost)
    }

    /// As [`Self::lost`] for one of its shards: whoever knows which it holds need not look through all claims.
    pub fn lost_shard(&mut self, index: ShardIndex, node: N) -> bool {
        let range = self.range(index);
        let claims = &mut self.claims[range];
        let Some(at) = claims.iter().position(|claim| claim.node == node) else { return false };
        let before = best(claims);
        claims[at].state = claims[at].state.of_the_lost();
        let after = best(claims);
        self.count(before, after)
    }

    /// A holder is up again; true if the counters changed. What was lost has to be audited anew.
    pub fn returned(&mut self, node: N) -> bool {
        self.each_of(node, |state| match state {
            ClaimState::Silent => ClaimState::Healthy,
            ClaimState::Away => ClaimState::Offered,
            ClaimState::Healthy | ClaimState::Unproven | ClaimState::Offered | ClaimState::Failed => state,
        })
    }

    /// A holder has released its claim; true if the counters changed.
    pub fn release(&mut self, index: ShardIndex, node: N) -> bool {
        let range = self.range(index);
        let Some(at) = self.claims[range.clone()].iter().position(|claim| claim.node == node) else { return false };
        let before = best(&self.claims[range.clone()]);
        self.claims.remove(range.start + at);
        let after = best(&self.claims[range.start..range.end - 1]);
        self.count(before, after)
    }

    fn each_of(&mut self, node: N, next: impl Fn(ClaimState) -> ClaimState) -> bool {
        let mut changed = false;
        for at in 0..self.claims.len() {
            let Claimed { index, state, node: holder } = self.claims[at];
            if holder == node && next(state) != state {
                let before = self.state(index);
                self.claims[at].state = next(state);
                changed |= self.recount(index, before);
            }
        }
        changed
    }

    fn range(&self, index: ShardIndex) -> std::ops::Range<usize> {
        // Most indices have one claim, so it lies where its number says, or some before that.
        let mut start = self.claims.len().min(index.0.into());
        while start > 0 && self.claims[start - 1].index >= index {
            start -= 1;
        }
        let before = self.claims[start..].iter().take_while(|claim| claim.index < index).count();
        let start = start + before;
        let count = self.claims[start..].iter().take_while(|claim| claim.index == index).count();
        start..start + count
    }

    fn recount(&mut self, index: ShardIndex, before: ShardState) -> bool {
        let after = self.state(index);
        self.count(before, after)
    }

    fn count(&mut self, before: ShardState, after: ShardState) -> bool {
        *self.counter(before) -= 1;
        *self.counter(after) += 1;
        before != after
    }

    fn counter(&mut self, state: ShardState) -> &mut u8 {
        match state {
            ShardState::Healthy => &mut self.counters.healthy,
            ShardState::Suspect => &mut self.counters.suspect,
            ShardState::Lost => &mut self.counters.lost,
            ShardState::Unclaimed => &mut self.counters.unclaimed,
        }
    }
}

/// The state of a shard that these claim.
fn best<N>(claims: &[Claimed<N>]) -> ShardState {
    claims.iter().map(|claim| claim.state.shard()).min().unwrap_or(ShardState::Unclaimed)
}

/// Nobody who claims the shard has proven it yet, and nobody was found to lack it.
fn is_only_offered<N>(claims: &[Claimed<N>]) -> bool {
    claims.iter().map(|claim| claim.state).min() == Some(ClaimState::Offered)
}
