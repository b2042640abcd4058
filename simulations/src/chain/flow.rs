//! Any law of repair, by the flow of segments around their cycle: down to the threshold, through a window, up again or
//! lost. In steps of time, to the second order in their length.
//!
//! Above the threshold, how many are alive after a time is binomial, and so is how many of the m at its begin have
//! died by a moment of the window. So nothing is approximated but where in a step something happens.

use std::collections::BTreeMap;

use super::{Point, RepairLaw, binomial, binomial_tail};

/// So many steps in the standard deviation of the way down to the threshold, ...
const STEPS_PER_WAY: f64 = 40.0;
/// ... but so many in all, at least and at most, ...
const STEPS_MIN: f64 = 1_000.0;
const STEPS_MAX: f64 = 100_000.0;
/// ... and no more than that many moves from one number of dead to another.
const MOVES_MAX: f64 = 5e8;
/// A window is looked at in so many steps while one of its holders dies.
const STEPS_PER_DEATH: f64 = 40.0;
/// What is whole again with less than this chance matters nowhere: nothing rare depends on it.
const WHOLE_MIN: f64 = 1e-25;
/// An exponential repair time is followed in these parts of its mean where losses are added up. Where many have to die,
/// all of the loss is in repairs that take as many means: see [`Point::loss_means`].
const LOSS_PART: f64 = 1.0 / 25.0;
/// ... and in these where those are that are whole again.
const WHOLE_PARTS: (f64, f64) = (1.0 / 12.0, 20.0);

/// What becomes of those that enter a window at once, by steps after that.
struct Window {
    /// Lost by the end of each step.
    lost_by: Vec<f64>,
    /// Whole again in the step of this number, by how many died unnoticed.
    whole: BTreeMap<usize, Vec<f64>>,
}

impl Point {
    /// The chance that in a window so many die unnoticed that the next repair is due before this one ends.
    pub fn overlap(&self) -> f64 {
        if self.detection <= 0.0 || !self.mttf.is_finite() {
            return 0.0;
        }
        let ends = self.window_ends(self.n - self.threshold);
        let sum: f64 = ends.iter().sum();
        let above = ends.last().copied().unwrap_or_default();
        if sum > 0.0 { above / sum } else { 0.0 }
    }

    /// How likely a window ends with the segment whole, by how many died unnoticed; `most` stands for more, too.
    pub(super) fn window_ends(&self, most: u8) -> Vec<f64> {
        let mut ends = vec![0.0; usize::from(most) + 1];
        for (at, chance) in self.completions(f64::INFINITY) {
            self.add_whole(&mut ends, at, chance);
        }
        ends
    }

    /// How long a window lasts on average, until the repair ends or the segment is lost.
    pub(super) fn window_time(&self) -> f64 {
        // Where deaths are faster than repairs, they say how fine is fine, and when all is over.
        let longest = self.detection + self.repair;
        let over = 40.0 * self.mttf;
        let step = (self.mttf / f64::from(self.threshold) / STEPS_PER_DEATH).min(longest / 200.0);
        let lasts = |(from, to): (f64, f64)| {
            let middle = (from + to) / 2.0;
            (to - from) * self.goes_on(middle) * (1.0 - self.lost_by(middle))
        };
        self.pieces(step.max(longest.min(over) / STEPS_MAX), over).into_iter().map(lasts).sum()
    }

    /// The chance that of the m at the begin of a window too few are alive at `at`.
    fn lost_by(&self, at: f64) -> f64 {
        binomial_tail(self.threshold, self.threshold - self.k + 1, self.dead_within(at))
    }

    /// The chance that the repair has not ended at `at` in a window.
    fn goes_on(&self, at: f64) -> f64 {
        match self.law {
            RepairLaw::Exponential if self.repair > 0.0 => (-(at - self.detection).max(0.0) / self.repair).exp(),
            RepairLaw::Exponential | RepairLaw::Fixed => f64::from(at < self.detection + self.repair),
        }
    }

    /// When in a window its repair ends, each moment with its chance; up to `until`.
    fn completions(&self, until: f64) -> Vec<(f64, f64)> {
        if self.law == RepairLaw::Fixed || self.repair <= 0.0 {
            return vec![(self.detection + self.repair, 1.0)];
        }
        let (part, means) = WHOLE_PARTS;
        let piece = (part * self.repair).min(until / 200.0);
        let count = ((means * self.repair).min(until) / piece).ceil() as u32;
        let piece_of = |number: u32| {
            let from = self.detection + f64::from(number) * piece;
            (from + piece / 2.0, self.goes_on(from) - self.goes_on(from + piece))
        };
        (0..count).map(piece_of).collect()
    }

    /// Adds what is whole again if a repair ends at `at`, by the number that died in the last `detection`.
    fn add_whole(&self, whole: &mut [f64], at: f64, chance: f64) {
        let (k, m) = (self.k, self.threshold);
        let (early, late) = (self.dead_within(at - self.detection), self.dead_within(self.detection.min(at)));
        for died in 0..=m - k {
            let left = m - died;
            let chance = chance * binomial(m, died, early);
            if chance < WHOLE_MIN {
                continue;
            }
            for unnoticed in 0..=(left - k) {
                let part = binomial(left, unnoticed, late);
                if part < WHOLE_MIN && f64::from(unnoticed) > f64::from(left) * late {
                    break;
                }
                let place = usize::from(unnoticed).min(whole.len() - 1);
                whole[place] += chance * part;
            }
        }
    }

