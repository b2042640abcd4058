use commonhold_protocol::{Coding, ShardIndex};
use proptest::prelude::*;
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use reed_solomon_erasure::galois_8::ReedSolomon;

use super::*;

fn kernels() -> impl Iterator<Item = Kernel> {
    Kernel::ALL.into_iter().filter(|kernel| kernel.is_supported())
}

fn random_shards(rng: &mut ChaCha8Rng, count: usize, length: usize) -> Vec<Vec<u8>> {
    (0..count).map(|_| (0..length).map(|_| rng.random()).collect()).collect()
}

fn slices(shards: &[Vec<u8>]) -> Vec<&[u8]> {
    shards.iter().map(Vec::as_slice).collect()
}

/// Parity by the reference crate.
fn reference(coding: Coding, data: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut parity = vec![vec![0; data[0].len()]; coding.parity().into()];
    if coding.parity() > 0 {
        let code = ReedSolomon::new(coding.k().into(), coding.parity().into()).unwrap();
        code.encode_sep(data, &mut parity).unwrap();
    }
    parity
}

fn encoded(coder: &Coder, data: &[Vec<u8>]) -> Vec<Vec<u8>> {
    // Not zeroed: whatever stood there must not matter.
    let mut parity = vec![vec![0xa5; data[0].len()]; coder.coding().parity().into()];
    let mut outputs: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
    coder.encode(&slices(data), &mut outputs).unwrap();
    parity
}

fn check_against_reference(coding: Coding, length: usize, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let data = random_shards(&mut rng, coding.k().into(), length);
    let expected = reference(coding, &data);
    for kernel in kernels() {
        let coder = Coder::with_kernel(coding, kernel);
        let parity = encoded(&coder, &data);
        assert!(parity == expected, "{kernel:?} {coding} shards of {length} bytes, seed {seed}: parity differs");

        // Lose as many as the code bears, at random; restore a random few of them and one that is still there.
        let all: Vec<&Vec<u8>> = data.iter().chain(&parity).collect();
        let mut order: Vec<u8> = (0..coding.n()).collect();
        order.shuffle(&mut rng);
        let (kept, lost) = order.split_at(coding.k().into());
        let present: Vec<(ShardIndex, &[u8])> =
            kept.iter().map(|index| (ShardIndex(*index), all[usize::from(*index)].as_slice())).collect();
        let wanted_count = rng.random_range(0..=lost.len());
        let wanted: Vec<ShardIndex> = lost[..wanted_count].iter().chain(&kept[..1]).map(|i| ShardIndex(*i)).collect();
        let mut restored = vec![vec![0x5a; length]; wanted.len()];
        let mut outputs: Vec<&mut [u8]> = restored.iter_mut().map(Vec::as_mut_slice).collect();
        coder.reconstruct(&present, &wanted, &mut outputs).unwrap();
        for (index, shard) in wanted.iter().zip(&restored) {
            assert!(shard == all[usize::from(index.0)], "{kernel:?} {coding} seed {seed}: shard {index} differs");
        }
    }
}

/// Every k; the reference takes seconds to prepare for all n beside it, so n is drawn (the small ones are all tried).
#[test]
fn equal_to_reed_solomon_erasure_for_every_k() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for k in 1..=255u8 {
        let n = rng.random_range(k..=255);
        check_against_reference(Coding::new(k, n).unwrap(), 100, u64::from(k));
    }
}

/// The widest and the narrowest at the far end of the range.
#[test]
fn equal_to_reed_solomon_erasure_at_the_limits() {
    for (k, n) in [(1, 255), (2, 255), (127, 255), (128, 255), (254, 255), (255, 255), (254, 254), (1, 1)] {
        check_against_reference(Coding::new(k, n).unwrap(), 300, u64::from(k));
    }
}

#[test]
fn equal_to_reed_solomon_erasure_for_every_small_coding() {
    for n in 1..=24u8 {
        for k in 1..=n {
            check_against_reference(Coding::new(k, n).unwrap(), 192, u64::from(n) * 256 + u64::from(k));
        }
    }
}

