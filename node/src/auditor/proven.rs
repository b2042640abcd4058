//! Which claims this steward has audited, over a restart, in a file of its own: whoever keeps tens of thousands of records
//! would else have half a million holders' shards proven to it anew at each start, gigabytes, before it can say again
//! that anything is healthy.

use std::collections::BTreeMap;

use commonhold_policy::segment_health::{ClaimState, Claimed};
use commonhold_protocol::{NodeId, SegmentId, ShardIndex, Timestamp};

use super::{
    Auditor, NodeNumber, WardNumber,
    audits::LOOKED_AT_ONCE,
    ward::{pack, unpack},
};
use crate::{
    data_dir::write_atomically,
    kept_file::{KeptFile, take},
};

/// Some millions of claims; those that it has no room for are audited again.
const FILE: KeptFile = KeptFile { magics: &[b"CHPROVN1"], bytes_max: 64 << 20 };
/// A steward that is killed audits again what it first audited in this part of the time between two audits of a shard, an
/// hour of a week.
const EVERY_PARTS: u64 = 7 * 24;
/// At the start our clock may still say what it said when the node was switched off; after this time it is right, if it
/// ever is.
const CLOCK_IS_SET_MS: u64 = 60 * 60 * 1000;

/// What was proven before the restart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Proven {
    /// When it was written down.
    at: Timestamp,
    /// Until when what was due was audited.
    audited_until: Timestamp,
    /// Who the numbers in the claims are.
    nodes: BTreeMap<NodeNumber, NodeId>,
    /// The claims of each segment, packed.
    claims: BTreeMap<SegmentId, Box<[u8]>>,
}

impl Proven {
    /// True if this claim was.
    pub(super) fn has(&self, segment: &SegmentId, index: ShardIndex, node: &NodeId) -> bool {
        let claims = self.claims.get(segment).into_iter().flat_map(|packed| unpack(packed));
        let mut of_shard = claims.filter(|claim| claim.index == index && claim.state == ClaimState::Healthy);
        of_shard.any(|claim| self.nodes.get(&claim.node) == Some(node))
    }
}

impl Auditor {
    /// Takes up what the file says, unless by now as much time has gone by as between two audits of a shard.
    pub(super) async fn remember_proven(&mut self) {
        let path = self.parts.proven.clone();
        let read = tokio::task::spawn_blocking(move || {
            FILE.read(&path, decode).unwrap_or_else(|error| {
                tracing::warn!(%error, path = %path.display(), "which shards were audited is not known; all are again");
                Proven::default()
            })
        });
        let Ok(proven) = read.await else { return };
        if !self.is_too_old(proven.at) {
            (self.proven_at, self.audited_until) = (Some(proven.at), proven.audited_until);
            self.proven_before = proven;
        }
    }

    /// Whether it was written down longer before the start than what was proven then says anything.
    fn is_too_old(&self, at: Timestamp) -> bool {
        let now = self.parts.clock.now();
        let started_at = Timestamp(now.0.saturating_sub(self.uptime_ms()));
        at > now || started_at.ms_since(at) >= self.schedule.rate().every_ms
    }

    /// Has all audited anew if it turns out, as our clock is set, that the file is too old.
    pub(super) async fn doubt_proven(&mut self) {
        let Some(at) = self.proven_at else { return };
        if self.uptime_ms() > CLOCK_IS_SET_MS {
            self.proven_at = None;
        } else if self.is_too_old(at) {
            self.proven_at = None;
            tracing::warn!("our clock was wrong at the start, and shards were audited too long ago: all are again");
            for number in 0..self.wards.end() {
                let claims = self.wards.claims(number).map(|claim| match claim.state {
                    ClaimState::Healthy => Claimed { state: ClaimState::Unproven, ..claim },
                    _ => claim,
                });
                let claims: Vec<Claimed<NodeNumber>> = claims.collect();
                self.wards.set_claims(number, &claims);
                if number % LOOKED_AT_ONCE == LOOKED_AT_ONCE - 1 {
                    tokio::task::yield_now().await;
                }
            }
            let claimants = self.holders.iter().filter(|(_, _, holder)| holder.claims > 0);
            let claimants: Vec<NodeNumber> = claimants.map(|(number, _, _)| number).collect();
            claimants.into_iter().for_each(|node| self.audit_soon(node));
        }
    }

