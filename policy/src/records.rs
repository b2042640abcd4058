//! What a steward keeps of a segment, and how records from others are merged into it.
//!
//! Anyone can send a record, and anyone can sign claims; only the manifest and the drop are the owner's. The rules, and
//! the attack that each of them stops:
//!
//! - **The manifest that came first stays.** Its id binds vault and salt, so only the vault's own key can sign another
//!   one for the same id, and shards that were claimed against the first would fit it no longer.
//! - **A claim never displaces another holder's.** Were the newest to win, one stranger could sign claims for all n and
//!   make the record forget every honest holder.
//! - **At most [`CLAIMS_PER_INDEX_MAX`] per index**: it bounds the record, and how many wrong holders a reader may
//!   have to ask before an honest one.
//! - **A holder's newer claim replaces its own older one**, and nobody else can make one in its name.
//! - **A drop stands above all**: claims that arrive afterwards are refused, so a steward that was away cannot bring
//!   the record back. Only a newer undrop by the same vault can.
//!
//! Which claims are worth a place, and which lost one gives way to a new one, is [`crate::segment_health`]'s decision:
//! it knows this steward's audits. Here a claim is taken while its index has room.

use std::collections::BTreeMap;

use commonhold_protocol::{
    Drop, Manifest, NodeId, Record, SegmentId, ShardIndex, VaultId, Verified, VerifiedClaim, ask::Refusal,
    record::CLAIMS_PER_INDEX_MAX,
};

use crate::drops::{self, DropRefusal};

/// A record whose parts were verified, each for itself; how they fit together is judged here.
#[derive(Debug, Clone)]
pub struct VerifiedRecord {
    /// The segment's manifest.
    pub manifest: Verified<Manifest>,
    /// Who says to hold which shard.
    pub claims: Vec<VerifiedClaim>,
    /// The newest drop or undrop that names the segment.
    pub drop: Option<Verified<Drop>>,
}

/// Why a part of a record is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordRefusal {
    /// Another manifest is kept for this id, or it is for another id.
    #[error("segment {segment}: another manifest is kept")]
    OtherManifest {
        /// The segment whose record was to be changed.
        segment: SegmentId,
    },
    /// The claim is about another segment.
    #[error("segment {segment}: {holder} claims a shard of segment {claimed}")]
    OtherSegment {
        /// The segment whose record was to be changed.
        segment: SegmentId,
        /// The segment that the claim names.
        claimed: SegmentId,
        /// Who claims.
        holder: NodeId,
    },
    /// The segment has no such shard.
    #[error("segment {segment}: {holder} claims shard {index}, but there are only {n}")]
    NoSuchShard {
        /// The segment.
        segment: SegmentId,
        /// The index that the claim names.
        index: ShardIndex,
        /// Shards of the segment.
        n: u8,
        /// Who claims.
        holder: NodeId,
    },
    /// As many holders claim the shard as are remembered.
    #[error("segment {segment}: {holder} claims shard {index}, which has {CLAIMS_PER_INDEX_MAX} claims already")]
    ClaimsFull {
        /// The segment.
        segment: SegmentId,
        /// The shard.
        index: ShardIndex,
        /// Who claims.
        holder: NodeId,
    },
    /// The owner dropped the segment.
    #[error("segment {segment} was dropped by its owner")]
    Dropped {
        /// The segment.
        segment: SegmentId,
    },
    /// The drop or undrop is not kept.
    #[error("segment {segment}: {reason}")]
    Drop {
        /// The segment.
        segment: SegmentId,
        /// Why.
        reason: DropRefusal,
    },
}

impl RecordRefusal {
    /// What the sender is told.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::OtherManifest { .. } | Self::OtherSegment { .. } | Self::NoSuchShard { .. } => Refusal::Invalid,
            Self::ClaimsFull { .. } => Refusal::RecordLimit,
            Self::Dropped { .. } => Refusal::Dropped,
            Self::Drop { reason: DropRefusal::Outdated, .. } => Refusal::Outdated,
            Self::Drop { reason: DropRefusal::OtherVault | DropRefusal::OtherSegment, .. } => Refusal::Invalid,
        }
    }
}

/// What a merge did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    /// True if the record is now another than before and has to be written down.
    pub changed: bool,
    /// Parts that were not kept, and why. The others were.
    pub refused: Vec<RecordRefusal>,
}

impl Merged {
    fn note(&mut self, outcome: Result<bool, RecordRefusal>) {
        match outcome {
            Ok(changed) => self.changed |= changed,
            Err(refused) => self.refused.push(refused),
        }
    }
}

/// The record of one segment as its steward keeps it.
#[derive(Debug, Clone)]
pub struct RecordState {
    manifest: Verified<Manifest>,
    claims: BTreeMap<ShardIndex, Vec<VerifiedClaim>>,
    drop: Option<Verified<Drop>>,
}

impl RecordState {
    /// The record of a segment of which nothing but the manifest is known.
    pub fn new(manifest: Verified<Manifest>) -> Self {
        Self { manifest, claims: BTreeMap::new(), drop: None }
    }

