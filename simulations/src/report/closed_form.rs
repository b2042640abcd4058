//! The closed form beside the simulator's result, where a scenario is one that it can answer.

use serde::Serialize;

use super::Durability;
use crate::{
    chain::{Point, RepairLaw},
    distribution::Distribution,
    scenario::{DAY_MS, Scenario},
};

/// What the closed form says of this scenario.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ClosedForm {
    /// The chance that a segment that is there from the start is lost by the end.
    pub lost: f64,
    /// How far the count is from it, in standard errors: of independent segments, and with several runs widened by how
    /// much more these scatter. None where the lost are renewed.
    pub standard_errors: Option<f64>,
    /// Losses per segment and year in the long run, each lost segment replaced by a whole one.
    pub per_year: f64,
    /// The part of a window's ends at which the next repair is due already: so far off it may be.
    pub overlap: f64,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum NoClosedForm {
    /// Nodes do not all live by one exponential law.
    #[error("lives are not exponential with one mean")]
    Lives,
    /// They are not always on.
    #[error("nodes come and go")]
    Sessions,
    /// Some cheat.
    #[error("some cheat")]
    Cheats,
    /// Many leave at once.
    #[error("there are incidents, or nodes that die together")]
    Together,
    /// Repairs take what their bytes take.
    #[error("the repair time is not exponential or fixed")]
    RepairTime,
    /// It is repaired before the threshold is reached.
    #[error("segments are topped up above their threshold")]
    TopUp,
    /// Detection is so long that repairs overlap.
    #[error("so many die unnoticed that repairs overlap")]
    Overlap,
}

/// The closed form's point of a scenario, times in days.
pub(super) fn point(scenario: &Scenario) -> Result<Point, NoClosedForm> {
    let mut mttf = None;
    for population in &scenario.population {
        let mean = match *population.lifetime.get_ref() {
            Distribution::Never {} => f64::INFINITY,
            Distribution::Exponential { mean } => mean.ms() / DAY_MS,
            _ => return Err(NoClosedForm::Lives),
        };
        if mttf.is_some_and(|other| other != mean) {
            return Err(NoClosedForm::Lives);
        }
        mttf = Some(mean);
        if population.online.is_some() || population.night.is_some() {
            return Err(NoClosedForm::Sessions);
        }
        if population.cheat.is_some() {
            return Err(NoClosedForm::Cheats);
        }
        if population.one_disk {
            return Err(NoClosedForm::Together);
        }
    }
    if !scenario.incident.is_empty() {
        return Err(NoClosedForm::Together);
    }
    let (law, repair) = match &scenario.repair.time {
        Some(Distribution::Exponential { mean }) => (RepairLaw::Exponential, *mean),
        Some(Distribution::Fixed { value }) => (RepairLaw::Fixed, *value),
        _ => return Err(NoClosedForm::RepairTime),
    };
    let (coding, threshold) = (scenario.coding(), scenario.threshold());
    let tops_up = scenario.repair.top_up.ms() < scenario.duration.get_ref().ms();
    if tops_up && threshold + 1 < coding.n() {
        return Err(NoClosedForm::TopUp);
    }
    Ok(Point {
        k: coding.k(),
        n: coding.n(),
        threshold,
        mttf: mttf.unwrap_or(f64::INFINITY),
        detection: scenario.audit.grace.ms() / DAY_MS,
        repair: repair.ms() / DAY_MS,
        law,
    })
}

pub(super) fn closed_form(scenario: &Scenario, found: &Durability) -> Result<ClosedForm, NoClosedForm> {
    let point = point(scenario)?;
    let overlap = point.overlap();
    let (Some(lost), Some(rate)) = (point.loss_by(scenario.duration.get_ref().ms() / DAY_MS), point.loss_rate()) else {
        return Err(NoClosedForm::Overlap);
    };
    let error = (lost * (1.0 - lost) / found.segments.max(1) as f64 * found.design_effect).sqrt();
    let compares = !scenario.network.renew_lost && error > 0.0;
    Ok(ClosedForm {
        lost,
        standard_errors: compares.then(|| (found.counted.value - lost) / error),
        per_year: rate * 365.25,
        overlap,
    })
}
