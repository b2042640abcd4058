//! A map in chunks behaves as a `BTreeMap` does, has one shape whatever its history, and costs what it should.

use std::{collections::BTreeMap, ops::Bound};

use commonhold_storage_engine::tree::{
    TreeError,
    map::{self, Builder, Change, Resolution, TreeRoot},
    node::{KEY_BYTES_MAX, Node, VALUE_BYTES_MAX},
};
use proptest::prelude::*;

use super::memory::{Memory, Missing};

type Oracle = BTreeMap<Vec<u8>, Vec<u8>>;

/// Keys of very different lengths: long ones make a deep tree of few entries.
fn key(id: u16) -> Vec<u8> {
    let mut key = vec![b'k'; [0, 3, 40, 1500, 3900][usize::from(id % 5)]];
    key.extend_from_slice(&id.to_be_bytes());
    key
}

fn value(seed: u16) -> Vec<u8> {
    let length = match seed % 16 {
        0 => 0,
        1 => VALUE_BYTES_MAX,
        2..=8 => usize::from(seed) % 300,
        _ => usize::from(seed) % 3000,
    };
    vec![seed as u8; length]
}

fn entries(most: usize) -> impl Strategy<Value = Oracle> {
    prop::collection::btree_map(0..2000_u16, any::<u16>(), 0..most)
        .prop_map(|ids| ids.into_iter().map(|(id, seed)| (key(id), value(seed))).collect())
}

/// None takes a key away. Runs of neighbours too, so that whole nodes go.
fn edits() -> impl Strategy<Value = BTreeMap<Vec<u8>, Option<Vec<u8>>>> {
    let one = (0..2000_u16, prop::option::of(any::<u16>())).prop_map(|(id, seed)| vec![(id, seed)]);
    let gone =
        (0..2000_u16, 1..400_u16).prop_map(|(first, count)| (first..first + count).map(|id| (id, None)).collect());
    prop::collection::vec(prop_oneof![8 => one, 1 => gone], 0..12)
        .prop_map(|edits| edits.into_iter().flatten().map(|(id, seed)| (key(id), seed.map(value))).collect())
}

fn build(store: &mut Memory, oracle: &Oracle) -> TreeRoot {
    let mut builder = Builder::new();
    for (key, value) in oracle {
        builder.push(store, key, value).unwrap();
    }
    builder.finish(store).unwrap()
}

fn read(store: &Memory, root: &TreeRoot) -> Oracle {
    map::range(store, root, Bound::Unbounded)
        .map(|entry| entry.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap())
        .collect()
}

