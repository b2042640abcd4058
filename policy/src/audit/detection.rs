//! How long it takes until a holder that lost something is found: the law that [`super::schedule`] and
//! [`super::containment`] follow, without playing each audit.
//!
//! Each of `T` auditors of a holder meets it once an epoch, at a moment that is uniform in it, and finds the loss
//! then with a chance `q = 1 - (1 - p h)^m`: `m` shards that it knows, each due with chance `p`, each found out with
//! chance `h` by the groups that are asked for. So nothing was found by the part `x` of an epoch with chance
//! `(1 - q x)^T`, which can be inverted: one draw replaces years of audits.

use std::time::Duration;

use rand::Rng;

use super::{containment::REPEATS_MAX, deadline::deadline_ms, schedule::Rate};

/// Who audits whom, how, and what is lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectionParams {
    /// How often shards are audited.
    pub rate: Rate,
    /// Stewards of each record.
    pub stewards: usize,
    /// Shards of the holder.
    pub shards: u64,
    /// Stewards that keep a record with a shard of the holder: `stewards` where all its shards have the same, up to
    /// `stewards * shards` in a large network. Each then knows an equal part of `stewards * shards`.
    pub auditors: u64,
    /// Chunk groups asked for of each shard that is due: [`Rate::groups`].
    pub groups_asked: u32,
    /// Chunk groups of each shard.
    pub shard_groups: u32,
    /// The fraction, 0 to 1, of the chunk groups of each of its shards that the holder has lost.
    pub lost: f64,
    /// What follows the first challenge that finds it: 0 if it answers wrongly, [`contained_ms`] if it refuses or leaves
    /// out what it lost, [`silent_ms`] if it is silent.
    pub contained_ms: u64,
}

/// The time from a loss, at a random moment, to the verdict of the first auditor that finds it; none if nothing is
/// lost.
pub fn detection_delay(rng: &mut impl Rng, params: &DetectionParams) -> Option<Duration> {
    let caught = caught(params);
    if caught <= 0.0 {
        return None;
    }
    let auditors = params.auditors.max(1) as f64;
    // Where in its epoch the loss happens, and the chance of lasting as long as it does.
    let start: f64 = rng.random();
    let mut lasts: f64 = 1.0 - rng.random::<f64>();
    // All logarithms to the power 1/T from here on: lasts^(1/T).
    lasts = (lasts.ln() / auditors).exp();
    let first = 1.0 - caught * (1.0 - start);
    let epochs = if lasts >= first {
        (1.0 - lasts) / caught
    } else {
        lasts /= first;
        let all = 1.0 - caught;
        let whole = if all > 0.0 { (lasts.ln() / all.ln()).floor().max(0.0) } else { 0.0 };
        if whole > 0.0 {
            lasts /= all.powf(whole);
        }
        1.0 - start + whole + ((1.0 - lasts) / caught).clamp(0.0, 1.0)
    };
    let found_ms = epochs * params.rate.epoch_ms() as f64;
    // Casts saturate: a delay beyond any time counts as the longest.
    Some(Duration::from_millis((found_ms as u64).saturating_add(params.contained_ms)))
}

/// The chance that one auditor finds the loss in one epoch.
fn caught(params: &DetectionParams) -> f64 {
    let known = params.shards as f64 * params.stewards as f64 / params.auditors.max(1) as f64;
    let found = 1.0 - missed(params.lost, params.groups_asked, params.shard_groups);
    let due = params.rate.chance(params.stewards);
    -(known * (-due * found).ln_1p()).exp_m1()
}

/// The chance that `asked` different groups of `groups` all lie outside of the lost fraction.
fn missed(lost: f64, asked: u32, groups: u32) -> f64 {
    let groups = f64::from(groups.max(1));
    let sound = groups * (1.0 - lost.clamp(0.0, 1.0));
    (0..asked.min(groups as u32)).map(f64::from).map(|drawn| ((sound - drawn) / (groups - drawn)).max(0.0)).product()
}

/// The chance that `groups` random chunk groups find a holder that lost a fraction `lost`: 1 - (1 - f)^c.
pub fn detection_chance(lost: f64, groups: u64) -> f64 {
    -(groups as f64 * (-lost.clamp(0.0, 1.0)).ln_1p()).exp_m1()
}

/// The time from the moment at which `auditors` stewards hear of a claim to the first audit of it by one of them, which
/// finds a holder that has nothing of what it claims. `prove_ms` is what a new record has to prove itself.
pub fn first_audit_delay(rng: &mut impl Rng, rate: Rate, prove_ms: u64, auditors: usize) -> Duration {
    let delays = (0..auditors.max(1)).map(|_| rate.first_audit_ms(rng, prove_ms));
    Duration::from_millis(delays.min().unwrap_or(0))
}

/// What containment adds until a holder that is there and does not prove has failed, if it answers at once, leaving
/// out what it lost.
pub fn contained_ms(rate: Rate) -> u64 {
    (0..REPEATS_MAX).map(|repeats| rate.again_ms(repeats)).sum()
}

/// The same of one that answers other questions and says nothing to a challenge of `bytes` bytes, over a link with this
/// round trip: it is asked again when its deadline has passed, and the last passes too. No answer is waited for longer
/// than `waited_ms_max`.
pub fn silent_ms(rate: Rate, round_trip_ms: u64, bytes: u64, waited_ms_max: u64) -> u64 {
    let waited = |asked_before| deadline_ms(round_trip_ms, bytes, asked_before).min(waited_ms_max);
    let until_again = |repeats| waited(repeats).max(rate.again_ms(repeats));
    (0..REPEATS_MAX).map(until_again).sum::<u64>() + waited(REPEATS_MAX)
}