    /// Up to so many means of an exponential repair losses are added up: that x have died by t has the weight t^x e^-t.
    fn loss_means(&self) -> f64 {
        let die = f64::from(self.threshold - self.k);
        40.0 + die + 12.0 * die.sqrt()
    }

    /// A window in pieces, up to `until`: multiples of `step`, and finer ones while an exponential repair runs.
    fn pieces(&self, step: f64, until: f64) -> Vec<(f64, f64)> {
        let (part, means) = (LOSS_PART, self.loss_means());
        let end = match self.law {
            RepairLaw::Fixed => self.detection + self.repair,
            RepairLaw::Exponential => self.detection + means * self.repair,
        };
        let end = end.min(until);
        let mut at = vec![0.0, self.detection.min(end), end];
        at.extend((1..(end / step).ceil() as usize).map(|number| number as f64 * step));
        if self.law == RepairLaw::Exponential {
            let moments =
                (1..(means / part) as u32).map(|number| self.detection + f64::from(number) * part * self.repair);
            at.extend(moments.take_while(|moment| *moment < end));
        }
        at.sort_by(f64::total_cmp);
        at.windows(2).filter(|pair| pair[1] > pair[0]).map(|pair| (pair[0], pair[1])).collect()
    }

    fn window(&self, step: f64, steps: usize) -> Window {
        let up = usize::from(self.n - self.threshold);
        let until = step * steps as f64;
        let mut lost_by = vec![0.0; steps];
        for (from, to) in self.pieces(step, until) {
            let middle = (from + to) / 2.0;
            let lost = (self.lost_by(to) - self.lost_by(from)) * self.goes_on(middle);
            lost_by[((middle / step) as usize).min(steps - 1)] += lost;
        }
        let mut sum = 0.0;
        for lost in &mut lost_by {
            sum += *lost;
            *lost = sum;
        }
        let mut whole = BTreeMap::<usize, Vec<f64>>::new();
        for (at, chance) in self.completions(until) {
            // Entered in the middle of a step, on average; then the two nearest ends of steps share it, such that the
            // mean moment is kept.
            let place = 0.5 + at / step;
            let lower = place.floor().max(1.0);
            if lower > steps as f64 {
                continue;
            }
            let mut ended = vec![0.0; up];
            self.add_whole(&mut ended, at, chance);
            // Without a detection time nobody dies unnoticed.
            ended.truncate(ended.iter().rposition(|chance| *chance > 0.0).map_or(0, |last| last + 1));
            for (number, part) in [(lower as usize, lower + 1.0 - place), (lower as usize + 1, place - lower)] {
                let sums: &mut Vec<f64> = whole.entry(number).or_default();
                sums.resize(sums.len().max(ended.len()), 0.0);
                for (sum, chance) in sums.iter_mut().zip(&ended) {
                    *sum += part * chance;
                }
            }
        }
        Window { lost_by, whole }
    }

    /// The chance that a segment which is whole at 0 is lost by `time`.
    pub(super) fn flow_loss_by(&self, time: f64) -> f64 {
        let (n, m) = (f64::from(self.n), f64::from(self.threshold));
        let way = self.mttf * (1.0 / m - 1.0 / n).sqrt();
        let step = way / STEPS_PER_WAY;
        let steps_max = STEPS_MAX.min(MOVES_MAX / ((n - m) * (n - m)));
        if time <= steps_max * step {
            return self.flow_in_steps(time, (time / step).max(STEPS_MIN).ceil() as usize);
        }
        // After so many cycles nothing remembers the start, and losses come at their rate.
        let early = steps_max * step;
        let lost = self.flow_in_steps(early, steps_max as usize);
        let rate = self.loss_rate().unwrap_or_default();
        lost - (1.0 - lost) * (-rate * (time - early)).exp_m1()
    }

    fn flow_in_steps(&self, time: f64, steps: usize) -> f64 {
        let step = time / steps as f64;
        let window = self.window(step, steps);

        // From so many dead to so many, or to the threshold, in one step.
        let up = self.n - self.threshold;
        let dies = self.dead_within(step);
        let moves: Vec<Vec<f64>> =
            (0..up).map(|dead| (0..up - dead).map(|more| binomial(self.n - dead, more, dies)).collect()).collect();
        let crosses: Vec<f64> = (0..up).map(|dead| binomial_tail(self.n - dead, up - dead, dies)).collect();
        let up = usize::from(up);
        let mut returns = vec![vec![0.0; up]; steps + 2];
        let mut chance = vec![0.0; up];
        chance[0] = 1.0;
        let mut lost = 0.0;
        for now in 0..steps {
            for (here, whole) in chance.iter_mut().zip(&returns[now]) {
                *here += whole;
            }
            let enters: f64 = chance.iter().zip(&crosses).map(|(here, crosses)| here * crosses).sum();
            let mut next = vec![0.0; up];
            for (dead, here) in chance.iter().enumerate() {
                for (sum, part) in next[dead..].iter_mut().zip(&moves[dead]) {
                    *sum += here * part;
                }
            }
            chance = next;
            for (number, whole) in &window.whole {
                let Some(sums) = returns.get_mut(now + number) else { break };
                for (sum, chance) in sums.iter_mut().zip(whole) {
                    *sum += enters * chance;
                }
            }
            // What enters in this step has half of it left, on average.
            let left = steps - now - 1;
            let before = if left > 0 { window.lost_by[left - 1] } else { 0.0 };
            lost += enters * (window.lost_by[left] + before) / 2.0;
        }
        lost
    }
}
