//! What may be dropped for its age, and which records may be let go: on positive evidence only.

use commonhold_policy::{
    Domain,
    expiry::{Asked, ClockDoubt, Expiry, Rules, SEGMENTS_MIN, Word, doubt, judge},
    stewards::STEWARDS,
    sweep::{
        Differences, Entry, LIST_MAX, Left, Range, RangeDigest, Step, compare, differences, lets_go, renews, split,
    },
};
use commonhold_protocol::{Lease, NodeId, SegmentId, Timestamp, VaultId};
use proptest::prelude::*;

const VAULT: VaultId = VaultId::from_bytes([1; 32]);
const END: Timestamp = Timestamp(1_000_000);

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

fn lease(counter: u64, valid_until: Timestamp) -> Lease {
    Lease { vault: VAULT, counter, valid_until }
}

fn over() -> Timestamp {
    END.after_ms(Rules::default().grace_ms + 1)
}

/// The vault's steward and those of `segments` segments all say that the lease has ended.
fn words(segments: u8) -> Vec<Word> {
    let word = |steward: u8, asked| Word { steward: node(steward), asked, at: over(), lease: lease(1, END) };
    let of_segments = (0..segments).map(|number| word(number, Asked::Segment(SegmentId::from_bytes([number; 32]))));
    std::iter::once(word(200, Asked::Vault)).chain(of_segments).collect()
}

fn judged(now: Timestamp, words: &[Word]) -> Expiry {
    judge(&Rules::default(), now, Some(&lease(1, END)), words, 100)
}

#[test]
fn a_vault_is_over_when_its_stewards_and_those_of_eight_segments_say_so() {
    assert_eq!(judged(over(), &words(8)), Expiry::Over);
    assert_eq!(judged(over(), &words(7)), Expiry::Ask { vault: false, segments: 1 });
    assert_eq!(judged(over(), &words(8)[1..]), Expiry::Ask { vault: true, segments: 0 });
    assert_eq!(judged(Timestamp(over().0 - 1), &words(8)), Expiry::Keep, "within the grace time");
    assert_eq!(judge(&Rules::default(), over(), None, &words(8), 100), Expiry::Keep, "no lease was ever seen");
    let three = judge(&Rules::default(), over(), Some(&lease(1, END)), &words(3), 3);
    assert_eq!(three, Expiry::Over, "no more than three segments are known");
}

/// Eight ground node ids that all say "unknown vault", or say nothing, give no word.
#[test]
fn silence_means_keep() {
    assert_eq!(judged(Timestamp(u64::MAX), &[]), Expiry::Ask { vault: true, segments: SEGMENTS_MIN });
    let none = judge(&Rules::default(), Timestamp(u64::MAX), Some(&lease(1, END)), &[], 0);
    assert_eq!(none, Expiry::Ask { vault: true, segments: 1 });
}

#[test]
fn one_honest_steward_with_a_newer_lease_is_enough() {
    let mut all = words(30);
    all.push(Word { lease: lease(2, END.after_ms(1)), ..all[9].clone() });
    assert_eq!(judged(over(), &all), Expiry::Renewed);
}

#[test]
fn one_liar_cannot_speak_for_many_segments_nor_ahead_of_time_nor_for_another_vault() {
    let mut one = words(8);
    one.iter_mut().for_each(|word| word.steward = node(66));
    assert_eq!(judged(over(), &one), Expiry::Ask { vault: false, segments: 7 });
    let mut early = words(8);
    early.iter_mut().for_each(|word| word.at = END);
    assert_eq!(judged(over(), &early), Expiry::Ask { vault: true, segments: 8 });
    let mut other = words(8);
    other.iter_mut().for_each(|word| word.lease.vault = VaultId::from_bytes([2; 32]));
    assert_eq!(judged(over(), &other), Expiry::Ask { vault: true, segments: 8 });
}

