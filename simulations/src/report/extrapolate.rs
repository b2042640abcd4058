//! How likely a segment would have been lost in a window, from how long that was and how fast holders died in it.

use std::collections::HashMap;

use commonhold_policy::budget::REPAIR_BYTES_PER_SECOND;

use crate::{
    chain::binomial_tail,
    distribution::Distribution,
    scenario::{Population, Scenario},
    tally::{Thin, Window},
};

/// Windows and deaths that differ by less than this part are taken as one: a loss of 20/40 by 2%.
const ALIKE: f64 = 1e-3;
/// Steps in which a window is gone through before the last time that a repair takes, and in that.
const STEPS: [u32; 2] = [16, 8];

/// What is the same for all windows of a scenario. Times are in milliseconds.
pub(super) struct Extrapolation {
    k: u8,
    threshold: u8,
    /// From a holder's death at the threshold to the end of the repair.
    urgent: f64,
    /// From the first death to the end of the repair where the threshold is not reached.
    top_up: f64,
    two_steps: HashMap<(u8, u8, i64, i64), f64>,
}

impl Extrapolation {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let coding = scenario.coding();
        let rate = scenario.repair.rate.map_or(REPAIR_BYTES_PER_SECOND as f64, |rate| rate.0);
        let repair_ms = |alive: u8| {
            let missing = coding.n() - alive;
            let bytes = f64::from(coding.k() + missing) * coding.shard_length(scenario.network.segment_size.0) as f64;
            let by_links = |steward: &Population| scenario.repair_ms(coding, steward, missing);
            let of = |steward: &Population| by_links(steward).max(bytes / rate * 1e3) * steward.share.get_ref().0;
            let from_links = || scenario.population.iter().map(of).sum();
            scenario.repair.time.as_ref().map_or_else(from_links, Distribution::mean)
        };
        let (threshold, grace) = (scenario.threshold(), scenario.audit.grace.ms());
        Self {
            k: coding.k(),
            threshold,
            urgent: grace + repair_ms(threshold),
            top_up: grace + scenario.repair.top_up.ms() + repair_ms(coding.n() - 1),
            two_steps: HashMap::new(),
        }
    }

    /// Of a window at the threshold; none if it was not there. One that was cut short would have lasted longer.
    pub(super) fn conditional(&self, window: &Window) -> Option<f64> {
        let Thin { alive, hazard, lasted } = window.at_threshold?;
        let lasted = if window.cut { lasted.max(self.urgent) } else { lasted };
        Some(self.lost_from(alive, dies(hazard, lasted)))
    }

    /// Of any window: down to the threshold before it is topped up, and from there before an urgent repair ends.
    pub(super) fn in_two_steps(&mut self, window: &Window) -> f64 {
        let Thin { alive, hazard, lasted } = window.below_n;
        // Where the threshold was reached it was not topped up.
        let lasted = if window.cut || window.at_threshold.is_some() { lasted.max(self.top_up) } else { lasted };
        let [long, fast] = [lasted, hazard].map(|value| (value.ln() / ALIKE).round());
        if !long.is_finite() || !fast.is_finite() {
            return 0.0;
        }
        let key = (alive, window.false_shards, long as i64, fast as i64);
        if let Some(known) = self.two_steps.get(&key) {
            return *known;
        }
        let chance = self.lost_in(alive, window.false_shards, (long * ALIKE).exp(), (fast * ALIKE).exp());
        self.two_steps.insert(key, chance);
        chance
    }

    fn lost_in(&self, alive: u8, false_shards: u8, lasted: f64, hazard: f64) -> f64 {
        // What only seems to be there is not missed: the urgent repair begins later.
        let threshold = self.threshold.saturating_sub(false_shards);
        if threshold < self.k {
            return self.lost_from(alive, dies(hazard, lasted));
        }
        if alive <= threshold {
            return self.lost_from(alive, dies(hazard, lasted.min(self.urgent)));
        }
        let down_by = |at: f64| binomial_tail(alive, alive - threshold, dies(hazard, at));
        let late = (lasted - self.urgent).max(0.0);
        let parts = [(0.0, late, STEPS[0]), (late, lasted, STEPS[1])];
        let mut chance = 0.0;
        for (from, to, steps) in parts.into_iter().filter(|(from, to, _)| to > from) {
            let step = (to - from) / f64::from(steps);
            for number in 0..steps {
                let at = from + f64::from(number) * step;
                let left = (lasted - at - step / 2.0).min(self.urgent);
                chance += (down_by(at + step) - down_by(at)) * self.lost_from(threshold, dies(hazard, left));
            }
        }
        chance
    }

    /// The chance that fewer than k of so many are left.
    fn lost_from(&self, alive: u8, dies: f64) -> f64 {
        match alive.checked_sub(self.k) {
            Some(spare) => binomial_tail(alive, spare + 1, dies),
            None => 1.0,
        }
    }
}

/// The chance that a holder dies in so long.
fn dies(hazard: f64, ms: f64) -> f64 {
    -(-hazard * ms).exp_m1()
}
