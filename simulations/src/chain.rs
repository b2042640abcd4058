//! The closed form: how likely a segment is lost, by mathematics alone. A second implementation that shares nothing
//! with what the simulator plays and counts, and knows nothing of `policy`. Extrapolations of the report use its tail of the
//! binomial.
//!
//! Holders die independently at rate 1/MTTF. When the number alive comes down to the threshold m, the loss is noticed
//! after the detection time g, and a repair takes R; when it ends, all n stand again, but for those that died within
//! the last g, which nobody knows of yet. Fewer than k alive: lost. R is exponential ([`RepairLaw::Exponential`]; with
//! g = 0 that is the birth-death chain of Giroire et al. and Storj) or always the same ([`RepairLaw::Fixed`]). The
//! two are no variants of one figure: at 20/40/30 and an MTTF of 180 days their losses differ by a factor of a million.
//!
//! Where so many die unnoticed in a window that the next repair is due before this one ends ([`Point::overlap`]), the
//! windows are not independent any more, and there is no closed form here: [`Point::loss_by`] says nothing then.
//!
//! Figures: `research/papers.md` of the design; what is from Storj's whitepaper is in [`storj`].

mod flow;
pub mod storj;

use std::sync::LazyLock;

/// The law of the repair time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepairLaw {
    /// Without memory.
    Exponential,
    /// Always the same.
    Fixed,
}

/// A point of the closed form. Times in one unit, whatever it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Shards that restore a segment.
    pub k: u8,
    /// Shards in all.
    pub n: u8,
    /// Repair starts at so many shards alive.
    pub threshold: u8,
    /// Mean life of a holder.
    pub mttf: f64,
    /// From a death to its being noticed.
    pub detection: f64,
    /// Mean repair time.
    pub repair: f64,
    /// Its law.
    pub law: RepairLaw,
}

/// Logarithms of the factorials of 0 to 255.
static LN_FACTORIALS: LazyLock<[f64; 256]> =
    LazyLock::new(|| std::array::from_fn(|number| libm::lgamma(number as f64 + 1.0)));

/// What is smaller than this part of a sum is left out of it.
const NEGLIGIBLE: f64 = 1e-18;

/// The chance that at least `least` of `count` happen, each with chance `chance`. Only what is smaller than one half is
/// added up, from its largest term on, so that no digit of a tiny result is lost; below 1e-308 it is 0.
pub fn binomial_tail(count: u8, least: u8, chance: f64) -> f64 {
    if least == 0 {
        return 1.0;
    }
    if least > count || chance <= 0.0 || chance >= 1.0 {
        return f64::from(chance >= 1.0 && least <= count);
    }
    let odds = chance / (1.0 - chance);
    if f64::from(least) > f64::from(count) * chance {
        let mut sum = 0.0;
        let mut term = binomial(count, least, chance);
        for happen in least..=count {
            sum += term;
            if term < sum * NEGLIGIBLE {
                break;
            }
            term *= f64::from(count - happen) / (f64::from(happen) + 1.0) * odds;
        }
        return sum.min(1.0);
    }
    let mut others = 0.0;
    let mut term = binomial(count, least - 1, chance);
    for happen in (0..least).rev() {
        others += term;
        if term < others * NEGLIGIBLE {
            break;
        }
        term *= f64::from(happen) / f64::from(count - happen + 1) / odds;
    }
    (1.0 - others).max(0.0)
}

/// The chance that exactly `happen` of `count` happen.
pub fn binomial(count: u8, happen: u8, chance: f64) -> f64 {
    if chance <= 0.0 || chance >= 1.0 || happen > count {
        return f64::from((chance <= 0.0 && happen == 0) || (chance >= 1.0 && happen == count));
    }
    let others = count - happen;
    let [all, happening, other] = [count, happen, others].map(|number| LN_FACTORIALS[usize::from(number)]);
    (all - happening - other + f64::from(happen) * chance.ln() + f64::from(others) * (-chance).ln_1p()).exp()
}

/// The chance that a segment is lost in a time without repair, in which each holder dies with chance `death`.
pub fn loss_without_repair(k: u8, n: u8, death: f64) -> f64 {
    binomial_tail(n, n - k + 1, death)
}

/// Up to this chance of overlapping windows the closed form is given: it is off by about as much.
pub const OVERLAP_MAX: f64 = 0.02;

/// So many steps of uniformization, each of all states, at most; beyond that, the flow around the cycle is as exact and
/// much faster.
const UNIFORM_WORK_MAX: f64 = 1e8;

