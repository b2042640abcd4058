//! Fills a store with tiny shards and prints what memory, disk and time they take.
//!
//! `cargo run --release -p commonhold-storage-engine --example store_memory -- 100000 [FOLDER]`: each shard takes 8 KiB
//! of disk. The target: a million shards in less than 250 MiB of memory.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};

use commonhold_protocol::{Coding, Manifest, NetworkName, ShardIndex, SigningKey, VaultId, Verified};
use commonhold_storage_engine::{
    prove,
    store::{ShardStore, StoreOptions},
};

type Failure = Box<dyn std::error::Error>;

/// Shards of one segment: one signature for so many.
const SHARDS_PER_SEGMENT: u8 = 16;
const SHARD_BYTES: usize = 4096;
/// Writers that share their syncs.
const WRITERS: u64 = 16;
const PARTS: u64 = 10;

fn memory() -> Result<String, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let lines = status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"));
    Ok(lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", "))
}

fn report(what: &str, started: Instant, store: &ShardStore) -> Result<(), Failure> {
    let used = store.used();
    let (shards, bytes, disk_bytes) = (used.shards, used.bytes, used.disk_bytes);
    println!("{what}: {:.2?}; {shards} shards, {bytes} bytes, {disk_bytes} on disk; {}", started.elapsed(), memory()?);
    Ok(())
}

fn open(folder: &Path, network: &NetworkName) -> Result<Arc<ShardStore>, Failure> {
    let options = StoreOptions {
        pledge_bytes: 1 << 40,
        keep_free_bytes: 1 << 30,
        vault_bytes_max: u64::MAX,
        other_bytes: Arc::new(AtomicU64::new(0)),
        network: network.clone(),
    };
    let (store, report) = ShardStore::open(folder, options)?;
    println!("{report:?}");
    Ok(store)
}

/// Stores the shards of one segment, one after another.
fn store_segment(store: &Arc<ShardStore>, number: u64, network: &NetworkName) -> Result<(), Failure> {
    let key = SigningKey::from_seed(&[1; 32]);
    let shard = |index: u8| {
        let mut bytes = [index; SHARD_BYTES];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes
    };
    let mut salt = [0; 16];
    salt[..8].copy_from_slice(&number.to_le_bytes());
    let manifest = Manifest {
        vault: VaultId::from_bytes(key.public()),
        salt,
        coding: Coding::new(1, SHARDS_PER_SEGMENT)?,
        length: SHARD_BYTES as u64,
        roots: (0..SHARDS_PER_SEGMENT).map(|index| prove::root_of(&shard(index)).0).collect(),
    };
    let manifest = Verified::sign(manifest, &key, network);
    for index in 0..SHARDS_PER_SEGMENT {
        let mut writer = store.begin(&manifest, ShardIndex(index))?;
        writer.write(&shard(index))?;
        store.commit(writer.finish()?)?;
    }
    Ok(())
}

fn fill(store: &Arc<ShardStore>, segments: std::ops::Range<u64>, network: &NetworkName) {
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let mine = segments.clone().filter(move |number| number % WRITERS == writer);
            scope.spawn(move || mine.for_each(|number| store_segment(store, number, network).expect("storing")));
        }
    });
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let shards: u64 = arguments.next().ok_or("usage: store_memory SHARDS [FOLDER]")?.parse()?;
    let temporary = tempfile::tempdir()?;
    let folder = arguments.next().map_or(temporary.path().to_owned(), PathBuf::from);
    let network: NetworkName = "measurement".parse()?;
    println!("start: {}", memory()?);
    let store = open(&folder, &network)?;
    let segments = shards.div_ceil(u64::from(SHARDS_PER_SEGMENT) * PARTS);
    for part in 0..PARTS {
        let started = Instant::now();
        fill(&store, part * segments..(part + 1) * segments, &network);
        report("filled", started, &store)?;
    }
    let started = Instant::now();
    let held = store.iter_held().count();
    report(&format!("listed {held}"), started, &store)?;
    store.close()?;
    drop(store);
    let started = Instant::now();
    let store = open(&folder, &network)?;
    report("opened again", started, &store)?;
    Ok(())
}