/// Vectors, half vectors, what is left over, and the border between columns.
#[test]
fn equal_to_reed_solomon_erasure_for_every_length() {
    let coding = Coding::new(5, 17).unwrap();
    for length in (1..400).chain((16 << 10) - 70..(16 << 10) + 140).chain([(32 << 10) + 1, (40 << 10) + 63]) {
        check_against_reference(coding, length, length as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn equal_to_reed_solomon_erasure(k in 1..=255u8, parity in 0..=254u8, length in 1..2000usize, seed: u64) {
        let coding = Coding::new(k, k + parity.min(255 - k)).unwrap();
        check_against_reference(coding, length, seed);
    }
}

#[test]
fn the_reference_restores_what_we_encoded() {
    let coding = Coding::new(20, 40).unwrap();
    let data = random_shards(&mut ChaCha8Rng::seed_from_u64(3), 20, 640);
    let parity = encoded(&Coder::new(coding), &data);
    let mut shards: Vec<Option<Vec<u8>>> = vec![None; 20];
    shards.extend(parity.into_iter().map(Some));
    ReedSolomon::new(20, 20).unwrap().reconstruct(&mut shards).unwrap();
    assert!(shards.iter().flatten().zip(&data).all(|(restored, shard)| restored == shard));
}

#[test]
fn unaligned_shards_are_coded_alike() {
    let coding = Coding::new(3, 7).unwrap();
    let data = random_shards(&mut ChaCha8Rng::seed_from_u64(4), 3, 1000);
    for kernel in kernels() {
        let coder = Coder::with_kernel(coding, kernel);
        for shift in 0..70 {
            let shifted: Vec<Vec<u8>> = data.iter().map(|shard| shard[shift..shift + 900].to_vec()).collect();
            let in_place: Vec<&[u8]> = data.iter().map(|shard| &shard[shift..shift + 900]).collect();
            let mut parity = vec![vec![0; 1000]; 4];
            let mut outputs: Vec<&mut [u8]> = parity.iter_mut().map(|out| &mut out[shift..shift + 900]).collect();
            coder.encode(&in_place, &mut outputs).unwrap();
            for (out, expected) in parity.iter().zip(reference(coding, &shifted)) {
                assert!(out[shift..shift + 900] == expected, "{kernel:?} shifted by {shift}");
                assert!(out[..shift].iter().chain(&out[shift + 900..]).all(|byte| *byte == 0), "{kernel:?} overran");
            }
        }
    }
}

#[test]
fn wrong_shards_are_refused() {
    let coder = Coder::new(Coding::new(2, 4).unwrap());
    let (a, b, short) = ([1u8; 64], [2u8; 64], [3u8; 63]);
    let mut out = [0u8; 64];
    let wanted = [ShardIndex(1)];
    let mut restore =
        |present: &[(ShardIndex, &[u8])], wanted: &[ShardIndex]| coder.reconstruct(present, wanted, &mut [&mut out]);
    let at = |index, shard| (ShardIndex(index), shard);
    assert_eq!(restore(&[at(0, &a[..])], &wanted), Err(CodeError::TooFew { have: 1, need: 2 }));
    assert_eq!(restore(&[at(0, &a[..]), at(0, &b[..])], &wanted), Err(CodeError::Repeated { index: ShardIndex(0) }));
    assert_eq!(restore(&[at(0, &a[..]), at(4, &b[..])], &wanted), Err(CodeError::Index { index: ShardIndex(4), n: 4 }));
    assert_eq!(
        restore(&[at(0, &a[..]), at(2, &b[..])], &[ShardIndex(9)]),
        Err(CodeError::Index { index: ShardIndex(9), n: 4 })
    );
    assert_eq!(
        restore(&[at(0, &a[..]), at(2, &short[..])], &wanted),
        Err(CodeError::Length { bytes: 63, expected: 64 })
    );
    assert_eq!(restore(&[at(0, &a[..]), at(2, &b[..])], &[]), Err(CodeError::Count { have: 1, need: 0 }));
    assert_eq!(coder.encode(&[&a], &mut [&mut out]), Err(CodeError::Count { have: 1, need: 2 }));
}

#[test]
fn the_cache_of_codings_stays_small_and_right() {
    for k in 1..100 {
        let coding = Coding::new(k, k + 1).unwrap();
        assert_eq!(Coder::new(coding).coding(), coding);
        assert_eq!(Coder::new(coding).coding(), coding);
    }
}
