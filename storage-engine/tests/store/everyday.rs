//! What is stored is read back proven, once, and goes when it is removed.

use commonhold_protocol::{ShardIndex, ask::Refusal, shard_stream::GroupRange};
use commonhold_storage_engine::{
    prove,
    store::{IndexFound, ShardStore, StoreError},
};

use crate::harness::{KIB, MIB, network, open, options, segment, segment_of};

#[test]
fn shards_of_all_sizes_come_back_proven() {
    let folder = tempfile::tempdir().unwrap();
    let (store, report) = open(folder.path());
    assert_eq!(report.index, IndexFound::New);
    let sizes = [64, 4 * KIB, 16 * KIB, 16 * KIB + 64, 100 * KIB, 256 * KIB, 3 << 20];
    let segments: Vec<_> = (0..).zip(sizes).map(|(seed, size)| segment_of(1, seed, size, 2)).collect();
    for segment in &segments {
        segment.store(&store, 0).unwrap();
        segment.store(&store, 1).unwrap();
    }
    for segment in &segments {
        segment.assert_held(&store, 0);
        segment.assert_held(&store, 1);
    }
    assert_eq!(store.used().shards, 2 * sizes.len() as u64);
}

#[test]
fn a_range_is_proven_without_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let segment = segment(1, 256 * KIB);
    segment.store(&store, 2).unwrap();
    let ranges = [GroupRange { first: 3, count: 2 }, GroupRange { first: 9, count: 1 }];
    let read = store.read(segment.manifest.id(), ShardIndex(2), &ranges).unwrap();
    let root = segment.manifest.root(ShardIndex(2)).unwrap();
    let decoded = prove::decode_ranges(root, 256 * KIB as u64, &ranges, &read.encoded.clone().into()).unwrap();
    let shard = &segment.shards[2];
    let expected = [(3, 5), (9, 10)]
        .map(|(from, to)| (from * 16 * KIB as u64, shard.slice(from as usize * 16 * KIB..to * 16 * KIB)));
    assert_eq!(decoded.iter().map(|proven| (proven.start, proven.concat())).collect::<Vec<_>>(), expected);
    assert!(read.encoded.len() < 60 * KIB);
}

#[test]
fn bad_ranges_are_refused_and_harm_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let segment = segment(1, 64 * KIB);
    segment.store(&store, 0).unwrap();
    let beyond = [GroupRange { first: 4, count: 1 }];
    let many = [GroupRange { first: 0, count: 1 }; 65];
    for ranges in [&[][..], &beyond, &many] {
        let refused = store.read(segment.manifest.id(), ShardIndex(0), ranges).unwrap_err();
        assert_eq!(refused.refusal(), Refusal::Invalid);
    }
    segment.assert_held(&store, 0);
}

#[test]
fn a_shard_is_taken_once() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let segment = segment(1, 4 * KIB);
    let writer = store.begin(&segment.manifest, ShardIndex(0)).unwrap();
    assert!(matches!(store.begin(&segment.manifest, ShardIndex(0)), Err(StoreError::BeingWritten { .. })));
    drop(writer);
    segment.store(&store, 0).unwrap();
    let bytes = store.used().bytes;
    assert!(matches!(segment.store(&store, 0), Err(StoreError::AlreadyHeld { .. })));
    assert_eq!(store.used().bytes, bytes);
    assert_eq!(store.used().shards, 1);
}

#[test]
fn only_the_shard_that_the_manifest_names_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let (one, other) = (segment(1, 64 * KIB), segment(2, 64 * KIB));
    assert!(matches!(store.begin(&one.manifest, ShardIndex(4)), Err(StoreError::Index { shards: 4, .. })));

    let mut writer = store.begin(&one.manifest, ShardIndex(0)).unwrap();
    writer.write(&other.shards[0]).unwrap();
    assert!(matches!(writer.finish(), Err(StoreError::Root { .. })));

    let mut writer = store.begin(&one.manifest, ShardIndex(0)).unwrap();
    writer.write(&one.shards[0][..1000]).unwrap();
    assert!(matches!(writer.finish(), Err(StoreError::Length { bytes: 1000, .. })));

    let mut writer = store.begin(&one.manifest, ShardIndex(0)).unwrap();
    writer.write(&one.shards[0]).unwrap();
    assert!(matches!(writer.write(b"x"), Err(StoreError::Length { .. })));
    drop(writer);

    assert!(!store.holds(&one.leaf(0)).unwrap());
    assert_eq!(store.used().bytes, 0);
    one.store(&store, 0).unwrap();
    one.assert_held(&store, 0);
}

