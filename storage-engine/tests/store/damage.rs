//! What is damaged is never served nor counted as held, and is named until it is stored anew or removed.

use commonhold_protocol::ShardIndex;
use commonhold_storage_engine::store::{StoreError, fsck};

use crate::harness::{KIB, flip, network, open, segment, segment_of, volume_paths};

#[test]
fn a_flipped_byte_is_found_and_the_shard_quarantined_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let segment = segment(1, 64 * KIB);
    for index in 0..4 {
        segment.store(&store, index).unwrap();
    }
    flip(folder.path(), &segment.shards[2]);
    // The index still believes in it.
    assert!(store.holds(&segment.leaf(2)).unwrap());
    segment.assert_quarantined(&store, 2);
    assert_eq!((store.used().shards, store.used().quarantined), (3, 1));
    drop(store);
    let (store, report) = open(folder.path());
    assert_eq!((report.shards, report.quarantined), (3, 1));
    segment.assert_quarantined(&store, 2);
    // A repair brings it back.
    segment.store(&store, 2).unwrap();
    segment.assert_held(&store, 2);
    assert_eq!(store.quarantined(), []);
    let bytes = store.used().bytes;
    drop(store);
    let (store, report) = open(folder.path());
    assert_eq!((report.shards, report.quarantined, store.used().bytes), (4, 0, bytes));
    segment.assert_held(&store, 2);
}

#[test]
fn a_scrub_finds_damage_that_no_read_met() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let segment = segment(1, 256 * KIB);
    for index in 0..4 {
        segment.store(&store, index).unwrap();
    }
    flip(folder.path(), &segment.shards[1]);
    let verified = |index| store.verify(segment.manifest.id(), ShardIndex(index));
    assert!(matches!(verified(1), Err(StoreError::Damaged { .. })));
    for index in [0, 2, 3] {
        verified(index).unwrap();
    }
    segment.assert_quarantined(&store, 1);
    // A quarantined shard can be removed.
    store.remove(segment.manifest.id(), ShardIndex(1)).unwrap();
    assert!(matches!(verified(1), Err(StoreError::NotHeld { .. })));
    assert_eq!(store.quarantined(), []);
}

#[test]
fn a_deleted_volume_takes_its_own_shards_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    // Three to a volume of 4 MiB.
    let segments: Vec<_> = (0..9).map(|seed| segment_of(1, seed, 1 << 20, 1)).collect();
    for segment in &segments {
        segment.store(&store, 0).unwrap();
    }
    std::fs::remove_file(&volume_paths(folder.path())[0]).unwrap();
    // One read is enough to know about all of them.
    assert!(segments[0].check(&store, 0).is_err());
    assert_eq!((store.used().shards, store.used().quarantined), (6, 3));
    for (at, segment) in segments.iter().enumerate() {
        if at < 3 { segment.assert_quarantined(&store, 0) } else { segment.assert_held(&store, 0) }
    }
    drop(store);
    let (store, report) = open(folder.path());
    assert_eq!((report.shards, report.quarantined, report.lost_volumes.len()), (6, 3, 1));
    for segment in &segments[..3] {
        segment.store(&store, 0).unwrap();
        segment.assert_held(&store, 0);
    }
    assert_eq!(store.quarantined(), []);
    drop(store);
    assert_eq!(open(folder.path()).1.lost_volumes, []);
}

/// The file that is being appended to can be deleted under us: writes to it succeed, and go nowhere.
#[test]
fn nothing_is_acknowledged_into_a_deleted_volume() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let segment = segment(1, 64 * KIB);
    segment.store(&store, 0).unwrap();
    let mut writer = store.begin(&segment.manifest, ShardIndex(1)).unwrap();
    writer.write(&segment.shards[1]).unwrap();
    let written = writer.finish().unwrap();
    std::fs::remove_file(&volume_paths(folder.path())[0]).unwrap();
    assert!(store.commit(written).is_err());
    segment.assert_quarantined(&store, 0);
    assert!(!store.holds(&segment.leaf(1)).unwrap());
    for index in 0..4 {
        segment.store(&store, index).unwrap();
        segment.assert_held(&store, index);
    }
    drop(store);
    let (store, _) = open(folder.path());
    assert_eq!((store.used().shards, store.used().quarantined), (4, 0));
}

