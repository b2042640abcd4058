use commonhold_protocol::{DeviceId, SegmentId};
use commonhold_storage_engine::{
    chunk_ref::{ChunkKey, ChunkRef},
    tree::{ChunkSink, map::Builder},
};
use proptest::prelude::*;

use super::*;

/// As a head has it.
const STATES_MAX: usize = 32;

/// Gives every chunk a place that follows from its bytes.
struct Anywhere;

impl ChunkSink for Anywhere {
    type Error = crate::Error;

    fn put(&mut self, plain: &[u8]) -> Result<ChunkRef, crate::Error> {
        let key = *blake3::hash(plain).as_bytes();
        let length = plain.len() as u32;
        Ok(ChunkRef {
            segment: SegmentId::from_bytes(key),
            offset: 0,
            sealed_length: length + 17,
            plain_length: length,
            key: ChunkKey::from_bytes(key),
        })
    }
}

fn root(number: u64) -> TreeRoot {
    let mut builder = Builder::new();
    builder.push(&mut Anywhere, &number.to_le_bytes(), b"value").expect("pushed");
    builder.finish(&mut Anywhere).expect("a root")
}

/// A writer: the head that it is at, and what that comes from, as a commit keeps it.
#[derive(Clone)]
struct Writer {
    at: Ancestor,
    history: History,
}

impl Writer {
    fn new() -> Self {
        let at = Ancestor {
            version: Version::default(),
            written_at: Timestamp(0),
            root: TreeRoot::EMPTY,
            table: TreeRoot::EMPTY,
        };
        Self { at, history: History::default() }
    }

    fn write(&mut self, device: u8, content: u64) {
        self.history.add(self.at.clone());
        self.history.trim(STATES_MAX);
        let version = self.at.version.next(DeviceId([device; 8]));
        self.at = Ancestor { version, written_at: Timestamp(0), root: root(content), table: TreeRoot::EMPTY };
    }

    /// What `merge` and the head after it make of both.
    fn merge(&mut self, other: &Self, device: u8, content: u64) {
        self.history.add(self.at.clone());
        self.history.join(&other.line());
        self.history.trim(STATES_MAX);
        let version = self.at.version.join(&other.at.version).next(DeviceId([device; 8]));
        self.at = Ancestor { version, written_at: Timestamp(0), root: root(content), table: TreeRoot::EMPTY };
    }

    fn line(&self) -> History {
        let mut line = self.history.clone();
        line.add(self.at.clone());
        line
    }

    fn common(&self, other: &Self) -> Option<Ancestor> {
        let common = self.line().nearest_common(&other.line()).cloned();
        assert_eq!(common.is_some(), other.line().nearest_common(&self.line()).is_some());
        common
    }
}

fn writes(writer: &mut Writer, device: u8, count: u64) {
    (0..count).for_each(|number| writer.write(device, number * 1000 + u64::from(device)));
}

/// Once, an older state was taken where the nearest was forgotten on one side. A file that it had, that was deleted
/// before the two parted and put again by one of them, was then deleted in the merge, and nowhere any more.
#[test]
fn the_state_that_two_parted_at_is_found_though_one_has_gone_on_for_long() {
    for parted in [0, 1, 17, 100, 500] {
        let mut first = Writer::new();
        writes(&mut first, 1, parted);
        for (few, many) in [(0, 40), (1, 40), (31, 400), (31, 31)] {
            let (mut one, mut other) = (first.clone(), first.clone());
            writes(&mut one, 2, few);
            writes(&mut other, 3, many);
            let expected = (parted > 0).then(|| first.at.clone());
            assert_eq!(one.common(&other), expected, "parted at {parted}, {few} and {many} heads ago");
        }
    }
}

#[test]
fn who_both_went_on_for_longer_than_is_kept_have_nothing_to_merge_by() {
    let mut first = Writer::new();
    writes(&mut first, 1, 100);
    for (few, many) in [(33, 33), (33, 500), (500, 700), (5000, 5000)] {
        let (mut one, mut other) = (first.clone(), first.clone());
        writes(&mut one, 2, few);
        writes(&mut other, 3, many);
        assert_eq!(one.common(&other), None, "{few} and {many} heads ago: never an older one");
    }
}

#[test]
fn two_states_of_one_version_are_not_one_state() {
    // A home that was copied writes as the same device.
    let mut first = Writer::new();
    writes(&mut first, 1, 5);
    let (mut one, mut other) = (first.clone(), first.clone());
    one.write(1, 70);
    other.write(1, 71);
    assert_eq!((one.at.version == other.at.version, one.at.mark() == other.at.mark()), (true, false));
    one.write(2, 80);
    other.write(3, 81);
    assert_eq!(one.common(&other), Some(first.at));
}

#[test]
fn of_two_that_merged_each_other_at_once_one_of_the_merged_is_the_nearest() {
    let mut first = Writer::new();
    writes(&mut first, 1, 3);
    let (mut one, mut other) = (first.clone(), first.clone());
    one.write(2, 20);
    other.write(3, 30);
    let sides = [one.at.clone(), other.at.clone()];
    let (one_then, other_then) = (one.clone(), other.clone());
    one.merge(&other_then, 2, 50);
    other.merge(&one_then, 3, 50);
    assert!(sides.contains(&one.common(&other).expect("two of them")));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Three writers that write and merge in any order: what is found is common to both, and nothing common is newer.
    #[test]
    fn what_is_found_is_the_nearest(steps in proptest::collection::vec((0_usize..3, proptest::option::of(0_usize..3)), 1..60)) {
        let mut writers = vec![(Writer::new(), BTreeSet::new()); 3];
        for (number, (who, from)) in steps.into_iter().enumerate() {
            let content = number as u64;
            let mark = writers[who].0.at.mark();
            match from.filter(|from| *from != who) {
                Some(from) => {
                    let (other, theirs) = writers[from].clone();
                    let (writer, all) = &mut writers[who];
                    all.extend([mark, other.at.mark()]);
                    all.extend(theirs);
                    writer.merge(&other, who as u8, content);
                }
                None => {
                    let (writer, all) = &mut writers[who];
                    all.insert(mark);
                    writer.write(who as u8, content);
                }
            }
        }
        // The state before all heads is none.
        let none = Writer::new().at.mark();
        for (one, ours) in &writers {
            for (other, theirs) in &writers {
                let whole = |writer: &Writer, all: &BTreeSet<Mark>| -> BTreeSet<Mark> {
                    all.iter().copied().chain([writer.at.mark()]).filter(|mark| *mark != none).collect()
                };
                let (ours, theirs) = (whole(one, ours), whole(other, theirs));
                let nearest = ours.intersection(&theirs).max().map(|mark| mark.age().to_vec());
                let found = one.common(other).map(|state| state.mark());
                prop_assert!(found.is_none_or(|mark| ours.contains(&mark) && theirs.contains(&mark)));
                prop_assert!(found.is_none_or(|mark| Some(mark.age().to_vec()) == nearest));
                // Sixty heads apart on both sides would be too many; here that cannot be.
                let apart = |all: &BTreeSet<Mark>| all.difference(if all == &ours { &theirs } else { &ours }).count();
                if apart(&ours).min(apart(&theirs)) + 2 < STATES_MAX {
                    prop_assert_eq!(found.is_some(), nearest.is_some());
                }
            }
        }
    }
}
