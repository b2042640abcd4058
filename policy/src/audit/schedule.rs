//! Which segments a steward audits in which epoch, when it challenges which holder, and for which chunk groups.
//!
//! A hash of (steward, segment, epoch) decides, so no timer and no state is kept per shard. The eight stewards of a
//! record draw independently, each with an eighth of the rate. All that is due of one holder in one epoch is asked
//! for at one moment of it, so that a challenge covers many shards.

use commonhold_protocol::{NodeId, SegmentId, ShardIndex, Timestamp, shard_stream::GROUP_BYTES};
use rand::Rng;

use super::{CHALLENGE_MAX, Sample};

/// An epoch is this part of the mean time between audits: a day of a week. Longer epochs would gather more shards of
/// a holder in one challenge, shorter ones would spread the work more evenly over the holders.
const EPOCHS: u64 = 7;
/// Where that time is only seconds, an epoch still leaves room for a challenge and its repetition.
const EPOCH_MS_MIN: u64 = 250;
/// At least so many chunk groups are asked of a holder a day, or all that it has.
pub const GROUPS_PER_DAY_MIN: u64 = 100;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// A claim is audited for the first time within this, ...
const FIRST_AUDIT_MS_MAX: u64 = 60 * 60 * 1000;
/// ... within this part of an epoch, ...
const FIRST_AUDIT_EPOCH_PARTS: u64 = 2;
/// ... and within this part of the time in which a new record has to prove itself: there may be a challenge to repeat.
const FIRST_AUDIT_PROVE_PARTS: u64 = 4;
/// Between the first and the second asking of a pinned challenge, see [`super::containment`]: a part of an epoch, ...
const AGAIN_PARTS: u64 = 96;
/// ... but no shorter than this, so that a hiccup passes, ...
const AGAIN_MS_MIN: u64 = 1_000;
/// ... and no longer than this, so that a holder that stays silent is found within two hours.
const AGAIN_MS_MAX: u64 = 15 * 60 * 1000;

/// How often shards are audited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Mean time between two audits of one shard, over all stewards of its record: `[audit] every`.
    pub every_ms: u64,
}

impl Default for Rate {
    fn default() -> Self {
        Self { every_ms: 7 * DAY_MS }
    }
}

impl Rate {
    /// Length of an epoch.
    pub fn epoch_ms(self) -> u64 {
        (self.every_ms / EPOCHS).max(EPOCH_MS_MIN)
    }

    /// The chance, 0 to 1, that one of `stewards` stewards audits a segment in one epoch.
    pub fn chance(self, stewards: usize) -> f64 {
        (self.epoch_ms() as f64 / (self.every_ms.max(1) as f64 * stewards.max(1) as f64)).min(1.0)
    }

    /// Chunk groups to ask for of each shard that is due, of a holder that has `shards` shards in all: one, and more
    /// of those who have so few that [`GROUPS_PER_DAY_MIN`] would not be met.
    ///
    /// `shards` is what the holder says of itself or what the steward knows of, whichever is more. One that says too
    /// many gets one group for each shard as often as everyone.
    pub fn groups(self, shards: u64) -> u32 {
        let wanted = u128::from(GROUPS_PER_DAY_MIN) * u128::from(self.every_ms);
        let groups = wanted.div_ceil(u128::from(DAY_MS) * u128::from(shards.max(1)));
        u32::try_from(groups.max(1)).unwrap_or(u32::MAX)
    }

    /// How long new claims wait until a steward audits them for the first time, where a new record has `prove_ms` to
    /// prove itself: what comes until then shares the challenge. Milliseconds, 1 at least.
    pub fn first_audit_ms(self, rng: &mut impl Rng, prove_ms: u64) -> u64 {
        let within = (self.epoch_ms() / FIRST_AUDIT_EPOCH_PARTS).min(prove_ms / FIRST_AUDIT_PROVE_PARTS);
        let within = within.clamp(1, FIRST_AUDIT_MS_MAX);
        rng.random_range((within / 4).max(1)..=within)
    }

