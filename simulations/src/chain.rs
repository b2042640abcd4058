//! The closed form: how likely a segment is lost, by mathematics alone. A second implementation that shares nothing
//! with the simulator, and knows nothing of `policy`.
//!
//! Holders die independently at rate 1/MTTF. When the number alive comes down to the threshold m, the loss is noticed
//! after the detection time g, and a repair takes R; when it ends, all n stand again, but for those that died within
//! the last g, which nobody knows of yet. Fewer than k alive: lost. R is exponential ([`RepairLaw::Exponential`]; with
//! g = 0 that is the birth-death chain of Giroire et al. and Storj) or always the same ([`RepairLaw::Fixed`]). The
//! two are no variants of one figure: at 20/40/30 and an MTTF of 180 days their losses differ by a factor of a million.
//!
//! Figures: `research/papers.md` of the design; what is from Storj's whitepaper is in [`storj`].

pub mod storj;

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

/// The chance that at least `least` of `count` happen, each with chance `chance`; terms are added from the smallest,
/// so that no digit of a tiny result is lost.
pub fn binomial_tail(count: u8, least: u8, chance: f64) -> f64 {
    let mut terms: Vec<f64> = (least..=count).map(|happen| binomial(count, happen, chance)).collect();
    terms.sort_by(f64::total_cmp);
    terms.iter().sum::<f64>().min(1.0)
}

/// The chance that exactly `happen` of `count` happen.
pub fn binomial(count: u8, happen: u8, chance: f64) -> f64 {
    if chance <= 0.0 || chance >= 1.0 || happen > count {
        return f64::from((chance <= 0.0 && happen == 0) || (chance >= 1.0 && happen == count));
    }
    let (n, x) = (f64::from(count), f64::from(happen));
    let ways = libm::lgamma(n + 1.0) - libm::lgamma(x + 1.0) - libm::lgamma(n - x + 1.0);
    (ways + x * chance.ln() + (n - x) * (-chance).ln_1p()).exp()
}

/// The chance that a segment is lost in a time without repair, in which each holder dies with chance `death`.
pub fn loss_without_repair(k: u8, n: u8, death: f64) -> f64 {
    binomial_tail(n, n - k + 1, death)
}

impl Point {
    /// The chance that a segment which is whole at 0 is lost by `time`.
    pub fn loss_by(&self, time: f64) -> f64 {
        match self.law {
            RepairLaw::Exponential if self.detection == 0.0 => self.chain_loss_by(time),
            RepairLaw::Exponential | RepairLaw::Fixed => self.renewal_loss_by(time),
        }
    }

    /// Losses per time of segments that exist, in the long run.
    pub fn loss_rate(&self) -> f64 {
        // Windows follow windows: what a cycle loses, over how long it lasts.
        let rate = 1.0 / self.mttf;
        let up: f64 = (self.threshold + 1..=self.n).map(|alive| 1.0 / (f64::from(alive) * rate)).sum();
        let window = self.detection + self.repair;
        let lost = self.window_loss();
        lost / (up + window)
    }

    /// The chance that a segment is lost between coming down to the threshold and the end of its repair.
    pub fn window_loss(&self) -> f64 {
        let (k, m, rate) = (self.k, self.threshold, 1.0 / self.mttf);
        let dead = |time: f64| -(-rate * time).exp_m1();
        match self.law {
            RepairLaw::Fixed => binomial_tail(m, m - k + 1, dead(self.detection + self.repair)),
            RepairLaw::Exponential => {
                let repaired = 1.0 / self.repair;
                // From j alive at the end of the detection, all deaths down to k - 1 come before the repair's end.
                let from = |alive: u8| -> f64 {
                    (k..=alive).map(|j| f64::from(j) * rate / (f64::from(j) * rate + repaired)).product()
                };
                let noticed = dead(self.detection);
                (0..=m).map(|died| binomial(m, died, noticed) * if m - died < k { 1.0 } else { from(m - died) }).sum()
            }
        }
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

    /// Any law of the window, by the flow of segments around the cycle: down to the threshold, through a window, up
    /// again or lost; in small steps of time.
    fn renewal_loss_by(&self, time: f64) -> f64 {
        let (n, k, m) = (self.n, self.k, self.threshold);
        let rate = 1.0 / self.mttf;
        let window = self.detection + self.repair;
        let step = (window / 100.0).min(self.mttf / f64::from(n) / 100.0).min(time / 400.0);
        let step = window / (window / step).ceil();
        let steps = (time / step).round() as usize;
        let dead = |time: f64| -(-rate * time.max(0.0)).exp_m1();
        // What of a window's entrants is lost within each step after, and what is whole again, by the number that died
        // unnoticed in the last `detection`.
        let ends = match self.law {
            RepairLaw::Fixed => window,
            RepairLaw::Exponential => self.detection + 40.0 * self.repair,
        };
        let last = (ends / step).ceil() as usize;
        let goes_on = |at: f64| match self.law {
            RepairLaw::Fixed => f64::from(at < window - step / 4.0),
            RepairLaw::Exponential => (-(at - self.detection).max(0.0) / self.repair).exp(),
        };
        let unnoticed_max = usize::from(if self.detection > 0.0 { n - m - 1 } else { 0 });
        let lost_by = |at: f64| binomial_tail(m, m - k + 1, dead(at));
        let mut lost_in = Vec::with_capacity(last + 1);
        let mut whole_in: Vec<Vec<f64>> = Vec::with_capacity(last + 1);
        for number in 0..=last {
            let (from, to) = (number as f64 * step, (number + 1) as f64 * step);
            lost_in.push((lost_by(to) - lost_by(from)) * goes_on((from + to) / 2.0));
            let completes = goes_on(from) - goes_on(to);
            let at = if self.law == RepairLaw::Fixed { window } else { (from + to) / 2.0 };
            let mut whole = vec![0.0; unnoticed_max + 1];
            if completes > 0.0 {
                let (early, late) = (dead(at - self.detection), dead(self.detection.min(at)));
                for died in 0..=m - k {
                    let left = m - died;
                    for unnoticed in 0..=(left - k) {
                        let chance = binomial(m, died, early) * binomial(left, unnoticed, late);
                        whole[usize::from(unnoticed).min(unnoticed_max)] += completes * chance;
                    }
                }
            }
            whole_in.push(whole);
        }
        let completing: Vec<usize> = (0..=last).filter(|at| whole_in[*at].iter().any(|chance| *chance > 0.0)).collect();

        let up = usize::from(n - m);
        let mut chance = vec![0.0; up];
        chance[0] = 1.0;
        let mut returns = vec![vec![0.0; unnoticed_max + 1]; steps + last + 2];
        let mut lost_sum = vec![0.0; last + 2];
        for (number, lost) in lost_in.iter().enumerate() {
            lost_sum[number + 1] = lost_sum[number] + lost;
        }
        let mut lost = 0.0;
        for now in 0..steps {
            let mut enters = 0.0;
            for state in (0..up).rev() {
                let dies = -(-(f64::from(n) - state as f64) * rate * step).exp_m1();
                let flow = chance[state] * dies;
                chance[state] -= flow;
                if state + 1 < up {
                    chance[state + 1] += flow;
                } else {
                    enters = flow;
                }
            }
            for (unnoticed, whole) in returns[now].iter().enumerate() {
                chance[unnoticed.min(up - 1)] += whole;
            }
            if enters > 0.0 {
                for at in &completing {
                    for (sum, whole) in returns[now + at + 1].iter_mut().zip(&whole_in[*at]) {
                        *sum += enters * whole;
                    }
                }
                lost += enters * lost_sum[(steps - now).min(last + 1)];
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests;
