//! The stages on one thread, beside the bare libraries: criterion's results of the same run, and what they do not
//! have (the code of the network that is measured, and the CPU time of the store). From them, the limits.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use commonhold_protocol::{Coding, Manifest, NetworkName, ShardIndex, SigningKey, Verified};
use commonhold_storage_engine::{
    code::Coder,
    keys::{VaultKeys, VaultSecret},
    seal::Sealed,
    segment::SegmentBuilder,
    store::{ShardStore, StoreOptions},
};
use serde_json::Value;

use crate::{
    Failure, GIB, MIB, Settings,
    process::cpu_seconds,
    report::{Aim, Report, Row},
    transfer::Transfers,
};

/// Bytes in which shards arrive.
const PIECE_BYTES: usize = 256 << 10;
/// How long what is measured here is repeated.
const AT_LEAST: Duration = Duration::from_millis(500);

/// Rates in MiB/s of the bytes that the stage works on.
pub(crate) struct Stages {
    /// Criterion's: by group and function.
    measured: BTreeMap<(String, String), f64>,
    coding: Coding,
    code: f64,
    store: f64,
    store_cpu_per_gib: f64,
    disk: f64,
}

/// A row of the table: what it is, criterion's group, ours, the bare library, and how many of its bytes there are per
/// byte of plaintext (as data, as shards).
struct Stage {
    what: &'static str,
    group: &'static str,
    ours: &'static str,
    bare: &'static str,
    of_shards: bool,
    aim: Option<f64>,
}

const fn stage(what: &'static str, group: &'static str, ours: &'static str, bare: &'static str) -> Stage {
    Stage { what, group, ours, bare, of_shards: false, aim: None }
}

const STAGES: [Stage; 12] = [
    stage("chunk", "chunk", "ours", "fastcdc"),
    stage("compress, text", "compress text", "ours", "zstd"),
    stage("compress, noise", "compress noise", "ours", "zstd"),
    stage("seal", "seal", "ours (with its key derivation)", "chacha20poly1305"),
    Stage { of_shards: true, ..stage("hash (roots and proofs)", "hash (root and outboard)", "ours", "blake3") },
    Stage {
        aim: Some(5.0 * 1024.0),
        ..stage("code 20/40, GFNI 512", "code 20/40", "ours, Gfni512", "reed-solomon-erasure")
    },
    Stage {
        aim: Some(5.0 * 1024.0),
        ..stage("code 20/40, GFNI 256", "code 20/40", "ours, Gfni256", "reed-solomon-erasure")
    },
    Stage { aim: Some(2.5 * 1024.0), ..stage("code 20/40, AVX2", "code 20/40", "ours, Avx2", "reed-solomon-erasure") },
    stage("prove (holder reads)", "prove whole shard", "encode", "blake3 of the same bytes"),
    stage("verify (client reads)", "prove whole shard", "decode", "blake3 of the same bytes"),
    stage("open", "open", "ours", ""),
    stage("decompress, text", "decompress text", "ours", ""),
];

