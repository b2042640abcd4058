//! How two stewards find out where the records that they both keep differ, and how a holder asks what is known of its
//! claims: fixed-length items, one after another.

use bytes::Bytes;

use super::{ASK_IDS_MAX, WHAT_REQUEST, WHAT_RESPONSE};
use crate::{
    claim::ClaimLeaf,
    coding::ShardIndex,
    format::{FormatError, check_count},
    ids::{NodeId, SegmentId},
};

/// The most ranges, or digests, in one message.
pub const ASK_RANGES_MAX: usize = 256;

/// A record's key, and a hash of what is kept under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The key.
    pub key: [u8; 32],
    /// Equal for equal contents, see [`record_version`].
    pub version: [u8; 32],
}

/// What stands for the bytes of a record when two stewards compare.
pub fn record_version(record: &[u8]) -> [u8; 32] {
    blake3::derive_key("commonhold 2026 record version v1", record)
}

impl Entry {
    fn hash(&self) -> u128 {
        let mut hasher = blake3::Hasher::new_derive_key("commonhold 2026 record entry v1");
        hasher.update(&self.key).update(&self.version);
        let mut sum = [0; 16];
        hasher.finalize_xof().fill(&mut sum);
        u128::from_le_bytes(sum)
    }
}

/// A digest of the entries in a range of keys: how many, and the sum of their hashes, so that entries can be added
/// and removed in any order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RangeDigest {
    /// Entries.
    pub count: u64,
    /// Sum of their hashes.
    pub sum: u128,
}

impl RangeDigest {
    /// Of these entries.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut digest = Self::default();
        for entry in entries {
            digest.count = digest.count.wrapping_add(1);
            digest.sum = digest.sum.wrapping_add(entry.hash());
        }
        digest
    }
}

/// Keys from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first key.
    pub first: [u8; 32],
    /// The last key.
    pub last: [u8; 32],
}

impl Range {
    /// All keys.
    pub const ALL: Self = Self { first: [0; 32], last: [0xff; 32] };

    /// True if `key` is in it.
    pub fn contains(&self, key: &[u8; 32]) -> bool {
        self.first <= *key && *key <= self.last
    }
}

/// What a steward knows of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimStanding {
    /// It has no record of the segment, or none with this claim.
    Lacking,
    /// It has it.
    Known,
    /// It knows of another healthy holder of the same shard, which keeps it: this one may give it up.
    Surplus {
        /// Who keeps it.
        keeper: NodeId,
    },
}

fn fixed<'a, const N: usize>(
    what: &'static str,
    field: &'static str,
    bytes: &'a [u8],
    count_max: usize,
) -> Result<&'a [[u8; N]], FormatError> {
    let (items, rest) = bytes.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(FormatError::Field { what, field });
    }
    check_count(what, field, items.len(), count_max)?;
    Ok(items)
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

pub(super) fn leaves_to_bytes(leaves: &[ClaimLeaf]) -> Bytes {
    leaves.iter().flat_map(|leaf| leaf.segment.as_bytes().iter().copied().chain([leaf.index.0])).collect()
}

pub(super) fn leaves_from_bytes(bytes: &[u8]) -> Result<Vec<ClaimLeaf>, FormatError> {
    let leaf =
        |bytes: &[u8; 33]| ClaimLeaf { segment: SegmentId::from_bytes(part(bytes, 0)), index: ShardIndex(bytes[32]) };
    Ok(fixed(WHAT_REQUEST, "shards", bytes, ASK_IDS_MAX)?.iter().map(leaf).collect())
}

pub(super) fn ranges_to_bytes(ranges: &[Range]) -> Bytes {
    ranges.iter().flat_map(|range| [range.first, range.last]).flatten().collect()
}

pub(super) fn ranges_from_bytes(bytes: &[u8], count_max: usize) -> Result<Vec<Range>, FormatError> {
    let range = |bytes: &[u8; 64]| Range { first: part(bytes, 0), last: part(bytes, 32) };
    Ok(fixed(WHAT_REQUEST, "ranges", bytes, count_max)?.iter().map(range).collect())
}

pub(super) fn digests_to_bytes(digests: &[RangeDigest]) -> Bytes {
    let mut bytes = Vec::with_capacity(24 * digests.len());
    for digest in digests {
        bytes.extend_from_slice(&digest.count.to_le_bytes());
        bytes.extend_from_slice(&digest.sum.to_le_bytes());
    }
    bytes.into()
}

pub(super) fn digests_from_bytes(bytes: &[u8]) -> Result<Vec<RangeDigest>, FormatError> {
    let digest = |bytes: &[u8; 24]| RangeDigest {
        count: u64::from_le_bytes(part(bytes, 0)),
        sum: u128::from_le_bytes(part(bytes, 8)),
    };
    Ok(fixed(WHAT_RESPONSE, "digests", bytes, ASK_RANGES_MAX)?.iter().map(digest).collect())
}

pub(super) fn entries_to_bytes(entries: &[Entry]) -> Bytes {
    entries.iter().flat_map(|entry| [entry.key, entry.version]).flatten().collect()
}

pub(super) fn entries_from_bytes(bytes: &[u8]) -> Result<Vec<Entry>, FormatError> {
    let entry = |bytes: &[u8; 64]| Entry { key: part(bytes, 0), version: part(bytes, 32) };
    Ok(fixed(WHAT_RESPONSE, "entries", bytes, ASK_IDS_MAX)?.iter().map(entry).collect())
}

/// None is written as zeros, which no version is but by a chance that nobody lives to see.
pub(super) fn versions_to_bytes(versions: &[Option<[u8; 32]>]) -> Bytes {
    versions.iter().flat_map(|version| version.unwrap_or_default()).collect()
}

pub(super) fn versions_from_bytes(bytes: &[u8]) -> Result<Vec<Option<[u8; 32]>>, FormatError> {
    let version = |bytes: &[u8; 32]| (*bytes != [0; 32]).then_some(*bytes);
    Ok(fixed(WHAT_RESPONSE, "versions", bytes, ASK_IDS_MAX)?.iter().map(version).collect())
}

/// A byte that says which, and the keeper or zeros.
pub(super) fn standings_to_bytes(standings: &[ClaimStanding]) -> Bytes {
    let one = |standing: &ClaimStanding| match standing {
        ClaimStanding::Lacking => (0, [0; 32]),
        ClaimStanding::Known => (1, [0; 32]),
        ClaimStanding::Surplus { keeper } => (2, *keeper.as_bytes()),
    };
    standings.iter().map(one).flat_map(|(which, keeper)| std::iter::once(which).chain(keeper)).collect()
}

pub(super) fn standings_from_bytes(bytes: &[u8]) -> Result<Vec<ClaimStanding>, FormatError> {
    let field = "standings";
    let standing = |bytes: &[u8; 33]| match (bytes[0], part(bytes, 1)) {
        (0, keeper) if keeper == [0; 32] => Ok(ClaimStanding::Lacking),
        (1, keeper) if keeper == [0; 32] => Ok(ClaimStanding::Known),
        (2, keeper) => Ok(ClaimStanding::Surplus { keeper: NodeId::from_bytes(keeper) }),
        _ => Err(FormatError::Field { what: WHAT_RESPONSE, field }),
    };
    fixed(WHAT_RESPONSE, field, bytes, ASK_IDS_MAX)?.iter().map(standing).collect()
}