fn apply(store: &mut Memory, root: &TreeRoot, edits: &BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> TreeRoot {
    let source = store.frozen();
    map::apply(&source, store, root, edits.iter().map(|(key, value)| (key.as_slice(), value.as_deref()))).unwrap()
}

fn edited(oracle: &Oracle, edits: &BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> Oracle {
    let mut edited = oracle.clone();
    for (key, value) in edits {
        match value {
            Some(value) => edited.insert(key.clone(), value.clone()),
            None => edited.remove(key),
        };
    }
    edited
}

fn oracle_diff(before: &Oracle, after: &Oracle) -> Vec<Change> {
    let mut keys: Vec<&Vec<u8>> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| Change {
            key: key.clone().into(),
            before: before.get(key).map(|value| value.clone().into()),
            after: after.get(key).map(|value| value.clone().into()),
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_was_built_is_read(oracle in entries(400), probe in any::<u16>(), excluded in any::<bool>()) {
        let mut store = Memory::new();
        let root = build(&mut store, &oracle);
        prop_assert_eq!(&read(&store, &root), &oracle);
        prop_assert_eq!(root.is_empty(), oracle.is_empty());
        prop_assert_eq!(&TreeRoot::from_bytes(&root.to_bytes()).unwrap(), &root);
        for id in (0..2000).step_by(7) {
            let found = map::get(&store, &root, &key(id)).unwrap();
            prop_assert_eq!(found.as_deref(), oracle.get(&key(id)).map(Vec::as_slice));
        }
        let probe = key(probe % 2000);
        let start = if excluded { Bound::Excluded(&probe[..]) } else { Bound::Included(&probe[..]) };
        let found: Vec<_> = map::range(&store, &root, start).map(|entry| entry.unwrap().0.to_vec()).collect();
        let wanted: Vec<_> = oracle.range::<[u8], _>((start, Bound::Unbounded)).map(|(key, _)| key.clone()).collect();
        prop_assert_eq!(found, wanted);
    }

    #[test]
    fn an_edited_map_is_the_one_that_would_have_been_built(
        oracle in entries(400),
        history in prop::collection::vec(edits(), 1..4),
    ) {
        let mut store = Memory::new();
        let (mut root, mut oracle) = (build(&mut store, &oracle), oracle);
        for edits in history {
            root = apply(&mut store, &root, &edits);
            oracle = edited(&oracle, &edits);
            prop_assert_eq!(&read(&store, &root), &oracle);
            prop_assert_eq!(&root, &build(&mut store, &oracle), "the same entries in another shape");
        }
    }

    #[test]
    fn a_diff_names_what_differs(oracle in entries(400), edits in edits(), other in entries(100)) {
        let mut store = Memory::new();
        let root = build(&mut store, &oracle);
        let after = edited(&oracle, &edits);
        for after in [&after, &other, &Oracle::new()] {
            let after_root = build(&mut store, after);
            let changes: Vec<Change> = map::diff(&store, &root, &after_root).map(Result::unwrap).collect();
            prop_assert_eq!(changes, oracle_diff(&oracle, after));
            let back: Vec<Change> = map::diff(&store, &after_root, &root).map(Result::unwrap).collect();
            prop_assert_eq!(back, oracle_diff(after, &oracle));
        }
    }

    #[test]
    fn a_merge_takes_both_sides_changes(base in entries(300), ours in edits(), theirs in edits()) {
        let mut store = Memory::new();
        let base_root = build(&mut store, &base);
        let (ours, theirs) = (edited(&base, &ours), edited(&base, &theirs));
        let (ours_root, theirs_root) = (build(&mut store, &ours), build(&mut store, &theirs));
        // What both changed is resolved to the longer value, and leaves a mark beside it.
        let longer = |a: Option<&[u8]>, b: Option<&[u8]>| a.max(b).map(<[u8]>::to_vec);
        let beside = |key: &[u8]| ([key, b"+"].concat(), b"both".to_vec());

        let mut wanted = base.clone();
        for change in oracle_diff(&base, &ours).into_iter().chain(oracle_diff(&base, &theirs)) {
            let key = change.key.to_vec();
            let [before, ours, theirs] = [&base, &ours, &theirs].map(|side| side.get(&key).map(Vec::as_slice));
            let value = if ours == before || ours == theirs {
                theirs.map(<[u8]>::to_vec)
            } else if theirs == before {
                ours.map(<[u8]>::to_vec)
            } else {
                if key.len() < KEY_BYTES_MAX {
                    wanted.extend([beside(&key)]);
                }
                longer(ours, theirs)
            };
            match value {
                Some(value) => wanted.insert(key, value),
                None => wanted.remove(&key),
            };
        }

        let source = store.frozen();
        let merged = map::merge(&source, &mut store, &base_root, &ours_root, &theirs_root, |conflict| {
            let value = longer(conflict.ours.as_deref(), conflict.theirs.as_deref()).map(Into::into);
            let (key, mark) = beside(&conflict.key);
            Ok(Resolution { value, beside: (key.len() <= KEY_BYTES_MAX).then(|| (key.into(), mark.into())) })
        });
        let merged = merged.unwrap();
        prop_assert_eq!(&read(&store, &merged), &wanted);
        prop_assert_eq!(merged, build(&mut store, &wanted));
    }
}

/// Names and values such as a large directory has them.
fn large() -> Oracle {
    (0..100_000_u32)
        .map(|i| (format!("IMG_{:08}.jpg", i.wrapping_mul(2_654_435_761)).into_bytes(), i.to_le_bytes().repeat(37)))
        .collect()
}

#[test]
fn one_change_among_100_000_entries_rewrites_two_or_three_nodes() {
    let mut store = Memory::new();
    let oracle = large();
    let root = build(&mut store, &oracle);
    let nodes = store.puts();
    let keys: Vec<Vec<u8>> = oracle.keys().step_by(997).cloned().collect();
    let mut total = [0; 3];
    for key in &keys {
        let between = [key.as_slice(), b"~"].concat();
        let changes: [(&[u8], Option<Vec<u8>>); 3] =
            [(key, Some(vec![7; 148])), (&between, Some(vec![8; 148])), (key, None)];
        for (at, (key, value)) in changes.into_iter().enumerate() {
            store.reset();
            let changed = apply(&mut store, &root, &BTreeMap::from([(key.to_vec(), value.clone())]));
            let (puts, gets) = (store.puts(), store.gets());
            assert!(puts <= 8 && gets <= 8, "change {at} of {key:?}: {puts} nodes written, {gets} read");
            total[at] += puts;
            assert_eq!(map::get(&store, &changed, key).unwrap().as_deref(), value.as_deref());

            store.reset();
            let changes: Vec<Change> = map::diff(&store, &root, &changed).map(Result::unwrap).collect();
            assert_eq!(changes.len(), 1);
            assert!(store.gets() <= 2 * 8, "a diff of one change read {} nodes of {nodes}", store.gets());
        }
    }
    let mean = total.map(|total| f64::from(total as u32) / keys.len() as f64);
    println!("{nodes} nodes, level {}; nodes written per value changed, added, removed: {mean:.2?}", root.level());
    assert_eq!(mean[0], f64::from(root.level()) + 1.0, "a value of the same size moves no boundary");
    assert!(mean.iter().all(|mean| *mean <= 3.6), "{mean:?}");
}

#[test]
fn nothing_is_written_where_nothing_changes() {
    let mut store = Memory::new();
    let oracle = large();
    let root = build(&mut store, &oracle);
    store.reset();
    assert_eq!(apply(&mut store, &root, &BTreeMap::new()), root);
    let same: BTreeMap<_, _> =
        oracle.iter().step_by(5000).map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
    assert_eq!(apply(&mut store, &root, &same), root);
    assert_eq!(apply(&mut store, &root, &BTreeMap::from([(b"absent".to_vec(), None)])), root);
    assert_eq!(store.puts(), 0);
    assert_eq!(map::diff(&store, &root, &root).count(), 0);
}

#[test]
fn a_scan_reads_each_node_once_and_tells_the_source_ahead() {
    let mut store = Memory::new();
    let root = build(&mut store, &large());
    let nodes = store.puts();
    store.reset();
    assert_eq!(map::range(&store, &root, Bound::Unbounded).count(), 100_000);
    assert_eq!(store.gets(), nodes);
    assert!(store.hinted() > nodes * 9 / 10, "{} of {nodes} leaves hinted", store.hinted());
    store.reset();
    let from = map::range(&store, &root, Bound::Excluded(b"IMG_2")).next().unwrap().unwrap();
    assert!(from.0.starts_with(b"IMG_2"));
    assert_eq!(store.gets(), usize::from(root.level()) + 1);
}

#[test]
fn nodes_are_as_large_as_they_should_be() {
    let mut store = Memory::new();
    let root = build(&mut store, &large());
    let mut leaves = Vec::new();
    let mut below = vec![root.chunk().unwrap().clone()];
    while let Some(chunk) = below.pop() {
        let bytes = store.bytes(&chunk);
        match Node::decode(bytes.clone()).unwrap() {
            Node::Leaf(_) => leaves.push(bytes.len()),
            Node::Inner(inner) => below.extend((0..inner.len()).map(|at| inner.child(at))),
            Node::File(_) => panic!("a file node in a map"),
        }
    }
    leaves.remove(0);
    let mean = leaves.iter().sum::<usize>() / leaves.len();
    println!("{} leaves of {mean} bytes on average, {} at most", leaves.len(), leaves.iter().max().unwrap());
    assert!((14 << 10..24 << 10).contains(&mean), "{mean}");
    assert!(*leaves.iter().min().unwrap() >= 8 << 10 && *leaves.iter().max().unwrap() <= 64 << 10);
}

#[test]
fn what_is_too_large_or_out_of_order_is_refused() {
    let mut store = Memory::new();
    let mut builder = Builder::new();
    let refused = builder.push(&mut store, &[1; KEY_BYTES_MAX + 1], b"");
    assert!(matches!(refused, Err(TreeError::TooLarge { what: "tree key", bytes: 4097, bytes_max: 4096 })));
    let refused = builder.push(&mut store, b"k", &[0; VALUE_BYTES_MAX + 1]);
    assert!(matches!(refused, Err(TreeError::TooLarge { what: "tree value", .. })));
    builder.push(&mut store, &[1; KEY_BYTES_MAX], &[0; VALUE_BYTES_MAX]).unwrap();
    assert!(matches!(builder.push(&mut store, &[1; KEY_BYTES_MAX], b""), Err(TreeError::NotAscending)));
    assert!(matches!(builder.push(&mut store, b"", b""), Err(TreeError::NotAscending)));
    let root = builder.finish(&mut store).unwrap();
    assert_eq!(read(&store, &root).len(), 1);
}

#[test]
fn a_missing_chunk_is_the_sources_error() {
    let mut store = Memory::new();
    let root = build(&mut store, &large());
    let empty = Memory::new();
    assert!(matches!(map::get(&empty, &root, b"x"), Err(TreeError::Chunk(Missing))));
    let mut cursor = map::range(&empty, &root, Bound::Unbounded);
    assert!(matches!(cursor.next(), Some(Err(TreeError::Chunk(Missing)))));
    assert!(cursor.next().is_none(), "an error ends it");
}
