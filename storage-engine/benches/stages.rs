//! The stages of a put on one thread, each beside the bare library that it stands on, in bytes of user data.
//!
//! `cargo bench -p commonhold-storage-engine --bench stages [FILTER]`. Every group has a line `ours` and one or more
//! lines with a library's name: the distance is what this crate adds (copies, proofs, bounds) or saves.

use std::{hint::black_box, time::Duration};

use bytes::Bytes;
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit, Nonce, aead::inout::InOutBuf};
use commonhold_protocol::{Coding, ShardIndex, VaultId, shard_stream::GroupRange};
use commonhold_storage_engine::{
    chunk::{self, Chunker},
    code::{Coder, Kernel},
    frame::{Compressor, DEFAULT_LEVEL, Frame},
    keys::{VaultKeys, VaultSecret},
    prove, seal,
    segment::SegmentBuilder,
};
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reed_solomon_erasure::galois_8::ReedSolomon;

/// A usual chunk.
const CHUNK_BYTES: usize = 128 << 10;
/// A segment's worth of file.
const FILE_BYTES: usize = 16 << 20;

fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut noise);
    noise
}

/// Half words out of a small dictionary, half numbers: compresses about as source code does.
fn text(bytes: usize) -> Vec<u8> {
    const WORDS: [&str; 8] = ["shard", "segment", "steward", "holder", "lease", "claim", "    let ", "return\n"];
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let words = std::iter::repeat_with(|| {
        let number = rng.next_u32();
        format!("{} {:x} ", WORDS[number as usize % WORDS.len()], number >> 20)
    });
    words.flat_map(String::into_bytes).take(bytes).collect()
}

fn keys() -> VaultKeys {
    VaultKeys::derive(&VaultSecret::from_bytes([7; 32]))
}

fn group<'a>(criterion: &'a mut Criterion, name: &str, bytes: usize) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(bytes as u64));
    group
}

fn chunking(criterion: &mut Criterion) {
    let file = noise(FILE_BYTES);
    let mut group = group(criterion, "chunk", file.len());
    group.bench_function("ours", |bencher| {
        bencher.iter(|| {
            let mut chunker = Chunker::new(black_box(&file[..]), 5);
            while let Some(chunk) = chunker.next_chunk().expect("memory can be read") {
                black_box(chunk);
            }
        });
    });
    group.bench_function("fastcdc", |bencher| {
        bencher.iter(|| {
            fastcdc::v2020::FastCDC::with_level_and_seed(
                black_box(&file),
                chunk::CHUNK_BYTES_MIN,
                chunk::CHUNK_BYTES_AVERAGE,
                chunk::CHUNK_BYTES_MAX,
                fastcdc::v2020::Normalization::Level1,
                5,
            )
            .for_each(|chunk| {
                black_box(chunk);
            });
        });
    });
    group.finish();
}

