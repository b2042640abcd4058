//! The segments that this node is a steward of. There are tens of thousands, so the state of each takes 56 bytes and a
//! byte or three for each claim: nodes are numbers, the manifest stays in the record, what a holder's silence means for
//! its claims follows from its life, and a repair stands elsewhere while there is one.

use commonhold_policy::{
    repair::order::{RepairOrder, Times},
    segment_health::{ClaimState, Claimed},
};
use commonhold_protocol::{Coding, SegmentId, ShardIndex, Timestamp};

use super::{NodeNumber, WardNumber, table::Table};

/// Dead bytes of claims that are worth no rewriting yet.
const DEAD_BYTES_FREE: usize = 4096;

/// A segment. The order of the fields is the compiler's; they fill 24 bytes.
pub(super) struct Ward {
    pub(super) coding: Coding,
    /// Bytes of one shard.
    pub(super) shard_length: u32,
    /// Of the record, as it was read last.
    pub(super) sequence: u64,
    /// Our place among the record's stewards, 0 first, and how many there are.
    pub(super) rank: u8,
    pub(super) stewards: u8,
    /// To be audited in this epoch.
    pub(super) due: bool,
    /// Where its claims lie in [`Wards::claims`].
    claims_at: u32,
    claims_bytes: u16,
}

impl Ward {
    /// A segment of which nothing is claimed.
    pub(super) fn new(coding: Coding, shard_length: u32) -> Self {
        let (sequence, rank, stewards, due) = (0, 0, 0, false);
        Self { coding, shard_length, sequence, rank, stewards, due, claims_at: 0, claims_bytes: 0 }
    }

    fn claims(&self) -> std::ops::Range<usize> {
        let start = self.claims_at as usize;
        start..start + usize::from(self.claims_bytes)
    }
}

/// The order of a repair, and the moment that it asked for.
pub(super) struct Ordered {
    pub(super) machine: RepairOrder,
    pub(super) due: Option<Timestamp>,
}

impl Ordered {
    /// Of a segment that waited for its top-up since then before a restart, if it did.
    pub(super) fn new(times: Times, waits_since: Option<Timestamp>) -> Self {
        let machine = waits_since.map_or_else(|| RepairOrder::new(times), |since| RepairOrder::resumed(times, since));
        Self { machine, due: None }
    }
}

/// All segments and their claims.
pub(super) struct Wards {
    table: Table<SegmentId, Ward>,
    /// The claims of all segments, packed, each segment's in one piece.
    claims: Vec<u8>,
    /// Bytes among them that are no segment's any more.
    dead_bytes: usize,
}

impl Wards {
    pub(super) fn new() -> Self {
        Self { table: Table::new(), claims: Vec::new(), dead_bytes: 0 }
    }

    pub(super) fn number(&self, segment: &SegmentId) -> Option<WardNumber> {
        self.table.number(segment)
    }

    pub(super) fn segment(&self, ward: WardNumber) -> Option<SegmentId> {
        self.table.key(ward)
    }

    /// Above all numbers in use.
    pub(super) fn end(&self) -> WardNumber {
        self.table.end()
    }

    pub(super) fn get(&self, ward: WardNumber) -> Option<&Ward> {
        self.table.get(ward)
    }

    pub(super) fn get_mut(&mut self, ward: WardNumber) -> Option<&mut Ward> {
        self.table.get_mut(ward)
    }

    pub(super) fn insert(&mut self, segment: SegmentId, ward: Ward) -> WardNumber {
        self.table.insert(segment, ward)
    }

    /// Removes a segment and its claims.
    pub(super) fn remove(&mut self, ward: WardNumber) {
        if let Some((_, removed)) = self.table.remove(ward) {
            self.dead_bytes += removed.claims().len();
            self.rewrite();
        }
    }

    /// The claims of a segment as they were put down: none of them silent or away.
    pub(super) fn claims(&self, ward: WardNumber) -> impl Iterator<Item = Claimed<NodeNumber>> + '_ {
        let packed = self.table.get(ward).map_or(0..0, Ward::claims);
        unpack(&self.claims[packed])
    }

    pub(super) fn is_claimed_by(&self, ward: WardNumber, node: NodeNumber) -> bool {
        self.claims(ward).any(|claim| claim.node == node)
    }

    /// Puts down a segment's claims: a silent one as healthy, one that is away as offered, which is what they will be
    /// when their holder is back.
    pub(super) fn set_claims(&mut self, number: WardNumber, claims: &[Claimed<NodeNumber>]) {
        let mut packed = Vec::with_capacity(2 * claims.len());
        pack(claims, &mut packed);
        let Some(ward) = self.table.get_mut(number) else { return };
        let kept = ward.claims();
        if kept.len() == packed.len() {
            self.claims[kept].copy_from_slice(&packed);
            return;
        }
        // The logs of so many records would take terabytes.
        let (Ok(claims_at), Ok(claims_bytes)) = (self.claims.len().try_into(), packed.len().try_into()) else {
            tracing::error!("the claims of more segments than can be looked after");
            return;
        };
        (ward.claims_at, ward.claims_bytes) = (claims_at, claims_bytes);
        self.claims.extend_from_slice(&packed);
        self.dead_bytes += kept.len();
        self.rewrite();
    }

    /// Closes the gaps once they make up half.
    fn rewrite(&mut self) {
        if self.dead_bytes <= DEAD_BYTES_FREE.max(self.claims.len() / 2) {
            return;
        }
        let mut claims = Vec::with_capacity(self.claims.len() - self.dead_bytes);
        for ward in self.table.values_mut() {
            let kept = ward.claims();
            ward.claims_at = claims.len() as u32;
            claims.extend_from_slice(&self.claims[kept]);
        }
        (self.claims, self.dead_bytes) = (claims, 0);
    }
}

