//! What a node weighs that holds much and has nothing to do: its folder is filled, then the real program runs on it.

use std::{
    fs, io,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use commonhold_node::{
    Config,
    config::{self, Size},
    data_dir,
    records::{Change, Kind, RecordStore},
};
use commonhold_protocol::{
    Claim, ClaimLeaf, Coding, Manifest, NetworkName, Record, ShardIndex, SigningKey, Timestamp, VaultId, Verified,
};
use commonhold_storage_engine::{
    prove,
    store::{ShardStore, StoreOptions},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    Failure, MIB, PROGRAM, Settings,
    process::{own_bytes, peak_bytes, resident_bytes},
    report::{Aim, Report, Row},
    step,
};

const SHARD_BYTES: u64 = 4096;
/// Threads that fill the store: they share their syncs.
const WRITERS: u64 = 32;
const RECORDS: u64 = 20_000;
const RECORDS_PER_COMMIT: usize = 500;
const PLEDGE: u64 = 200 << 30;
/// Long enough for what a start leaves behind to be given back.
const SETTLE: Duration = Duration::from_secs(15);
const START_MAX: Duration = Duration::from_secs(300);

/// Fills nodes and weighs them.
pub(crate) fn measure(settings: &Settings, report: &mut Report) -> Result<(), Failure> {
    let mut sizes = vec![(100_000, 40.0)];
    if settings.full {
        sizes.push((1_000_000, 250.0));
    }
    for (shards, mib_max) in sizes {
        step(&format!("a node with {shards} shards"));
        let folder = settings.scratch.join("full-node");
        let Weight { idle, own, peak } = weigh(&folder, shards)?;
        fs::remove_dir_all(&folder)?;
        let what = format!("node with {shards} shards and {RECORDS} records");
        let row = |what: String, bytes: u64| Row::new("memory", what, bytes as f64 / MIB as f64, "MiB");
        report.push(row(format!("{what}, idle"), idle).aim(Some(Aim::AtMost(mib_max))));
        report.push(row("  of it not the program itself".to_owned(), own));
        report.push(row("  at most since its start".to_owned(), peak));
    }
    Ok(())
}

/// In bytes of memory.
struct Weight {
    idle: u64,
    /// Of that, what is not a mapped file.
    own: u64,
    /// The most since the start.
    peak: u64,
}

fn weigh(folder: &Path, shards: u64) -> Result<Weight, Failure> {
    let network: NetworkName = "dev-bench".parse()?;
    fs::create_dir_all(folder)?;
    let mut config = Config::default();
    config.node.listen = Some(vec!["/ip4/127.0.0.1/tcp/0".parse()?]);
    config.network.name = network.as_str().parse()?;
    config.pledge.disk = Size(PLEDGE);
    config.pledge.vault_max = Size(PLEDGE);
    config.pledge.keep_free = Size(0);
    config.dashboard.listen = ([127, 0, 0, 1], 0).into();
    let path = folder.join(commonhold_node::CONFIG_FILE);
    fs::write(&path, config::sample(&config))?;
    fill(folder, shards, &network)?;

    let mut child = Command::new(PROGRAM)
        .args(["node", "run", "--config"])
        .arg(&path)
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .spawn()?;
    let weighed = wait_until_idle(folder, &mut child);
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("no process id")?;
    match kill_process(pid, Signal::TERM) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(io::Error::from(error).into()),
    }
    child.wait()?;
    weighed
}

fn wait_until_idle(folder: &Path, child: &mut Child) -> Result<Weight, Failure> {
    let started = Instant::now();
    while data_dir::read(folder, data_dir::DASHBOARD_FILE)?.is_none() {
        if let Some(status) = child.try_wait()? {
            return Err(format!("the node has ended with {status}").into());
        }
        if started.elapsed() > START_MAX {
            return Err("the node does not start".into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(SETTLE);
    let read = |read: fn(u32) -> Option<u64>| read(child.id()).ok_or("the node has ended");
    Ok(Weight { idle: read(resident_bytes)?, own: read(own_bytes)?, peak: read(peak_bytes)? })
}

/// A segment with one tiny data shard and one parity shard.
fn segment(number: u64, network: &NetworkName) -> Result<(Verified<Manifest>, Vec<u8>), Failure> {
    let key = SigningKey::from_seed(&[number as u8 % 50; 32]);
    let mut shard = vec![0; SHARD_BYTES as usize];
    shard[..8].copy_from_slice(&number.to_le_bytes());
    let mut salt = [0; 16];
    salt[..8].copy_from_slice(&number.to_le_bytes());
    let manifest = Manifest {
        vault: VaultId::from_bytes(key.public()),
        salt,
        coding: Coding::new(1, 2)?,
        length: SHARD_BYTES,
        roots: vec![prove::root_of(&shard).0; 2],
    };
    Ok((Verified::sign(manifest, &key, network), shard))
}

fn fill(folder: &Path, shards: u64, network: &NetworkName) -> Result<(), Failure> {
    let (records, _) = RecordStore::open(&folder.join("records"), PLEDGE / 50)?;
    let options = StoreOptions {
        pledge_bytes: PLEDGE,
        keep_free_bytes: 0,
        vault_bytes_max: PLEDGE,
        other_bytes: records.used_bytes(),
        network: network.clone(),
    };
    let (store, _) = ShardStore::open(folder, options)?;
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let store = store.clone();
                scope.spawn(move || store_shards(&store, (writer..shards).step_by(WRITERS as usize), network))
            })
            .collect();
        writers.into_iter().try_for_each(|writer| writer.join().map_err(|_| "a writer panicked")?)
    })?;
    store.close()?;

    let changes: Vec<Change> = (0..RECORDS).map(|number| record(number, network)).collect::<Result<_, _>>()?;
    for changes in changes.chunks(RECORDS_PER_COMMIT) {
        records.commit(changes)?;
    }
    Ok(records.checkpoint()?)
}

fn store_shards(
    store: &Arc<ShardStore>,
    numbers: impl Iterator<Item = u64>,
    network: &NetworkName,
) -> Result<(), Failure> {
    for number in numbers {
        let (manifest, shard) = segment(number, network)?;
        let mut writer = store.begin(&manifest, ShardIndex(0))?;
        writer.write(&shard)?;
        store.commit(writer.finish()?)?;
    }
    Ok(())
}

/// The record of a segment at 7 of 14, all of it claimed.
fn record(number: u64, network: &NetworkName) -> Result<Change, Failure> {
    let coding = Coding::new(7, 14)?;
    let key = SigningKey::from_seed(&[number as u8 % 50; 32]);
    let mut salt = [1; 16];
    salt[..8].copy_from_slice(&number.to_le_bytes());
    let roots = coding.indices().map(|index| prove::root_of(&[index.0]).0).collect();
    let vault = VaultId::from_bytes(key.public());
    let manifest = Verified::sign(Manifest { vault, salt, coding, length: 16 * MIB, roots }, &key, network);
    let claims = coding.indices().flat_map(|index| {
        let holder = SigningKey::from_seed(&[index.0; 32]);
        Claim::sign_batch(&[ClaimLeaf { segment: manifest.id(), index }], Timestamp(number), &holder, network)
    });
    let record = Record { manifest: manifest.to_unverified(), claims: claims.collect(), drop: None };
    let body: Bytes = record.to_bytes().into();
    Ok(Change {
        kind: Kind::Segment,
        key: *manifest.id().as_bytes(),
        owner: vault,
        tag: 0,
        body: Some(body.into()),
        expected: None,
    })
}
