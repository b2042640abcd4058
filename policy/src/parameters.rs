//! The coding of a vault: how many shards a segment gets, and how many restore it.

use std::{fmt, str::FromStr};

use commonhold_protocol::Coding;

mod loss;
mod target;

pub use loss::{Churn, loss_per_year};
use target::NINES_MAX;
pub use target::{Nines, OutOfReach, cheapest, holders_min};

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

/// Why there is no coding for a vault.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum NoCoding {
    /// There are too few holders.
    #[error(transparent)]
    TooFewHolders(#[from] TooFewHolders),
    /// There are too few for the durability target.
    #[error(transparent)]
    OutOfReach(#[from] OutOfReach),
}

/// What an owner wants: a coding, or what it is to achieve. Written `7/14` or `9-nines`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// This one.
    Coding(Coding),
    /// The cheapest that loses no more than so much.
    Target(Nines),
}

/// A text is neither a coding nor a target.
#[derive(Debug, thiserror::Error)]
#[error(
    "coding {0:?}: expected K/N with 1 <= K <= N <= 255, as in 7/14, or a durability target of 1-nines to \
     {NINES_MAX}-nines, as in 9-nines"
)]
pub struct WantedError(String);

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coding(coding) => coding.fmt(f),
            Self::Target(target) => target.fmt(f),
        }
    }
}

impl FromStr for Wanted {
    type Err = WantedError;

    fn from_str(text: &str) -> Result<Self, WantedError> {
        let wanted = match text.strip_suffix("-nines") {
            Some(nines) => nines.parse().ok().and_then(Nines::new).map(Self::Target),
            None => text.parse().ok().map(Self::Coding),
        };
        wanted.ok_or_else(|| WantedError(text.chars().take(40).collect()))
    }
}

/// The coding for a vault whose shards go to `holders` reachable nodes, which lie in `domains` failure domains: what
/// [`cheapest`] says of a target, else what [`choose`] says.
pub fn resolve(wanted: Option<Wanted>, holders: usize, domains: usize, churn: &Churn) -> Result<Coding, NoCoding> {
    match wanted {
        None => Ok(choose(None, holders)?),
        Some(Wanted::Coding(coding)) => Ok(choose(Some(coding), holders)?),
        Some(Wanted::Target(target)) => {
            // Whether there are enough at all.
            choose(None, holders)?;
            Ok(cheapest(target, domains, churn)?)
        }
    }
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
            let n = shards_max(holders);
            Ok(Coding::new(n / 2, n).expect("four holders give n = 3 at least"))
        }
    }
}

/// The most shards of a segment over so many holders, if it is not pinned: three quarters of them, and [`N_MAX`]; none
/// over too few.
fn shards_max(holders: usize) -> u8 {
    if holders < HOLDERS_MIN {
        return 0;
    }
    let three_quarters = holders / 4 * 3 + holders % 4 * 3 / 4;
    three_quarters.min(usize::from(N_MAX)) as u8
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

    #[test]
    fn a_wish_is_read_as_it_is_written() {
        for text in ["7/14", "1/1", "1-nines", "9-nines", "18-nines"] {
            assert_eq!(text.parse::<Wanted>().unwrap().to_string(), text);
        }
        for text in
            ["", "7", "14/7", "9", "nines", "-nines", "0-nines", "19-nines", "300-nines", "-3-nines", "9.5-nines"]
        {
            let refused = text.parse::<Wanted>().unwrap_err().to_string();
            assert!(refused.contains("as in 7/14"), "{text}: {refused}");
        }
    }

    #[test]
    fn what_is_wanted_is_resolved_by_its_kind() {
        let resolved = |wanted: Option<&str>, holders, domains| {
            let wanted = wanted.map(|text| text.parse::<Wanted>().unwrap());
            resolve(wanted, holders, domains, &Churn::ASSUMED)
                .map(|coding| coding.to_string())
                .map_err(|error| error.to_string())
        };
        assert_eq!(resolved(None, 14, 1), Ok("5/10".to_owned()));
        assert_eq!(resolved(Some("7/14"), 13, 1), Ok("7/14".to_owned()));
        assert_eq!(resolved(Some("6-nines"), 60, 60), Ok("26/37".to_owned()));
        let few = "3 holders can be reached, but at least 4 are needed".to_owned();
        assert_eq!(resolved(Some("1-nines"), 3, 3), Err(few));
        assert!(resolved(Some("1-nines"), 60, 1).unwrap_err().contains("nodes in 1 failure domain:"));
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