#[test]
fn nothing_is_dropped_by_a_clock_that_may_be_wrong() {
    let rules = Rules::default();
    let day = rules.uptime_ms_min;
    let heard = |ahead: &[i64]| -> Vec<(Domain, i64)> {
        (0..).zip(ahead).map(|(number, ahead): (u8, _)| (Domain::new(number.to_string()), *ahead)).collect()
    };
    let right = heard(&[0, 5, -5, 1_000, 0]);
    assert_eq!(doubt(&rules, day, &right, 30), None);
    assert_eq!(doubt(&rules, day - 1, &right, 30), Some(ClockDoubt::JustStarted));
    assert_eq!(doubt(&rules, day, &right[1..], 30), Some(ClockDoubt::TooFewWitnesses { heard: 4, need: 5 }));
    assert_eq!(doubt(&rules, day, &right[1..], 4), None, "there are no others");
    assert_eq!(doubt(&rules, day, &[], 0), Some(ClockDoubt::TooFewWitnesses { heard: 0, need: 1 }));
    // Our clock says 2038.
    let years = -12 * 365 * 86_400_000;
    let wrong = heard(&[years, years, years, 0, 0]);
    for uptime_ms in [0, day] {
        assert_eq!(doubt(&rules, uptime_ms, &wrong, 30), Some(ClockDoubt::Off { off_ms: years }), "{uptime_ms}");
    }
    assert!(doubt(&rules, 0, &[], 30).is_some_and(ClockDoubt::is_of_the_time), "nobody was heard yet");
    assert!(!doubt(&rules, 0, &right, 30).is_some_and(ClockDoubt::is_of_the_time));
    // Two liars of five do not make ours wrong, and a hundred in one domain have one voice.
    assert_eq!(doubt(&rules, day, &heard(&[years, years, 0, 0, 0]), 30), None);
    let mut crowd = right;
    crowd.extend((0..100).map(|_| (Domain::new("0"), years)));
    assert_eq!(doubt(&rules, day, &crowd, 30), None);
    assert_eq!(doubt(&rules, day, &heard(&[i64::MIN; 5]), 5), Some(ClockDoubt::Off { off_ms: i64::MIN }));
}

#[test]
fn a_record_is_let_go_only_when_all_eight_have_it_and_some_time_is_over() {
    const GRACE_MS: u64 = 1_000;
    const PROVE_MS: u64 = 100;
    let stewards: Vec<NodeId> = (0..STEWARDS as u8).map(node).collect();
    let left = Left { for_ms: GRACE_MS, proven: true, dropped: false };
    let lets_go = |left, stewards: &[NodeId], lacking: Option<u8>| {
        let has_it = |steward: &NodeId| lacking.map(node) != Some(*steward);
        lets_go(left, stewards, has_it, GRACE_MS, PROVE_MS)
    };
    assert!(lets_go(left, &stewards, None));
    assert!(!lets_go(left, &stewards, Some(3)), "one has not said that it has it");
    assert!(!lets_go(left, &stewards[1..], None), "seven are not eight");
    assert!(!lets_go(Left { for_ms: GRACE_MS - 1, ..left }, &stewards, None), "newcomers may go again");
    assert!(!lets_go(Left { dropped: true, for_ms: u64::MAX, ..left }, &stewards, None));
    // What anybody may have made up is not kept until it is handed over.
    let unproven = Left { proven: false, for_ms: PROVE_MS, ..left };
    assert!(lets_go(unproven, &[], None));
    assert!(!lets_go(Left { for_ms: PROVE_MS - 1, ..unproven }, &stewards, None));
}

