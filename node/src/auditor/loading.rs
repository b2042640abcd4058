//! Which segments are ours to look after, and who claims their shards: read from the records, off the runtime's thread.

use std::{collections::BTreeSet, time::Duration};

use commonhold_policy::{
    Domain, Standing,
    audit::{Outcome, containment},
    placement::{self, Candidate},
    repair,
    segment_health::{ShardState, Source},
    stewards,
};
use commonhold_protocol::{Coding, NodeId, SegmentId, ShardIndex, Timestamp};

use super::{Auditor, NodeNumber, Stewards, TimerOf, WardNumber, holders::Wanted, lives::UNSEEN_MAX, ward::Ward};
use crate::{records::Kind, steward::Steward};

/// Records read in one go, when all are looked through.
const PAGE: usize = 256;
/// Nodes that are known besides those that claim shards, in case these have no room for what is to be rebuilt: more
/// than a segment has shards.
const HELPERS_MAX: usize = 64;
/// After the start we look around after as long as the node has been up, but not sooner than this.
const LOOK_MS_MIN: u64 = 1_000;
/// The sequence of a record of which not all claimants found a place: older than any.
const CROWDED_OUT: u64 = 0;

/// Our place among the stewards of a segment, and how many there are.
#[derive(Clone, Copy)]
struct Place {
    rank: u8,
    stewards: u8,
}

/// What there is to know of a segment's record.
struct Read {
    segment: SegmentId,
    /// None: we are not one of its stewards.
    place: Option<Place>,
    /// It was brought by another node than a steward.
    stranger: bool,
    /// None: it was not read, since it has not changed.
    record: Option<ReadRecord>,
}

struct ReadRecord {
    coding: Coding,
    shard_length: u32,
    sequence: u64,
    /// It has yet to prove that it is worth keeping.
    unproven: bool,
    claims: Vec<(ShardIndex, NodeId)>,
    /// When the first of them was made; none if there are none.
    first_claimed: Option<Timestamp>,
}

impl Auditor {
    /// Who is there, whom a shard could be given to, and whose steward we are now.
    pub(super) async fn look_around(&mut self) {
        let grace = Duration::from_millis(self.grace_ms);
        self.forget_the_lost();
        self.meet_helpers(grace);
        let stewards: Stewards = self.parts.neighbours.steward_candidates(grace).into();
        let changed = std::mem::replace(&mut self.stewards, stewards.clone()) != stewards;
        self.look_through(changed).await;
        self.wait_no_longer();
        // What is remembered of segments that are not ours any more is in the way of what is.
        let wards = &self.wards;
        self.waits_since.retain(|segment, _| wards.number(segment).is_some());
        self.write_down().await;
        self.doubt_proven().await;
        self.write_proven_if_due().await;
        // Who the others are is learned in the first seconds after the start.
        self.begin_early();
        let again_ms = self.uptime_ms().max(LOOK_MS_MIN).min(self.probe_ms());
        let at = self.now().after_ms(again_ms);
        self.wake(at, TimerOf::Look);
    }

    pub(super) fn uptime_ms(&self) -> u64 {
        u64::try_from(self.parts.clock.uptime().as_millis()).unwrap_or(u64::MAX)
    }

