//! Roots and range proofs: a shard's plain BLAKE3 hash, the tree below it, and answers that carry their own proof.
//!
//! A holder keeps, beside a shard, its outboard: the tree's hash pairs above 16 KiB chunk groups, in pre-order. A
//! range is answered with the groups and the pairs that lead to them, in the order of the tree ("Bao response",
//! <https://github.com/n0-computer/bao-tree>, `BlockSize` 16 KiB, no length prefix); whoever knows the root and the
//! length can check it. The root is the plain hash: `b3sum` of a shard prints it.
//!
//! Encoding verifies what it reads, so a damaged shard is an error here and never an answer. Nothing here reads a
//! disk or a socket.

use std::io;

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use bytes::{Buf, Bytes};
use commonhold_protocol::{
    ShardRoot,
    shard_stream::{GROUP_BYTES, GroupRange},
};

/// Bytes of a hash pair.
const PAIR_BYTES: usize = 64;

/// Why a range could not be proven, or a proof was not believed.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// No range, an empty one, one out of order or touching another, or one that ends beyond the shard.
    #[error("ranges of a shard of {shard_length} bytes: not ascending and apart, or beyond its end")]
    Ranges {
        /// Bytes of the shard.
        shard_length: u64,
    },
    /// The outboard is not as long as the tree of such a shard.
    #[error("outboard: {bytes} bytes, {expected} for a shard of {shard_length} bytes")]
    OutboardLength {
        /// Bytes given.
        bytes: usize,
        /// Bytes needed.
        expected: usize,
        /// Bytes of the shard.
        shard_length: u64,
    },
    /// The shard or its outboard on this machine is not what the root says.
    #[error("damaged: the bytes from {offset} do not fit the root")]
    Damaged {
        /// The first byte that the mismatch covers.
        offset: u64,
    },
    /// The shard could not be read.
    #[error("reading the shard")]
    Read(#[from] io::Error),
    /// The answer is longer or shorter than the proof of these ranges.
    #[error("proof: {bytes} bytes, {expected} for these ranges")]
    ProofLength {
        /// Bytes given.
        bytes: usize,
        /// Bytes that the proof has.
        expected: u64,
    },
    /// The answer does not fit the root: whoever sent it is broken or lies.
    #[error("proof: the bytes from {offset} do not fit the root")]
    Refuted {
        /// The first byte that the mismatch covers.
        offset: u64,
    },
}

/// The hash pairs of a shard's tree above its chunk groups, in pre-order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outboard(Bytes);

impl Outboard {
    /// Bytes of the outboard of a shard of `shard_length` bytes.
    pub fn length_for(shard_length: u64) -> usize {
        (groups(shard_length) as usize - 1) * PAIR_BYTES
    }

    /// What is written beside the shard.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same bytes, to keep.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// Chunk groups of a shard; an empty one counts as one.
fn groups(shard_length: u64) -> u64 {
    shard_length.div_ceil(GROUP_BYTES).max(1)
}

/// Groups in the left half of a tree of `groups` groups: the largest power of two below.
fn left_groups(groups: u64) -> u64 {
    groups.div_ceil(2).next_power_of_two()
}

/// Builds a shard's root and outboard as its bytes arrive, in pieces of any size.
pub struct RootBuilder {
    /// Chaining values of the groups that are complete and known not to be the only one.
    complete: Vec<ChainingValue>,
    /// The group that is being filled, or has just been.
    group: blake3::Hasher,
}

impl Default for RootBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl RootBuilder {
    /// No bytes yet.
    pub fn new() -> Self {
        Self { complete: Vec::new(), group: blake3::Hasher::new() }
    }

    /// Bytes so far.
    pub fn length(&self) -> u64 {
        self.complete.len() as u64 * GROUP_BYTES + self.group.count()
    }

    /// The next bytes.
    pub fn update(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            // A full group is closed only when more follows: the last one of all may be the root itself.
            if self.group.count() == GROUP_BYTES {
                self.complete.push(self.group.finalize_non_root());
                // Not `reset`: it keeps the old offset, and the hasher's count would run below zero.
                self.group = blake3::Hasher::new();
                self.group.set_input_offset(self.complete.len() as u64 * GROUP_BYTES);
            }
            let room = (GROUP_BYTES - self.group.count()) as usize;
            let (now, later) = piece.split_at(room.min(piece.len()));
            self.group.update(now);
            piece = later;
        }
    }

    /// The root of all bytes, and the tree below it.
    pub fn finish(mut self) -> (ShardRoot, Outboard) {
        if self.complete.is_empty() {
            return (ShardRoot::from_bytes(*self.group.finalize().as_bytes()), Outboard(Bytes::new()));
        }
        self.complete.push(self.group.finalize_non_root());
        let mut outboard = vec![0; (self.complete.len() - 1) * PAIR_BYTES];
        let (left, right) = fill_outboard(&self.complete, &mut outboard);
        let root = merge_subtrees_root(&left, &right, Mode::Hash);
        (ShardRoot::from_bytes(*root.as_bytes()), Outboard(outboard.into()))
    }
}

