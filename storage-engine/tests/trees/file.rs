//! A file's tree gives its extents back from any byte on, by one node per level, holes and all.

use commonhold_protocol::SegmentId;
use commonhold_storage_engine::{
    chunk_ref::{ChunkKey, ChunkRef},
    tree::{
        TreeError,
        file::{self, Extent, FILE_BYTES_MAX, FileBuilder, FileRoot, ROOT_EXTENTS_MAX},
        packed_ref::PLAIN_BYTES_MAX,
    },
};
use proptest::prelude::*;

use super::memory::Memory;

/// A chunk of a file; what it holds is of no matter to the tree. `device` says who stored it.
fn chunk(seed: u32, device: u8) -> ChunkRef {
    let key = *blake3::hash(&seed.to_le_bytes()).as_bytes();
    let plain_length = 1 + seed.wrapping_mul(2_654_435_761) % PLAIN_BYTES_MAX;
    ChunkRef {
        segment: SegmentId::from_bytes([device.wrapping_add(key[0] % 2); 32]),
        offset: seed % 1000 * 1000,
        sealed_length: plain_length + 17,
        plain_length,
        key: ChunkKey::from_bytes(key),
    }
}

fn build(store: &mut Memory, extents: &[Extent]) -> FileRoot {
    let mut builder = FileBuilder::new();
    for extent in extents {
        match extent {
            Extent::Data(chunk) => builder.push(store, chunk.clone()).unwrap(),
            Extent::Hole(length) => builder.push_hole(*length),
        }
    }
    builder.finish(store).unwrap()
}

/// With where they start; runs of holes are one, empty ones none.
fn oracle(extents: &[Extent]) -> Vec<(u64, Extent)> {
    let mut placed: Vec<(u64, Extent)> = Vec::new();
    let mut at = 0;
    for extent in extents {
        match (placed.last_mut(), extent) {
            (_, Extent::Hole(0)) => {}
            (Some((_, Extent::Hole(before))), Extent::Hole(length)) => *before += length,
            _ => placed.push((at, extent.clone())),
        }
        at += extent.length();
    }
    placed
}

