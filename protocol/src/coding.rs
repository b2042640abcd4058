//! The shape of a code: how many shards a segment has, and how many restore it.

use std::{fmt, str::FromStr};

/// Which of a segment's `n` shards: 0 to n - 1; the first k hold the segment's bytes as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardIndex(pub u8);

impl fmt::Display for ShardIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `k` of `n` shards restore a segment; 1 ≤ k ≤ n ≤ 255.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Coding {
    k: u8,
    n: u8,
}

/// Why a pair of numbers or a text is not a coding.
#[derive(Debug, thiserror::Error)]
#[error("coding {0:?}: expected K/N with 1 <= K <= N <= 255, as in 7/14")]
pub struct CodingError(String);

/// A segment gets one data shard for each so many bytes that it has begun, up to k: small ones get fewer.
const SMALL_SHARD_BYTES: u64 = 4096;
/// Shards are padded to a multiple of this many bytes: one vector of the widest coding loop.
const SHARD_ALIGN_BYTES: u64 = 64;

impl Coding {
    /// One shard, without parity: the least coding.
    pub const ONE: Self = Self { k: 1, n: 1 };

    /// A coding, or an error that says what is allowed.
    pub fn new(k: u8, n: u8) -> Result<Self, CodingError> {
        if k >= 1 && k <= n { Ok(Self { k, n }) } else { Err(CodingError(format!("{k}/{n}"))) }
    }

    /// Shards that restore a segment.
    pub fn k(self) -> u8 {
        self.k
    }

    /// Shards in all.
    pub fn n(self) -> u8 {
        self.n
    }

    /// Shards whose loss is survived.
    pub fn parity(self) -> u8 {
        self.n - self.k
    }

    /// At this many standing shards or fewer, a segment is repaired at once: when a quarter of the shards whose loss is
    /// survived is lost. What is lost above it waits to be repaired together (`docs/durability.md` has why a quarter).
    pub fn threshold(self) -> u8 {
        self.n - self.parity().div_ceil(4)
    }

    /// A put has succeeded when this many shards of each segment are placed and claimed.
    pub fn placed_enough(self) -> u8 {
        let half = self.k + self.parity().div_ceil(2);
        (u16::from(half) + u16::from(self.n)).div_ceil(2) as u8
    }

    /// The coding of a segment of `length` bytes: small ones take fewer data shards, with the same loss tolerance.
    pub fn for_length(self, length: u64) -> Self {
        let k = length.div_ceil(SMALL_SHARD_BYTES).clamp(1, u64::from(self.k)) as u8;
        Self { k, n: k + self.parity() }
    }

    /// Bytes of each shard of a segment of `length` bytes.
    pub fn shard_length(self, length: u64) -> u64 {
        length.div_ceil(u64::from(self.k)).max(1).next_multiple_of(SHARD_ALIGN_BYTES)
    }

    /// All indices, from 0.
    pub fn indices(self) -> impl Iterator<Item = ShardIndex> {
        (0..self.n).map(ShardIndex)
    }
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.k, self.n)
    }
}

impl FromStr for Coding {
    type Err = CodingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || CodingError(text.chars().take(40).collect());
        let (k, n) = text.split_once('/').ok_or_else(refused)?;
        let (k, n) = (k.trim().parse().map_err(|_| refused())?, n.trim().parse().map_err(|_| refused())?);
        Self::new(k, n).map_err(|_| refused())
    }
}