/// Writes the pairs of the tree over `groups` (two at least) in pre-order; gives its top pair.
fn fill_outboard(groups: &[ChainingValue], outboard: &mut [u8]) -> (ChainingValue, ChainingValue) {
    let (left, right) = groups.split_at(left_groups(groups.len() as u64) as usize);
    let (pair, below) = outboard.split_at_mut(PAIR_BYTES);
    let (left_below, right_below) = below.split_at_mut((left.len() - 1) * PAIR_BYTES);
    let left = subtree(left, left_below);
    let right = subtree(right, right_below);
    pair[..32].copy_from_slice(&left);
    pair[32..].copy_from_slice(&right);
    (left, right)
}

fn subtree(groups: &[ChainingValue], outboard: &mut [u8]) -> ChainingValue {
    if let [group] = groups {
        return *group;
    }
    let (left, right) = fill_outboard(groups, outboard);
    merge_subtrees_non_root(&left, &right, Mode::Hash)
}

/// The root and the outboard of a whole shard.
pub fn root_of(shard: &[u8]) -> (ShardRoot, Outboard) {
    let mut builder = RootBuilder::new();
    builder.update(shard);
    builder.finish()
}

/// Bytes of the proof of these ranges of a shard, data and pairs together.
pub fn encoded_length(shard_length: u64, ranges: &[GroupRange]) -> u64 {
    fn pairs(first: u64, count: u64, ranges: &[GroupRange]) -> u64 {
        let ranges = within(ranges, first, count);
        if ranges.is_empty() || count == 1 {
            return 0;
        }
        let left = left_groups(count);
        1 + pairs(first, left, ranges) + pairs(first + left, count - left, ranges)
    }
    let data: u64 = ranges.iter().map(|range| range.bytes(shard_length)).map(|bytes| bytes.end - bytes.start).sum();
    data + pairs(0, groups(shard_length), ranges) * PAIR_BYTES as u64
}

/// Those of the ascending `ranges` that touch the `count` groups from `first`.
fn within(ranges: &[GroupRange], first: u64, count: u64) -> &[GroupRange] {
    let start = ranges.partition_point(|range| u64::from(range.first) + u64::from(range.count) <= first);
    let end = ranges.partition_point(|range| u64::from(range.first) < first + count);
    &ranges[start.min(end)..end]
}

fn check_ranges(shard_length: u64, ranges: &[GroupRange]) -> Result<(), ProveError> {
    let refused = ProveError::Ranges { shard_length };
    let mut free_from = 0;
    for range in ranges {
        let end = u64::from(range.first) + u64::from(range.count);
        if range.count == 0 || u64::from(range.first) < free_from || end > groups(shard_length) {
            return Err(refused);
        }
        free_from = end + 1;
    }
    if ranges.is_empty() { Err(refused) } else { Ok(()) }
}

/// What a subtree must hash to: the root is finalised differently from all below it.
#[derive(Clone, Copy)]
enum Expected {
    Root([u8; 32]),
    Below(ChainingValue),
}

impl Expected {
    fn is_pair(self, left: &ChainingValue, right: &ChainingValue) -> bool {
        match self {
            Self::Root(root) => merge_subtrees_root(left, right, Mode::Hash) == root,
            Self::Below(value) => merge_subtrees_non_root(left, right, Mode::Hash) == value,
        }
    }

    fn is_group(self, group: &[u8], offset: u64) -> bool {
        match self {
            Self::Root(root) => blake3::hash(group) == root,
            Self::Below(value) => {
                blake3::Hasher::new().set_input_offset(offset).update(group).finalize_non_root() == value
            }
        }
    }
}

/// One node on the way down: `count` groups from `first`, its place in the outboard, and its hash.
#[derive(Clone, Copy)]
struct Node {
    first: u64,
    count: u64,
    /// Its pair's place among the outboard's pairs; without meaning for a single group.
    pair: usize,
    expected: Expected,
}

impl Node {
    fn root(shard_length: u64, root: &ShardRoot) -> Self {
        Self { first: 0, count: groups(shard_length), pair: 0, expected: Expected::Root(*root.as_bytes()) }
    }

    fn offset(&self) -> u64 {
        self.first * GROUP_BYTES
    }

    /// Both halves, if the pair is this node's.
    fn halves(&self, pair: &[u8; PAIR_BYTES]) -> Option<(Self, Self)> {
        let (left, right) = pair.split_at(32);
        let (left, right) = (left.try_into().ok()?, right.try_into().ok()?);
        if !self.expected.is_pair(&left, &right) {
            return None;
        }
        let left_count = left_groups(self.count);
        Some((
            Self { first: self.first, count: left_count, pair: self.pair + 1, expected: Expected::Below(left) },
            Self {
                first: self.first + left_count,
                count: self.count - left_count,
                pair: self.pair + left_count as usize,
                expected: Expected::Below(right),
            },
        ))
    }
}