    /// How long a pinned challenge waits before it is asked for the `repeats`-th time again, counted from 0.
    pub fn again_ms(self, repeats: u32) -> u64 {
        (self.epoch_ms() / AGAIN_PARTS).clamp(AGAIN_MS_MIN, AGAIN_MS_MAX) << repeats.min(8)
    }
}

/// One steward's schedule.
#[derive(Debug, Clone)]
pub struct Schedule {
    seed: [u8; 32],
    rate: Rate,
}

impl Schedule {
    /// The schedule of the steward with this seed. A node derives it from its secret key: from its public id, each
    /// holder could work out for years ahead when it will be asked for what.
    pub fn new(seed: [u8; 32], rate: Rate) -> Self {
        Self { seed, rate }
    }

    /// The rate that it follows.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// The epoch of a moment.
    pub fn epoch(&self, now: Timestamp) -> u64 {
        now.0 / self.rate.epoch_ms()
    }

    /// True if this steward, one of `stewards` of the record, audits the segment in `epoch`: all of its shards.
    pub fn is_due(&self, segment: &SegmentId, stewards: usize, epoch: u64) -> bool {
        let parts = u128::from(self.rate.every_ms.max(1)) * stewards.max(1) as u128;
        let below = (u128::from(self.rate.epoch_ms()) << 64) / parts;
        u128::from(self.draw(0, segment.as_bytes(), epoch)) < below
    }

    /// When in `epoch` this steward challenges `holder` for all that is due: spread evenly over the epoch.
    pub fn moment(&self, holder: &NodeId, epoch: u64) -> Timestamp {
        let epoch_ms = self.rate.epoch_ms();
        let offset = (u128::from(self.draw(1, holder.as_bytes(), epoch)) * u128::from(epoch_ms)) >> 64;
        Timestamp(epoch.saturating_mul(epoch_ms)).after_ms(offset as u64)
    }

    fn draw(&self, what: u8, id: &[u8; 32], epoch: u64) -> u64 {
        let mut message = [0; 41];
        message[0] = what;
        message[1..33].copy_from_slice(id);
        message[33..].copy_from_slice(&epoch.to_le_bytes());
        let hash = blake3::keyed_hash(&self.seed, &message);
        let mut drawn = [0; 8];
        drawn.copy_from_slice(&hash.as_bytes()[..8]);
        u64::from_le_bytes(drawn)
    }
}

/// Draws `groups` different chunk groups of a shard of `shard_bytes` bytes, or all if it has no more; in samples of
/// at most [`CHALLENGE_MAX`].
pub fn samples(
    rng: &mut impl Rng,
    segment: SegmentId,
    index: ShardIndex,
    shard_bytes: u64,
    groups: u32,
) -> Vec<Sample> {
    let all = shard_groups(shard_bytes) as usize;
    let mut drawn: Vec<u32> = rand::seq::index::sample(rng, all, all.min(groups.max(1) as usize))
        .into_iter()
        .map(|group| group as u32)
        .collect();
    drawn.sort_unstable();
    drawn.chunks(CHALLENGE_MAX).map(|groups| Sample { segment, index, groups: groups.to_vec() }).collect()
}

/// Bytes of one chunk group with its proof: 64 for each parent in the Bao tree.
pub fn proven_group_bytes(shard_bytes: u64) -> u64 {
    let parents = shard_groups(shard_bytes).next_power_of_two().ilog2();
    GROUP_BYTES.min(shard_bytes) + 64 * u64::from(parents)
}

/// Chunk groups of a shard: 1 at least.
pub fn shard_groups(shard_bytes: u64) -> u32 {
    u32::try_from(shard_bytes.div_ceil(GROUP_BYTES).max(1)).unwrap_or(u32::MAX)
}
