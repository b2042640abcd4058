//! How likely a segment is lost in a year, by a formula that errs to the safe side.
//!
//! Holders live for exponential times with mean T, each by itself. A death is noticed after the detection time g. When
//! m, the coding's threshold, are alive, a window opens: after g a repair begins, and takes an exponential time with
//! mean R. When it ends, all n stand again, but for those that died within the last g; if fewer than k are alive before,
//! the segment is lost. With p = 1 - e^(-g/T), d of m have died by the begin of the repair with the binomial chance
//! B(d), and a window
//!
//! - loses the segment with the chance L = Σ B(d) · Π a R / (a R + T), the product over a from k to m - d;
//! - comes U = Σ B(d) · Σ T / j after the last at least, on average, the inner sum over j from m + 1 to n - d.
//!
//! So of many segments no more than a year / U · L are lost in a year. With g = 0 that is the birth-death chain of
//! Giroire et al., which Storj uses too (`research/papers.md` of the design, 1.2). What is left out makes the figure
//! larger than the chain's, never smaller: how long windows last themselves, top-ups above the threshold, and that
//! those who die unnoticed at a window's end are fewer than B says where others of the m died before. The segments that
//! are smallest have fewer data shards and the same parity, so they are lost less often yet.
//!
//! All terms are positive and only added, multiplied and divided, so 1e-30 has as many digits as 0.1. What the formula
//! does not know is what kills many holders at once, and holders that cheat.

use commonhold_protocol::Coding;

use crate::defaults::GRACE_MS;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
const YEAR_MS: f64 = 365.25 * DAY_MS as f64;

/// How long holders live, and how long it takes until a dead one is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Churn {
    /// Mean life of a holder, from when it joins until it is gone for good.
    pub life_ms: u64,
    /// From its death until that is noticed.
    pub detection_ms: u64,
    /// Mean time from then until its shards stand elsewhere.
    pub repair_ms: u64,
}

impl Churn {
    /// What an owner's client assumes, as nobody sees the life of a network from one put: lives of half a year
    /// (`research/papers.md`, section 2, the arithmetic after Blake and Rodrigues; the 290 days of corporate PCs would
    /// be kinder), the grace time that nodes have by default, and twice the 12 h of repair that fit Storj's table (1.2).
    pub const ASSUMED: Self = Self { life_ms: 180 * DAY_MS, detection_ms: GRACE_MS, repair_ms: 24 * HOUR_MS };
}

/// Where more windows than these hold so many unnoticed deaths that the next is due before they end, windows are no
/// longer independent, and nothing is promised.
const OVERLAP_MAX: f64 = 0.02;

/// The chance that a segment is lost in a year, or a bound above it; 1 where nothing can be promised.
pub fn loss_per_year(coding: Coding, churn: &Churn) -> f64 {
    let (k, n) = (coding.k(), coding.n());
    // Without parity the threshold is n, and the first death opens the window.
    let m = coding.threshold().min(n - 1);
    if churn.detection_ms.saturating_add(churn.repair_ms) >= churn.life_ms {
        return 1.0;
    }
    // Times are in lives from here on.
    let [detection, repair, year] =
        [churn.detection_ms as f64, churn.repair_ms as f64, YEAR_MS].map(|time| time / churn.life_ms as f64);

    // B(0), and what leads from each B(d) to the next.
    let mut chance = (-f64::from(m) * detection).exp();
    let odds = detection.exp_m1();
    let (mut lost, mut apart, mut overlap) = (0.0, 0.0, 0.0);
    for died in 0..=m {
        lost += chance * lost_from(m - died, k, repair);
        apart += chance * (m + 1..=n - died).map(|alive| 1.0 / f64::from(alive)).sum::<f64>();
        if died >= n - m {
            overlap += chance;
        }
        chance *= f64::from(m - died) / f64::from(died + 1) * odds;
    }
    if overlap > OVERLAP_MAX { 1.0 } else { (year / apart * lost).min(1.0) }
}

