//! When a holder may drop a vault's shards because its lease ran out: on positive evidence only.
//!
//! The newest lease that it ever saw has ended, the grace time after that is over too, and since then the vault's
//! stewards and stewards of 8 different segments of it were asked and *answered with a lease*, none of them a newer
//! one. Silence and "unknown vault" mean keep: eight node ids near the vault's key can be ground out in seconds, and
//! were their silence enough, they would destroy it. And nothing goes while our own clock may be wrong ([`doubt`]).

use std::collections::BTreeSet;

use commonhold_protocol::{Lease, NodeId, SegmentId, Timestamp};

use crate::{Domain, leases};

/// Stewards of so many different segments have to answer, or of all segments of the vault that the holder knows, if
/// they are fewer.
pub const SEGMENTS_MIN: usize = 8;

/// How long everything is kept beyond its end, and when clocks are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// After a lease's end.
    pub grace_ms: u64,
    /// Nothing is dropped in the first time after the start.
    pub uptime_ms_min: u64,
    /// Nothing is dropped while our clock is farther than this from the median of the others'.
    pub clock_off_ms_max: u64,
    /// So many others, in different domains, have to be heard; or one of each domain if there are fewer.
    pub witnesses_min: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            grace_ms: leases::GRACE_MS,
            uptime_ms_min: 24 * 60 * 60 * 1000,
            clock_off_ms_max: 10 * 60 * 1000,
            witnesses_min: 5,
        }
    }
}

/// Why our clock is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClockDoubt {
    /// Ours agrees with that of others, but we have not been up for long enough to drop anything.
    #[error("the node has been up for too short a time")]
    JustStarted,
    /// Too few others told us their time.
    #[error("{heard} clocks were heard, {need} are needed")]
    TooFewWitnesses {
        /// Domains that were heard.
        heard: usize,
        /// Domains that are needed.
        need: usize,
    },
    /// Ours is far from theirs.
    #[error("the clock is {off_ms} ms off the median of others")]
    Off {
        /// Milliseconds between the median and ours; positive if theirs is ahead.
        off_ms: i64,
    },
}

impl ClockDoubt {
    /// True if our clock is off, or may be for all that we have heard.
    pub fn is_of_the_time(self) -> bool {
        match self {
            Self::JustStarted => false,
            Self::TooFewWitnesses { .. } | Self::Off { .. } => true,
        }
    }
}

/// Whether there is reason to doubt our clock, the gravest one: a clock that is off is so from the start. `ahead_ms`: by how much each other's clock was ahead of ours when it
/// was heard last; one voice for each domain, the last one given. `domains`: how many other domains are known at all.
pub fn doubt(rules: &Rules, uptime_ms: u64, ahead_ms: &[(Domain, i64)], domains: usize) -> Option<ClockDoubt> {
    let by_domain: std::collections::BTreeMap<&Domain, i64> =
        ahead_ms.iter().map(|(domain, ahead)| (domain, *ahead)).collect();
    let (heard, need) = (by_domain.len(), rules.witnesses_min.min(domains).max(1));
    if heard < need {
        return Some(ClockDoubt::TooFewWitnesses { heard, need });
    }
    let mut ahead: Vec<i64> = by_domain.into_values().collect();
    ahead.sort_unstable();
    let off_ms = ahead.get(ahead.len() / 2).copied().unwrap_or(0);
    if off_ms.unsigned_abs() > rules.clock_off_ms_max {
        return Some(ClockDoubt::Off { off_ms });
    }
    (uptime_ms < rules.uptime_ms_min).then_some(ClockDoubt::JustStarted)
}

/// How much of the uptime of earlier runs counts after a restart: `before_ms` was counted when it was `at`, by our clock. All
/// of it, so that also a node that is switched off each night gives space back; none if it was away for longer than the
/// time that it has to be up for: then it may have missed much.
pub fn uptime_ms_that_counts(rules: &Rules, before_ms: u64, at: Timestamp, now: Timestamp) -> u64 {
    if at <= now && now.ms_since(at) <= rules.uptime_ms_min { before_ms } else { 0 }
}

/// Whose steward was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// The vault's.
    Vault,
    /// A segment's, of the vault.
    Segment(SegmentId),
}

/// What a steward answered when it was asked for the vault's lease. One that did not answer, or does not know the
/// vault, has not given its word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Who answered.
    pub steward: NodeId,
    /// As whose steward.
    pub asked: Asked,
    /// When.
    pub at: Timestamp,
    /// The lease, its signature checked.
    pub lease: Lease,
}

/// Whether a vault's shards are to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// The lease runs, or its grace time, or no lease was ever seen.
    Keep,
    /// It is over as far as we know; the stewards are to be asked.
    Ask {
        /// None of the vault's stewards has given its word.
        vault: bool,
        /// Stewards of so many more segments have to give theirs.
        segments: usize,
    },
    /// Someone has a newer lease: it is to be merged, and counts.
    Renewed,
    /// Drop.
    Over,
}

/// Judges a vault by the newest lease that was ever seen and by what stewards said since. `segments`: how many
/// segments of the vault are known here, or how many other stewards there are at all if those are fewer, since each
/// speaks for one. The caller has made sure that there is no [`doubt`] about `now`.
pub fn judge(rules: &Rules, now: Timestamp, newest: Option<&Lease>, words: &[Word], segments: usize) -> Expiry {
    let Some(newest) = newest else { return Expiry::Keep };
    if !leases::is_over(Some(newest), now, rules.grace_ms) {
        return Expiry::Keep;
    }
    let over_at = newest.valid_until.after_ms(rules.grace_ms);
    let mut vault = false;
    // One node speaks for one segment only: else one that stewards many would do for all.
    let mut heard = BTreeSet::new();
    let mut speakers = BTreeSet::new();
    for word in words.iter().filter(|word| word.lease.vault == newest.vault) {
        if word.lease.newer_than(newest) {
            return Expiry::Renewed;
        }
        // A word from before the end of the grace time says nothing about a renewal within it.
        if word.at <= over_at || word.at > now {
            continue;
        }
        match word.asked {
            Asked::Vault => vault = true,
            Asked::Segment(segment) => {
                if !heard.contains(&segment) && speakers.insert(word.steward) {
                    heard.insert(segment);
                }
            }
        }
    }
    let need = SEGMENTS_MIN.min(segments).max(1);
    if vault && heard.len() >= need {
        Expiry::Over
    } else {
        Expiry::Ask { vault: !vault, segments: need.saturating_sub(heard.len()) }
    }
}
