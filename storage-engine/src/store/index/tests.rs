use proptest::prelude::*;

use super::*;

const LEAF_SEGMENT: [u8; 32] = [0x5e; 32];

fn place() -> (ClaimLeaf, Place) {
    let leaf = ClaimLeaf { segment: SegmentId::from_bytes(LEAF_SEGMENT), index: ShardIndex(0x1d) };
    let (volume, vault) = (VolumeNumber(0x01_0203), VaultNumber(0x08_090a));
    (leaf, Place { volume, unit: 0x0405, units: 0x0607, vault, quarantined: true })
}

/// An index outlives the program that wrote it: these are the bytes of version 1, as docs/FORMAT.md has them.
#[test]
fn keys_and_values_are_those_of_version_1() {
    let (leaf, place) = place();
    let key = [&LEAF_SEGMENT[..21], &[0x1d]].concat();
    let value = [&LEAF_SEGMENT[21..], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1]].concat();
    assert_eq!((shard_key(&leaf).to_vec(), shard_value(&leaf, &place).to_vec()), (key.clone(), value.clone()));

    let folder = tempfile::tempdir().unwrap();
    let index = Index::open(folder.path()).unwrap();
    index.set_complete(&[7; 16]).unwrap();
    index.set_vault(place.vault, Some(&VaultId::from_bytes([3; 32]))).unwrap();
    index.set_volume(VolumeNumber(1), None).unwrap();
    index.set_volume(VolumeNumber(2), Some(SealedState { records: 5, modified: 0x0102_0304_0506_0708 })).unwrap();
    index.note_free(&leaf, &place).unwrap();
    let state: Vec<(Vec<u8>, Vec<u8>)> =
        index.state.iter().map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect();
    let expected: [(&[u8], Vec<u8>); 5] = [
        (b"f\x00\x01\x02\x03\x00\x00\x04\x05", [key, value].concat()),
        (b"m", [&[1][..], &[7; 16]].concat()),
        (b"n\x00\x08\x09\x0a", vec![3; 32]),
        (b"v\x00\x00\x00\x01", vec![0; 13]),
        (b"v\x00\x00\x00\x02", vec![1, 0, 0, 0, 5, 1, 2, 3, 4, 5, 6, 7, 8]),
    ];
    assert_eq!(state, expected.map(|(key, value)| (key.to_vec(), value)));
}

proptest! {
    #[test]
    fn any_bytes_are_an_entry_or_none(key in proptest::collection::vec(any::<u8>(), 0..30), value: [u8; 22]) {
        match shard_entry(&key, &value) {
            Some((leaf, place)) => {
                prop_assert_eq!(&shard_key(&leaf)[..], &key[..]);
                prop_assert_eq!(shard_value(&leaf, &place)[..21].to_vec(), value[..21].to_vec());
            }
            None => prop_assert!(key.len() != 22),
        }
        prop_assert!(shard_entry(&value, &key[..key.len().min(21)]).is_none());
    }
}