#[test]
fn a_cut_volume_loses_what_was_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let segment = segment(1, 64 * KIB);
    for index in 0..4 {
        segment.store(&store, index).unwrap();
    }
    let volume = volume_paths(folder.path()).remove(0);
    let file = std::fs::OpenOptions::new().write(true).open(&volume).unwrap();
    file.set_len(150 * KIB as u64).unwrap();
    segment.assert_held(&store, 0);
    segment.assert_held(&store, 1);
    segment.assert_quarantined(&store, 2);
    // A commit into it notices as well.
    let other = segment_of(1, 2, 4 * KIB, 1);
    assert!(other.store(&store, 0).is_err());
    segment.assert_quarantined(&store, 3);
    other.store(&store, 0).unwrap();
    drop(store);
    let (store, _) = open(folder.path());
    assert_eq!((store.used().shards, store.used().quarantined), (3, 2));
    other.assert_held(&store, 0);
    segment.assert_held(&store, 1);
}

#[test]
fn volumes_that_changed_places_serve_nothing_and_come_back_when_put_right() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let segments: Vec<_> = (0..9).map(|seed| segment_of(1, seed, 1 << 20, 1)).collect();
    for segment in &segments {
        segment.store(&store, 0).unwrap();
    }
    store.close().unwrap();
    let paths = volume_paths(folder.path());
    let swap = || {
        let aside = folder.path().join("aside");
        std::fs::rename(&paths[0], &aside).unwrap();
        std::fs::rename(&paths[1], &paths[0]).unwrap();
        std::fs::rename(&aside, &paths[1]).unwrap();
    };
    swap();
    for segment in &segments[..6] {
        segment.assert_quarantined(&store, 0);
    }
    segments[8].assert_held(&store, 0);
    drop(store);
    let (store, report) = open(folder.path());
    assert_eq!((report.shards, report.quarantined, report.lost_volumes.len()), (3, 6, 2));
    drop(store);
    swap();
    let report = fsck(folder.path(), &network()).unwrap();
    assert_eq!((report.shards, report.damaged, report.missing), (9, 0, 0));
    let (store, _) = open(folder.path());
    for segment in &segments {
        segment.assert_held(&store, 0);
    }
}

/// An uploader chooses a shard's bytes: if a record inside them could pass for one, a rebuilt index would lead to
/// whatever they like.
#[test]
fn a_record_inside_a_shard_is_not_found() {
    use commonhold_protocol::{Coding, Manifest, VaultId, Verified};
    use commonhold_storage_engine::prove;

    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let inner = segment_of(1, 1, 16 * KIB, 1);
    inner.store(&store, 0).unwrap();
    // The true record as it lies on this very disk, in units 1 to 5 of the first volume.
    let path = volume_paths(folder.path()).remove(0);
    let volume = std::fs::read(&path).unwrap();
    let record = &volume[4 * KIB..24 * KIB];
    assert!(record.starts_with(b"CHRECORD"));
    // In the new shard it lies at a unit of its own, and its header says so. All is right but the check sum.
    let vault = crate::harness::key(9);
    let manifest = |forged: &[u8]| {
        let manifest = Manifest {
            vault: VaultId::from_bytes(vault.public()),
            salt: [7; 16],
            coding: Coding::new(1, 1).unwrap(),
            length: forged.len() as u64,
            roots: vec![prove::root_of(forged).0],
        };
        Verified::sign(manifest, &vault, &network())
    };
    let mut forged = vec![0; 64 * KIB];
    let data_offset = (168 + manifest(&forged).to_bytes().len()).next_multiple_of(64);
    let at = 2 * 4096 - data_offset;
    forged[at..at + record.len()].copy_from_slice(record);
    forged[at + 20..at + 24].copy_from_slice(&8_u32.to_le_bytes());
    let outer = crate::harness::Segment { manifest: manifest(&forged), shards: vec![forged.into()] };
    outer.store(&store, 0).unwrap();
    let volume = std::fs::read(&path).unwrap();
    assert!(volume[6 * 4096..].starts_with(b"CHRECORD"));
    assert!(volume[8 * 4096..].starts_with(b"CHRECORD"), "the forged record is not at the begin of a unit");
    // Only what no record covers is searched: the record around it goes first.
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 64], 6 * 4096).unwrap();
    store.remove(inner.manifest.id(), ShardIndex(0)).unwrap();
    drop(store);
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    let (store, report) = open(folder.path());
    assert_eq!((report.shards, report.quarantined), (0, 0));
    assert!(!store.holds(&inner.leaf(0)).unwrap());
}