fn extents(most: usize) -> impl Strategy<Value = Vec<Extent>> {
    let extent = prop_oneof![
        30 => (0..5000_u32).prop_map(|seed| Extent::Data(chunk(seed, 0))),
        1 => (0..1_u64 << 40).prop_map(Extent::Hole),
        1 => Just(Extent::Hole(0)),
    ];
    prop_oneof![prop::collection::vec(extent.clone(), 0..8), prop::collection::vec(extent, 0..most)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_byte_is_where_it_was_put(extents in extents(5000), offsets in prop::collection::vec(any::<u64>(), 40)) {
        let mut store = Memory::new();
        let root = build(&mut store, &extents);
        let oracle = oracle(&extents);
        prop_assert_eq!(root.length(), extents.iter().map(Extent::length).sum::<u64>());
        prop_assert_eq!(&FileRoot::from_bytes(&root.to_bytes()).unwrap(), &root);
        prop_assert_eq!(root.node().is_none(), oracle.len() <= ROOT_EXTENTS_MAX);
        let read: Vec<_> = file::extents(&store, &root, 0).map(Result::unwrap).collect();
        prop_assert_eq!(&read, &oracle);
        let mut seeking = file::extents(&store, &root, 0);
        for offset in offsets {
            let offset = offset % (root.length() + 2);
            let at = oracle.partition_point(|(start, extent)| start + extent.length() <= offset);
            let found: Vec<_> = file::extents(&store, &root, offset).take(3).map(Result::unwrap).collect();
            prop_assert_eq!(&found[..], &oracle[at..oracle.len().min(at + 3)]);
            seeking.seek(offset);
            prop_assert_eq!(seeking.next().transpose().unwrap(), oracle.get(at).cloned());
        }
    }
}

#[test]
fn a_large_file_is_read_anywhere_by_one_node_per_level() {
    let mut store = Memory::new();
    let extents: Vec<Extent> = (0..400_000).map(|seed| Extent::Data(chunk(seed, 0))).collect();
    let root = build(&mut store, &extents);
    let nodes = store.puts();
    assert!((400..1600).contains(&nodes), "{nodes} nodes");
    for step in 0..1000 {
        store.reset();
        let offset = root.length() / 1000 * step;
        let (start, extent) = file::extents(&store, &root, offset).next().unwrap().unwrap();
        assert!((start..start + extent.length()).contains(&offset));
        assert!(store.gets() <= 3, "{} nodes read", store.gets());
    }
    store.reset();
    assert_eq!(file::extents(&store, &root, 0).count(), extents.len());
    assert_eq!(store.gets(), nodes, "each node once");
}

#[test]
fn an_insertion_in_a_large_file_leaves_the_nodes_behind_it() {
    let mut store = Memory::new();
    let mut extents: Vec<Extent> = (0..100_000).map(|seed| Extent::Data(chunk(seed, 0))).collect();
    build(&mut store, &extents);
    let before = store.chunks();
    extents.insert(1000, Extent::Data(chunk(1_000_000, 0)));
    extents.insert(1000, Extent::Data(chunk(1_000_001, 0)));
    build(&mut store, &extents);
    let fresh = store.chunks() - before;
    assert!(fresh <= 6, "{fresh} of {before} nodes are new");
}

#[test]
fn a_small_file_takes_no_node() {
    let mut store = Memory::new();
    let four = [Extent::Data(chunk(1, 0)), Extent::Hole(1 << 30), Extent::Data(chunk(2, 0)), Extent::Hole(5)];
    let root = build(&mut store, &four);
    assert_eq!((store.puts(), root.node()), (0, None));
    assert_eq!(build(&mut store, &[]).length(), 0);
    assert_eq!(build(&mut store, &[Extent::Hole(7)]).length(), 7);
    assert_eq!(store.puts(), 0);
    build(&mut store, &[&four[..], &[Extent::Data(chunk(3, 0))]].concat());
    assert_eq!(store.puts(), 1);
}

#[test]
fn a_file_beyond_what_an_offset_counts_is_refused() {
    let mut store = Memory::new();
    let mut builder = FileBuilder::new();
    builder.push_hole(FILE_BYTES_MAX);
    assert!(matches!(builder.push(&mut store, chunk(1, 0)), Err(TreeError::TooLarge { what: "file", .. })));
    let mut builder = FileBuilder::new();
    builder.push_hole(u64::MAX);
    builder.push_hole(u64::MAX);
    assert!(matches!(builder.finish(&mut store), Err(TreeError::TooLarge { what: "file", .. })));
    assert_eq!(build(&mut store, &[Extent::Hole(FILE_BYTES_MAX)]).length(), FILE_BYTES_MAX);
}

#[test]
fn the_same_content_is_known_wherever_it_lies() {
    let store = Memory::new();
    let file = |device: u8, count: u32, last: u32| {
        let mut extents: Vec<Extent> = (0..count).map(|seed| Extent::Data(chunk(seed, device))).collect();
        extents.extend([Extent::Hole(5), Extent::Data(chunk(last, device))]);
        build(&mut store.device(device), &extents)
    };
    // Of the same length as chunk 7, and another chunk.
    let twin = 7 + PLAIN_BYTES_MAX;
    assert_eq!(chunk(7, 0).plain_length, chunk(twin, 0).plain_length);
    for count in [1, 2, 3, 3000] {
        let (here, there, other) = (file(1, count, 7), file(9, count, 7), file(1, count, twin));
        assert_ne!(here, there);
        assert!(file::same_content(&store, &here, &there).unwrap());
        assert!(file::same_content(&store, &here, &here).unwrap());
        assert!(!file::same_content(&store, &here, &other).unwrap());
        assert!(!file::same_content(&store, &there, &file(1, count + 1, 7)).unwrap());
    }
}