    /// How much longer it takes from now until it is known who else is there: some minutes after the start.
    pub(super) fn unsettled_ms(&self) -> u64 {
        let since_ms = u64::try_from(self.begun_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        (2 * self.probe_ms()).saturating_sub(since_ms)
    }

    pub(super) fn is_settled(&self) -> bool {
        self.unsettled_ms() == 0
    }

    /// True if other stewards are known, or there seem to be none: before that we take ourselves for the only steward of
    /// everything, and what the others know for unknown.
    pub(super) fn knows_the_others(&self) -> bool {
        self.stewards.len() > 1 || self.is_settled()
    }

    /// Gets to know nodes that hold nothing yet, as far as there are too few for repairs: each is asked now and then
    /// what it would take, so they are not all that there are.
    fn meet_helpers(&mut self, grace: Duration) {
        let helpers = self.holders.iter().filter(|(_, _, holder)| holder.claims == 0 && !holder.is_given_up());
        let known = helpers.map(|(_, node, _)| *node).filter(|node| *node != self.own);
        let known: Vec<NodeId> = known.collect();
        let present = self.parts.neighbours.present(grace).into_iter();
        let strangers: Vec<Candidate> = present
            .filter(|node| self.holders.number(node).is_none())
            .map(|node| Candidate {
                node,
                domain: self.parts.neighbours.domain(node),
                // Nobody knows before they are asked.
                free_bytes: 1,
                standing: Standing::KnownGood,
            })
            .collect();
        let taken = known.iter().map(|node| self.parts.neighbours.domain(*node)).collect();
        let order = placement::order(&mut rand::rng(), strangers.iter(), &taken);
        for place in order.into_iter().take(HELPERS_MAX.saturating_sub(known.len())) {
            self.meet(place.node);
        }
    }

    /// Goes through all records that are kept: those that are new or have changed, and those whose stewards have.
    async fn look_through(&mut self, stewards_changed: bool) {
        let mut after: Option<[u8; 32]> = None;
        // To read a record is to check its signatures: those whose claimants found no place are read again when there is
        // some.
        let mut places = UNSEEN_MAX.saturating_sub(self.unseen);
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
            let Some(last) = page.last() else { return };
            after = Some(last.key);
            let wanted = page.into_iter().filter_map(|summary| {
                let segment = SegmentId::from_bytes(summary.key);
                let ward = self.wards.number(&segment).and_then(|ward| self.wards.get(ward));
                let changed = match ward.map(|ward| ward.sequence) {
                    Some(CROWDED_OUT) if places == 0 => false,
                    Some(CROWDED_OUT) => {
                        places -= 1;
                        true
                    }
                    Some(known) => known < summary.sequence,
                    None => true,
                };
                (changed || stewards_changed).then_some((segment, changed))
            });
            let wanted = wanted.collect();
            self.load(wanted, None).await;
        }
    }

    /// Reads records again: their stewards, and their claims where `true` stands beside. `from` brought the news.
    pub(super) async fn load(&mut self, wanted: Vec<(SegmentId, bool)>, from: Option<NodeId>) {
        if wanted.is_empty() {
            return;
        }
        let (steward, stewards, own) = (self.parts.steward.clone(), self.stewards.clone(), self.own);
        let reading = tokio::task::spawn_blocking(move || {
            let read = |(segment, whole)| read(&steward, &stewards, own, from, segment, whole);
            wanted.into_iter().map(read).collect::<Vec<_>>()
        });
        // A panic in there is logged by the runtime; what was not read is found missing the next time.
        let Ok(read) = reading.await else { return };
        let loaded: Vec<WardNumber> = read.into_iter().filter_map(|read| self.take_in(read)).collect();
        self.assess(&loaded);
    }

    fn take_in(&mut self, read: Read) -> Option<WardNumber> {
        let known = self.wards.number(&read.segment);
        let Some(place) = read.place else {
            self.forget(&read.segment);
            return None;
        };
        let is_new = known.is_none();
        let (number, claims, first_claimed) = match (known, read.record) {
            (Some(number), None) => (number, Vec::new(), None),
            // Gone, dropped, or not to be read.
            (None, None) => return None,
            (known, Some(ReadRecord { coding, shard_length, sequence, unproven, claims, first_claimed })) => {
                let number = known.unwrap_or_else(|| self.wards.insert(read.segment, Ward::new(coding, shard_length)));
                self.wards.get_mut(number)?.sequence = sequence;
                self.set_trial(number, unproven);
                (number, claims, first_claimed)
            }
        };
        let ward = self.wards.get_mut(number)?;
        (ward.rank, ward.stewards) = (place.rank, place.stewards);
        // Of a record on trial nobody's word is worth more than another's, and nothing is repaired yet.
        let source = if is_new || self.trials.contains_key(&number) {
            Source::Own
        } else if read.stranger {
            Source::Stranger
        } else {
            Source::Steward
        };
        let claimed = claims.iter().map(|(index, _)| *index).collect::<BTreeSet<ShardIndex>>().len();
        self.take_claims(number, claims, source);
        if is_new {
            // What was proven before a restart may be enough.
            self.try_record(number);
        }
        if let Some(first_claimed) = first_claimed
            && (is_new || self.awaited.contains_key(&number))
        {
            self.await_claims(number, claimed, first_claimed);
        }
        Some(number)
    }

    /// Waits for the shards of a record that nobody claims, if others of its holders are to be heard of.
    fn await_claims(&mut self, number: WardNumber, claimed: usize, first_claimed: Timestamp) {
        let Some(ward) = self.wards.get(number) else { return };
        // A moment that lies ahead would be waited for as long as its signer likes. It is one of the others' clocks.
        let now = self.parts.clock.now();
        let first_claimed = first_claimed.min(now);
        let until = repair::claims_awaited_until(ward.coding, claimed, first_claimed, self.announce_ms, self.grace_ms);
        match until.filter(|until| now < *until) {
            Some(until) => self.awaited.insert(number, self.now().after_ms(until.ms_since(now))),
            None => self.awaited.remove(&number),
        };
    }