    /// Whether a claim that is new here counts as audited: it was before the restart, and the holder was asked for no part
    /// of it since in vain.
    pub(super) fn was_proven(&self, segment: &SegmentId, index: ShardIndex, number: NodeNumber) -> bool {
        let (Some(node), Some(holder)) = (self.holders.key(number), self.holders.get(number)) else { return false };
        let mut open = holder.containment.failed().chain(holder.containment.pinned());
        !open.any(|sample| sample.segment == *segment && sample.index == index)
            && self.proven_before.has(segment, index, &node)
    }

    /// Writes the file if it was not for a while, or says of something that it is proven that is not any more.
    pub(super) async fn write_proven_if_due(&mut self) {
        let every_ms = self.schedule.rate().every_ms / EVERY_PARTS;
        if self.proven_is_stale || self.now().ms_since(self.proven_written_at) >= every_ms {
            self.write_proven_down().await;
        }
    }

    /// Writes the file.
    pub(super) async fn write_proven_down(&mut self) {
        // What is read after a restart is compared with the system's clock.
        let at = self.parts.clock.now();
        (self.proven_written_at, self.proven_is_stale) = (self.now(), false);
        // Epochs are those of the steady time; what another clock would call by the same numbers was not audited.
        let is_as_set = self.parts.clock.ahead_ms() == 0;
        let audited_until = if self.is_settled() && is_as_set { at } else { self.audited_until };
        let nodes = self.holders.iter().filter(|(_, _, holder)| holder.claims > 0);
        let nodes = nodes.map(|(number, node, _)| (number, *node)).collect();
        let mut claims = BTreeMap::new();
        for number in 0..self.wards.end() {
            let packed = self.packed_proven(number);
            if let Some(segment) = self.wards.segment(number).filter(|_| !packed.is_empty()) {
                claims.insert(segment, packed);
            }
            if number % LOOKED_AT_ONCE == LOOKED_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
        }
        let (path, proven) = (self.parts.proven.clone(), Proven { at, audited_until, nodes, claims });
        let write = move || {
            if let Err(error) = write_atomically(&path, &encode(&proven)) {
                tracing::warn!(%error, path = %path.display(), "which shards were audited cannot be kept");
            }
        };
        // A panic in there is logged by the runtime.
        let _ = tokio::task::spawn_blocking(write).await;
    }

    /// What of a segment counts as audited after a restart: not what is being audited anew, as all that a holder has once it
    /// failed anything.
    fn packed_proven(&self, number: WardNumber) -> Box<[u8]> {
        let is_reviewed = |node| self.holders.get(node).is_some_and(|holder| holder.is_reviewed());
        let proven = self.wards.claims(number);
        let proven = proven.filter(|claim| claim.state == ClaimState::Healthy && !is_reviewed(claim.node));
        let mut packed = Vec::new();
        pack(&proven.collect::<Vec<Claimed<NodeNumber>>>(), &mut packed);
        packed.into()
    }
}