fn compressing(criterion: &mut Criterion) {
    for (name, chunk) in [("compress text", text(CHUNK_BYTES)), ("compress noise", noise(CHUNK_BYTES))] {
        let mut group = group(criterion, name, chunk.len());
        let mut compressor = Compressor::new(DEFAULT_LEVEL).expect("zstd has this level");
        group.bench_function("ours", |bencher| bencher.iter(|| compressor.frame(black_box(&chunk))));
        let mut zstd = zstd::bulk::Compressor::new(DEFAULT_LEVEL).expect("zstd has this level");
        let mut buffer = vec![0; zstd::zstd_safe::compress_bound(chunk.len())];
        group.bench_function("zstd", |bencher| {
            bencher.iter(|| zstd.compress_to_buffer(black_box(&chunk), &mut buffer[..]));
        });
        group.finish();

        let frame = compressor.frame(&chunk).into_bytes();
        let mut group = self::group(criterion, &format!("de{name}"), chunk.len());
        group.bench_function("ours", |bencher| {
            bencher.iter_batched(
                || Frame::from_bytes(frame.clone()),
                |frame| frame.open(chunk.len() as u32),
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

fn sealing(criterion: &mut Criterion) {
    let keys = keys();
    let frame = noise(CHUNK_BYTES);
    let with_room = || {
        let mut bytes = Vec::with_capacity(frame.len() + 16);
        bytes.extend_from_slice(&frame);
        bytes
    };
    let mut group = group(criterion, "seal", frame.len());
    group.bench_function("ours (with its key derivation)", |bencher| {
        bencher.iter_batched(
            with_room,
            |bytes| seal::seal(Frame::from_bytes(bytes), CHUNK_BYTES as u32, keys.convergence()),
            BatchSize::SmallInput,
        );
    });
    let cipher = ChaCha20Poly1305::new(&[1; 32].into());
    group.bench_function("chacha20poly1305", |bencher| {
        bencher.iter_batched_ref(
            with_room,
            |bytes| cipher.encrypt_inout_detached(&Nonce::default(), b"", InOutBuf::from(bytes.as_mut_slice())),
            BatchSize::SmallInput,
        );
    });
    group.finish();
    let sealed = seal::seal(Frame::from_bytes(with_room()), CHUNK_BYTES as u32, keys.convergence());
    let mut group = self::group(criterion, "open", frame.len());
    group.bench_function("ours", |bencher| bencher.iter(|| seal::open(black_box(sealed.bytes.clone()), &sealed.key)));
    group.finish();
}

fn hashing(criterion: &mut Criterion) {
    let shard = noise(FILE_BYTES / 20);
    let mut group = group(criterion, "hash (root and outboard)", shard.len());
    group.bench_function("ours", |bencher| bencher.iter(|| prove::root_of(black_box(&shard))));
    group.bench_function("blake3", |bencher| bencher.iter(|| blake3::hash(black_box(&shard))));
    group.bench_function("bao-tree", |bencher| {
        let size = bao_tree::BlockSize::from_chunk_log(4);
        bencher.iter(|| bao_tree::io::outboard::PreOrderMemOutboard::create(black_box(&shard), size));
    });
    group.finish();
}

fn coding(criterion: &mut Criterion) {
    let coding = Coding::new(20, 40).expect("20 of 40");
    let shard_length = coding.shard_length(FILE_BYTES as u64) as usize;
    let data = noise(shard_length * 20);
    let mut parity = vec![0; shard_length * 20];
    let inputs: Vec<&[u8]> = data.chunks_exact(shard_length).collect();

    let mut group = group(criterion, "code 20/40", data.len());
    for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.is_supported()) {
        let coder = Coder::with_kernel(coding, kernel);
        let mut outputs: Vec<&mut [u8]> = parity.chunks_exact_mut(shard_length).collect();
        group.bench_function(format!("ours, {kernel:?}"), |bencher| {
            bencher.iter(|| coder.encode(black_box(&inputs), &mut outputs));
        });
    }
    let reference = ReedSolomon::new(20, 20).expect("20 and 20");
    let mut outputs: Vec<&mut [u8]> = parity.chunks_exact_mut(shard_length).collect();
    group.bench_function("reed-solomon-erasure", |bencher| {
        bencher.iter(|| reference.encode_sep(black_box(&inputs), &mut outputs));
    });
    group.finish();

    // The most that can be lost: all data shards, from all parity shards.
    let present: Vec<(ShardIndex, &[u8])> =
        parity.chunks_exact(shard_length).enumerate().map(|(at, shard)| (ShardIndex(20 + at as u8), shard)).collect();
    let wanted: Vec<ShardIndex> = coding.indices().take(20).collect();
    let mut restored = vec![0; data.len()];
    let mut outputs: Vec<&mut [u8]> = restored.chunks_exact_mut(shard_length).collect();
    let mut group = self::group(criterion, "restore 20/40", data.len());
    let coder = Coder::new(coding);
    group.bench_function("ours", |bencher| {
        bencher.iter(|| coder.reconstruct(black_box(&present), &wanted, &mut outputs));
    });
    group.finish();
    assert!(restored == data);

    // A chunk's column: the direct holder is down.
    let columns: Vec<(ShardIndex, &[u8])> =
        present.iter().map(|(index, shard)| (*index, &shard[..CHUNK_BYTES])).collect();
    let mut column = vec![0; CHUNK_BYTES];
    let mut group = self::group(criterion, "restore a chunk 20/40", CHUNK_BYTES);
    group.bench_function("ours", |bencher| {
        bencher.iter(|| coder.reconstruct(black_box(&columns), &[ShardIndex(3)], &mut [&mut column]));
    });
    group.finish();
}

fn segments(criterion: &mut Criterion) {
    let keys = keys();
    let sealed = seal::seal(Frame::from_bytes(noise(CHUNK_BYTES)), CHUNK_BYTES as u32, keys.convergence());
    let mut group = group(criterion, "segment 20/40 (append, code, roots)", FILE_BYTES);
    group.bench_function("ours", |bencher| {
        bencher.iter(|| {
            let mut builder = SegmentBuilder::new(VaultId::from_bytes([1; 32]), [2; 16]);
            while builder.fits(sealed.bytes.len()) {
                builder.push(&sealed).expect("it fits");
            }
            builder.finish(Coding::new(20, 40).expect("20 of 40"))
        });
    });
    group.finish();
}

fn proving(criterion: &mut Criterion) {
    let shard = noise(FILE_BYTES / 16);
    let length = shard.len() as u64;
    let (root, outboard) = prove::root_of(&shard);
    let read = |offset: u64, buffer: &mut [u8]| {
        buffer.copy_from_slice(&shard[offset as usize..][..buffer.len()]);
        Ok(())
    };
    for (name, ranges) in [
        ("whole shard", GroupRange::whole(length)),
        ("one chunk", GroupRange::of_bytes(300 << 10, 428 << 10)),
        ("one group", GroupRange { first: 40, count: 1 }),
    ] {
        let ranges = [ranges];
        let bytes = ranges[0].bytes(length);
        let mut group = group(criterion, &format!("prove {name}"), (bytes.end - bytes.start) as usize);
        let encode = || prove::encode_ranges(read, outboard.as_bytes(), &root, length, &ranges);
        let encoded = Bytes::from(encode().expect("the shard is whole"));
        group.bench_function("encode", |bencher| bencher.iter(encode));
        group.bench_function("decode", |bencher| {
            bencher.iter(|| prove::decode_ranges(&root, length, &ranges, black_box(&encoded)));
        });
        group.bench_function("blake3 of the same bytes", |bencher| {
            bencher.iter(|| blake3::hash(black_box(&shard[bytes.start as usize..bytes.end as usize])));
        });
        group.finish();
    }
}

criterion_group! {
    name = stages;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = chunking, compressing, sealing, hashing, coding, segments, proving
}
criterion_main!(stages);
