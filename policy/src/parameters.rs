//! The coding of a vault: how many shards a segment gets, and how many restore it.

use commonhold_protocol::Coding;

/// With fewer holders than this, spreading protects too little to be called storage: any code over three holders
/// either doubles as plain copies or dies with the second of them.
pub const HOLDERS_MIN: usize = 4;
/// More shards than this make records, dials and syncs dearer without a loss rate that anyone could measure.
pub const N_MAX: u8 = 40;

/// There are fewer holders than the coding needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{have} holders can be reached, but at least {need} are needed")]
pub struct TooFewHolders {
    /// Holders that can be reached.
    pub have: usize,
    /// Holders that are needed.
    pub need: usize,
}

/// The coding for a vault whose shards go to `holders` reachable nodes.
///
/// Not pinned: n is three quarters of the holders (the rest leaves room for repair and for full nodes), at most
/// [`N_MAX`], and k is half of n. Pinned: what the owner wants, as long as a put can succeed with it, that is with
/// one holder for each of the [`Coding::placed_enough`] shards; where n exceeds the holders, the few shards above
/// that share nodes, which [`crate::placement::plan`] counts.
pub fn choose(pinned: Option<Coding>, holders: usize) -> Result<Coding, TooFewHolders> {
    let need = pinned.map_or(HOLDERS_MIN, |coding| usize::from(coding.placed_enough()));
    if holders < need {
        return Err(TooFewHolders { have: holders, need });
    }
    match pinned {
        Some(coding) => Ok(coding),
        None => {
            let three_quarters = holders / 4 * 3 + holders % 4 * 3 / 4;
            let n = three_quarters.min(usize::from(N_MAX)) as u8;
            Ok(Coding::new(n / 2, n).expect("four holders give n = 3 at least"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fewer_than_four_holders_are_refused_with_both_numbers() {
        let refused = choose(None, 3).unwrap_err();
        assert_eq!(refused, TooFewHolders { have: 3, need: 4 });
        assert_eq!(refused.to_string(), "3 holders can be reached, but at least 4 are needed");
    }

    #[test]
    fn the_choice_for_some_networks() {
        let choices =
            [4, 6, 8, 12, 14, 20, 53, 54, 1_000_000].map(|holders| choose(None, holders).unwrap().to_string());
        assert_eq!(choices, ["1/3", "2/4", "3/6", "4/9", "5/10", "7/15", "19/39", "20/40", "20/40"]);
    }

    #[test]
    fn a_pinned_coding_needs_as_many_holders_as_make_a_put_succeed() {
        let coding = Coding::new(7, 14).unwrap();
        assert_eq!(choose(Some(coding), 13), Ok(coding));
        assert_eq!(choose(Some(coding), 12), Err(TooFewHolders { have: 12, need: 13 }));
    }

    proptest! {
        #[test]
        fn what_is_chosen_fits_the_holders_and_leaves_room(holders in HOLDERS_MIN..500) {
            let coding = choose(None, holders).unwrap();
            let n = usize::from(coding.n());
            prop_assert!(n < holders && n <= usize::from(N_MAX));
            prop_assert_eq!(coding.k(), coding.n() / 2);
            prop_assert!(n == usize::from(N_MAX) || (n + 1) * 4 > holders * 3, "less than three quarters");
        }
    }
}
