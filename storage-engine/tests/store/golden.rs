//! A store as version 1 wrote it is opened for ever. `golden/v1` holds a label and a volume without its tail: three
//! shards of `segment(1, 64)`, of which shard 1 was removed again, and one of `segment(2, 20 KiB)`.

use std::{fs, path::Path};

use commonhold_storage_engine::store::{IndexFound, StoreError};

use crate::harness::{KIB, open, segment};

#[test]
fn version_1_is_read() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/golden/v1");
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("volumes")).unwrap();
    for file in ["store", "volumes/00000001.volume"] {
        fs::copy(golden.join(file), folder.path().join(file)).unwrap();
    }
    let (store, report) = open(folder.path());
    assert_eq!((report.index, report.shards, report.quarantined, report.erased), (IndexFound::Rebuilt, 3, 0, 0));
    let (small, large) = (segment(1, 64), segment(2, 20 * KIB));
    small.assert_held(&store, 0);
    small.assert_held(&store, 2);
    large.assert_held(&store, 3);
    assert!(matches!(small.check(&store, 1), Err(StoreError::NotHeld { .. })));
}
