//! The pledge, the floor of free space and the limits per vault hold to the byte.

use std::sync::atomic::Ordering;

use commonhold_protocol::{ShardIndex, ask::Refusal};
use commonhold_storage_engine::store::{ShardStore, StoreError};

use crate::{
    faults::FaultyDisk,
    harness::{KIB, MIB, disk_bytes, open, options, segment, segment_of},
};

/// Stores shards of one size until one is refused. How many went in, and the refusal.
fn fill(store: &std::sync::Arc<ShardStore>, vault: u8, shard_bytes: usize) -> (u64, StoreError) {
    for stored in 0..100_000 {
        if let Err(refused) = segment_of(vault, stored, shard_bytes, 1).store(store, 0) {
            return (stored, refused);
        }
    }
    panic!("the store never filled up");
}

#[test]
fn the_pledge_is_a_hard_limit_and_almost_all_of_it_can_be_used() {
    for (pledge_bytes, shard_bytes) in [(4 * MIB, 4 * KIB), (16 * MIB, 64 * KIB), (64 * MIB, 1 << 20)] {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = ShardStore::open(folder.path(), options(pledge_bytes)).unwrap();
        let (_, refused) = fill(&store, 1, shard_bytes);
        assert_eq!(refused.refusal(), Refusal::PledgeFull);
        store.close().unwrap();
        let used = store.used();
        assert!(used.disk_bytes <= pledge_bytes, "{used:?} of {pledge_bytes}");
        let on_disk = disk_bytes(folder.path());
        assert!(on_disk <= pledge_bytes, "{on_disk} of {pledge_bytes} bytes on the disk");
        // What stays unused: room for the index, and less than one record or the smallest volume.
        let unused = pledge_bytes - used.bytes;
        assert!(unused <= pledge_bytes / 10 + 2 * MIB + shard_bytes as u64, "{unused} of {pledge_bytes} bytes unused");
    }
}

#[test]
fn what_the_node_uses_beside_the_store_counts() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(16 * MIB);
    let (store, _) = ShardStore::open(folder.path(), options.clone()).unwrap();
    options.other_bytes.store(8 * MIB, Ordering::Relaxed);
    let (_, refused) = fill(&store, 1, 64 * KIB);
    assert_eq!(refused.refusal(), Refusal::PledgeFull);
    assert!(store.used().disk_bytes <= 8 * MIB);
    options.other_bytes.store(0, Ordering::Relaxed);
    segment(999, 64 * KIB).store(&store, 0).unwrap();
}

#[test]
fn the_floor_of_free_space_is_never_crossed() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(folder.path());
    let mut options = options(64 * MIB);
    options.keep_free_bytes = 100 * MIB;
    let (store, _) = ShardStore::open_on(disk.clone(), folder.path(), options).unwrap();
    // A volume of 4 MiB would cross it, half of what is left does not: the index grows, too.
    disk.set_free_bytes(102 * MIB);
    let segment = segment(1, 64 * KIB);
    segment.store(&store, 0).unwrap();
    assert!(store.used().disk_bytes <= 3 * MIB, "{:?}", store.used());
    disk.set_free_bytes(100 * MIB);
    // What is reserved already can be used up; then it is full.
    let (_, refused) = fill(&store, 2, 64 * KIB);
    assert_eq!(refused.refusal(), Refusal::DiskFull);
    segment.assert_held(&store, 0);
    disk.set_free_bytes(200 * MIB);
    segment.store(&store, 1).unwrap();
    // Should others fill the disk, even what is reserved is not used: the index must have room.
    disk.set_free_bytes(2 * MIB);
    assert_eq!(segment.store(&store, 2).unwrap_err().refusal(), Refusal::DiskFull);
    segment.assert_held(&store, 1);
}

#[test]
fn one_vault_cannot_take_it_all() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(64 * MIB);
    options.vault_bytes_max = MIB;
    let (store, _) = ShardStore::open(folder.path(), options.clone()).unwrap();
    let (stored, refused) = fill(&store, 1, 60 * KIB);
    assert_eq!(refused.refusal(), Refusal::VaultLimit);
    // 60 KiB, header and padding: 64 KiB.
    assert_eq!(stored, 16);
    let other = segment_of(2, 1000, 60 * KIB, 2);
    other.store(&store, 0).unwrap();
    // Shards that are being written count as well.
    let third = segment_of(3, 2000, 512 * KIB, 2);
    let writer = store.begin(&third.manifest, ShardIndex(0)).unwrap();
    assert_eq!(store.begin(&third.manifest, ShardIndex(1)).unwrap_err().refusal(), Refusal::VaultLimit);
    drop(writer);
    assert_eq!(store.vault_bytes(&third.manifest.vault), 0);
    drop(store);
    // The count survives, and a removal gives room again.
    let (store, _) = ShardStore::open(folder.path(), options).unwrap();
    let one = segment_of(1, 0, 60 * KIB, 1);
    assert_eq!(store.vault_bytes(&one.manifest.vault), MIB);
    assert_eq!(segment_of(1, 500, 60 * KIB, 1).store(&store, 0).unwrap_err().refusal(), Refusal::VaultLimit);
    store.remove(one.manifest.id(), ShardIndex(0)).unwrap();
    segment_of(1, 500, 60 * KIB, 1).store(&store, 0).unwrap();
}

#[test]
fn writers_at_once_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let segments: Vec<_> = (0..1025).map(|seed| segment_of(1, seed, 64, 1)).collect();
    let begin = |at: usize| store.begin(&segments[at].manifest, ShardIndex(0));
    let writers: Vec<_> = (0..1024).map(|at| begin(at).unwrap()).collect();
    assert_eq!(begin(1024).unwrap_err().refusal(), Refusal::Busy);
    drop(writers);
    begin(1024).unwrap();
    assert_eq!(store.used().bytes, 0);
}