/// How a claim is packed: the node's number shifted left by three bits, the state in the two bits above the lowest, as a
/// LEB128 number; if the lowest bit is set, the shard's index follows as a byte, else it is one above the last claim's.
pub(super) fn pack(claims: &[Claimed<NodeNumber>], bytes: &mut Vec<u8>) {
    let mut expected = Some(0);
    for claim in claims {
        let state = match claim.state {
            ClaimState::Healthy | ClaimState::Silent => 0,
            ClaimState::Unproven => 1,
            ClaimState::Failed => 2,
            ClaimState::Offered | ClaimState::Away => 3,
        };
        let is_next = expected == Some(claim.index.0);
        let mut number = u64::from(claim.node) << 3 | state << 1 | u64::from(!is_next);
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        if !is_next {
            bytes.push(claim.index.0);
        }
        expected = claim.index.0.checked_add(1);
    }
}

/// What [`pack`] packed; of other bytes, something or other.
pub(super) fn unpack(bytes: &[u8]) -> impl Iterator<Item = Claimed<NodeNumber>> + '_ {
    let mut bytes = bytes.iter().copied();
    let mut index: u8 = 0;
    std::iter::from_fn(move || {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = bytes.next()?;
            number |= u64::from(byte & 0x7f).unbounded_shl(shift);
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        if number & 1 == 1 {
            index = bytes.next()?;
        }
        let state = match number >> 1 & 3 {
            0 => ClaimState::Healthy,
            1 => ClaimState::Unproven,
            2 => ClaimState::Failed,
            _ => ClaimState::Offered,
        };
        let claim = Claimed { index: ShardIndex(index), state, node: (number >> 3) as NodeNumber };
        index = index.wrapping_add(1);
        Some(claim)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn segment(number: u32) -> SegmentId {
        SegmentId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    fn claims() -> impl Strategy<Value = Vec<Claimed<NodeNumber>>> {
        let state = prop::sample::select(vec![
            ClaimState::Healthy,
            ClaimState::Unproven,
            ClaimState::Offered,
            ClaimState::Failed,
        ]);
        let node = prop_oneof![0..40u32, any::<u32>()];
        prop::collection::vec((any::<u8>(), state, node), 0..60).prop_map(|mut claims| {
            claims.sort_by_key(|(index, ..)| *index);
            let claim = |(index, state, node)| Claimed { index: ShardIndex(index), state, node };
            claims.into_iter().map(claim).collect()
        })
    }

    proptest! {
        #[test]
        fn claims_are_what_was_put_down_whatever_is_put_down_beside_them(
            said in prop::collection::vec((0..6u32, prop::option::weighted(0.8, claims())), 0..200),
        ) {
            let (mut wards, mut expected) = (Wards::new(), BTreeMap::new());
            for (name, said) in said {
                let number = wards.number(&segment(name));
                match said {
                    Some(claims) => {
                        let ward = Ward::new(Coding::ONE, 0);
                        let number = number.unwrap_or_else(|| wards.insert(segment(name), ward));
                        wards.set_claims(number, &claims);
                        expected.insert(name, claims);
                    }
                    None => {
                        number.into_iter().for_each(|number| wards.remove(number));
                        expected.remove(&name);
                    }
                }
                for (name, claims) in &expected {
                    let number = wards.number(&segment(*name));
                    prop_assert_eq!(&number.map(|number| wards.claims(number).collect::<Vec<_>>()), &Some(claims.clone()));
                }
                let live: usize = wards.table.iter().map(|(_, _, ward)| ward.claims().len()).sum();
                prop_assert_eq!(live + wards.dead_bytes, wards.claims.len());
                prop_assert!(wards.dead_bytes <= DEAD_BYTES_FREE.max(wards.claims.len() / 2));
            }
        }
    }

    #[test]
    fn who_is_silent_or_away_is_put_down_as_what_it_will_be_when_it_is_back() {
        let mut wards = Wards::new();
        let number = wards.insert(segment(0), Ward::new(Coding::ONE, 0));
        let states = [ClaimState::Silent, ClaimState::Away, ClaimState::Failed];
        let claims = [0, 1, 2].map(|at| Claimed { index: ShardIndex(at), state: states[usize::from(at)], node: 7 });
        wards.set_claims(number, &claims);
        let states: Vec<ClaimState> = wards.claims(number).map(|claim| claim.state).collect();
        assert_eq!(states, [ClaimState::Healthy, ClaimState::Offered, ClaimState::Failed]);
    }

    /// A node with 20,000 records took 11 MiB for them, which was more than all else that it needs of its own.
    #[test]
    fn a_segment_with_fourteen_claims_takes_less_than_a_hundred_bytes() {
        const SEGMENTS: u32 = 20_000;
        let mut wards = Wards::new();
        for number in 0..SEGMENTS {
            let ward = wards.insert(segment(number), Ward::new(Coding::new(7, 14).unwrap(), 1 << 20));
            // Some of a thousand nodes each, as in a real network.
            let claim = |index: u8| Claimed {
                index: ShardIndex(index),
                state: ClaimState::Unproven,
                node: (number * 31 + u32::from(index) * 77) % 1000,
            };
            wards.set_claims(ward, &(0..14).map(claim).collect::<Vec<_>>());
        }
        let bytes = wards.table.bytes() + wards.claims.len();
        let each = bytes as f64 / f64::from(SEGMENTS);
        eprintln!("{each} bytes a segment, {bytes} in all");
        assert!(each < 100.0, "{each} bytes a segment");
    }
}
