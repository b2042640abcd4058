//! A disk that fails is an answer to the caller, and nothing that was acknowledged suffers.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use commonhold_protocol::{ShardIndex, ask::Refusal};
use commonhold_storage_engine::store::{
    ShardStore, StoreError,
    disk::{Disk, FolderDisk, Punched, VolumeFile, VolumeNumber},
};

use crate::harness::{KIB, MIB, Segment, open, options, segment, segment_of, volume_paths};

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Create,
    Open,
    Read,
    /// All but the block at the begin of a volume.
    ReadRecords,
    Write,
    Sync,
    Delete,
}

#[derive(Default)]
struct Faults {
    /// The system error that an operation fails with.
    failing: Mutex<BTreeMap<Operation, i32>>,
    no_punching: AtomicBool,
    syncs: AtomicU64,
    reads: AtomicU64,
    free_bytes: Mutex<Option<u64>>,
}

impl Faults {
    fn pass(&self, operation: Operation) -> io::Result<()> {
        match self.failing.lock().unwrap().get(&operation) {
            Some(&code) => Err(io::Error::from_raw_os_error(code)),
            None => Ok(()),
        }
    }
}

/// A folder that fails as it is told.
pub(crate) struct FaultyDisk {
    disk: FolderDisk,
    faults: Arc<Faults>,
}

impl FaultyDisk {
    pub(crate) fn new(folder: &Path) -> Arc<Self> {
        let disk = FolderDisk::open(&folder.join("volumes")).unwrap();
        Arc::new(Self { disk, faults: Arc::default() })
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.faults.syncs.load(Ordering::SeqCst)
    }

    fn reads(&self) -> u64 {
        self.faults.reads.load(Ordering::SeqCst)
    }

    pub(crate) fn fail(&self, operation: Operation, code: i32) {
        self.faults.failing.lock().unwrap().insert(operation, code);
    }

    pub(crate) fn heal(&self) {
        self.faults.failing.lock().unwrap().clear();
    }

    pub(crate) fn stop_punching(&self) {
        self.faults.no_punching.store(true, Ordering::SeqCst);
    }

    pub(crate) fn set_free_bytes(&self, bytes: u64) {
        *self.faults.free_bytes.lock().unwrap() = Some(bytes);
    }

    fn wrap(&self, file: Arc<dyn VolumeFile>) -> Arc<dyn VolumeFile> {
        Arc::new(FaultyFile { file, faults: self.faults.clone() })
    }
}

impl Disk for FaultyDisk {
    fn volumes(&self) -> io::Result<Vec<VolumeNumber>> {
        self.disk.volumes()
    }

    fn create(&self, volume: VolumeNumber, bytes: u64) -> io::Result<Arc<dyn VolumeFile>> {
        self.faults.pass(Operation::Create)?;
        Ok(self.wrap(self.disk.create(volume, bytes)?))
    }

    fn open(&self, volume: VolumeNumber) -> io::Result<Arc<dyn VolumeFile>> {
        self.faults.pass(Operation::Open)?;
        Ok(self.wrap(self.disk.open(volume)?))
    }

    fn delete(&self, volume: VolumeNumber) -> io::Result<()> {
        self.faults.pass(Operation::Delete)?;
        self.disk.delete(volume)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        match *self.faults.free_bytes.lock().unwrap() {
            Some(bytes) => Ok(bytes),
            None => self.disk.free_bytes(),
        }
    }
}

struct FaultyFile {
    file: Arc<dyn VolumeFile>,
    faults: Arc<Faults>,
}

