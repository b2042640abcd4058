//! Power fails at each sync in turn, and takes an arbitrary part of what was not synced with it: what was acknowledged
//! is there afterwards, and nothing is there that was not stored.
//!
//! This disk takes whole units only, as direct I/O does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    sync::{Arc, Mutex},
};

use commonhold_protocol::ShardIndex;
use commonhold_storage_engine::store::{
    ShardStore,
    disk::{Disk, Punched, VolumeFile, VolumeNumber},
};
use rand::{Rng, SeedableRng};

use crate::harness::{KIB, MIB, Segment, options, segment_of};

/// What a torn write is made of.
const SECTOR_BYTES: usize = 512;

#[derive(Default)]
struct Contents {
    /// As programs see it.
    live: Vec<u8>,
    /// As the platter has it.
    durable: Vec<u8>,
    /// Written since the last sync.
    unsynced: Vec<(usize, Vec<u8>)>,
    writes: u64,
}

#[derive(Default)]
struct State {
    volumes: BTreeMap<VolumeNumber, Contents>,
    /// Syncs until the power fails; none: it does not.
    syncs_left: Option<u32>,
    /// Writes until the process is killed; none: it is not.
    writes_left: Option<u32>,
    dead: bool,
}

/// A disk in memory, whose power fails.
#[derive(Default)]
struct CrashDisk(Arc<Mutex<State>>);

impl CrashDisk {
    fn fail_after(&self, syncs: u32) {
        self.0.lock().unwrap().syncs_left = Some(syncs);
    }

    fn kill_after(&self, writes: u32) {
        self.0.lock().unwrap().writes_left = Some(writes);
    }

    /// A new process finds all that the killed one wrote.
    fn revive(&self) {
        let mut state = self.0.lock().unwrap();
        (state.dead, state.writes_left) = (false, None);
    }

    fn is_dead(&self) -> bool {
        self.0.lock().unwrap().dead
    }

    /// Power is back: of what was not synced, each sector is there or not.
    fn restart(&self, rng: &mut impl Rng) {
        let mut state = self.0.lock().unwrap();
        (state.dead, state.syncs_left) = (false, None);
        for contents in state.volumes.values_mut() {
            for (offset, bytes) in std::mem::take(&mut contents.unsynced) {
                for (at, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                    let start = offset + at * SECTOR_BYTES;
                    if rng.random_bool(0.5) && start + sector.len() <= contents.durable.len() {
                        contents.durable[start..start + sector.len()].copy_from_slice(sector);
                    }
                }
            }
            contents.live = contents.durable.clone();
        }
    }

    fn alive(&self) -> io::Result<std::sync::MutexGuard<'_, State>> {
        let state = self.0.lock().unwrap();
        if state.dead { Err(io::Error::other("no power")) } else { Ok(state) }
    }

    fn file(&self, volume: VolumeNumber) -> Arc<dyn VolumeFile> {
        Arc::new(CrashFile { disk: Self(self.0.clone()), volume })
    }
}

impl Disk for CrashDisk {
    fn volumes(&self) -> io::Result<Vec<VolumeNumber>> {
        Ok(self.alive()?.volumes.keys().copied().collect())
    }

    fn create(&self, volume: VolumeNumber, bytes: u64) -> io::Result<Arc<dyn VolumeFile>> {
        let zeros = vec![0; bytes as usize];
        let contents = Contents { live: zeros.clone(), durable: zeros, unsynced: Vec::new(), writes: 0 };
        assert!(self.alive()?.volumes.insert(volume, contents).is_none(), "{volume} exists");
        Ok(self.file(volume))
    }

