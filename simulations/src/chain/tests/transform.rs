//! A third method for the closed form, which shares no step with the others: Laplace transforms.
//!
//! A segment that comes down to its threshold forgets how it came there, so the transform of the moment of its loss is a
//! quotient: the way down, times the loss in a window, over what returns from windows. It is inverted numerically (Euler's
//! algorithm as in Abate and Whitt, 2006), in no steps of time at all, so it is as good after a thousand years as after
//! one cycle. Before the first cycle, where the loss is a high power of time, the inversion has no digits.

use std::ops::{Add, Div, Mul};

use super::{Point, RepairLaw, binomial};

/// Terms of the inversion: more digits need more than a double has.
const TERMS: u32 = 15;
/// Parts of a window, each with the points of [`NODES`].
const PANELS: u32 = 120;
/// Gauss and Legendre, four points: places in -1 to 1, and weights.
const NODES: [(f64, f64); 4] = [
    (-0.861_136_311_594_052_6, 0.347_854_845_137_453_8),
    (-0.339_981_043_584_856_3, 0.652_145_154_862_546_2),
    (0.339_981_043_584_856_3, 0.652_145_154_862_546_2),
    (0.861_136_311_594_052_6, 0.347_854_845_137_453_8),
];

#[derive(Clone, Copy)]
struct Complex(f64, f64);

impl Complex {
    fn exp(self) -> Self {
        let size = self.0.exp();
        Self(size * self.1.cos(), size * self.1.sin())
    }

    fn times(self, factor: f64) -> Self {
        Self(self.0 * factor, self.1 * factor)
    }
}

impl Add for Complex {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0, self.1 + other.1)
    }
}

impl Mul for Complex {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        Self(self.0 * other.0 - self.1 * other.1, self.0 * other.1 + self.1 * other.0)
    }
}

impl Div for Complex {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        let size = other.0 * other.0 + other.1 * other.1;
        Self((self.0 * other.0 + self.1 * other.1) / size, (self.1 * other.0 - self.0 * other.1) / size)
    }
}

/// The window of a point, at moments and with weights that integrate over it.
struct Window {
    /// Moment, and what is lost about then.
    lost: Vec<(f64, f64)>,
    /// Moment, and what is whole again about then, by how many died unnoticed.
    whole: Vec<(f64, Vec<f64>)>,
}

impl Window {
    fn of(point: &Point) -> Self {
        let (k, m, rate) = (point.k, point.threshold, 1.0 / point.mttf);
        let ends = match point.law {
            RepairLaw::Fixed => point.repair,
            // That x have died by t has the weight t^x e^-t.
            RepairLaw::Exponential => {
                let die = f64::from(m - k);
                ((40.0 + die + 12.0 * die.sqrt()) * point.repair).min(60.0 * point.mttf)
            }
        };
        let goes_on = |at: f64| match point.law {
            RepairLaw::Fixed => 1.0,
            RepairLaw::Exponential => (-(at - point.detection).max(0.0) / point.repair).exp(),
        };
        // The (m - k + 1)th death of m.
        let death = |at: f64| {
            let dead = -(-rate * at).exp_m1();
            f64::from(k) * rate * binomial(m, m - k, dead)
        };
        let mut moments = integral(0.0, point.detection);
        moments.extend(integral(point.detection, point.detection + ends));
        let lost = moments.into_iter().map(|(at, weight)| (at, weight * death(at) * goes_on(at))).collect();
        let completions = match point.law {
            RepairLaw::Fixed => vec![(point.detection + point.repair, 1.0)],
            RepairLaw::Exponential => integral(point.detection, point.detection + ends)
                .into_iter()
                .map(|(at, weight)| (at, weight * goes_on(at) / point.repair))
                .collect(),
        };
        let whole = completions.into_iter().map(|(at, weight)| (at, ends_whole(point, at, weight))).collect();
        Self { lost, whole }
    }
}

/// Moments and weights that integrate from `from` to `to`: panels that grow from both ends' finest to the middle would
/// be better, but a window is smooth.
fn integral(from: f64, to: f64) -> Vec<(f64, f64)> {
    // Squares: finer where a window begins.
    let edge = |number: u32| from + (to - from) * (f64::from(number) / f64::from(PANELS)).powi(2);
    (0..PANELS)
        .flat_map(|panel| {
            let (low, high) = (edge(panel), edge(panel + 1));
            NODES.map(|(place, weight)| ((low + high) / 2.0 + (high - low) / 2.0 * place, weight * (high - low) / 2.0))
        })
        .collect()
}

fn ends_whole(point: &Point, at: f64, weight: f64) -> Vec<f64> {
    let (k, m) = (point.k, point.threshold);
    let unnoticed = point.detection.min(at);
    let early = -(-(at - unnoticed) / point.mttf).exp_m1();
    let late = -(-unnoticed / point.mttf).exp_m1();
    let up = usize::from(point.n - m);
    let mut whole = vec![0.0; up + 1];
    for died in 0..=m - k {
        let chance = weight * binomial(m, died, early);
        let left = m - died;
        let most = if late > 0.0 { left - k } else { 0 };
        for more in 0..=most {
            whole[usize::from(more).min(up)] += chance * binomial(left, more, late);
        }
    }
    whole
}

/// The chance of a loss by `time`.
pub(super) fn loss_by(point: &Point, time: f64) -> f64 {
    let window = Window::of(point);
    let transform = |s: Complex| {
        let way = |missing: u8| {
            (point.threshold + 1..=point.n - missing).fold(Complex(1.0, 0.0), |way, alive| {
                let rate = f64::from(alive) / point.mttf;
                way * (Complex(rate, 0.0) / (Complex(rate, 0.0) + s))
            })
        };
        let at = |moment: f64| s.times(-moment).exp();
        let lost = window.lost.iter().fold(Complex(0.0, 0.0), |sum, (moment, lost)| sum + at(*moment).times(*lost));
        let ways: Vec<Complex> = (0..=point.n - point.threshold).map(way).collect();
        let mut stays = Complex(1.0, 0.0);
        for (moment, whole) in &window.whole {
            let decay = at(*moment);
            for (way, chance) in ways.iter().zip(whole) {
                stays = stays + (decay * *way).times(-chance);
            }
        }
        ways[0] * lost / (s * stays)
    };
    let terms = f64::from(TERMS);
    let real = terms * std::f64::consts::LN_10 / 3.0;
    let all = (2 * TERMS + 1) as usize;
    let mut weights = vec![1.0; all];
    weights[0] = 0.5;
    weights[all - 1] = 2f64.powf(-terms);
    let mut ways = 1.0;
    for number in 1..TERMS {
        ways *= f64::from(TERMS - number + 1) / f64::from(number);
        let place = all - 1 - number as usize;
        weights[place] = weights[place + 1] + 2f64.powf(-terms) * ways;
    }
    let sum: f64 = (0u32..)
        .zip(weights)
        .map(|(number, weight)| {
            let s = Complex(real / time, std::f64::consts::PI * f64::from(number) / time);
            let sign = if number % 2 == 0 { 1.0 } else { -1.0 };
            sign * weight * transform(s).0
        })
        .sum();
    10f64.powf(terms / 3.0) / time * sum
}
