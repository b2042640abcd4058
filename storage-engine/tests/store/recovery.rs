//! The volumes are the truth: whatever becomes of the index, no shard is lost.

use std::{fs, path::Path, sync::Arc};

use commonhold_protocol::ShardIndex;
use commonhold_storage_engine::store::{FsckReport, IndexFound, ShardStore, StoreError, fsck};

use crate::harness::{KIB, MIB, Segment, flip, network, open, segment_of};

/// Several volumes, some with holes, and one shard being removed from each of a few.
fn filled(folder: &Path) -> (Arc<ShardStore>, Vec<Segment>) {
    let (store, _) = open(folder);
    let mut segments: Vec<_> = (0..40).map(|seed| segment_of(seed as u8 % 3, seed, 252 * KIB, 1)).collect();
    for segment in &segments {
        segment.store(&store, 0).unwrap();
    }
    for at in [30, 20, 3] {
        let removed = segments.remove(at);
        store.remove(removed.manifest.id(), ShardIndex(0)).unwrap();
    }
    (store, segments)
}

fn assert_all_held(store: &ShardStore, segments: &[Segment]) {
    assert_eq!(store.used().shards, segments.len() as u64);
    for segment in segments {
        segment.assert_held(store, 0);
    }
}

#[test]
fn a_deleted_index_is_built_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (store, segments) = filled(folder.path());
    let used = store.used();
    drop(store);
    fs::remove_dir_all(folder.path().join("index")).unwrap();
    let (store, report) = open(folder.path());
    assert_eq!((report.index, report.recovered), (IndexFound::Rebuilt, segments.len() as u64));
    assert_all_held(&store, &segments);
    assert_eq!(store.used().bytes, used.bytes);
    for vault in 0..3 {
        let of_vault =
            segments.iter().filter(|segment| segment.manifest.vault == segment_of(vault, 0, 64, 1).manifest.vault);
        let bytes = of_vault.count() as u64 * 256 * KIB as u64;
        assert_eq!(store.vault_bytes(&segment_of(vault, 0, 64, 1).manifest.vault), bytes);
    }
}

#[test]
fn a_broken_index_is_moved_aside_and_built_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (store, segments) = filled(folder.path());
    drop(store);
    let index = folder.path().join("index");
    for damage in 0..3 {
        match damage {
            0 => fs::write(index.join("db"), vec![0x5a; 1 << 20]).unwrap(),
            1 => fs::write(index.join("db"), b"").unwrap(),
            _ => {
                fs::remove_dir_all(&index).unwrap();
                fs::write(&index, b"a file where a folder should be").unwrap();
            }
        }
        let (store, report) = open(folder.path());
        assert_eq!((report.index, report.shards), (IndexFound::Rebuilt, segments.len() as u64), "damage {damage}");
        assert_all_held(&store, &segments);
        assert!(folder.path().join("index.broken").exists());
        drop(store);
        assert_eq!(open(folder.path()).1.index, IndexFound::Kept);
    }
}

/// sled cuts its log at the first damaged entry and opens without a word.
#[test]
fn an_index_that_silently_lost_entries_is_completed() {
    let folder = tempfile::tempdir().unwrap();
    let (store, segments) = filled(folder.path());
    drop(store);
    let db = folder.path().join("index/db");
    let whole = fs::read(&db).unwrap();
    let mut silent = 0;
    for tenth in 1..10 {
        let mut damaged = whole.clone();
        let at = whole.len() * tenth / 10;
        damaged[at..].fill(0);
        fs::write(&db, &damaged).unwrap();
        for entry in fs::read_dir(folder.path().join("index")).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with("snap") {
                fs::remove_file(path).unwrap();
            }
        }
        let (store, report) = open(folder.path());
        silent += u32::from(report.index == IndexFound::Kept && report.recovered > 0);
        // Entries of removed shards that came back with the old state are in quarantine.
        assert_all_held(&store, &segments);
    }
    assert!(silent > 0, "sled noticed it every time: this tests nothing");
}

#[test]
fn another_stores_index_is_not_believed() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, segments) = filled(folder.path());
    drop(store);
    drop(open(other.path()));
    fs::remove_dir_all(folder.path().join("index")).unwrap();
    fs::rename(other.path().join("index"), folder.path().join("index")).unwrap();
    let (store, report) = open(folder.path());
    assert_eq!(report.index, IndexFound::Rebuilt);
    assert_all_held(&store, &segments);
}

#[test]
fn a_lost_label_is_written_anew_from_the_volumes() {
    let folder = tempfile::tempdir().unwrap();
    let (store, segments) = filled(folder.path());
    drop(store);
    let label = folder.path().join("store");
    for content in [None, Some(&b"torn"[..])] {
        fs::remove_file(&label).unwrap();
        if let Some(content) = content {
            fs::write(&label, content).unwrap();
        }
        let (store, report) = open(folder.path());
        assert_eq!(report.index, IndexFound::Kept);
        assert_all_held(&store, &segments);
    }
    // With neither label nor a readable volume, a store is not made up.
    fs::remove_file(&label).unwrap();
    fs::remove_dir_all(folder.path().join("volumes")).unwrap();
    fs::create_dir(folder.path().join("volumes")).unwrap();
    fs::write(folder.path().join("volumes/00000001.volume"), vec![1; 8192]).unwrap();
    let refused = ShardStore::open(folder.path(), crate::harness::options(64 * MIB)).unwrap_err();
    assert!(matches!(refused, StoreError::Label { .. }));
}

#[test]
fn fsck_of_a_sound_store_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, segments) = filled(folder.path());
    let used = store.used();
    drop(store);
    let report = fsck(folder.path(), &network()).unwrap();
    let FsckReport { shards, damaged, missing, orphaned_bytes, bytes, .. } = report;
    assert_eq!((shards, damaged, missing, orphaned_bytes), (segments.len() as u64, 0, 0, 0));
    assert_eq!(bytes, used.bytes);
    let (store, report) = open(folder.path());
    assert_eq!(report.index, IndexFound::Kept);
    assert_all_held(&store, &segments);
}

#[test]
fn fsck_finds_what_is_damaged_and_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, segments) = filled(folder.path());
    drop(store);
    flip(folder.path(), &segments[5].shards[0]);
    // The header of this one: the record before it ends there.
    let path = crate::harness::volume_paths(folder.path()).remove(0);
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(64).step_by(64).position(|window| window == &segments[9].shards[0][..64]).unwrap() * 64;
    let header = at / 4096 * 4096;
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 200], header as u64).unwrap();

    let report = fsck(folder.path(), &network()).unwrap();
    assert_eq!((report.shards, report.damaged, report.missing), (segments.len() as u64 - 2, 1, 1));
    assert_eq!(report.orphaned_bytes, 256 * KIB as u64);
    let (store, opened) = open(folder.path());
    assert_eq!((opened.index, opened.quarantined), (IndexFound::Kept, 2));
    segments[5].assert_quarantined(&store, 0);
    segments[9].assert_quarantined(&store, 0);
    // Both can be stored anew, or removed.
    segments[9].store(&store, 0).unwrap();
    store.remove(segments[5].manifest.id(), ShardIndex(0)).unwrap();
    segments[9].assert_held(&store, 0);
    assert_eq!(store.quarantined(), []);
    drop(store);
    let again = fsck(folder.path(), &network()).unwrap();
    assert_eq!((again.shards, again.damaged, again.missing), (segments.len() as u64 - 1, 0, 0));
}

#[test]
fn a_store_that_is_open_is_not_checked() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, _) = open(folder.path());
    assert!(matches!(fsck(folder.path(), &network()), Err(StoreError::InUse { .. })));
}
