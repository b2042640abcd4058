//! What was lost, and what was to be expected to be: counted, or extrapolated where too few losses are seen.

use serde::Serialize;

use super::{Estimate, extrapolate::Extrapolation};
use crate::{
    confidence::{design_effect, runs_interval, share_interval, sum_interval},
    scenario::{DAY_MS, Scenario},
    tally::{Tally, Window},
};

/// With fewer losses than this, their count says little, and they are estimated instead.
const COUNTED_MIN: u64 = 10;
/// With fewer windows than this at the threshold, two steps are needed.
const WINDOWS_MIN: usize = 100;

/// How losses were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// They were counted.
    Counted,
    /// An extrapolation from segments that came down to their threshold: how likely each would have been lost until
    /// its repair ended (conditional expectation), taking its holders as independent in that time.
    Conditional,
    /// An extrapolation in two steps: how likely a segment comes down to its threshold before it is topped up, times
    /// how likely it is then lost (splitting by conditional expectations).
    TwoSteps,
}

/// Losses per segment and year, found in one way.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Found {
    /// How.
    pub method: Method,
    /// Losses per segment and year.
    pub per_year: f64,
    /// Lower end of the 95% interval: of what scatters from run to run, not of what the method leaves out.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// The part of it that comes from its largest hundredth of windows: above one half it is a lower bound, and so is its
    /// interval.
    pub from_the_rarest: f64,
}

impl Found {
    /// It is no count, and knows nothing of what strikes many at once or of repairs that wait for holders to come back.
    pub fn is_extrapolation(&self) -> bool {
        self.method != Method::Counted
    }

    /// -log10 of the losses per year; none if there are none.
    pub fn nines(&self) -> Option<f64> {
        (self.per_year > 0.0).then(|| -self.per_year.log10())
    }
}

/// What was lost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Durability {
    /// Segments that were lost.
    pub lost: u64,
    /// Segments that there were.
    pub segments: u64,
    /// Those of them that found no holders and were never stored: in no other figure.
    pub unplaced: u64,
    /// How much more losses scatter over the runs than independent ones; 1 if they do not, or with one run.
    pub design_effect: f64,
    /// The part that was lost by the end, by counting.
    pub counted: Estimate,
    /// Losses per segment and year: counted, or extrapolated where too few are seen.
    pub found: Found,
    /// The same in each way that says something, for comparison.
    pub ways: Vec<Found>,
    /// Losses per segment and year that were to be expected of incidents in which many leave for good at once, each
    /// holder as likely as any other: a few thin segments make up most of it. Its interval is that of what scatters from
    /// run to run; from nothing to 1 where there are fewer than three.
    pub at_once: Estimate,
    /// -log10 of the losses per year; none if nothing was lost and nothing can be said.
    pub nines: Option<f64>,
}

impl Durability {
    /// Of all runs, and of `all` of them put together.
    pub(super) fn new(scenario: &Scenario, runs: &[Tally], all: &Tally) -> Self {
        let counts: Vec<(u64, u64)> = runs.iter().map(|run| (run.lost, run.segments)).collect();
        let scatter = design_effect(&counts);
        let trials = all.segments as f64;
        // What is lost the moment that it is placed was there for a millisecond.
        let years = (all.at_risk_ms.max(trials) / DAY_MS / 365.25).max(f64::MIN_POSITIVE);
        let watched_years = (years * all.watched as f64 / trials.max(1.0)).max(f64::MIN_POSITIVE);
        let (low, high) = share_interval(all.lost as f64 / scatter, trials / scatter);
        let counted = Found {
            method: Method::Counted,
            per_year: all.lost as f64 / years,
            low: low * trials / years,
            high: high * trials / years,
            from_the_rarest: 0.0,
        };
        let at_once: Vec<f64> = runs.iter().map(|run| run.lost_at_once / watched_years * runs.len() as f64).collect();
        let is_any = at_once.iter().any(|expected| *expected > 0.0);
        let unknown = if is_any { (0.0, 1.0) } else { (0.0, 0.0) };
        let (low_at_once, high_at_once) = runs_interval(&at_once).unwrap_or(unknown);
        let mut extrapolation = Extrapolation::new(scenario);
        let conditional =
            extrapolated(Method::Conditional, runs, watched_years, |window| extrapolation.conditional(window));
        let two_steps =
            extrapolated(Method::TwoSteps, runs, watched_years, |window| Some(extrapolation.in_two_steps(window)));
        let windows = runs.iter().flat_map(|run| &run.windows);
        let at_threshold = windows.filter(|window| window.at_threshold.is_some()).count();
        let extrapolated = if at_threshold >= WINDOWS_MIN { conditional } else { two_steps };
        // What was seen, be it once, refutes an extrapolation that holds it for impossible: that knows nothing of repairs
        // that wait for holders to come back.
        let is_refuted = |found: &Found| found.per_year < counted.low;
        let found = extrapolated.filter(|found| all.lost < COUNTED_MIN && !is_refuted(found)).unwrap_or(counted);
        Self {
            lost: all.lost,
            segments: all.segments,
            unplaced: all.unplaced,
            design_effect: scatter,
            counted: Estimate { value: all.lost as f64 / trials.max(1.0), low, high },
            found,
            ways: [Some(counted), conditional, two_steps].into_iter().flatten().collect(),
            at_once: Estimate { value: all.lost_at_once / watched_years, low: low_at_once, high: high_at_once },
            nines: found.nines(),
        }
    }
}

/// What was to be expected to be lost in these windows; none if there was none. How likely that was in one of them: none if
/// the method says nothing of it.
fn extrapolated(
    method: Method,
    runs: &[Tally],
    watched_years: f64,
    mut chance: impl FnMut(&Window) -> Option<f64>,
) -> Option<Found> {
    let by_run: Vec<Vec<f64>> = runs.iter().map(|run| run.windows.iter().filter_map(&mut chance).collect()).collect();
    let mut all: Vec<f64> = by_run.iter().flatten().copied().collect();
    if all.is_empty() {
        return None;
    }
    all.sort_by(f64::total_cmp);
    let sum: f64 = all.iter().sum();
    let top: f64 = all.iter().rev().take(all.len().div_ceil(100)).sum();
    let (low, high) = sum_interval(&by_run);
    Some(Found {
        method,
        per_year: sum / watched_years,
        low: low / watched_years,
        high: high / watched_years,
        from_the_rarest: if sum > 0.0 { top / sum } else { 0.0 },
    })
}