impl VolumeFile for FaultyFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn disk_bytes(&self) -> io::Result<u64> {
        self.file.disk_bytes()
    }

    fn modified(&self) -> io::Result<u64> {
        self.file.modified()
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.faults.reads.fetch_add(1, Ordering::SeqCst);
        self.faults.pass(Operation::Read)?;
        if offset > 0 {
            self.faults.pass(Operation::ReadRecords)?;
        }
        self.file.read(offset, buffer)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.faults.pass(Operation::Write)?;
        self.file.write(offset, bytes)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }

    fn clear(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.faults.pass(Operation::Write)?;
        self.file.clear(offset, bytes)
    }

    fn punch(&self, offset: u64, bytes: u64) -> io::Result<Punched> {
        match self.faults.no_punching.load(Ordering::SeqCst) {
            true => Ok(Punched::Unsupported),
            false => self.file.punch(offset, bytes),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.syncs.fetch_add(1, Ordering::SeqCst);
        self.faults.pass(Operation::Sync)?;
        self.file.sync()
    }

    fn is_current(&self) -> io::Result<bool> {
        self.file.is_current()
    }
}

fn faulty(folder: &Path) -> (Arc<FaultyDisk>, Arc<ShardStore>) {
    let disk = FaultyDisk::new(folder);
    let (store, _) = ShardStore::open_on(disk.clone(), folder, options(64 * MIB)).unwrap();
    (disk, store)
}

/// Whatever fails, and with whatever, the caller hears it, what was acknowledged stays, and all goes on afterwards.
#[test]
fn every_failing_step_of_a_store_is_an_answer() {
    for (operation, code, expected) in [
        (Operation::Create, libc::ENOSPC, Refusal::DiskFull),
        (Operation::Create, libc::EIO, Refusal::DiskError),
        (Operation::Write, libc::ENOSPC, Refusal::DiskFull),
        (Operation::Write, libc::EDQUOT, Refusal::DiskFull),
        (Operation::Write, libc::EIO, Refusal::DiskError),
        (Operation::Sync, libc::EIO, Refusal::DiskError),
        (Operation::Sync, libc::ENOSPC, Refusal::DiskFull),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (disk, store) = faulty(folder.path());
        let (before, failing) = (segment(1, 64 * KIB), segment_of(1, 2, 3 << 20, 2));
        before.store(&store, 0).unwrap();
        // Does not fit beside another of its size: the second needs a new volume.
        failing.store(&store, 0).unwrap();
        let used = store.used().bytes;

        disk.fail(operation, code);
        let refused = failing.store(&store, 1).unwrap_err();
        assert_eq!(refused.refusal(), expected, "{operation:?}: {refused}");
        assert!(!store.holds(&failing.leaf(1)).unwrap());
        assert_eq!(store.used().bytes, used);
        before.assert_held(&store, 0);
        failing.assert_held(&store, 0);

        disk.heal();
        failing.store(&store, 1).unwrap();
        failing.assert_held(&store, 1);
        drop(store);
        let (store, _) = open(folder.path());
        before.assert_held(&store, 0);
        failing.assert_held(&store, 0);
        failing.assert_held(&store, 1);
        assert_eq!(store.used().shards, 3);
        assert_eq!(store.quarantined(), []);
    }
}

/// After a failed sync the kernel may call lost pages clean: a second sync would report success. So a volume whose sync
/// failed takes nothing more, and what waited for that sync is not acknowledged by a later one.
#[test]
fn nothing_is_acknowledged_by_the_sync_after_a_failed_one() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, store) = faulty(folder.path());
    let segment = segment(1, 64 * KIB);
    let written = |index: u8| {
        let mut writer = store.begin(&segment.manifest, ShardIndex(index)).unwrap();
        writer.write(&segment.shards[usize::from(index)]).unwrap();
        writer.finish().unwrap()
    };
    let (one, other) = (written(0), written(1));
    disk.fail(Operation::Sync, libc::EIO);
    assert!(matches!(store.commit(one), Err(StoreError::Volume { .. })));
    disk.heal();
    assert!(matches!(store.commit(other), Err(StoreError::VolumeFailed { .. })));
    segment.store(&store, 0).unwrap();
    segment.assert_held(&store, 0);
    assert_eq!(volume_paths(folder.path()).len(), 2);
}

