//! What an owner believes of a segment when its stewards report it differently.
//!
//! They do so without lying, too: each goes by its own audits, and one that has just started, or become a steward, has
//! audited little yet. The reports are put in order from the worst to the best, and the one in the middle is believed,
//! whole; of two in the middle, the worse. So fewer than half of the stewards cannot make a segment look better or
//! worse than some honest one sees it. Only people go by this: what is repaired, each steward decides for itself.

use commonhold_protocol::{Coding, Timestamp, ask::HealthReport};

/// What is believed of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Believed {
    /// As in [`HealthReport::healthy`]; the three add up to n.
    pub healthy: u8,
    /// As in [`HealthReport::suspect`].
    pub suspect: u8,
    /// As in [`HealthReport::lost`].
    pub lost: u8,
    /// Stewards whose reports were counted.
    pub stewards: usize,
    /// How many of them count otherwise.
    pub disagreeing: usize,
    /// The last repair that any of them knows of, by its clock. A lying one can name a later moment, not an earlier one.
    pub repaired_at: Option<Timestamp>,
    /// Any of them says that it rebuilds shards now.
    pub repairing: bool,
    /// More than half of them know no node that could take a missing shard.
    pub resting: bool,
}

/// What to believe; none if nobody reports anything that can be. Left out are reports that do not add up to n shards,
/// and repairs that were after `now`.
pub fn believe(coding: Coding, reports: &[HealthReport], now: Timestamp) -> Option<Believed> {
    let counts = |report: &HealthReport| [report.healthy, report.suspect, report.lost];
    let adds_up = |report: &&HealthReport| {
        counts(report).iter().map(|count| u32::from(*count)).sum::<u32>() == u32::from(coding.n())
    };
    let mut reports: Vec<&HealthReport> = reports.iter().filter(adds_up).collect();
    reports.sort_by_key(|report| (report.healthy, report.suspect));
    let middle = reports.get(reports.len().checked_sub(1)? / 2)?;
    let repairs = reports.iter().filter_map(|report| report.repaired_at);
    Some(Believed {
        healthy: middle.healthy,
        suspect: middle.suspect,
        lost: middle.lost,
        stewards: reports.len(),
        disagreeing: reports.iter().filter(|report| counts(report) != counts(middle)).count(),
        repaired_at: repairs.filter(|at| *at <= now).max(),
        repairing: reports.iter().any(|report| report.repairing),
        resting: reports.iter().filter(|report| report.resting).count() * 2 > reports.len(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    fn coding() -> Coding {
        Coding::new(4, 8).expect("a coding")
    }

    fn report(healthy: u8, suspect: u8) -> HealthReport {
        HealthReport { healthy, suspect, lost: 8 - healthy - suspect, ..HealthReport::default() }
    }

    fn counts(believed: Option<Believed>) -> Option<(u8, u8, u8, usize, usize)> {
        believed.map(|of| (of.healthy, of.suspect, of.lost, of.stewards, of.disagreeing))
    }

    #[test]
    fn the_report_in_the_middle_is_believed_and_of_two_the_worse() {
        let of = |reports: &[HealthReport]| counts(believe(coding(), reports, NOW));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[report(6, 1)]), Some((6, 1, 1, 1, 0)));
        assert_eq!(of(&[report(8, 0), report(6, 1)]), Some((6, 1, 1, 2, 1)));
        // Whole reports: the middle of each count alone, (6, 0, 0), do not even add up.
        assert_eq!(of(&[report(8, 0), report(0, 8), report(6, 0), report(7, 1)]), Some((6, 0, 2, 4, 3)));
        // One that has just started has audited nothing yet.
        assert_eq!(of(&[report(8, 0), report(0, 8), report(8, 0)]), Some((8, 0, 0, 3, 1)));
    }

    #[test]
    fn nonsense_is_not_counted() {
        let nonsense = HealthReport { healthy: 200, suspect: 60, lost: 4, ..HealthReport::default() };
        assert_eq!(believe(coding(), &[nonsense, nonsense], NOW), None);
        let believed = believe(coding(), &[nonsense, report(7, 0), nonsense], NOW);
        assert_eq!(counts(believed), Some((7, 0, 1, 1, 0)));
    }

    #[test]
    fn the_last_repair_is_not_in_the_future_and_resting_takes_a_majority() {
        let at = |at| HealthReport { repaired_at: Some(Timestamp(at)), ..report(8, 0) };
        let believed = believe(coding(), &[at(10), at(900), at(5_000)], NOW).expect("reports");
        assert_eq!(believed.repaired_at, Some(Timestamp(900)));
        let rests = HealthReport { resting: true, ..report(6, 0) };
        let half = [rests, rests, report(6, 0), report(6, 0)];
        assert!(!believe(coding(), &half, NOW).expect("reports").resting);
        assert!(believe(coding(), &half[..3], NOW).expect("reports").resting);
    }

    proptest! {
        /// Fewer than half of the stewards lie, in any way: what is believed lies between what honest ones say.
        #[test]
        fn a_minority_of_liars_moves_nothing_beyond_what_honest_ones_say(
            honest in prop::collection::vec((0..=8_u8, 0..=8_u8), 1..=8),
            lies in prop::collection::vec(any::<[u8; 3]>(), 0..8),
        ) {
            let honest: Vec<HealthReport> =
                honest.into_iter().map(|(healthy, suspect)| report(healthy, suspect.min(8 - healthy))).collect();
            let lies = lies.into_iter().take(honest.len() - 1);
            let lies = lies.map(|[healthy, suspect, lost]| {
                // Most of what is drawn does not add up; half of it is made to.
                if lost % 2 == 0 { report(healthy % 9, 0) } else {
                    HealthReport { healthy, suspect, lost, ..HealthReport::default() }
                }
            });
            let all: Vec<HealthReport> = honest.iter().copied().chain(lies).collect();
            let believed = believe(coding(), &all, NOW).expect("reports");
            let seen = || honest.iter().map(|report| report.healthy);
            prop_assert!(seen().min() <= Some(believed.healthy) && Some(believed.healthy) <= seen().max());
            prop_assert_eq!(believed.healthy + believed.suspect + believed.lost, 8);
        }
    }
}