impl Point {
    /// The chance that a segment which is whole at 0 is lost by `time`; none where windows overlap.
    pub fn loss_by(&self, time: f64) -> Option<f64> {
        if self.overlap() > OVERLAP_MAX {
            return None;
        }
        if time <= 0.0 || !self.mttf.is_finite() || self.detection + self.repair <= 0.0 {
            return Some(0.0);
        }
        let steps = (f64::from(self.n) / self.mttf + 1.0 / self.repair) * time;
        let work = steps * f64::from(self.n - self.k + 1);
        let is_chain = self.law == RepairLaw::Exponential && self.detection == 0.0;
        let lost = if is_chain && work < UNIFORM_WORK_MAX { self.chain_loss_by(time) } else { self.flow_loss_by(time) };
        // Where all is lost, what was rounded can add up to more.
        Some(lost.min(1.0))
    }

    /// Losses per segment and time in the long run, if each that is lost is replaced by a whole one: what a cycle
    /// loses, over how long it lasts. None where windows overlap.
    pub fn loss_rate(&self) -> Option<f64> {
        if self.overlap() > OVERLAP_MAX {
            return None;
        }
        if !self.mttf.is_finite() || self.detection + self.repair <= 0.0 {
            return Some(0.0);
        }
        let lost = self.window_loss();
        // A cycle begins with those missing that died unnoticed at the end of the last.
        let mut up = lost * self.time_above_threshold(0);
        for (unnoticed, chance) in (0..=u8::MAX).zip(self.window_ends(self.n - self.threshold)) {
            up += chance * self.time_above_threshold(unnoticed);
        }
        Some(lost / (up + self.window_time()))
    }

    /// Mean time until no more than the threshold are alive, if `missing` of n are missing at first.
    fn time_above_threshold(&self, missing: u8) -> f64 {
        (self.threshold + 1..=self.n - missing).map(|alive| self.mttf / f64::from(alive)).sum()
    }

    /// The chance that a segment is lost between coming down to the threshold and the end of its repair.
    pub fn window_loss(&self) -> f64 {
        let (k, m, rate) = (self.k, self.threshold, 1.0 / self.mttf);
        match self.law {
            RepairLaw::Fixed => binomial_tail(m, m - k + 1, self.dead_within(self.detection + self.repair)),
            RepairLaw::Exponential => {
                // From j alive at the end of the detection, all deaths down to k - 1 come before the repair's end.
                let from = |alive: u8| -> f64 {
                    (k..=alive)
                        .map(|j| f64::from(j) * rate)
                        .map(|die| die * self.repair / (die * self.repair + 1.0))
                        .product()
                };
                let noticed = self.dead_within(self.detection);
                (0..=m).map(|died| binomial(m, died, noticed) * if m - died < k { 1.0 } else { from(m - died) }).sum()
            }
        }
    }

    /// The chance that a holder is dead after `time`.
    fn dead_within(&self, time: f64) -> f64 {
        -(-time.max(0.0) / self.mttf).exp_m1()
    }

    /// The birth-death chain, by uniformization: states n down to k, and lost.
    fn chain_loss_by(&self, time: f64) -> f64 {
        let (death, repaired) = (1.0 / self.mttf, 1.0 / self.repair);
        let states = usize::from(self.n - self.k) + 1;
        let alive = |state: usize| f64::from(self.n) - state as f64;
        let is_repairing = |state: usize| alive(state) <= f64::from(self.threshold);
        let uniform = f64::from(self.n) * death + repaired;
        let mean = uniform * time;
        let steps = (mean + 12.0 * mean.sqrt() + 40.0) as usize;
        let mut chance = vec![0.0; states];
        chance[0] = 1.0;
        let (mut lost, mut by_time) = (0.0, 0.0);
        for step in 0..=steps {
            // Poisson(mean) steps are taken in `time`.
            let weight = (step as f64 * mean.ln() - mean - libm::lgamma(step as f64 + 1.0)).exp();
            by_time += weight * lost;
            let mut next = vec![0.0; states];
            for state in 0..states {
                let dies = alive(state) * death / uniform;
                let mends = if is_repairing(state) { repaired / uniform } else { 0.0 };
                if state + 1 < states {
                    next[state + 1] += chance[state] * dies;
                } else {
                    lost += chance[state] * dies;
                }
                next[0] += chance[state] * mends;
                next[state] += chance[state] * (1.0 - dies - mends);
            }
            chance = next;
        }
        by_time
    }
}

#[cfg(test)]
mod tests;
