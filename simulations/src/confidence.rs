//! How far a count can be trusted.

/// The standard normal's quantile at 97.5%.
const Z: f64 = 1.959_963_985;

/// Interval of a share, from `count` of `trials`: Wilson, 1927, at 95%. With none seen, its upper end is close to the
/// rule of three.
pub fn share_interval(count: f64, trials: f64) -> (f64, f64) {
    if trials <= 0.0 {
        return (0.0, 1.0);
    }
    let share = count / trials;
    let z2 = Z * Z / trials;
    let middle = (share + z2 / 2.0) / (1.0 + z2);
    let half = Z * (share * (1.0 - share) / trials + z2 / (4.0 * trials)).sqrt() / (1.0 + z2);
    // At the ends of the scale rounding would leave a trace of what is exactly nothing.
    let low = if count <= 0.0 { 0.0 } else { (middle - half).max(0.0) };
    let high = if count >= trials { 1.0 } else { (middle + half).min(1.0) };
    (low, high)
}

/// How much more the counts of runs scatter than those of independent segments would: 1 at least. Segments that
/// share holders are lost together, and so count as fewer.
pub fn design_effect(counts: &[(u64, u64)]) -> f64 {
    let runs = counts.len() as f64;
    let (sum, trials) =
        counts.iter().fold((0.0, 0.0), |(sum, all), (count, of)| (sum + *count as f64, all + *of as f64));
    if runs < 2.0 || sum == 0.0 || sum == trials {
        return 1.0;
    }
    let share = sum / trials;
    let chi: f64 = counts
        .iter()
        .map(|(count, of)| (*count as f64 - share * *of as f64).powi(2) / (*of as f64 * share * (1.0 - share)))
        .sum();
    (chi / (runs - 1.0)).max(1.0)
}

/// Interval at 95% of what a sum is expected to be, from those that make it up, by run. Its logarithm is taken as normal:
/// what makes up such sums differs by powers of ten. It scatters as the runs do where that is more than independent parts
/// would.
pub fn sum_interval(runs: &[Vec<f64>]) -> (f64, f64) {
    let sum: f64 = runs.iter().flatten().sum();
    if sum <= 0.0 {
        return (0.0, 0.0);
    }
    // Scaled, since squares of what is that small are nothing.
    let squares: f64 = runs.iter().flatten().map(|part| (part / sum).powi(2)).sum();
    let count = runs.len() as f64;
    let between: f64 = runs.iter().map(|run| (run.iter().sum::<f64>() / sum - 1.0 / count).powi(2)).sum();
    let between = if count >= 2.0 { between * count / (count - 1.0) } else { 0.0 };
    let scatter = (Z * squares.max(between).sqrt()).exp();
    (sum / scatter, sum * scatter)
}

/// Interval at 95% of the mean of what runs found, by how much they differ alone: on the scale of its logarithm, with
/// Student's t. Fewer than three say nothing.
pub fn runs_interval(runs: &[f64]) -> Option<(f64, f64)> {
    let count = runs.len() as f64;
    let mean = runs.iter().sum::<f64>() / count;
    if runs.len() < 3 || mean <= 0.0 {
        return None;
    }
    let squares: f64 = runs.iter().map(|run| (run / mean - 1.0).powi(2)).sum();
    // Student's quantile by that of the normal distribution (Abramowitz and Stegun, 26.7.5).
    let free = count - 1.0;
    let t = Z + (Z.powi(3) + Z) / (4.0 * free) + (5.0 * Z.powi(5) + 16.0 * Z.powi(3) + 3.0 * Z) / (96.0 * free * free);
    let scatter = (t * (squares / (free * count)).sqrt()).exp();
    Some((mean / scatter, mean * scatter))
}

/// The value below which `part` of `sorted` lies.
pub fn quantile(sorted: &[f32], part: f64) -> f64 {
    match sorted.len() {
        0 => 0.0,
        count => f64::from(sorted[((count - 1) as f64 * part).round() as usize]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_the_share_and_nothing_seen_is_not_nothing() {
        assert_eq!(share_interval(0.0, 1000.0).0, 0.0);
        assert!((share_interval(0.0, 1000.0).1 - 3.83e-3).abs() < 1e-4);
        let (low, high) = share_interval(100.0, 1000.0);
        assert!((low - 0.0829).abs() < 1e-3 && (high - 0.1202).abs() < 1e-3, "{low} {high}");
    }

    #[test]
    fn a_sum_scatters_as_its_parts_do_and_as_runs_do_if_that_is_more() {
        let alike = vec![vec![1e-30; 100]; 4];
        let (low, high) = sum_interval(&alike);
        // 400 parts: a twentieth, twice.
        assert!((low / 4e-28 - 0.907).abs() < 1e-3 && (high / 4e-28 - 1.103).abs() < 1e-3, "{low} {high}");
        let one_makes_all = vec![vec![1.0], vec![0.0; 99]];
        let (low, high) = sum_interval(&one_makes_all);
        assert!(low < 0.15 && high > 7.0, "{low} {high}");
        let runs_differ = vec![vec![1.0; 50], vec![1.0; 150]];
        assert!(sum_interval(&runs_differ).1 / 200.0 > 2.0);
        assert_eq!(sum_interval(&[vec![]]), (0.0, 0.0));
    }

    #[test]
    fn runs_say_how_far_their_mean_can_be_trusted() {
        assert_eq!(runs_interval(&[1.0, 2.0]), None);
        assert_eq!(runs_interval(&[1e-20; 5]), Some((1e-20, 1e-20)));
        // Student's quantile for 9 is 2.262; the runs scatter by a tenth of their mean.
        let runs: Vec<f64> = (0..10).map(|run| if run % 2 == 0 { 0.9 } else { 1.1 }).collect();
        let (low, high) = runs_interval(&runs).expect("ten runs");
        let expected = (2.262 * 0.1 / 3.0_f64).exp();
        assert!((high - expected).abs() < 1e-3 && (low * expected - 1.0).abs() < 1e-3, "{low} {high}");
    }

    #[test]
    fn runs_that_are_lost_as_a_whole_count_as_single_ones() {
        assert_eq!(design_effect(&[(5, 100), (5, 100), (5, 100)]), 1.0);
        assert!(design_effect(&[(100, 100), (0, 100), (0, 100), (0, 100)]) > 90.0);
    }
}