    /// The first record of a segment: the same rules, against an empty one.
    pub fn first(record: VerifiedRecord) -> (Self, Merged) {
        let mut state = Self::new(record.manifest.clone());
        let merged = state.merge(record);
        (state, Merged { changed: true, ..merged })
    }

    /// The segment.
    pub fn segment(&self) -> SegmentId {
        self.manifest.id()
    }

    /// Whose it is.
    pub fn vault(&self) -> VaultId {
        self.manifest.vault
    }

    /// The manifest.
    pub fn manifest(&self) -> &Verified<Manifest> {
        &self.manifest
    }

    /// The claims of each shard that has any, by holder.
    pub fn claims(&self) -> &BTreeMap<ShardIndex, Vec<VerifiedClaim>> {
        &self.claims
    }

    /// The newest drop or undrop.
    pub fn drop(&self) -> Option<&Verified<Drop>> {
        self.drop.as_ref()
    }

    /// True if this is a tombstone.
    pub fn is_dropped(&self) -> bool {
        drops::is_dropped(self.drop.as_deref())
    }

    /// Merges a record of the same segment.
    ///
    /// Merging the same again changes nothing. While no index is claimed by more holders than are remembered and
    /// nothing is undropped, the order of merges does not matter either.
    pub fn merge(&mut self, record: VerifiedRecord) -> Merged {
        let mut merged = Merged::default();
        let same_manifest = record.manifest.payload() == self.manifest.payload();
        if !same_manifest {
            merged.refused.push(RecordRefusal::OtherManifest { segment: self.segment() });
        }
        if let Some(drop) = record.drop {
            merged.note(self.merge_drop(drop));
        }
        // Claims that came with another manifest speak of other shards.
        if same_manifest {
            for claim in record.claims {
                merged.note(self.merge_claim(claim));
            }
        }
        merged
    }

    /// Merges one claim; true if that changed the record.
    pub fn merge_claim(&mut self, claim: VerifiedClaim) -> Result<bool, RecordRefusal> {
        let (segment, index, holder) = (self.segment(), claim.claim.leaf.index, claim.holder);
        if claim.claim.leaf.segment != segment {
            return Err(RecordRefusal::OtherSegment { segment, claimed: claim.claim.leaf.segment, holder });
        }
        let n = self.manifest.coding.n();
        if index.0 >= n {
            return Err(RecordRefusal::NoSuchShard { segment, index, n, holder });
        }
        if self.is_dropped() {
            return Err(RecordRefusal::Dropped { segment });
        }
        let claims = self.claims.entry(index).or_default();
        match claims.binary_search_by_key(&holder, |kept| kept.holder) {
            Ok(own) => {
                let newer = age(&claim) > age(&claims[own]);
                if newer {
                    claims[own] = claim;
                }
                Ok(newer)
            }
            Err(_) if claims.len() >= CLAIMS_PER_INDEX_MAX => Err(RecordRefusal::ClaimsFull { segment, index, holder }),
            Err(place) => {
                claims.insert(place, claim);
                Ok(true)
            }
        }
    }

    /// Makes room for one more claim of a shard where there is none: the oldest of which `stands` says no goes, which
    /// this steward found lost ([`crate::segment_health`]), or never believed. True if that changed the record.
    ///
    /// All stewards choose the same, so that sweeps do not bring back what made room.
    pub fn make_room(&mut self, index: ShardIndex, stands: impl Fn(&NodeId) -> bool) -> bool {
        let claims = self.claims.get(&index).filter(|claims| claims.len() >= CLAIMS_PER_INDEX_MAX);
        let gone = claims.into_iter().flatten().filter(|claim| !stands(&claim.holder)).min_by_key(|claim| age(claim));
        gone.map(|claim| claim.holder).is_some_and(|holder| self.remove_claim(index, &holder))
    }

    /// Removes a claim that its holder released; true if there was one.
    pub fn remove_claim(&mut self, index: ShardIndex, holder: &NodeId) -> bool {
        let Some(claims) = self.claims.get_mut(&index) else { return false };
        let before = claims.len();
        claims.retain(|claim| claim.holder != *holder);
        claims.len() < before
    }

    /// Merges a drop or undrop; true if that changed the record. A drop makes it a small tombstone without claims;
    /// after an undrop, the holders that restored their shards claim them anew.
    pub fn merge_drop(&mut self, drop: Verified<Drop>) -> Result<bool, RecordRefusal> {
        let (segment, vault) = (self.segment(), self.vault());
        let changed = drops::merge(&mut self.drop, drop, &segment, &vault)
            .map_err(|reason| RecordRefusal::Drop { segment, reason })?;
        if self.is_dropped() {
            self.claims.clear();
        }
        Ok(changed)
    }

    /// The record as it is stored and sent.
    pub fn to_record(&self) -> Record {
        Record {
            manifest: self.manifest.to_unverified(),
            claims: self.claims.values().flatten().map(|claim| claim.claim.clone()).collect(),
            drop: self.drop.as_ref().map(Verified::to_unverified),
        }
    }
}

/// Which of two claims by one holder counts: the later, then the greater bytes, so that all stewards agree.
fn age(claim: &VerifiedClaim) -> (u64, Vec<u8>) {
    (claim.signed_at.0, claim.claim.to_bytes())
}
