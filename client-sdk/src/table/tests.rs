use proptest::prelude::*;

use super::*;
use crate::any_bytes::tests::golden;

/// A segment with `chunks` chunks, all of it following from its number.
pub(crate) fn segment(number: u8, chunks: usize) -> PlacedSegment {
    let chunk = |at: usize| {
        let tag = blake3::hash(&[&[number][..], &at.to_le_bytes()].concat());
        PackedChunk {
            tag: std::array::from_fn(|i| tag.as_bytes()[i]),
            offset: at as u32 * 100,
            sealed_length: 100,
            plain_length: 83,
            key: ChunkKey::from_bytes(*blake3::hash(tag.as_bytes()).as_bytes()),
        }
    };
    let holder = |index: u8| (index != 2).then_some(NodeKey([number ^ index | 1; 8]));
    PlacedSegment {
        id: SegmentId::from_bytes([number; 32]),
        info: SegmentInfo {
            coding: Coding::new(2, 4).expect("a coding"),
            length: (chunks as u64 * 100).max(1),
            holders: (0..4).map(holder).collect(),
        },
        chunks: (0..chunks).map(chunk).collect(),
    }
}

/// Comparable, which chunk keys on purpose are not printed to be.
pub(crate) fn fields(chunk: &PackedChunk) -> (ChunkTag, u32, u32, u32, [u8; 32]) {
    (chunk.tag, chunk.offset, chunk.sealed_length, chunk.plain_length, *chunk.key.as_bytes())
}

pub(crate) fn assert_same(a: &PlacedSegment, b: &PlacedSegment) {
    assert_eq!((a.id, &a.info), (b.id, &b.info));
    assert!(a.chunks.iter().map(fields).eq(b.chunks.iter().map(fields)));
}

#[test]
fn the_parts_of_a_long_chunk_list_ascend_and_hold_all_of_it() {
    let segment = segment(7, PART_CHUNKS_MAX * 2 + 1);
    let edits: Vec<Edit> = chunk_edits(&segment).collect();
    assert_eq!(edits.len(), 3);
    assert!(edits.is_sorted_by(|a, b| a.0 < b.0));
    let mut found = Vec::new();
    for (key, value) in &edits {
        assert!((CHUNKS_FROM..CHUNKS_TO).contains(&&**key));
        assert_eq!(segment_of_part(key).expect("a part"), segment.id);
        found.extend(unpack(value).expect("chunks"));
    }
    assert!(found.iter().map(fields).eq(segment.chunks.iter().map(fields)));
}

#[test]
fn the_four_kinds_of_keys_lie_one_after_another() {
    let segment = segment(0xff, 1);
    let (chunks, _) = chunk_edits(&segment).next().expect("a part");
    let (segment_key, _) = segment_edit(&segment.id, &segment.info);
    let node = node_key(NodeKey([0xff; 8]));
    let tombstone_key = tombstone_key(&segment.id);
    assert!(chunks < tombstone_key && tombstone_key < node);
    assert!(is_tombstone(&tombstone_key) && !(CHUNKS_FROM..CHUNKS_TO).contains(&&*tombstone_key));
    assert!(![&chunks, &node, &segment_key].into_iter().any(|key| is_tombstone(key)));
    assert_eq!(tombstone(&tombstone_key, &tombstone_value(7)).expect("a tombstone"), (segment.id, 7));
    let described = |key| described_by(key).expect("a key");
    assert_eq!((described(&chunks), described(&segment_key)), (Some(segment.id), Some(segment.id)));
    assert_eq!((described(&node), described(&tombstone_key)), (None, None));
    assert!(chunks.starts_with(&parts_from(&segment.id)));
    assert!(node < segment_key && segment_key.as_slice() >= SEGMENTS_FROM);
    assert_eq!(segment_of_key(&segment_key).expect("a segment"), segment.id);
}

/// A table that was written once is read for ever: a key and its value of each kind.
#[test]
fn golden_entries_of_version_1() {
    let segment = segment(7, 3);
    let hint = NodeHint {
        node: NodeId::from_bytes([9; 32]),
        addresses: vec!["/ip4/10.0.0.1/tcp/4711".parse().expect("an address"); 2],
    };
    let tombstone = (tombstone_key(&segment.id), tombstone_value(1_763_900_000_000).to_vec());
    let part = chunk_edits(&segment).next().expect("a part");
    let edits = [
        ("chunks", b'c', part, [&[7; 32][..], &[0; 4]].concat()),
        ("tombstone", b'd', tombstone, vec![7; 32]),
        ("node", b'n', node_edit(&hint), vec![9; 8]),
        ("segment", b's', segment_edit(&segment.id, &segment.info), vec![7; 32]),
    ];
    let kept = edits.map(|(name, kind, (key, value), rest_of_key)| {
        assert_eq!(key, [vec![kind], rest_of_key].concat(), "{name}");
        let kept = std::fs::read(golden(&format!("table_{name}_v1.bin"), &value)).expect("the golden file");
        assert!(kept == value, "today's encoding of {name} is another");
        kept
    });
    let [chunks, tombstone, node, info] = kept;
    assert!(unpack(&chunks).expect("chunks").iter().map(fields).eq(segment.chunks.iter().map(fields)));
    let dropped = super::tombstone(&tombstone_key(&segment.id), &tombstone).expect("a tombstone");
    assert_eq!(dropped, (segment.id, 1_763_900_000_000));
    assert_eq!(NodeHint::decode(node.into()).expect("a node"), hint);
    assert_eq!(SegmentInfo::decode(info.into()).expect("a segment"), segment.info);
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let wire = |change: fn(&mut InfoWire)| {
        let mut wire = segment(1, 1).info.to_wire();
        change(&mut wire);
        SegmentInfo::from_wire(wire)
    };
    assert!(wire(|_| {}).is_ok());
    assert!(wire(|wire| wire.k = 5).is_err(), "more data shards than shards");
    assert!(wire(|wire| wire.n = 256).is_err(), "more shards than a byte counts");
    assert!(wire(|wire| wire.holders = wire.holders.slice(1..)).is_err(), "a cut holder");
    assert!(wire(|wire| wire.holders = wire.holders.slice(8..)).is_err(), "a holder too few");
    assert!(wire(|wire| wire.length = 0).is_err() && wire(|wire| wire.length = 1 << 40).is_err());
    assert!(unpack(&[0; CHUNK_BYTES + 1]).is_err());
}

proptest! {
    #[test]
    fn what_the_journal_keeps_comes_back(number: u8, chunks in 0_usize..50) {
        let segment = segment(number, chunks);
        assert_same(&PlacedSegment::from_bytes(segment.to_bytes().into()).expect("readable"), &segment);
    }

    #[test]
    fn a_node_keeps_its_first_addresses(id: [u8; 32], ports in proptest::collection::vec(any::<u16>(), 0..12)) {
        let addresses = ports.iter().map(|port| format!("/ip4/10.0.0.1/tcp/{port}").parse().expect("an address"));
        let hint = NodeHint { node: NodeId::from_bytes(id), addresses: addresses.collect() };
        let (_, value) = node_edit(&hint);
        let mut expected = hint;
        expected.addresses.truncate(NODE_ADDRESSES_MAX);
        prop_assert_eq!(NodeHint::decode(value.into()).expect("readable"), expected);
    }

    /// Nearly right is where a decoder errs.
    #[test]
    fn damaged_entries_are_refused_or_read_but_never_panic(number: u8, at: proptest::sample::Index, flip in 1_u8..) {
        let mut bytes = segment(number, 3).to_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let _ = PlacedSegment::from_bytes(bytes.into());
    }
}
