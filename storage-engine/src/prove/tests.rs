use bao_tree::{
    BaoTree, BlockSize, ByteRanges, ChunkRanges,
    io::{BaoContentItem, outboard::PreOrderMemOutboard, round_up_to_chunks, sync::DecodeResponseIter},
};
use proptest::prelude::*;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const GROUP: u64 = GROUP_BYTES;

fn random(length: u64, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length as usize];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn encode(shard: &[u8], ranges: &[GroupRange]) -> Result<Vec<u8>, ProveError> {
    let (root, outboard) = root_of(shard);
    encode_ranges(reader(shard), outboard.as_bytes(), &root, shard.len() as u64, ranges)
}

fn reader(shard: &[u8]) -> impl FnMut(u64, &mut [u8]) -> io::Result<()> {
    |offset, buffer| {
        buffer.copy_from_slice(&shard[offset as usize..][..buffer.len()]);
        Ok(())
    }
}

fn bao_ranges(shard_length: u64, ranges: &[GroupRange]) -> ChunkRanges {
    let mut bytes = ByteRanges::empty();
    for range in ranges {
        bytes |= ByteRanges::from(range.bytes(shard_length));
    }
    round_up_to_chunks(&bytes)
}

/// A shard's length and some ranges of its groups, ascending and apart.
fn shard_and_ranges() -> impl Strategy<Value = (u64, Vec<GroupRange>)> {
    (1..40 * GROUP, proptest::collection::vec((0..4u32, 1..5u32), 1..6)).prop_map(|(length, steps)| {
        let mut ranges: Vec<GroupRange> = Vec::new();
        let mut from = 0;
        for (skip, count) in steps {
            let first = from + skip;
            let count = u64::from(count).min(groups(length).saturating_sub(first.into())) as u32;
            if count > 0 {
                ranges.push(GroupRange { first, count });
            }
            from = first + count + 1;
        }
        if ranges.is_empty() {
            ranges.push(GroupRange { first: 0, count: 1 });
        }
        (length, ranges)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn roots_and_outboards_are_baos(length in 0..70 * GROUP, seed: u64, piece in 1..50_000usize) {
        let shard = random(length, seed);
        let mut builder = RootBuilder::new();
        shard.chunks(piece).for_each(|piece| builder.update(piece));
        prop_assert_eq!(builder.length(), length);
        let (root, outboard) = builder.finish();
        prop_assert_eq!(*root.as_bytes(), *blake3::hash(&shard).as_bytes());
        prop_assert_eq!(outboard.as_bytes().len(), Outboard::length_for(length));
        let bao = PreOrderMemOutboard::create(&shard, BlockSize::from_chunk_log(4));
        prop_assert_eq!(outboard.as_bytes(), &bao.data[..]);
    }

    #[test]
    fn bao_tree_reads_our_answers((length, ranges) in shard_and_ranges(), seed: u64) {
        let shard = random(length, seed);
        let (root, _) = root_of(&shard);
        let encoded = encode(&shard, &ranges).unwrap();
        prop_assert_eq!(encoded.len() as u64, encoded_length(length, &ranges));

        let wanted = bao_ranges(length, &ranges);
        let tree = BaoTree::new(length, BlockSize::from_chunk_log(4));
        let mut unread = &encoded[..];
        let mut decoded = Vec::new();
        for item in DecodeResponseIter::new((*root.as_bytes()).into(), tree, &mut unread, &wanted) {
            if let BaoContentItem::Leaf(leaf) = item.unwrap() {
                prop_assert_eq!(&leaf.data[..], &shard[leaf.offset as usize..][..leaf.data.len()]);
                decoded.extend_from_slice(&leaf.data);
            }
        }
        prop_assert!(unread.is_empty());

        let ours = decode_ranges(&root, length, &ranges, &encoded.into()).unwrap();
        prop_assert_eq!(ours.len(), ranges.len());
        for (proven, range) in ours.iter().zip(&ranges) {
            let place = range.bytes(length);
            prop_assert_eq!(proven.start..proven.end(), place.clone());
            prop_assert_eq!(&proven.concat()[..], &shard[place.start as usize..place.end as usize]);
        }
        prop_assert_eq!(decoded, ours.iter().flat_map(Proven::concat).collect::<Vec<_>>());
    }

    #[test]
    fn a_changed_answer_is_refused((length, ranges) in shard_and_ranges(), seed: u64, at: prop::sample::Index) {
        let shard = random(length, seed);
        let (root, _) = root_of(&shard);
        let mut encoded = encode(&shard, &ranges).unwrap();
        let at = at.index(encoded.len());
        encoded[at] ^= 1 << (seed % 8);
        let refuted = matches!(decode_ranges(&root, length, &ranges, &encoded.into()), Err(ProveError::Refuted { .. }));
        prop_assert!(refuted, "byte {}", at);
    }

    #[test]
    fn arbitrary_answers_never_panic(
        (length, ranges) in shard_and_ranges(),
        bytes in proptest::collection::vec(any::<u8>(), 0..3000),
    ) {
        prop_assert!(decode_ranges(&ShardRoot::from_bytes([7; 32]), length, &ranges, &bytes.into()).is_err());
    }
}

/// All of a small answer, byte by byte: pairs, whole groups and the short last one.
#[test]
fn every_flipped_byte_is_refused() {
    let shard = random(2 * GROUP + 500, 1);
    let (root, _) = root_of(&shard);
    let ranges = [GroupRange { first: 1, count: 2 }];
    let mut encoded = encode(&shard, &ranges).unwrap();
    assert!(decode_ranges(&root, shard.len() as u64, &ranges, &encoded.clone().into()).is_ok());
    for at in 0..encoded.len() {
        encoded[at] ^= 0x20;
        let refused = decode_ranges(&root, shard.len() as u64, &ranges, &encoded.clone().into());
        assert!(matches!(refused, Err(ProveError::Refuted { .. })), "byte {at}");
        encoded[at] ^= 0x20;
    }
}

#[test]
fn an_answer_for_other_ranges_or_another_length_is_refused() {
    let shard = random(8 * GROUP, 2);
    let (root, _) = root_of(&shard);
    let length = shard.len() as u64;
    let asked = [GroupRange { first: 2, count: 2 }];
    let encoded = encode(&shard, &[GroupRange { first: 4, count: 2 }]).unwrap().into();
    assert!(matches!(decode_ranges(&root, length, &asked, &encoded), Err(ProveError::Refuted { .. })));
    let encoded = Bytes::from(encode(&shard, &asked).unwrap());
    assert!(decode_ranges(&root, length, &asked, &encoded).is_ok());
    assert!(decode_ranges(&root, length / 2, &asked, &encoded).is_err());
    assert!(decode_ranges(&root, length + 1, &asked, &encoded).is_err());
    for wrong in [&encoded[1..], &encoded[..encoded.len() - 1], &[&encoded[..], &[0]].concat()] {
        assert!(matches!(
            decode_ranges(&root, length, &asked, &Bytes::copy_from_slice(wrong)),
            Err(ProveError::ProofLength { .. })
        ));
    }
}

#[test]
fn ranges_that_lie_are_refused_by_both_sides() {
    let shard = random(4 * GROUP, 3);
    let (root, outboard) = root_of(&shard);
    let length = shard.len() as u64;
    let range = |first, count| GroupRange { first, count };
    let lies: [&[GroupRange]; 8] = [
        &[],
        &[range(0, 0)],
        &[range(4, 1)],
        &[range(3, 2)],
        &[range(0, 2), range(2, 1)],
        &[range(0, 2), range(1, 1)],
        &[range(3, 1), range(0, 1)],
        &[range(u32::MAX, u32::MAX)],
    ];
    for ranges in lies {
        let never_read = |_, _: &mut [u8]| panic!("nothing should be read");
        let refused = encode_ranges(never_read, outboard.as_bytes(), &root, length, ranges);
        assert!(matches!(refused, Err(ProveError::Ranges { .. })), "{ranges:?}");
        assert!(
            matches!(decode_ranges(&root, length, ranges, &Bytes::new()), Err(ProveError::Ranges { .. })),
            "{ranges:?}"
        );
    }
}

/// A disk that lies must not make a holder sign a wrong answer: encoding checks what it reads.
#[test]
fn a_damaged_shard_or_outboard_gives_no_answer() {
    let shard = random(5 * GROUP + 64, 4);
    let (root, outboard) = root_of(&shard);
    let length = shard.len() as u64;
    let whole = [GroupRange::whole(length)];
    for at in [0, GROUP - 1, 3 * GROUP, length - 1] {
        let mut damaged = shard.clone();
        damaged[at as usize] ^= 1;
        let answer = encode_ranges(reader(&damaged), outboard.as_bytes(), &root, length, &whole);
        let Err(ProveError::Damaged { offset }) = answer else { panic!("byte {at} went out") };
        assert_eq!(offset, at / GROUP * GROUP);
    }
    for at in 0..outboard.as_bytes().len() {
        let mut damaged = outboard.as_bytes().to_vec();
        damaged[at] ^= 0x80;
        let answer = encode_ranges(reader(&shard), &damaged, &root, length, &whole);
        assert!(matches!(answer, Err(ProveError::Damaged { .. })), "outboard byte {at}");
    }
    let answer = encode_ranges(reader(&shard), &outboard.as_bytes()[64..], &root, length, &whole);
    assert!(matches!(answer, Err(ProveError::OutboardLength { .. })));
    let broken = |_, _: &mut [u8]| Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    assert!(matches!(encode_ranges(broken, outboard.as_bytes(), &root, length, &whole), Err(ProveError::Read(_))));
}

/// Damage elsewhere in the shard does not stop a range that is whole.
#[test]
fn only_what_is_asked_is_read() {
    let shard = random(64 * GROUP, 5);
    let (root, outboard) = root_of(&shard);
    let mut read_bytes = 0;
    let mut read = reader(&shard);
    let counting = |offset, buffer: &mut [u8]| {
        read_bytes += buffer.len() as u64;
        read(offset, buffer)
    };
    let ranges = [GroupRange { first: 9, count: 1 }, GroupRange { first: 40, count: 2 }];
    encode_ranges(counting, outboard.as_bytes(), &root, shard.len() as u64, &ranges).unwrap();
    assert_eq!(read_bytes, 3 * GROUP);
}

/// The bytes of an answer are a format: holders of all versions must give the same.
#[test]
fn golden_answer_of_version_1() {
    let shard: Vec<u8> = (0..3 * GROUP + 128).map(|at| (at % 251) as u8).collect();
    let (root, outboard) = root_of(&shard);
    let encoded = encode(&shard, &[GroupRange { first: 0, count: 1 }, GroupRange { first: 3, count: 1 }]).unwrap();
    let digests = [format!("{root:#}"), digest(outboard.as_bytes()), digest(&encoded)];
    assert_eq!(
        digests,
        [
            "7a4718645e66b75888867f5889cd88ce190158083e0e0b541c57d303b74b7082",
            "9205e668432f58aa30ce7bdf3685c902efc600f4050d4e50a273bce9fad95a37",
            "0ec51c25165abebf960c0164dbe639da5673272d6eae605f18f6b1af4534eaec",
        ]
    );
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}
