//! How fast shards are stored when several writers share their syncs, and read back with their proof.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use commonhold_protocol::{
    Coding, Manifest, NetworkName, ShardIndex, SigningKey, VaultId, Verified, shard_stream::GroupRange,
};
use commonhold_storage_engine::{
    prove,
    store::{ShardStore, StoreOptions},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const SHARD_BYTES: usize = 256 << 10;
const WRITERS: u64 = 16;

fn network() -> NetworkName {
    "bench".parse().expect("a name")
}

/// One-shard segments that differ in their salts alone: building shards is not measured.
fn manifest(shard: &[u8], number: u64) -> Verified<Manifest> {
    let key = SigningKey::from_seed(&[1; 32]);
    let mut salt = [0; 16];
    salt[..8].copy_from_slice(&number.to_le_bytes());
    let manifest = Manifest {
        vault: VaultId::from_bytes(key.public()),
        salt,
        coding: Coding::new(1, 1).expect("a coding"),
        length: shard.len() as u64,
        roots: vec![prove::root_of(shard).0],
    };
    Verified::sign(manifest, &key, &network())
}

fn open(folder: &std::path::Path) -> Arc<ShardStore> {
    let options = StoreOptions {
        pledge_bytes: 64 << 30,
        keep_free_bytes: 4 << 30,
        vault_bytes_max: u64::MAX,
        other_bytes: Arc::new(AtomicU64::new(0)),
        network: network(),
    };
    ShardStore::open(folder, options).expect("a store").0
}

fn store_one(store: &Arc<ShardStore>, shard: &[u8], manifest: &Verified<Manifest>) {
    let mut writer = store.begin(manifest, ShardIndex(0)).expect("room");
    shard.chunks(64 << 10).for_each(|piece| writer.write(piece).expect("writing"));
    store.commit(writer.finish().expect("the root")).expect("committing");
}

/// Time for `count` shards by [`WRITERS`] threads; they are removed again afterwards.
fn store_many(store: &Arc<ShardStore>, shard: &[u8], count: u64, first: u64) -> Duration {
    let manifests: Vec<_> = (first..first + count).map(|number| manifest(shard, number)).collect();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for part in manifests.chunks(count.div_ceil(WRITERS) as usize) {
            scope.spawn(move || part.iter().for_each(|manifest| store_one(store, shard, manifest)));
        }
    });
    let taken = started.elapsed();
    let leaves = store.iter_held().map(|held| held.expect("the index").leaf).collect::<Vec<_>>();
    store.remove_all(&leaves).expect("removing");
    taken
}

fn store_rate(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let shard = vec![7; SHARD_BYTES];
    let mut group = criterion.benchmark_group("store");
    group.throughput(Throughput::Bytes(SHARD_BYTES as u64)).sample_size(10);
    let mut first = 0;
    group.bench_function("256 KiB shards, 16 writers", |bencher| {
        bencher.iter_custom(|count| {
            first += count;
            store_many(&store, &shard, count, first)
        });
    });

    let manifest = manifest(&shard, u64::MAX);
    store_one(&store, &shard, &manifest);
    let ranges = [GroupRange::whole(SHARD_BYTES as u64)];
    group.bench_function("read a whole shard", |bencher| {
        bencher.iter(|| store.read(manifest.id(), ShardIndex(0), &ranges).expect("reading"));
    });
    group.finish();
}

criterion_group!(benches, store_rate);
criterion_main!(benches);
