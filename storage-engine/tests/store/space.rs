//! Freed space goes back to the file system and can be used again.

use std::{fs::File, path::Path};

use commonhold_protocol::{ShardIndex, ask::Refusal};
use commonhold_storage_engine::store::ShardStore;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};

use crate::{
    faults::FaultyDisk,
    harness::{KIB, MIB, Segment, disk_bytes, open, options, segment_of, volume_paths},
};

fn stored(store: &std::sync::Arc<ShardStore>, count: u64) -> Vec<Segment> {
    let segments: Vec<_> = (0..count).map(|seed| segment_of(1, seed, 252 * KIB, 1)).collect();
    for segment in &segments {
        segment.store(store, 0).unwrap();
    }
    segments
}

/// Every second one goes. Volumes of 4 MiB hold 15 or 16 of these shards.
fn thin_out(store: &ShardStore, segments: &[Segment]) {
    let removed: Vec<_> = segments.iter().step_by(2).map(|segment| segment.leaf(0)).collect();
    assert_eq!(store.remove_all(&removed).unwrap(), removed.len());
    for segment in segments.iter().skip(1).step_by(2) {
        segment.assert_held(store, 0);
    }
}

#[test]
fn a_removed_shard_leaves_a_hole() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let segments = stored(&store, 64);
    let (used, on_disk) = (store.used(), disk_bytes(&folder.path().join("volumes")));
    thin_out(&store, &segments);
    let freed = 32 * 256 * KIB as u64;
    assert_eq!(store.used().bytes, used.bytes - freed);
    let on_disk_now = disk_bytes(&folder.path().join("volumes"));
    // The file system needs a few blocks to remember the holes.
    assert!(on_disk_now <= on_disk - freed + 64 * KIB as u64, "{on_disk} before, {on_disk_now} after");
}

/// A client gives a slow node up half-way: what had come of the shard is nobody's.
#[test]
fn a_shard_that_was_given_up_leaves_nothing_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let file = File::create(folder.path().join("clearing")).unwrap();
    if fallocate(&file, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, 0, 4096).is_err() {
        eprintln!("skipped: this file system cannot clear a range and keep it reserved");
        return;
    }
    let (store, _) = open(folder.path());
    let segment = segment_of(1, 1, 2 << 20, 1);
    let mut writer = store.begin(&segment.manifest, ShardIndex(0)).unwrap();
    writer.write(&segment.shards[0][..3 << 19]).unwrap();
    let [volume] = <[_; 1]>::try_from(volume_paths(folder.path())).unwrap();
    let reserved = disk_bytes(&folder.path().join("volumes"));
    assert!(written_bytes(&volume) >= MIB);
    drop(writer);
    assert!(written_bytes(&volume) <= 64 * KIB as u64, "{} bytes", written_bytes(&volume));
    assert_eq!(disk_bytes(&folder.path().join("volumes")), reserved, "its space is there for the next");
    segment.store(&store, 0).unwrap();
    segment.assert_held(&store, 0);
}

/// The bytes of a file that were ever written; what is only reserved is a hole to this question.
fn written_bytes(path: &Path) -> u64 {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    let (mut at, mut bytes) = (0, 0);
    while let Ok(start) = seek(&file, SeekFrom::Data(at)) {
        at = seek(&file, SeekFrom::Hole(start)).unwrap();
        bytes += at - start;
    }
    bytes
}

#[test]
fn the_count_agrees_with_the_disk_after_all_of_it_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let segments = stored(&store, 64);
    thin_out(&store, &segments);
    drop(store.begin(&segments[0].manifest, ShardIndex(0)).unwrap());
    store.close().unwrap();
    let used = store.used();
    let near = |counted: u64| {
        let on_disk = disk_bytes(folder.path());
        assert!(counted.abs_diff(on_disk) < 128 * KIB as u64, "counted {counted}, on the disk {on_disk}");
    };
    near(used.disk_bytes);
    drop(store);
    let (store, _) = open(folder.path());
    assert_eq!(store.used().bytes, used.bytes);
    assert_eq!(store.used().shards, used.shards);
    near(store.used().disk_bytes);
}

#[test]
fn an_empty_volume_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let segments = stored(&store, 64);
    let volumes = volume_paths(folder.path()).len();
    assert!(volumes >= 4);
    let leaves: Vec<_> = segments[..48].iter().map(|segment| segment.leaf(0)).collect();
    store.remove_all(&leaves).unwrap();
    let left = volume_paths(folder.path()).len();
    assert!(left <= volumes - 2, "{left} of {volumes} volumes are left");
    drop(store);
    let (store, report) = open(folder.path());
    assert_eq!((report.shards, report.lost_volumes), (16, vec![]));
    for segment in &segments[48..] {
        segment.assert_held(&store, 0);
    }
}

#[test]
fn a_full_store_takes_as_much_again_as_was_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = ShardStore::open(folder.path(), options(32 * MIB)).unwrap();
    let mut held = Vec::new();
    let mut seeds = 0..;
    let mut fill = |held: &mut Vec<Segment>| {
        loop {
            let segment = segment_of(1, seeds.next().unwrap(), 252 * KIB, 1);
            match segment.store(&store, 0) {
                Ok(()) => held.push(segment),
                Err(refused) => break assert_eq!(refused.refusal(), Refusal::PledgeFull),
            }
        }
    };
    fill(&mut held);
    let full = held.len();
    for round in 0..5 {
        let gone = std::mem::take(&mut held);
        let (gone, kept): (Vec<_>, Vec<_>) = gone.into_iter().enumerate().partition(|(at, _)| at % 2 == round % 2);
        held.extend(kept.into_iter().map(|(_, segment)| segment));
        store.remove_all(&gone.iter().map(|(_, segment)| segment.leaf(0)).collect::<Vec<_>>()).unwrap();
        fill(&mut held);
        assert!(held.len() + 8 >= full, "round {round}: {} shards, {full} at first", held.len());
        assert!(disk_bytes(folder.path()) <= 32 * MIB);
    }
    for segment in &held {
        segment.assert_held(&store, 0);
    }
}

#[test]
fn where_holes_cannot_be_punched_sparse_volumes_are_rewritten() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(folder.path());
    disk.stop_punching();
    let (store, _) = ShardStore::open_on(disk, folder.path(), options(64 * MIB)).unwrap();
    let segments = stored(&store, 64);
    let on_disk = disk_bytes(&folder.path().join("volumes"));
    // One in eight stays.
    let (kept, gone): (Vec<_>, Vec<_>) = segments.iter().enumerate().partition(|(at, _)| at % 8 == 0);
    store.remove_all(&gone.iter().map(|(_, segment)| segment.leaf(0)).collect::<Vec<_>>()).unwrap();
    let on_disk_now = disk_bytes(&folder.path().join("volumes"));
    assert!(on_disk_now < on_disk / 2, "{on_disk} before, {on_disk_now} after");
    assert_eq!(store.used().shards, 8);
    drop(store);
    for rebuilt in [false, true] {
        if rebuilt {
            std::fs::remove_dir_all(folder.path().join("index")).unwrap();
        }
        let (store, report) = open(folder.path());
        assert_eq!((report.shards, report.quarantined), (8, 0));
        for (_, segment) in &kept {
            segment.assert_held(&store, 0);
        }
    }
}
