//! The cheapest coding that loses no more than an owner wants to lose.

use std::{cmp::Ordering, fmt};

use commonhold_protocol::Coding;

use super::{
    HOLDERS_MIN, N_MAX,
    loss::{Churn, loss_per_year},
    shards_max,
};

/// A durability target: of all segments, no more than 10^-nines are lost in a year. Written `9-nines`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nines(u8);

/// Beyond this, the formula's digits are right, but no assumption that goes into it is.
pub(super) const NINES_MAX: u8 = 18;

impl Nines {
    /// A target of 1 to 18 nines; none of others.
    pub fn new(nines: u8) -> Option<Self> {
        (1..=NINES_MAX).contains(&nines).then_some(Self(nines))
    }

    /// Losses per segment and year, at most.
    pub fn loss_per_year(self) -> f64 {
        0.1f64.powi(self.0.into())
    }
}

impl fmt::Display for Nines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-nines", self.0)
    }
}

/// No coding over the holders that can be reached meets the target.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub struct OutOfReach {
    /// What was wanted.
    pub target: Nines,
    /// Holders that can be reached, each in a failure domain of its own.
    pub have: usize,
    /// The safest coding over them, with the chance of a loss per segment and year; none over fewer than
    /// [`HOLDERS_MIN`].
    pub best: Option<(Coding, f64)>,
    /// So many such holders would do; none if no number of them does.
    pub need: Option<usize>,
}

impl fmt::Display for OutOfReach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, have, best, need } = self;
        write!(f, "{target} cannot be had over nodes in {}: ", domains(*have))?;
        if let Some((coding, loss)) = best {
            write!(f, "the safest coding there, {coding}, loses {loss:.1e} of all segments a year; ")?;
        }
        match need {
            Some(need) => write!(f, "nodes in {} are needed", domains(*need)),
            None => write!(f, "no number of them is enough"),
        }
    }
}

fn domains(count: usize) -> String {
    format!("{count} failure {}", if count == 1 { "domain" } else { "domains" })
}

/// The cheapest coding that meets the target: least n/k, and of those least n.
///
/// Losses of one segment's shards are independent only where each lies in a failure domain of its own, so `holders`
/// are counted once per domain, and n is at most what [`super::choose`] takes of them, which leaves room for repair.
pub fn cheapest(target: Nines, holders: usize, churn: &Churn) -> Result<Coding, OutOfReach> {
    let enough = (1..=shards_max(holders)).flat_map(codings).filter(|coding| meets(*coding, target, churn));
    enough.min_by(by_cost).ok_or_else(|| out_of_reach(target, holders, churn))
}

/// The fewest holders, each in a failure domain of its own, over which the target can be met; none if no number does.
pub fn holders_min(target: Nines, churn: &Churn) -> Option<usize> {
    let shards = (1..=N_MAX).find(|n| codings(*n).any(|coding| meets(coding, target, churn)))?;
    // The inverse of `shards_max`.
    Some((usize::from(shards) * 4).div_ceil(3).max(HOLDERS_MIN))
}

fn out_of_reach(target: Nines, holders: usize, churn: &Churn) -> OutOfReach {
    let rated = (1..=shards_max(holders)).flat_map(codings).map(|coding| (coding, loss_per_year(coding, churn)));
    let best = rated.min_by(|(_, a), (_, b)| a.total_cmp(b));
    OutOfReach { target, have: holders, best, need: holders_min(target, churn) }
}

fn meets(coding: Coding, target: Nines, churn: &Churn) -> bool {
    loss_per_year(coding, churn) <= target.loss_per_year()
}

/// All codings of `n` shards that survive the loss of one.
fn codings(n: u8) -> impl Iterator<Item = Coding> {
    (1..n).map(move |k| Coding::new(k, n).expect("k is below n"))
}

/// By n/k, and then by n.
fn by_cost(a: &Coding, b: &Coding) -> Ordering {
    // Over one denominator.
    let cost = |coding: &Coding, other: &Coding| u16::from(coding.n()) * u16::from(other.k());
    cost(a, b).cmp(&cost(b, a)).then(a.n().cmp(&b.n()))
}

#[cfg(test)]
mod tests;
