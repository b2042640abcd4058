//! How long things last: lives, sessions, absences, repairs.

use std::{path::PathBuf, sync::Arc};

use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::quantity::{Positive, Span, above_nothing};

/// The law of a length of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "law", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Distribution {
    /// It never ends.
    Never {},
    /// Always the same.
    Fixed {
        /// How long.
        value: Span,
    },
    /// Without memory.
    Exponential {
        /// Its mean.
        #[serde(deserialize_with = "above_nothing")]
        mean: Span,
    },
    /// Shape below 1: who has stayed for long stays longer.
    Weibull {
        /// Shape.
        shape: Positive,
        /// Scale: 63% are over by then.
        #[serde(deserialize_with = "above_nothing")]
        scale: Span,
    },
    /// The logarithm is normal.
    LogNormal {
        /// Its median.
        #[serde(deserialize_with = "above_nothing")]
        median: Span,
        /// Standard deviation of the natural logarithm.
        sigma: Positive,
    },
    /// A power law.
    Pareto {
        /// Tail index; at 1 or below the mean is infinite.
        shape: Positive,
        /// The least value.
        #[serde(deserialize_with = "above_nothing")]
        minimum: Span,
    },
    /// Drawn from measured values.
    Empirical {
        /// Lines of hours, ascending; relative to the scenario's folder.
        file: PathBuf,
        /// What is in it, in milliseconds, ascending.
        #[serde(skip)]
        values: Arc<Vec<f64>>,
    },
}

impl Distribution {
    /// Draws a length, in milliseconds; infinite if it never ends.
    pub fn draw(&self, rng: &mut impl Rng) -> f64 {
        // In (0, 1]: no logarithm of 0.
        let uniform = 1.0 - rng.random::<f64>();
        match self {
            Self::Never {} => f64::INFINITY,
            Self::Fixed { value } => value.ms(),
            Self::Exponential { mean } => -uniform.ln() * mean.ms(),
            Self::Weibull { shape, scale } => scale.ms() * (-uniform.ln()).powf(1.0 / shape.0),
            Self::LogNormal { median, sigma } => {
                // Box and Muller, 1958.
                let angle = std::f64::consts::TAU * rng.random::<f64>();
                median.ms() * (sigma.0 * (-2.0 * uniform.ln()).sqrt() * angle.cos()).exp()
            }
            Self::Pareto { shape, minimum } => minimum.ms() * uniform.powf(-1.0 / shape.0),
            Self::Empirical { values, .. } => values[rng.random_range(0..values.len())],
        }
    }

    /// The chance, 0 to 1, that it lasts longer than `ms`.
    pub fn survival(&self, ms: f64) -> f64 {
        let ms = ms.max(0.0);
        match self {
            Self::Never {} => 1.0,
            Self::Fixed { value } => f64::from(ms < value.ms()),
            Self::Exponential { mean } => (-ms / mean.ms()).exp(),
            Self::Weibull { shape, scale } => (-(ms / scale.ms()).powf(shape.0)).exp(),
            Self::LogNormal { median, sigma } => {
                0.5 * libm::erfc((ms / median.ms()).ln() / (sigma.0 * std::f64::consts::SQRT_2))
            }
            Self::Pareto { shape, minimum } => (minimum.ms() / ms.max(minimum.ms())).powf(shape.0),
            Self::Empirical { values, .. } => {
                let over = values.partition_point(|value| *value <= ms);
                (values.len() - over) as f64 / values.len() as f64
            }
        }
    }

    /// The mean, in milliseconds; infinite if it has none.
    pub fn mean(&self) -> f64 {
        match self {
            Self::Never {} => f64::INFINITY,
            Self::Fixed { value } => value.ms(),
            Self::Exponential { mean } => mean.ms(),
            Self::Weibull { shape, scale } => scale.ms() * libm::tgamma(1.0 + 1.0 / shape.0),
            Self::LogNormal { median, sigma } => median.ms() * (sigma.0 * sigma.0 / 2.0).exp(),
            Self::Pareto { shape, minimum } if shape.0 > 1.0 => minimum.ms() * shape.0 / (shape.0 - 1.0),
            Self::Pareto { .. } => f64::INFINITY,
            Self::Empirical { values, .. } => values.iter().sum::<f64>() / values.len() as f64,
        }
    }

    /// The chance that what has lasted for `age` ms ends within the next `ms`.
    pub fn ends_within(&self, age: f64, ms: f64) -> f64 {
        if let Self::Exponential { mean } = self {
            return -(-ms / mean.ms()).exp_m1();
        }
        let lasts = self.survival(age);
        if lasts > 0.0 { (1.0 - self.survival(age + ms) / lasts).clamp(0.0, 1.0) } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn laws() -> Vec<Distribution> {
        let hours = |hours: f64| Span(hours * 3.6e6);
        vec![
            Distribution::Fixed { value: hours(3.0) },
            Distribution::Exponential { mean: hours(5.0) },
            Distribution::Weibull { shape: Positive(0.6077), scale: hours(3.656) },
            Distribution::LogNormal { median: hours(2.0), sigma: Positive(0.8) },
            Distribution::Pareto { shape: Positive(2.5), minimum: hours(1.0) },
            Distribution::Empirical { file: PathBuf::new(), values: Arc::new(vec![1e6, 2e6, 3e6, 3e7]) },
        ]
    }

    /// Each law's draws have its own survival function (Kolmogorov and Smirnov, level 0.1%) and its own mean.
    #[test]
    fn draws_follow_the_survival_function_and_the_mean() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for law in laws() {
            let count = 100_000;
            let mut drawn: Vec<f64> = (0..count).map(|_| law.draw(&mut rng)).collect();
            drawn.sort_by(f64::total_cmp);
            let mut apart: f64 = 0.0;
            for (at, value) in drawn.iter().enumerate() {
                // Only where a value differs from the next does a step end.
                if drawn.get(at + 1) != Some(value) {
                    apart = apart.max(((at + 1) as f64 / f64::from(count) - (1.0 - law.survival(*value))).abs());
                }
            }
            assert!(apart < 1.95 / f64::from(count).sqrt(), "{law:?}: {apart}");
            let mean = drawn.iter().sum::<f64>() / f64::from(count);
            assert!((mean / law.mean() - 1.0).abs() < 0.03, "{law:?}: {mean} against {}", law.mean());
        }
    }

    #[test]
    fn the_published_quantiles_of_ipfs_sessions_come_out() {
        let law = Distribution::Weibull { shape: Positive(0.6077), scale: Span(3.656 * 3.6e6) };
        assert!((law.survival(2.0 * 3.6e6) - 0.5).abs() < 1e-3);
        assert!((law.survival(8.0 * 3.6e6) - 0.2).abs() < 1e-3);
        assert!((law.mean() / 3.6e6 - 5.41).abs() < 0.01);
    }
}