fn encode(proven: &Proven) -> Vec<u8> {
    let mut bytes = KeptFile::begin();
    bytes.extend_from_slice(&proven.at.0.to_le_bytes());
    bytes.extend_from_slice(&proven.audited_until.0.to_le_bytes());
    bytes.extend_from_slice(&(proven.nodes.len() as u32).to_le_bytes());
    for (number, node) in &proven.nodes {
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(node.as_bytes());
    }
    for (segment, packed) in &proven.claims {
        // Three claims of each of 255 shards at most.
        let Ok(length) = u16::try_from(packed.len()) else { continue };
        if bytes.len() + 34 + packed.len() > FILE.bytes_max {
            break;
        }
        bytes.extend_from_slice(segment.as_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(packed);
    }
    FILE.finish(&mut bytes);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Proven> {
    let (_, mut rest) = FILE.open(bytes)?;
    let [at, audited_until] = [take(&mut rest)?, take(&mut rest)?].map(|moment| Timestamp(u64::from_le_bytes(moment)));
    let mut proven = Proven { at, audited_until, ..Proven::default() };
    for _ in 0..u32::from_le_bytes(take(&mut rest)?) {
        let number = u32::from_le_bytes(take(&mut rest)?);
        proven.nodes.insert(number, NodeId::from_bytes(take(&mut rest)?));
    }
    while !rest.is_empty() {
        let segment = SegmentId::from_bytes(take(&mut rest)?);
        let length = u16::from_le_bytes(take(&mut rest)?);
        let (packed, after) = rest.split_at_checked(length.into())?;
        proven.claims.insert(segment, packed.into());
        rest = after;
    }
    Some(proven)
}

/// Any bytes in the place of the file: no panic, and what is read is written as something that reads the same. For
/// tests and, by the feature `fuzzing`, for the fuzz target.
#[cfg(any(test, feature = "fuzzing"))]
pub fn proven_of_any_bytes(bytes: &[u8]) {
    if let Some(proven) = decode(bytes) {
        for (segment, packed) in &proven.claims {
            for claim in unpack(packed) {
                let node = proven.nodes.get(&claim.node).copied().unwrap_or(NodeId::from_bytes([0; 32]));
                proven.has(segment, claim.index, &node);
            }
        }
        assert_eq!(decode(&encode(&proven)), Some(proven));
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::kept_file::checks::{damage_is_noticed, file_of};

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    fn segment(number: u8) -> SegmentId {
        SegmentId::from_bytes([number; 32])
    }

    /// Of each of these segments, node 1 has proven shard 0 and node 200 shard 7; nodes 2 and 3 have not.
    fn proven(segments: u8) -> Proven {
        let claim = |index, state, node| Claimed { index: ShardIndex(index), state, node };
        let claims = [
            claim(0, ClaimState::Healthy, 1),
            claim(1, ClaimState::Failed, 2),
            claim(2, ClaimState::Unproven, 3),
            claim(7, ClaimState::Healthy, 200),
        ];
        let mut packed = Vec::new();
        pack(&claims, &mut packed);
        Proven {
            at: Timestamp(1_900_000_000_000),
            audited_until: Timestamp(1_800_000_000_000),
            nodes: [1, 2, 3, 200].into_iter().map(|number| (number, node(number as u8))).collect(),
            claims: (0..segments).map(|number| (segment(number), packed.as_slice().into())).collect(),
        }
    }

    #[test]
    fn what_was_proven_before_a_restart_is_known_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proven");
        assert_eq!(FILE.read(&path, decode).unwrap(), Proven::default());
        write_atomically(&path, &encode(&proven(3))).unwrap();
        let read = FILE.read(&path, decode).unwrap();
        assert_eq!(read, proven(3));
        for (index, of, known) in [(0, 1, true), (7, 200, true), (1, 2, false), (2, 3, false), (0, 200, false)] {
            assert_eq!(read.has(&segment(2), ShardIndex(index), &node(of)), known, "shard {index} of node {of}");
            assert!(!read.has(&segment(3), ShardIndex(index), &node(of)));
        }
    }

    #[test]
    fn a_damaged_file_is_noticed() {
        damage_is_noticed(&encode(&proven(3)), decode);
    }

    proptest! {
        #[test]
        fn any_bytes_do_no_harm(
            nodes in 0..3_u32,
            segments in vec((any::<u8>(), vec(any::<u8>(), 0..100)), 0..4),
            more in vec(any::<u8>(), 0..100),
        ) {
            let mut body = vec![0; 16];
            body.extend_from_slice(&nodes.to_le_bytes());
            (0..nodes).for_each(|number| body.extend_from_slice(&[number as u8; 36]));
            for (number, packed) in segments {
                body.extend_from_slice(&[number; 32]);
                body.extend_from_slice(&(packed.len() as u16).to_le_bytes());
                body.extend_from_slice(&packed);
            }
            body.extend_from_slice(&more);
            proven_of_any_bytes(&file_of(&FILE, &body));
        }
    }
}
