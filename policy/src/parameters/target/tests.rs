use proptest::prelude::*;

use super::*;

const DAY_MS: u64 = 86_400_000;

fn churns() -> impl Strategy<Value = Churn> {
    (60..1_000u64, 0..2 * DAY_MS, 1..3 * DAY_MS).prop_map(|(days, detection_ms, repair_ms)| Churn {
        life_ms: days * DAY_MS,
        detection_ms,
        repair_ms,
    })
}

fn nines(count: u8) -> Nines {
    Nines::new(count).unwrap()
}

/// The cheapest by looking at all of them, one by one, with the cost as a fraction.
fn by_hand(target: Nines, most: u8, churn: &Churn) -> Option<Coding> {
    let mut best: Option<Coding> = None;
    for n in 2..=most {
        for k in 1..n {
            let coding = Coding::new(k, n).unwrap();
            let cost = |coding: Coding| f64::from(coding.n()) / f64::from(coding.k());
            let is_enough = loss_per_year(coding, churn) <= target.loss_per_year();
            if is_enough && best.is_none_or(|best| cost(coding) < cost(best)) {
                best = Some(coding);
            }
        }
    }
    best
}

#[test]
fn the_choice_for_some_networks_and_targets() {
    let chosen = |holders| {
        [3, 6, 9, 12].map(|count| {
            cheapest(nines(count), holders, &Churn::ASSUMED)
                .map_or_else(|_| "-".to_owned(), |coding| coding.to_string())
        })
    };
    assert_eq!(chosen(4), ["1/3", "-", "-", "-"]);
    assert_eq!(chosen(12), ["5/8", "3/9", "1/8", "-"]);
    assert_eq!(chosen(20), ["10/15", "8/15", "5/15", "3/15"]);
    assert_eq!(chosen(54), ["31/38", "26/37", "24/40", "19/38"]);
    assert_eq!(chosen(1_000), chosen(54));
}

#[test]
fn what_is_out_of_reach_says_what_can_be_had_and_what_it_takes() {
    let refused = cheapest(nines(6), 4, &Churn::ASSUMED).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "6-nines cannot be had over nodes in 4 failure domains: the safest coding there, 1/3, loses 6.0e-4 of all \
         segments a year; nodes in 7 failure domains are needed"
    );
    let refused = cheapest(nines(1), 1, &Churn::ASSUMED).unwrap_err();
    let text = "1-nines cannot be had over nodes in 1 failure domain: nodes in 4 failure domains are needed";
    assert_eq!(refused.to_string(), text);
    let hopeless = Churn { life_ms: DAY_MS, detection_ms: DAY_MS, repair_ms: DAY_MS };
    let refused = cheapest(nines(1), 1_000, &hopeless).unwrap_err();
    assert_eq!((refused.need, refused.best.map(|(_, loss)| loss)), (None, Some(1.0)));
    assert!(refused.to_string().ends_with("no number of them is enough"), "{refused}");
}

proptest! {
    #[test]
    fn it_is_the_cheapest_of_all_that_meet_the_target(count in 1..=18u8, holders in 0..70usize, churn in churns()) {
        let most = shards_max(holders);
        let found = cheapest(nines(count), holders, &churn);
        prop_assert_eq!(found.ok(), by_hand(nines(count), most, &churn));
        if let Ok(coding) = found {
            prop_assert!(coding.n() <= most && usize::from(coding.n()) < holders, "leaves no room: {}", coding);
            prop_assert!(loss_per_year(coding, &churn) <= 10f64.powi(-i32::from(count)) * (1.0 + 1e-12));
        }
    }

    #[test]
    fn as_many_holders_as_an_error_asks_for_are_enough_and_no_fewer(
        count in 1..=18u8, holders in 0..70usize, churn in churns(),
    ) {
        let target = nines(count);
        match cheapest(target, holders, &churn) {
            Ok(_) => prop_assert!(holders_min(target, &churn).is_some_and(|need| need <= holders)),
            Err(OutOfReach { need: Some(need), .. }) => {
                prop_assert!(need > holders && cheapest(target, need, &churn).is_ok());
                prop_assert!(cheapest(target, need - 1, &churn).is_err());
            }
            Err(OutOfReach { need: None, .. }) => prop_assert!(cheapest(target, 1_000, &churn).is_err()),
        }
    }
}
