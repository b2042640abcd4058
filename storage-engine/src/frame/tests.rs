use proptest::prelude::*;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

fn random(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn text(length: usize) -> Vec<u8> {
    (0u32..).flat_map(|line| format!("line {line} of a text that repeats itself\n").into_bytes()).take(length).collect()
}

fn compressor() -> Compressor {
    Compressor::new(DEFAULT_LEVEL).unwrap()
}

fn opened(frame: Frame, length: usize) -> Bytes {
    frame.open(length as u32).unwrap()
}

#[test]
fn text_shrinks_and_noise_does_not_grow() {
    let mut compressor = compressor();
    let (text, noise) = (text(100_000), random(100_000, 1));
    let frame = compressor.frame(&text);
    assert_eq!(frame.as_bytes()[0], TAG_ZSTD);
    assert!(frame.as_bytes().len() < text.len() / 4);
    assert_eq!(opened(frame, text.len()), text);
    let frame = compressor.frame(&noise);
    assert_eq!(frame.as_bytes()[0], TAG_RAW);
    assert_eq!(frame.as_bytes().len(), noise.len() + 1);
    assert_eq!(opened(frame, noise.len()), noise);
}

#[test]
fn a_saving_too_small_to_be_worth_it_is_not_kept() {
    // 1,000 zeros in 100,000 bytes: one part in a hundred.
    let mut chunk = random(100_000, 2);
    chunk[50_000..51_000].fill(0);
    assert_eq!(compressor().frame(&chunk).as_bytes()[0], TAG_RAW);
}

#[test]
fn a_frame_leaves_room_for_the_seal() {
    for chunk in [text(70_000), random(70_000, 3)] {
        let frame = compressor().frame(&chunk).into_bytes();
        assert!(frame.capacity() >= frame.len() + SEAL_BYTES);
    }
}

#[test]
fn a_stream_that_turns_compressible_is_noticed_at_once() {
    let mut compressor = compressor();
    for seed in 0..20 {
        assert_eq!(compressor.frame(&random(64 << 10, seed)).as_bytes()[0], TAG_RAW);
    }
    assert!(compressor.incompressible_chunks >= INCOMPRESSIBLE_AFTER);
    assert_eq!(compressor.frame(&text(64 << 10)).as_bytes()[0], TAG_ZSTD);
    assert_eq!(compressor.incompressible_chunks, 0);
}

#[test]
fn one_odd_chunk_of_text_does_not_stop_compression() {
    let mut compressor = compressor();
    for seed in 0..10 {
        assert_eq!(compressor.frame(&random(64 << 10, seed)).as_bytes()[0], TAG_RAW);
        assert_eq!(compressor.frame(&text(64 << 10)).as_bytes()[0], TAG_ZSTD);
    }
}

/// 512 MiB of zeros in a few KiB: opening gives up at the length that the ref states.
#[test]
fn a_decompression_bomb_is_bounded() {
    let zeros = io::Read::take(io::repeat(0), 512 << 20);
    let mut bomb = vec![TAG_ZSTD];
    zstd::stream::copy_encode(zeros, &mut bomb, 3).unwrap();
    assert!(bomb.len() < 64 << 10);
    for plain_length in [0, 1, 64 << 10, CHUNK_BYTES_MAX as u32] {
        let refused = Frame::from_bytes(bomb.clone()).open(plain_length);
        assert!(matches!(refused, Err(FrameError::Zstd { .. })), "{plain_length}");
    }
    let refused = Frame::from_bytes(bomb).open(CHUNK_BYTES_MAX as u32 + 1);
    assert!(matches!(refused, Err(FrameError::TooLong { .. })));
}

#[test]
fn what_is_not_a_frame_is_refused() {
    let open = |bytes: &[u8], length| Frame::from_bytes(bytes.to_vec()).open(length);
    assert!(matches!(open(&[], 0), Err(FrameError::Empty)));
    assert!(matches!(open(&[2, 1, 2, 3], 3), Err(FrameError::Codec { tag: 2 })));
    assert!(matches!(open(&[TAG_RAW, 1, 2, 3], 4), Err(FrameError::Length { .. })));
    assert!(matches!(open(&[TAG_RAW, 1, 2, 3], 2), Err(FrameError::Length { .. })));
    assert!(matches!(open(&[TAG_ZSTD, 1, 2, 3], 3), Err(FrameError::Zstd { .. })));
    let frame = compressor().frame(&text(1000));
    assert!(matches!(open(frame.as_bytes(), 1001), Err(FrameError::Length { .. })));
    assert!(matches!(open(frame.as_bytes(), 999), Err(FrameError::Zstd { .. })));
}

/// Frames of version 1 open for ever, whatever the zstd that is linked.
#[test]
fn golden_frames_of_version_1_open() {
    let raw = Frame::from_bytes(b"\x00hello".to_vec());
    assert_eq!(opened(raw, 5), &b"hello"[..]);
    // zstd 1.5: magic, single-segment header with a content size of 100, one RLE block of 100 times 'a'.
    let zstd = [&[1, 0x28, 0xb5, 0x2f, 0xfd, 0x20, 100][..], &[0x23, 0x03, 0x00, b'a']].concat();
    assert_eq!(opened(Frame::from_bytes(zstd), 100), vec![b'a'; 100]);
}

proptest! {
    #[test]
    fn every_chunk_comes_back(chunks in proptest::collection::vec(
        prop_oneof![proptest::collection::vec(any::<u8>(), 0..5000), proptest::collection::vec(0..3u8, 0..5000)],
        1..8,
    )) {
        let mut compressor = compressor();
        for chunk in chunks {
            let frame = compressor.frame(&chunk);
            prop_assert!(frame.as_bytes().len() <= chunk.len() + 1);
            prop_assert_eq!(opened(frame, chunk.len()), chunk);
        }
    }

    #[test]
    fn arbitrary_frames_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), length in 0..10_000u32) {
        if let Ok(chunk) = Frame::from_bytes(bytes).open(length) {
            prop_assert_eq!(chunk.len(), length as usize);
        }
    }
}