    /// Who has not claimed its shard by now has none.
    fn wait_no_longer(&mut self) {
        let now = self.now();
        let over: Vec<WardNumber> =
            self.awaited.iter().filter(|(_, until)| **until <= now).map(|(ward, _)| *ward).collect();
        for ward in &over {
            self.awaited.remove(ward);
        }
        self.assess(&over);
    }

    /// Counts claims that are new, and has them audited: at once where a repair waits to hear whether they are true. One by a
    /// node that is lost counts as lost.
    pub(super) fn take_claims(&mut self, number: WardNumber, claims: Vec<(ShardIndex, NodeId)>, source: Source) {
        let (Some(mut health), Some(segment)) = (self.health(number), self.wards.segment(number)) else { return };
        let mut changed = false;
        let (mut at_once, mut soon) = (BTreeSet::new(), BTreeSet::new());
        for (index, node) in claims {
            let Some(node) = self.meet_claimant(node) else {
                if let Some(ward) = self.wards.get_mut(number) {
                    ward.sequence = CROWDED_OUT;
                }
                continue;
            };
            let mut evicted = None;
            if !health.claim(index, node, source, &mut evicted) {
                continue;
            }
            // Also where one takes another's place, and is given up itself: the counts below are of what is kept.
            changed = true;
            if let Some(evicted) = evicted.and_then(|evicted| self.holders.get_mut(evicted)) {
                evicted.claims -= 1;
            }
            let was_proven = source == Source::Own && self.was_proven(&segment, index, node);
            if let Some(holder) = self.holders.get_mut(node) {
                holder.claims += 1;
                if holder.is_given_up() {
                    health.lost(node);
                } else if was_proven {
                    health.audited(index, node, Outcome::Held);
                } else if self.orders.contains_key(&number) && health.state(index) == ShardState::Lost {
                    at_once.insert(node);
                } else {
                    soon.insert(node);
                }
            }
        }
        if changed {
            self.wards.set_claims(number, health.claims());
        }
        for node in at_once {
            self.moment(node, Wanted::Unproven);
        }
        for node in soon {
            self.audit_soon(node);
        }
    }

    /// A segment that is not ours to look after any more.
    pub(super) fn forget(&mut self, segment: &SegmentId) {
        self.waits_since.remove(segment);
        let Some(number) = self.wards.number(segment) else { return };
        let claimants: Vec<NodeNumber> = self.wards.claims(number).map(|claim| claim.node).collect();
        self.wards.remove(number);
        self.ailing.remove(&number);
        self.orders.remove(&number);
        self.repairs.forget(number);
        self.repaired_at.remove(segment);
        self.trials.remove(&number);
        self.awaited.remove(&number);
        self.repairs.stop(segment);
        for node in claimants {
            if let Some(holder) = self.holders.get_mut(node) {
                holder.claims -= 1;
                self.contain(node, containment::Event::Forget(*segment));
            }
        }
    }
}

fn read(
    steward: &Steward,
    candidates: &[(NodeId, Domain)],
    own: NodeId,
    from: Option<NodeId>,
    segment: SegmentId,
    whole: bool,
) -> Read {
    let stewards = stewards::choose(segment.as_bytes(), candidates);
    let place = stewards.iter().position(|node| *node == own);
    let place = place.map(|rank| Place { rank: rank as u8, stewards: stewards.len() as u8 });
    let stranger = from.is_some_and(|node| node != own && !stewards.contains(&node));
    let mut read = Read { segment, place, stranger, record: None };
    if !whole || place.is_none() {
        return read;
    }
    match steward.wanted_record(&segment) {
        Some((sequence, state, unproven)) => {
            let claims = state.claims().iter();
            read.record = Some(ReadRecord {
                coding: state.manifest().coding,
                // A segment has 16 MiB at most.
                shard_length: u32::try_from(state.manifest().shard_length()).unwrap_or(u32::MAX),
                sequence,
                unproven,
                claims: claims.clone().flat_map(|(index, of)| of.iter().map(|claim| (*index, claim.holder))).collect(),
                first_claimed: claims.flat_map(|(_, of)| of).map(|claim| claim.signed_at).min(),
            });
        }
        // Dropped, or gone.
        None => read.place = None,
    }
    read
}