/// Each group of 16 KiB was a read of its own once: 80 for this shard.
#[test]
fn a_whole_shard_is_read_in_few_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, store) = faulty(folder.path());
    let segment = segment_of(1, 1, 1280 * KIB, 1);
    segment.store(&store, 0).unwrap();
    let before = disk.reads();
    segment.check(&store, 0).unwrap();
    // Header, outboard, and three pieces of half a MiB.
    assert_eq!(disk.reads() - before, 5);
    let before = disk.reads();
    store.verify(segment.manifest.id(), ShardIndex(0)).unwrap();
    assert_eq!(disk.reads() - before, 5);
}

#[test]
fn a_shard_that_cannot_be_read_is_quarantined() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, store) = faulty(folder.path());
    let segment = segment(1, 64 * KIB);
    segment.store(&store, 0).unwrap();
    segment.store(&store, 1).unwrap();
    disk.fail(Operation::Read, libc::EIO);
    assert_eq!(segment.check(&store, 0).unwrap_err().refusal(), Refusal::Damaged);
    disk.heal();
    segment.assert_quarantined(&store, 0);
    segment.assert_held(&store, 1);
}

/// Out of file descriptors is our trouble, not the shard's.
#[test]
fn a_passing_shortage_is_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, store) = faulty(folder.path());
    let segment = segment(1, 64 * KIB);
    segment.store(&store, 0).unwrap();
    disk.fail(Operation::Read, libc::EMFILE);
    assert_eq!(segment.check(&store, 0).unwrap_err().refusal(), Refusal::DiskError);
    disk.heal();
    segment.assert_held(&store, 0);
}

#[test]
fn a_removal_that_fails_is_finished_at_the_next_open() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, store) = faulty(folder.path());
    let segment = segment(1, 64 * KIB);
    segment.store(&store, 0).unwrap();
    segment.store(&store, 1).unwrap();
    disk.fail(Operation::Write, libc::EIO);
    store.remove(segment.manifest.id(), ShardIndex(0)).unwrap_err();
    disk.heal();
    let gone = |store: &ShardStore, segment: &Segment| {
        assert!(matches!(segment.check(store, 0), Err(StoreError::NotHeld { .. })));
        segment.assert_held(store, 1);
    };
    gone(&store, &segment);
    drop(store);
    let (store, report) = open(folder.path());
    gone(&store, &segment);
    assert_eq!(report.recovered, 0);
    drop(store);
    // Not even without the index does it come back.
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    gone(&open(folder.path()).0, &segment);
}

/// A cable that is loose while the store opens must not cost what it hides.
#[test]
fn nothing_is_given_up_because_the_disk_cannot_be_read_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let segments: Vec<_> = (0..40).map(|seed| segment_of(1, seed, 252 * KIB, 1)).collect();
    for segment in &segments {
        segment.store(&store, 0).unwrap();
    }
    drop(store);
    for index_lost in [false, true] {
        if index_lost {
            std::fs::remove_dir_all(folder.path().join("index")).unwrap();
        }
        let disk = FaultyDisk::new(folder.path());
        // The volumes' blocks, at the very begin, can be read; nothing else can.
        disk.fail(Operation::ReadRecords, libc::EIO);
        let (store, _) = ShardStore::open_on(disk.clone(), folder.path(), options(64 * MIB)).unwrap();
        segments[0].store(&store, 0).unwrap_or_else(|error| assert_eq!(error.refusal(), Refusal::Other));
        drop(store);
        commonhold_storage_engine::store::fsck(folder.path(), &crate::harness::network()).unwrap();
        let (store, report) = open(folder.path());
        assert_eq!((report.shards, report.quarantined), (40, 0), "index lost: {index_lost}");
        for segment in &segments {
            segment.assert_held(&store, 0);
        }
    }
}