/// What the machine allows end to end, and from what that follows.
pub(crate) struct Limits {
    /// MiB/s of plaintext.
    pub(crate) put: f64,
    pub(crate) get: f64,
    /// CPU seconds per GiB of plaintext, by stage.
    pub(crate) put_parts: Vec<(&'static str, f64)>,
    pub(crate) get_parts: Vec<(&'static str, f64)>,
    pub(crate) put_by_cpu: f64,
    pub(crate) put_by_disk: f64,
}

impl Stages {
    /// Reads what criterion left, and measures the rest.
    pub(crate) fn collect(settings: &Settings, disk: f64) -> Result<Self, Failure> {
        let mut measured = BTreeMap::new();
        let results = settings.target.join("criterion");
        if results.is_dir() {
            collect_criterion(&results, &mut measured)?;
        }
        if !STAGES.iter().any(|stage| measured.contains_key(&(stage.group.to_owned(), stage.ours.to_owned()))) {
            return Err("no results of the stages; first: cargo bench -p commonhold-storage-engine".into());
        }
        let (store, store_cpu_per_gib) = store_rate(settings)?;
        let code = code_rate(settings.coding)?;
        Ok(Self { measured, coding: settings.coding, code, store, store_cpu_per_gib, disk })
    }

    fn rate(&self, group: &str, function: &str) -> Option<f64> {
        self.measured.get(&(group.to_owned(), function.to_owned())).copied()
    }

    /// Bytes of shards per byte of plaintext.
    fn shards_per_byte(&self) -> f64 {
        f64::from(self.coding.n()) / f64::from(self.coding.k())
    }

    pub(crate) fn report(&self, report: &mut Report) {
        let section = "stages on one thread, of plaintext";
        let shards_per_byte = self.shards_per_byte();
        for Stage { what, group, ours, bare, of_shards, aim } in STAGES {
            // A processor without an instruction has no row for it.
            let Some(rate) = self.rate(group, ours) else { continue };
            let divisor = if of_shards { shards_per_byte } else { 1.0 };
            let mut row = Row::new(section, what, rate / divisor, "MiB/s");
            if let Some(rate) = self.rate(group, bare) {
                row = row.beside(bare, rate / divisor);
            }
            report.push(row.aim(aim.map(Aim::AtLeast)));
        }
        report.push(Row::new(section, format!("code {}, best kernel", self.coding), self.code, "MiB/s"));
        let disk = self.disk / shards_per_byte;
        report.push(Row::new(section, "store", self.store / shards_per_byte, "MiB/s").beside("synced writes", disk));
    }

    /// What this machine allows at most, with noise: text is less work for all but the compressor. `bare` is libp2p
    /// with Noise, while nodes speak TLS: the report says so.
    pub(crate) fn limits(&self, bare: &Transfers) -> Limits {
        let shards_per_byte = self.shards_per_byte();
        let seconds = |rate: Option<f64>| rate.map_or(0.0, |rate| 1024.0 / rate);
        let stage = |group, ours| seconds(self.rate(group, ours));
        let hash = stage("hash (root and outboard)", "ours");
        let put_parts = vec![
            ("chunk", stage("chunk", "ours")),
            ("ask whether it is known", stage("hash (root and outboard)", "blake3")),
            ("compress", stage("compress noise", "ours")),
            ("seal", stage("seal", "ours (with its key derivation)")),
            ("code", seconds(Some(self.code))),
            ("hash shards", hash * shards_per_byte),
            ("move shards, both ends", bare.up.cpu_per_gib * shards_per_byte),
            ("store shards", self.store_cpu_per_gib * shards_per_byte),
        ];
        let get_parts = vec![
            ("read and prove", stage("prove whole shard", "encode")),
            ("move shards, both ends", bare.down.cpu_per_gib),
            ("verify", stage("prove whole shard", "decode")),
            ("open", stage("open", "ours")),
        ];
        let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
        let by_cpu = |parts: &[(&str, f64)]| cores * 1024.0 / parts.iter().map(|(_, seconds)| seconds).sum::<f64>();
        let (put_by_cpu, put_by_disk) = (by_cpu(&put_parts), self.disk / shards_per_byte);
        let get = by_cpu(&get_parts);
        Limits { put: put_by_cpu.min(put_by_disk), get, put_parts, get_parts, put_by_cpu, put_by_disk }
    }
}

/// Finds all results below a folder of criterion's.
fn collect_criterion(folder: &Path, measured: &mut BTreeMap<(String, String), f64>) -> Result<(), Failure> {
    let (about, estimates) = (folder.join("benchmark.json"), folder.join("estimates.json"));
    if folder.ends_with("new") && about.exists() && estimates.exists() {
        let read = |path: &Path| -> Result<Value, Failure> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
        let (about, estimates) = (read(&about)?, read(&estimates)?);
        let text = |key: &str| about[key].as_str().unwrap_or_default().to_owned();
        let nanoseconds = estimates["median"]["point_estimate"].as_f64();
        if let (Some(bytes), Some(nanoseconds)) = (about["throughput"]["Bytes"].as_f64(), nanoseconds) {
            let rate = bytes / MIB as f64 / (nanoseconds / 1e9);
            measured.insert((text("group_id"), text("function_id")), rate);
        }
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect_criterion(&entry.path(), measured)?;
        }
    }
    Ok(())
}

/// MiB/s of data through the code of the network that is measured.
fn code_rate(coding: Coding) -> Result<f64, Failure> {
    let shard_length = coding.shard_length(16 * MIB) as usize;
    let data = vec![7; shard_length * usize::from(coding.k())];
    let mut parity = vec![0; shard_length * usize::from(coding.parity())];
    let data: Vec<&[u8]> = data.chunks_exact(shard_length).collect();
    let mut parity: Vec<&mut [u8]> = parity.chunks_exact_mut(shard_length).collect();
    let coder = Coder::new(coding);
    let (started, mut rounds) = (Instant::now(), 0_u32);
    while started.elapsed() < AT_LEAST {
        coder.encode(&data, &mut parity)?;
        rounds += 1;
    }
    let mib = (shard_length * data.len()) as f64 / MIB as f64;
    Ok(mib * f64::from(rounds) / started.elapsed().as_secs_f64())
}

/// A full segment of noise, coded.
fn segment(
    coding: Coding,
    number: u64,
    network: &NetworkName,
) -> Result<(Verified<Manifest>, Vec<bytes::Bytes>), Failure> {
    let key = SigningKey::from_seed(&[1; 32]);
    let keys = VaultKeys::derive(&VaultSecret::from_bytes([7; 32]));
    let mut salt = [0; 16];
    salt[..8].copy_from_slice(&number.to_le_bytes());
    let mut builder = SegmentBuilder::new(commonhold_protocol::VaultId::from_bytes(key.public()), salt);
    let chunk = vec![number as u8; 256 << 10];
    let frame = commonhold_storage_engine::frame::Frame::from_bytes(chunk.clone());
    let sealed: Sealed = commonhold_storage_engine::seal::seal(frame, chunk.len() as u32, keys.convergence());
    while builder.fits(sealed.bytes.len()) {
        builder.push(&sealed)?;
    }
    let coded = builder.finish(coding)?;
    Ok((Verified::sign(coded.manifest, &key, network), coded.shards))
}

/// MiB/s of shard bytes that one thread stores durably, and CPU seconds per GiB of them.
fn store_rate(settings: &Settings) -> Result<(f64, f64), Failure> {
    let network: NetworkName = "bench".parse()?;
    let folder = settings.scratch.join("store");
    let options = StoreOptions {
        pledge_bytes: 64 << 30,
        keep_free_bytes: 0,
        vault_bytes_max: u64::MAX,
        other_bytes: Arc::new(AtomicU64::new(0)),
        network: network.clone(),
    };
    let (store, _) = ShardStore::open(&folder, options)?;
    let (mut bytes, mut seconds, mut cpu) = (0, 0.0, 0.0);
    for number in 0.. {
        if bytes >= settings.large_bytes {
            break;
        }
        let (manifest, shards) = segment(settings.coding, number, &network)?;
        let (started, before) = (Instant::now(), cpu_seconds(std::process::id())?);
        for (index, shard) in (0..).map(ShardIndex).zip(&shards) {
            let mut writer = store.begin(&manifest, index)?;
            shard.chunks(PIECE_BYTES).try_for_each(|piece| writer.write(piece))?;
            store.commit(writer.finish()?)?;
            bytes += shard.len() as u64;
        }
        seconds += started.elapsed().as_secs_f64();
        cpu += cpu_seconds(std::process::id())? - before;
    }
    store.close()?;
    drop(store);
    fs::remove_dir_all(&folder)?;
    Ok((bytes as f64 / MIB as f64 / seconds, cpu / (bytes as f64 / GIB)))
}
