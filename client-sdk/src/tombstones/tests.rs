use std::cell::RefCell;

use bytes::Bytes;
use commonhold_storage_engine::{chunk_ref::ChunkRef, tree::map::Builder};

use super::*;
use crate::{
    memory_source::MemorySource,
    table::{CHUNKS_FROM, Edit, PlacedSegment, chunk_edits, segment_edit, tests::segment},
};

/// Read and written at once, as a reader and a packer are.
struct Chunks(RefCell<MemorySource>);

impl ChunkSource for Chunks {
    type Error = Error;

    fn get(&self, chunk: &ChunkRef) -> Result<Bytes, Error> {
        self.0.borrow().get(chunk)
    }
}

impl ChunkSink for &Chunks {
    type Error = Error;

    fn put(&mut self, plain: &[u8]) -> Result<ChunkRef, Error> {
        self.0.borrow_mut().put(plain)
    }
}

fn chunks() -> Chunks {
    Chunks(RefCell::new(MemorySource::new()))
}

/// More chunks than one part has.
fn segments(numbers: impl IntoIterator<Item = u8>) -> Vec<PlacedSegment> {
    numbers.into_iter().map(|number| segment(number, 300 + usize::from(number) * 40)).collect()
}

fn table(store: &Chunks, segments: &[PlacedSegment], tombstones: &[(u8, u64)]) -> TreeRoot {
    let mut edits: Vec<Edit> = segments.iter().flat_map(chunk_edits).collect();
    edits.extend(segments.iter().map(|segment| segment_edit(&segment.id, &segment.info)));
    let tombstone =
        |(number, counter): &(u8, u64)| (table::tombstone_key(&id(*number)), table::tombstone_value(*counter).to_vec());
    edits.extend(tombstones.iter().map(tombstone));
    edits.sort();
    let mut builder = Builder::new();
    for (key, value) in edits {
        builder.push(&mut &*store, &key, &value).expect("pushed");
    }
    builder.finish(&mut &*store).expect("a table")
}

fn id(number: u8) -> SegmentId {
    SegmentId::from_bytes([number; 32])
}

fn ids(numbers: &[u8]) -> BTreeSet<SegmentId> {
    numbers.iter().map(|number| id(*number)).collect()
}

fn entries(store: &Chunks, table: &TreeRoot) -> Vec<Edit> {
    let entries = map::range(store, table, Bound::Included(CHUNKS_FROM));
    entries.map(|entry| entry.expect("an entry")).map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

#[test]
fn what_is_buried_leaves_a_tombstone_and_nothing_else() {
    let store = chunks();
    let all = segments(0..10);
    let old = 5_000;
    let now = old + KEPT_MS + 1;
    let before = table(&store, &all, &[(20, old), (21, now - KEPT_MS)]);
    let after = bury(&store, &mut &store, &before, &ids(&[2, 3, 9]), now).expect("buried");
    let kept = segments([0, 1, 4, 5, 6, 7, 8]);
    let expected = table(&store, &kept, &[(2, now), (3, now), (9, now), (21, now - KEPT_MS)]);
    assert_eq!(entries(&store, &after), entries(&store, &expected));
    let tombstones = [(2, now), (3, now), (9, now), (21, now - KEPT_MS)];
    assert_eq!(read(&store, &after).expect("read"), tombstones.map(|(number, at)| (id(number), at)).into());
}

/// One device has pruned 2, 3 and 4; another, which does not know of it, has placed 5 and found chunks of 3.
#[test]
fn a_merge_brings_back_what_is_wanted_and_buries_the_rest_whoever_merges() {
    let store = chunks();
    let pruned = table(&store, &segments([0, 1]), &[(2, 70), (3, 70), (4, 70), (30, 9)]);
    let other = table(&store, &segments([0, 1, 2, 3, 4, 5]), &[(30, 11)]);
    let expected = entries(&store, &table(&store, &segments([0, 1, 3, 5]), &[(2, 70), (4, 70), (30, 11)]));
    for [ours, theirs] in [[&pruned, &other], [&other, &pruned]] {
        let [our_tombstones, their_tombstones] = [ours, theirs].map(|table| read(&store, table).expect("read"));
        let disputed = disputed(&our_tombstones, &their_tombstones);
        assert_eq!(disputed, ids(&[2, 3, 4]));
        let merged = union(&store, &mut &store, [ours, theirs], &disputed, &ids(&[3])).expect("merged");
        assert_eq!(entries(&store, &merged), expected);
    }
}

#[test]
fn without_a_dispute_a_merge_is_a_union() {
    let store = chunks();
    let [ours, theirs] = [[0, 1, 7], [0, 2, 7]].map(|numbers| table(&store, &segments(numbers), &[(9, 1)]));
    let none = BTreeSet::new();
    let merged = union(&store, &mut &store, [&ours, &theirs], &none, &none).expect("merged");
    let expected = table(&store, &segments([0, 1, 2, 7]), &[(9, 1)]);
    assert_eq!(entries(&store, &merged), entries(&store, &expected));
}