    fn open(&self, volume: VolumeNumber) -> io::Result<Arc<dyn VolumeFile>> {
        match self.alive()?.volumes.contains_key(&volume) {
            true => Ok(self.file(volume)),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn delete(&self, volume: VolumeNumber) -> io::Result<()> {
        self.alive()?.volumes.remove(&volume);
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX / 2)
    }
}

struct CrashFile {
    disk: CrashDisk,
    volume: VolumeNumber,
}

impl CrashFile {
    fn with<T>(&self, action: impl FnOnce(&mut Contents) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.alive()?;
        action(state.volumes.get_mut(&self.volume).ok_or(io::ErrorKind::NotFound)?)
    }
}

impl VolumeFile for CrashFile {
    fn length(&self) -> io::Result<u64> {
        self.with(|contents| Ok(contents.live.len() as u64))
    }

    fn disk_bytes(&self) -> io::Result<u64> {
        self.length()
    }

    fn modified(&self) -> io::Result<u64> {
        self.with(|contents| Ok(contents.writes))
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.with(|contents| {
            let bytes = contents.live.get(offset as usize..offset as usize + buffer.len());
            buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(offset.is_multiple_of(4096) && bytes.len().is_multiple_of(4096), "{} at {offset}", bytes.len());
        {
            let mut state = self.disk.alive()?;
            match &mut state.writes_left {
                Some(0) => {
                    state.dead = true;
                    return Err(io::Error::other("killed"));
                }
                Some(left) => *left -= 1,
                None => {}
            }
        }
        self.with(|contents| {
            let offset = offset as usize;
            contents.live[offset..offset + bytes.len()].copy_from_slice(bytes);
            contents.unsynced.push((offset, bytes.to_vec()));
            contents.writes += 1;
            Ok(())
        })
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.with(|contents| {
            contents.live.truncate(length as usize);
            contents.durable.truncate(length as usize);
            Ok(())
        })
    }

    fn clear(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.write(offset, &vec![0; bytes as usize])
    }

    fn punch(&self, offset: u64, bytes: u64) -> io::Result<Punched> {
        self.write(offset, &vec![0; bytes as usize])?;
        Ok(Punched::Yes)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.alive()?;
        match &mut state.syncs_left {
            Some(0) => {
                state.dead = true;
                return Err(io::Error::other("no power"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        let contents = state.volumes.get_mut(&self.volume).ok_or(io::ErrorKind::NotFound)?;
        contents.durable = contents.live.clone();
        contents.unsynced.clear();
        Ok(())
    }

    fn is_current(&self) -> io::Result<bool> {
        Ok(self.disk.alive()?.volumes.contains_key(&self.volume))
    }
}

/// Which index meets the volumes after the crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IndexAfter {
    /// As it was left: everything that sled had written arrived.
    AsLeft,
    /// As it was before: nothing that sled had not been made to flush arrived.
    Before,
    /// None.
    Gone,
}

/// What a run did, as far as it was told.
#[derive(Default)]
struct Told {
    held: BTreeSet<usize>,
    /// Stored or removed without an answer: there or not.
    open: BTreeSet<usize>,
}

/// Stores 40 shards, some given up half-way; with `removing`, some are removed again.
fn work(store: &Arc<ShardStore>, segments: &[Segment], removing: bool) -> Told {
    let mut told = Told::default();
    for (at, segment) in segments.iter().enumerate() {
        if at % 7 == 3
            && let Ok(mut writer) = store.begin(&segment.manifest, ShardIndex(0))
        {
            let _ = writer.write(&segment.shards[0][..64]);
        }
        match segment.store(store, 0) {
            Ok(()) => told.held.insert(at),
            Err(_) => told.open.insert(at),
        };
        if removing && at % 3 == 2 {
            let gone = [at - 2, at - 1];
            let leaves = gone.map(|at| segments[at].leaf(0));
            let removed = store.remove_all(&leaves);
            for at in gone {
                if told.held.remove(&at) && removed.is_err() {
                    told.open.insert(at);
                }
            }
        }
    }
    told
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.metadata().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).unwrap();
        }
    }
}

/// One run with the power failing at sync number `cut`; false if it ended before that.
fn crash_at(cut: u32, removing: bool, after: IndexAfter, segments: &[Segment]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let (index, before) = (folder.path().join("index"), folder.path().join("before"));
    let disk = Arc::new(CrashDisk::default());
    let open = || ShardStore::open_on(disk.clone(), folder.path(), options(16 * MIB)).unwrap();
    // Some shards are there before.
    let (early, late) = segments.split_at(8);
    let (store, _) = open();
    early.iter().for_each(|segment| segment.store(&store, 0).unwrap());
    store.close().unwrap();
    drop(store);
    copy_folder(&index, &before);

    let (store, _) = open();
    disk.fail_after(cut);
    let told = work(&store, late, removing);
    let crashed = disk.is_dead();
    drop(store);
    disk.restart(&mut rand_chacha::ChaCha8Rng::seed_from_u64(cut.into()));
    if after != IndexAfter::AsLeft {
        fs::remove_dir_all(&index).unwrap();
    }
    if after == IndexAfter::Before {
        fs::rename(&before, &index).unwrap();
    }

    let (store, report) = open();
    let what = format!("power failed at sync {cut}, removing: {removing}, index: {after:?}, {report:?}");
    early.iter().for_each(|segment| segment.check(&store, 0).unwrap());
    for (at, segment) in late.iter().enumerate() {
        let held = store.holds(&segment.leaf(0)).unwrap();
        assert!(held || !told.held.contains(&at), "shard {at} was acknowledged and is lost; {what}");
        assert!(!held || told.held.contains(&at) || told.open.contains(&at), "shard {at} is back; {what}");
        if held {
            segment.check(&store, 0).unwrap_or_else(|error| panic!("shard {at}: {error}; {what}"));
        } else if told.open.contains(&at) {
            // All goes on as if nothing had been.
            segment.store(&store, 0).unwrap();
        }
    }
    let listed = store.iter_held().count() as u64;
    assert_eq!(listed, store.used().shards, "{what}");
    assert_eq!(store.quarantined(), [], "{what}");
    crashed
}

fn crash_everywhere(removing: bool, after: IndexAfter) {
    let segments: Vec<_> = (0..48).map(|seed| segment_of(1, seed, (1 + seed as usize * 7 % 20) * 8 * KIB, 1)).collect();
    let crashes = (0..).take_while(|&cut| crash_at(cut, removing, after, &segments)).count();
    assert!(crashes > 40, "only {crashes} syncs");
}

#[test]
fn a_crash_at_any_sync_loses_nothing_acknowledged() {
    crash_everywhere(true, IndexAfter::AsLeft);
}

#[test]
fn nor_does_it_without_an_index() {
    crash_everywhere(true, IndexAfter::Gone);
}

/// Removals flush the index, so an older one can only meet volumes to which shards were added.
#[test]
fn nor_does_it_with_an_index_that_lags_behind() {
    crash_everywhere(false, IndexAfter::Before);
}

/// The unit that makes a record of what is there is written last: whoever looks at the volume before that, with an index
/// or without, finds nothing, and nothing damaged either.
#[test]
fn a_record_is_none_before_its_last_write() {
    // Its header takes two units, its data two pieces.
    let segment = segment_of(1, 1, 600 * KIB, 140);
    let early = segment_of(1, 2, 8 * KIB, 1);
    for index_gone in [false, true] {
        for writes in 0.. {
            let folder = tempfile::tempdir().unwrap();
            let disk = Arc::new(CrashDisk::default());
            let open = || ShardStore::open_on(disk.clone(), folder.path(), options(64 * MIB)).unwrap();
            let (store, _) = open();
            early.store(&store, 0).unwrap();
            disk.kill_after(writes);
            let stored = segment.store(&store, 0);
            drop(store);
            disk.revive();
            if index_gone {
                fs::remove_dir_all(folder.path().join("index")).unwrap();
            }
            let (store, report) = open();
            let found = (report.shards, report.quarantined, report.erased);
            early.assert_held(&store, 0);
            if stored.is_ok() {
                assert_eq!(writes, 3);
                assert_eq!(found, (2, 0, 0), "index gone: {index_gone}");
                break;
            }
            assert_eq!(found, (1, 0, 0), "killed after {writes} writes, index gone: {index_gone}");
        }
    }
}