/// The proof of `ranges` of a shard, checked against its root while it is read. `read(offset, buffer)` fills the
/// buffer with the shard's bytes from `offset`.
pub fn encode_ranges(
    read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    outboard: &[u8],
    root: &ShardRoot,
    shard_length: u64,
    ranges: &[GroupRange],
) -> Result<Vec<u8>, ProveError> {
    check_ranges(shard_length, ranges)?;
    let expected = Outboard::length_for(shard_length);
    let (pairs, rest) = outboard.as_chunks::<PAIR_BYTES>();
    if outboard.len() != expected || !rest.is_empty() {
        return Err(ProveError::OutboardLength { bytes: outboard.len(), expected, shard_length });
    }
    let encoded = Vec::with_capacity(encoded_length(shard_length, ranges) as usize);
    let mut encoder = Encoder { read, pairs, shard_length, encoded };
    encoder.encode(Node::root(shard_length, root), ranges)?;
    Ok(encoder.encoded)
}

struct Encoder<'a, R> {
    read: R,
    pairs: &'a [[u8; PAIR_BYTES]],
    shard_length: u64,
    encoded: Vec<u8>,
}

impl<R: FnMut(u64, &mut [u8]) -> io::Result<()>> Encoder<'_, R> {
    fn encode(&mut self, node: Node, ranges: &[GroupRange]) -> Result<(), ProveError> {
        let ranges = within(ranges, node.first, node.count);
        if ranges.is_empty() {
            return Ok(());
        }
        let damaged = ProveError::Damaged { offset: node.offset() };
        if node.count == 1 {
            let start = self.encoded.len();
            let length = (self.shard_length - node.offset()).min(GROUP_BYTES) as usize;
            self.encoded.resize(start + length, 0);
            (self.read)(node.offset(), &mut self.encoded[start..])?;
            return if node.expected.is_group(&self.encoded[start..], node.offset()) { Ok(()) } else { Err(damaged) };
        }
        let pair = self.pairs[node.pair];
        let (left, right) = node.halves(&pair).ok_or(damaged)?;
        self.encoded.extend_from_slice(&pair);
        self.encode(left, ranges)?;
        self.encode(right, ranges)
    }
}

/// A range of a shard that fits the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// Its first byte's place in the shard.
    pub start: u64,
    /// Its chunk groups in order, each as it lies in the answer: whoever wants them elsewhere copies them once.
    pub groups: Vec<Bytes>,
}

impl Proven {
    /// Where the range ends in the shard.
    pub fn end(&self) -> u64 {
        self.start + self.groups.iter().map(|group| group.len() as u64).sum::<u64>()
    }

    /// The bytes in one piece.
    pub fn concat(&self) -> Bytes {
        match self.groups.as_slice() {
            [group] => group.clone(),
            groups => groups.concat().into(),
        }
    }
}

/// Checks an answer against the root and gives the ranges, in order.
pub fn decode_ranges(
    root: &ShardRoot,
    shard_length: u64,
    ranges: &[GroupRange],
    encoded: &Bytes,
) -> Result<Vec<Proven>, ProveError> {
    check_ranges(shard_length, ranges)?;
    let expected = encoded_length(shard_length, ranges);
    if encoded.len() as u64 != expected {
        return Err(ProveError::ProofLength { bytes: encoded.len(), expected });
    }
    let mut decoder = Decoder { encoded: encoded.clone(), shard_length, groups: Vec::new() };
    decoder.decode(Node::root(shard_length, root), ranges)?;
    let mut groups = decoder.groups.into_iter();
    let proven = |range: &GroupRange| Proven {
        start: range.bytes(shard_length).start,
        groups: groups.by_ref().take(range.count as usize).collect(),
    };
    Ok(ranges.iter().map(proven).collect())
}

struct Decoder {
    /// What is not yet checked.
    encoded: Bytes,
    shard_length: u64,
    /// All groups so far.
    groups: Vec<Bytes>,
}

impl Decoder {
    fn decode(&mut self, node: Node, ranges: &[GroupRange]) -> Result<(), ProveError> {
        let ranges = within(ranges, node.first, node.count);
        if ranges.is_empty() {
            return Ok(());
        }
        let refuted = || ProveError::Refuted { offset: node.offset() };
        if node.count == 1 {
            let length = (self.shard_length - node.offset()).min(GROUP_BYTES) as usize;
            if self.encoded.len() < length || !node.expected.is_group(&self.encoded[..length], node.offset()) {
                return Err(refuted());
            }
            self.groups.push(self.encoded.split_to(length));
            return Ok(());
        }
        let pair = self.encoded.first_chunk::<PAIR_BYTES>().ok_or_else(refuted)?;
        let (left, right) = node.halves(pair).ok_or_else(refuted)?;
        self.encoded.advance(PAIR_BYTES);
        self.decode(left, ranges)?;
        self.decode(right, ranges)
    }
}

#[cfg(test)]
mod tests;