#[test]
fn a_holder_brings_back_what_most_stewards_lost_and_leaves_a_newcomer_to_the_others() {
    assert!(renews(0, 8), "all have lost it");
    assert!(renews(1, 8) && renews(3, 7), "so few may be lying");
    assert!(renews(0, 1) && renews(1, 2));
    assert!(!renews(7, 8) && !renews(5, 8), "the others tell the newcomer");
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let one = (any::<[u8; 2]>(), 0..3u8);
    prop::collection::btree_map(any::<u16>().prop_map(|key| key % 600), one, 0..600).prop_map(|all| {
        let entry = |(key, (spread, version)): (u16, ([u8; 2], u8))| {
            let mut bytes = [0; 32];
            bytes[..2].copy_from_slice(&(key * 109).to_be_bytes());
            bytes[20..22].copy_from_slice(&spread);
            Entry { key: bytes, version: [version; 32] }
        };
        let mut all: Vec<Entry> = all.into_iter().map(entry).collect();
        all.sort_unstable();
        all
    })
}

/// The sweep of two stewards as a driver makes it.
fn sweep(range: Range, ours: &[Entry], theirs: &[Entry], found: &mut Differences, listed: &mut usize) {
    let within =
        |all: &[Entry]| -> Vec<Entry> { all.iter().filter(|entry| range.contains(&entry.key)).copied().collect() };
    let (a, b) = (within(ours), within(theirs));
    match compare(&range, &RangeDigest::of(&a), &RangeDigest::of(&b)) {
        Step::Equal => {}
        Step::List => {
            *listed += a.len() + b.len();
            let differ = differences(&range, &a, &b);
            found.send.extend(differ.send);
            found.ask.extend(differ.ask);
        }
        Step::Split => split(&range).into_iter().for_each(|part| sweep(part, &a, &b, found, listed)),
    }
}

proptest! {
    #[test]
    fn a_sweep_by_digests_finds_what_a_full_comparison_finds(ours in entries(), theirs in entries()) {
        let mut found = Differences::default();
        sweep(Range::ALL, &ours, &theirs, &mut found, &mut 0);
        let lacks = |some: &[Entry], others: &[Entry]| -> Vec<[u8; 32]> {
            some.iter().filter(|entry| !others.contains(entry)).map(|entry| entry.key).collect()
        };
        prop_assert_eq!(found.send, lacks(&ours, &theirs));
        prop_assert_eq!(found.ask, lacks(&theirs, &ours));
    }

    /// Whatever a hostile steward lists, nothing outside of the range is asked for, and nothing twice.
    #[test]
    fn hostile_lists_are_harmless(ours in entries(), mut theirs in entries(), seed: u64) {
        let range = split(&Range::ALL)[3];
        let rotate = seed as usize % theirs.len().max(1);
        theirs.rotate_left(rotate);
        let found = differences(&range, &ours, &theirs);
        prop_assert!(found.ask.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert!(found.ask.iter().chain(&found.send).all(|key| range.contains(key)));
    }
}

#[test]
fn parts_cover_a_range_without_gaps() {
    let mut narrow = Range::ALL;
    while split(&narrow).len() > 1 {
        let parts = split(&narrow);
        assert_eq!((parts[0].first, parts[parts.len() - 1].last), (narrow.first, narrow.last));
        for pair in parts.windows(2) {
            let (mut next, mut carry) = (pair[0].last, true);
            for byte in next.iter_mut().rev() {
                (*byte, carry) = if carry { byte.overflowing_add(1) } else { (*byte, false) };
            }
            assert_eq!(next, pair[1].first);
        }
        narrow = parts[5];
    }
}

/// One difference among 100,000 records costs a few digests and one list.
#[test]
fn one_difference_is_found_by_listing_little() {
    let key = |number: u32| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
        bytes
    };
    let mut ours: Vec<Entry> = (0..100_000).map(|number| Entry { key: key(number), version: [0; 32] }).collect();
    ours.sort_unstable();
    let mut theirs = ours.clone();
    let missing = theirs.remove(54_321).key;
    let (mut found, mut listed) = (Differences::default(), 0);
    sweep(Range::ALL, &ours, &theirs, &mut found, &mut listed);
    assert_eq!(found, Differences { send: vec![missing], ask: vec![] });
    assert!(listed as u64 <= 2 * LIST_MAX, "{listed} entries were listed");
}