/// The chance that from `alive` holders all down to the k-th last die before a repair of the mean length `repair` ends.
fn lost_from(alive: u8, k: u8, repair: f64) -> f64 {
    (k..=alive).map(|alive| f64::from(alive) * repair).map(|die| die / (die + 1.0)).product()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn loss(k: u8, n: u8, churn: &Churn) -> f64 {
        loss_per_year(Coding::new(k, n).expect("a coding"), churn)
    }

    fn churns() -> impl Strategy<Value = Churn> {
        (30..1_000u64, 0..72u64, 1..100u64).prop_map(|(days, detection, repair)| Churn {
            life_ms: days * DAY_MS,
            detection_ms: detection * HOUR_MS,
            repair_ms: repair * HOUR_MS,
        })
    }

    /// The sums of this module's head, in decimals of sixty digits.
    const EXACT: [(u8, u8, f64); 5] = [
        (1, 3, 6.037_986_236_953_107e-4),
        (5, 10, 2.223_759_972_209_782e-5),
        (20, 40, 1.867_774_999_214_319e-13),
        (1, 40, 5.985_171_706_242_005e-36),
        (10, 200, 7.309_319_087_340_24e-83),
    ];

    #[test]
    fn no_digit_of_a_tiny_chance_is_lost() {
        for (k, n, exact) in EXACT {
            let found = loss(k, n, &Churn::ASSUMED);
            assert!((found / exact - 1.0).abs() < 1e-12, "{k}/{n}: {found:e} instead of {exact:e}");
        }
    }

    /// Without parity the first of n deaths is a loss; with one shard of it, a second before the repair ends.
    #[test]
    fn the_shortest_codes_by_hand() {
        let churn = Churn { life_ms: 1_000 * DAY_MS, detection_ms: 0, repair_ms: DAY_MS };
        let near = |found: f64, by_hand: f64| assert!((found / by_hand - 1.0).abs() < 1e-9, "{found:e} {by_hand:e}");
        near(loss(2, 2, &churn), 2.0 * 365.25 / 1_000.0);
        near(loss(2, 3, &churn), 3.0 * 365.25 / 1_000.0 * (0.002 / 1.002));
    }

    #[test]
    fn nothing_is_promised_where_repairs_are_slower_than_deaths() {
        let hopeless = Churn { life_ms: DAY_MS, detection_ms: DAY_MS, repair_ms: 0 };
        assert_eq!(loss(1, 255, &hopeless), 1.0);
        assert_eq!(loss(1, 255, &Churn { life_ms: 0, detection_ms: 0, repair_ms: 0 }), 1.0);
        assert_eq!(loss(38, 40, &Churn { detection_ms: 5 * DAY_MS, ..Churn::ASSUMED }), 1.0, "windows overlap");
    }

    proptest! {
        #[test]
        fn it_is_a_chance_whatever_is_asked(
            k in 1..=255u8, more in 0..=254u8,
            life_ms: u64, detection_ms: u64, repair_ms: u64,
        ) {
            let found = loss(k, k.saturating_add(more), &Churn { life_ms, detection_ms, repair_ms });
            prop_assert!((0.0..=1.0).contains(&found), "{}", found);
        }

        #[test]
        fn longer_lives_and_swifter_repairs_lose_less(k in 1..30u8, parity in 1..30u8, churn in churns()) {
            let now = loss(k, k + parity, &churn);
            for better in [
                Churn { life_ms: churn.life_ms + DAY_MS, ..churn },
                Churn { repair_ms: churn.repair_ms - HOUR_MS, ..churn },
                Churn { detection_ms: churn.detection_ms.saturating_sub(HOUR_MS), ..churn },
            ] {
                prop_assert!(loss(k, k + parity, &better) <= now * (1.0 + 1e-12));
            }
        }

        #[test]
        fn a_small_segment_is_lost_no_more_often(k in 2..30u8, parity in 1..30u8, bytes in 1..200_000u64, churn in churns()) {
            let coding = Coding::new(k, k + parity).expect("a coding");
            let whole = loss_per_year(coding, &churn);
            prop_assert!(loss_per_year(coding.for_length(bytes), &churn) <= whole * (1.0 + 1e-12));
        }
    }
}