#[test]
fn a_removed_shard_is_gone_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let segment = segment(1, 64 * KIB);
    segment.store(&store, 0).unwrap();
    segment.store(&store, 1).unwrap();
    store.remove(segment.manifest.id(), ShardIndex(0)).unwrap();
    let absent = |store: &ShardStore| {
        assert!(matches!(segment.check(store, 0), Err(StoreError::NotHeld { .. })));
        assert!(matches!(store.remove(segment.manifest.id(), ShardIndex(0)), Err(StoreError::NotHeld { .. })));
        segment.assert_held(store, 1);
        assert_eq!(store.used().shards, 1);
    };
    absent(&store);
    drop(store);
    let (store, report) = open(folder.path());
    assert_eq!((report.shards, report.recovered), (1, 0));
    absent(&store);
    // It may come again.
    segment.store(&store, 0).unwrap();
    segment.assert_held(&store, 0);
}

#[test]
fn held_shards_are_listed_with_their_vaults() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let segments = [segment_of(1, 1, 4 * KIB, 3), segment_of(2, 2, 4 * KIB, 3), segment_of(1, 3, 4 * KIB, 3)];
    for segment in &segments {
        for index in 0..3 {
            segment.store(&store, index).unwrap();
        }
    }
    let listed = |store: &ShardStore| {
        let mut held: Vec<_> =
            store.iter_held().map(|held| held.unwrap()).map(|held| (held.leaf, held.vault)).collect();
        let after = held[3].0;
        let rest: Vec<_> = store.held_after(Some(&after)).map(|held| held.unwrap().leaf).collect();
        assert_eq!(rest, held[4..].iter().map(|(leaf, _)| *leaf).collect::<Vec<_>>());
        held.sort();
        held
    };
    let mut expected: Vec<_> =
        segments.iter().flat_map(|segment| (0..3).map(|index| (segment.leaf(index), segment.manifest.vault))).collect();
    expected.sort();
    assert_eq!(listed(&store), expected);
    drop(store);
    assert_eq!(listed(&open(folder.path()).0), expected);
}

#[test]
fn a_closing_store_takes_nothing_new() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let segment = segment(1, 4 * KIB);
    let mut writer = store.begin(&segment.manifest, ShardIndex(0)).unwrap();
    store.close().unwrap();
    assert_eq!(store.begin(&segment.manifest, ShardIndex(1)).unwrap_err().refusal(), Refusal::Stopping);
    writer.write(&segment.shards[0]).unwrap();
    store.commit(writer.finish().unwrap()).unwrap();
    segment.assert_held(&store, 0);
}

#[test]
fn a_store_is_for_one_process_and_one_network() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    assert!(matches!(ShardStore::open(folder.path(), options(64 * MIB)), Err(StoreError::InUse { .. })));
    drop(store);
    let mut other = options(64 * MIB);
    other.network = "other".parse().unwrap();
    let refused = ShardStore::open(folder.path(), other).unwrap_err();
    assert!(matches!(refused, StoreError::OtherNetwork { found, .. } if found == network()));
    open(folder.path());
}

#[test]
fn many_writers_at_once_share_their_syncs() {
    let folder = tempfile::tempdir().unwrap();
    let disk = crate::faults::FaultyDisk::new(folder.path());
    let (store, _) = ShardStore::open_on(disk.clone(), folder.path(), options(64 * MIB)).unwrap();
    let segments: Vec<_> = (0..64).map(|seed| segment_of(1, seed, 64 * KIB, 1)).collect();
    let written: Vec<_> = segments
        .iter()
        .map(|segment| {
            let mut writer = store.begin(&segment.manifest, ShardIndex(0)).unwrap();
            writer.write(&segment.shards[0]).unwrap();
            writer.finish().unwrap()
        })
        .collect();
    let before = disk.syncs();
    let barrier = std::sync::Barrier::new(written.len());
    std::thread::scope(|scope| {
        for shard in written {
            scope.spawn(|| {
                barrier.wait();
                store.commit(shard).unwrap();
            });
        }
    });
    for segment in &segments {
        segment.assert_held(&store, 0);
    }
    // 64 shards lie in two volumes; alone, each would cost a sync.
    let syncs = disk.syncs() - before;
    assert!(syncs < 32, "{syncs} syncs for 64 shards");
}
