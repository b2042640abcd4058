use commonhold_protocol::Coding;
use proptest::prelude::*;

use super::*;

fn id(number: u8) -> SegmentId {
    SegmentId::from_bytes([number; 32])
}

fn info(length: u64) -> SegmentInfo {
    let coding = Coding::new(3, 6).expect("a coding");
    SegmentInfo { coding, length, holders: vec![None; 6] }
}

fn used(ranges: &[(u32, u32)]) -> Used {
    let mut used = Used::default();
    ranges.iter().for_each(|(from, to)| {
        used.add(*from, *to);
    });
    used
}

#[test]
fn only_what_nothing_refers_to_dies() {
    let segments: BTreeMap<_, _> = (1..=4).map(|number| (id(number), info(30_720))).collect();
    // The fifth is none of the vault's: somebody's forged ref.
    let live = Live::from([
        (id(1), used(&[(0, 30_720)])),
        (id(2), used(&[(0, 100), (30_620, 30_720)])),
        (id(4), used(&[(20_000, 30_720), (0, 20_000)])),
        (id(5), used(&[(0, 30_720)])),
    ]);
    let plan = PrunePlan::of(segments, &live);
    assert_eq!(plan.dead, [(id(3), info(30_720))].into());
    assert_eq!(plan.partly_used, [(id(2), 30_520)].into());
    let report = plan.report(true, |_| true);
    assert_eq!((report.segments, report.segment_bytes, report.shard_bytes), (1, 30_720, 61_440));
    assert_eq!((report.partly_used, report.bytes_left_dead), (1, 30_520));
    // Somebody wanted it after all.
    let report = plan.report(false, |_| false);
    assert_eq!((report.segments, report.segment_bytes, report.shard_bytes), (0, 0, 0));
}

#[test]
fn nothing_is_dead_of_nothing() {
    assert_eq!(PrunePlan::of(BTreeMap::new(), &Live::new()), PrunePlan::default());
}

#[test]
fn what_is_used_whole_is_one_range() {
    let mut used = Used::default();
    for at in (0..100).rev().chain(0..100) {
        used.add(at * 10, at * 10 + 10);
    }
    assert_eq!(used.0, [(0, 1000)]);
}

#[test]
fn old_tombstones_are_not_dropped_again() {
    let at = now().0;
    let tombstones: Tombstones = [(id(1), at - REPEATED_MS - 1), (id(2), at - 1000)].into();
    assert_eq!(young(tombstones), [(id(2), at - 1000)].into());
}

proptest! {
    /// Beside it, a flag for each byte.
    #[test]
    fn bytes_are_counted_once(ranges in proptest::collection::vec((0_u32..200, 1_u32..40), 0..30)) {
        let (mut used, mut flags) = (Used::default(), [false; 240]);
        for (from, length) in ranges {
            let range = from as usize..(from + length) as usize;
            let new = flags[range.clone()].iter().filter(|flag| !**flag).count() as u64;
            flags[range].fill(true);
            prop_assert_eq!(used.add(from, from + length), new);
            prop_assert!(used.0.is_sorted_by(|a, b| a.1 < b.0));
            prop_assert_eq!(used.bytes(), flags.iter().filter(|flag| **flag).count() as u64);
        }
    }
}
