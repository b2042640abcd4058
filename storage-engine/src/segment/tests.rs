use proptest::prelude::*;
use rand::{RngCore, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{chunk_ref::ChunkKey, prove};

fn sealed(length: usize, seed: u64) -> Sealed {
    let mut bytes = vec![0; length];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    Sealed { bytes, key: ChunkKey::from_bytes([seed as u8; 32]), plain_length: 9 }
}

fn coding(k: u8, n: u8) -> Coding {
    Coding::new(k, n).unwrap()
}

/// A segment of the given sealed chunks, its bytes, and the refs to them.
fn segment(chunks: &[Sealed], coding: Coding) -> (CodedSegment, Vec<u8>, Vec<ChunkRef>) {
    let mut builder = SegmentBuilder::new(VaultId::from_bytes([1; 32]), [2; 16]);
    let refs = chunks.iter().map(|chunk| builder.push(chunk).unwrap()).collect();
    let bytes = builder.bytes.clone();
    (builder.finish(coding).unwrap(), bytes, refs)
}

#[test]
fn refs_point_at_their_chunks() {
    let chunks: Vec<Sealed> = (0..20).map(|seed| sealed(1000 + seed as usize * 77, seed)).collect();
    let (coded, bytes, refs) = segment(&chunks, coding(4, 8));
    for (place, chunk) in refs.iter().zip(&chunks) {
        let range = place.bytes();
        assert_eq!(&bytes[range.start as usize..range.end as usize], &chunk.bytes[..]);
        assert_eq!((place.segment, place.plain_length), (coded.manifest.id(), 9));
        assert!(place.key == chunk.key);
    }
}

#[test]
fn the_first_shards_are_the_segment_itself() {
    let (coded, bytes, _) = segment(&[sealed(100_001, 1)], coding(7, 14));
    assert_eq!(coded.shards.len(), 14);
    assert_eq!(coded.manifest.length, 100_001);
    let joined: Vec<u8> = coded.shards[..7].concat();
    assert_eq!(&joined[..bytes.len()], &bytes[..]);
    assert!(joined[bytes.len()..].iter().all(|byte| *byte == 0));
    for (shard, root) in coded.shards.iter().zip(&coded.manifest.roots) {
        assert_eq!(shard.len() as u64, coded.manifest.shard_length());
        assert_eq!(prove::root_of(shard).0, *root);
    }
}

#[test]
fn a_segment_is_coded_again_from_its_bytes_and_from_no_others() {
    for (length, coding) in [(1, coding(4, 8)), (100_001, coding(7, 14)), (9_000, coding(7, 14)), (4096, coding(1, 1))]
    {
        let (coded, bytes, _) = segment(&[sealed(length, 3)], coding);
        let again = SegmentBuilder::of_manifest(&coded.manifest, bytes.clone()).expect("the same segment");
        let again = again.finish(coded.manifest.coding).unwrap();
        assert_eq!((&again.manifest, &again.shards), (&coded.manifest, &coded.shards));
        for at in [0, length / 2, length - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(SegmentBuilder::of_manifest(&coded.manifest, damaged).is_none(), "byte {at} of {length}");
        }
        assert!(SegmentBuilder::of_manifest(&coded.manifest, bytes[1..].to_vec()).is_none());
        assert!(SegmentBuilder::of_manifest(&coded.manifest, [bytes, vec![0]].concat()).is_none());
    }
}

#[test]
fn shards_share_two_buffers() {
    let (coded, ..) = segment(&[sealed(1 << 20, 1)], coding(4, 8));
    for half in [&coded.shards[..4], &coded.shards[4..]] {
        for (one, next) in half.iter().zip(&half[1..]) {
            assert_eq!(one.as_ptr_range().end, next.as_ptr());
        }
    }
}

#[test]
fn a_small_segment_takes_few_shards_and_bears_the_same_loss() {
    let (coded, ..) = segment(&[sealed(100, 1)], coding(20, 40));
    assert_eq!(coded.manifest.coding, coding(1, 21));
    assert_eq!(coded.shards.iter().map(Bytes::len).sum::<usize>(), 21 * 128);
}

#[test]
fn a_full_segment_refuses_and_an_empty_one_is_none() {
    let mut builder = SegmentBuilder::new(VaultId::from_bytes([1; 32]), [2; 16]);
    assert!(builder.is_empty());
    let chunk = sealed(1 << 20, 1);
    for _ in 0..16 {
        builder.push(&chunk).unwrap();
    }
    assert_eq!(builder.length(), SEGMENT_BYTES_MAX);
    assert!(builder.fits(0) && !builder.fits(1));
    assert_eq!(builder.push(&sealed(1, 1)).unwrap_err(), SegmentError::Full { bytes: 1, free_bytes: 0 });
    assert_eq!(builder.finish(coding(2, 4)).unwrap().manifest.length, SEGMENT_BYTES_MAX);
    let empty = SegmentBuilder::new(VaultId::from_bytes([1; 32]), [2; 16]);
    let segment = empty.id();
    assert_eq!(empty.finish(coding(2, 4)).err(), Some(SegmentError::Empty { segment }));
}

#[test]
fn too_few_or_wrong_shards_do_not_restore() {
    let (coded, ..) = segment(&[sealed(50_000, 1)], coding(3, 6));
    let numbered: Vec<(ShardIndex, Bytes)> = coded.manifest.coding.indices().zip(coded.shards).collect();
    let source = |error| match error {
        SegmentError::Code { source, .. } => source,
        other => panic!("{other}"),
    };
    let error = restore(&coded.manifest, &numbered[..2]).unwrap_err();
    assert_eq!(source(error), CodeError::TooFew { have: 2, need: 3 });
    let mut short = numbered[..3].to_vec();
    short[1].1.truncate(64);
    assert!(matches!(source(restore(&coded.manifest, &short).unwrap_err()), CodeError::Length { bytes: 64, .. }));
    assert!(matches!(source(restore(&coded.manifest, &[]).unwrap_err()), CodeError::TooFew { have: 0, .. }));
    assert!(restore_columns(&coded.manifest, ShardIndex(0), &[]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_k_shards_restore_the_segment_and_any_range(
        k in 1..30u8, parity in 0..30u8, length in 1..300_000usize, seed: u64,
        range in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (coded, bytes, _) = segment(&[sealed(length, seed)], coding(k, k + parity));
        let manifest = coded.manifest;
        let mut left: Vec<(ShardIndex, Bytes)> = manifest.coding.indices().zip(coded.shards.iter().cloned()).collect();
        left.shuffle(&mut rng);
        left.truncate(manifest.coding.k().into());
        prop_assert_eq!(&restore(&manifest, &left).unwrap()[..], &bytes[..]);

        let shard_length = manifest.shard_length() as usize;
        let start = range.0.index(shard_length);
        let end = start + range.1.index(shard_length - start + 1);
        let columns: Vec<(ShardIndex, Bytes)> =
            left.iter().map(|(index, shard)| (*index, shard.slice(start..end))).collect();
        for (wanted, shard) in manifest.coding.indices().zip(&coded.shards) {
            prop_assert_eq!(restore_columns(&manifest, wanted, &columns).unwrap(), shard.slice(start..end));
        }
    }
}
