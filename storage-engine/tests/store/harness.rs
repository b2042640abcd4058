//! Stores in temporary folders, and shards to put into them.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicU64},
};

use bytes::Bytes;
use commonhold_protocol::{
    ClaimLeaf, Coding, Manifest, NetworkName, ShardIndex, SigningKey, VaultId, Verified, shard_stream::GroupRange,
};
use commonhold_storage_engine::{
    prove,
    store::{OpenReport, ShardStore, StoreError, StoreOptions},
};
use rand::{RngCore, SeedableRng};

pub(crate) const KIB: usize = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn network() -> NetworkName {
    "test".parse().unwrap()
}

pub(crate) fn options(pledge_bytes: u64) -> StoreOptions {
    StoreOptions {
        pledge_bytes,
        keep_free_bytes: 0,
        vault_bytes_max: u64::MAX,
        other_bytes: Arc::new(AtomicU64::new(0)),
        network: network(),
    }
}

/// A store of 64 MiB: its volumes have 4 MiB.
pub(crate) fn open(folder: &Path) -> (Arc<ShardStore>, OpenReport) {
    ShardStore::open(folder, options(64 * MIB)).unwrap()
}

/// A segment with one shard for each wanted length' worth of random bytes. Its shards are not a code's: the store does
/// not look at more than their roots.
pub(crate) struct Segment {
    pub(crate) manifest: Verified<Manifest>,
    pub(crate) shards: Vec<Bytes>,
}

/// Vault number `vault`.
pub(crate) fn key(vault: u8) -> SigningKey {
    SigningKey::from_seed(&[vault; 32])
}

pub(crate) fn segment_of(vault: u8, seed: u64, shard_bytes: usize, shards: u8) -> Segment {
    assert_eq!(shard_bytes % 64, 0);
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let shards: Vec<Bytes> = (0..shards)
        .map(|_| {
            let mut bytes = vec![0; shard_bytes];
            rng.fill_bytes(&mut bytes);
            Bytes::from(bytes)
        })
        .collect();
    let key = key(vault);
    let mut salt = [0; 16];
    rng.fill_bytes(&mut salt);
    let manifest = Manifest {
        vault: VaultId::from_bytes(key.public()),
        salt,
        coding: Coding::new(1, shards.len() as u8).unwrap(),
        length: shard_bytes as u64,
        roots: shards.iter().map(|shard| prove::root_of(shard).0).collect(),
    };
    assert_eq!(manifest.shard_length(), shard_bytes as u64);
    Segment { manifest: Verified::sign(manifest, &key, &network()), shards }
}

pub(crate) fn segment(seed: u64, shard_bytes: usize) -> Segment {
    segment_of(1, seed, shard_bytes, 4)
}

impl Segment {
    pub(crate) fn leaf(&self, index: u8) -> ClaimLeaf {
        ClaimLeaf { segment: self.manifest.id(), index: ShardIndex(index) }
    }

    /// Begin, write in pieces, finish, commit.
    pub(crate) fn store(&self, store: &Arc<ShardStore>, index: u8) -> Result<(), StoreError> {
        let mut writer = store.begin(&self.manifest, ShardIndex(index))?;
        for piece in self.shards[usize::from(index)].chunks(100 * KIB) {
            writer.write(piece)?;
        }
        store.commit(writer.finish()?)
    }

    /// Reads the whole shard, checks the proof as a reader would, and compares the bytes.
    pub(crate) fn check(&self, store: &ShardStore, index: u8) -> Result<(), StoreError> {
        let shard = &self.shards[usize::from(index)];
        let ranges = [GroupRange::whole(shard.len() as u64)];
        let read = store.read(self.manifest.id(), ShardIndex(index), &ranges)?;
        let root = self.manifest.root(ShardIndex(index)).unwrap();
        let decoded = prove::decode_ranges(root, shard.len() as u64, &ranges, &read.encoded.into()).unwrap();
        assert_eq!((decoded.len(), decoded[0].start, &decoded[0].concat()), (1, 0, shard));
        assert_eq!(read.manifest.verify(&network()).unwrap().id(), self.manifest.id());
        Ok(())
    }

    /// Holds exactly the shard's bytes.
    #[track_caller]
    pub(crate) fn assert_held(&self, store: &ShardStore, index: u8) {
        assert!(store.holds(&self.leaf(index)).unwrap(), "shard {index} is not held");
        self.check(store, index).unwrap();
    }

    #[track_caller]
    pub(crate) fn assert_quarantined(&self, store: &ShardStore, index: u8) {
        let leaf = self.leaf(index);
        assert!(matches!(self.check(store, index), Err(StoreError::Damaged { .. })));
        assert!(!store.holds(&leaf).unwrap());
        assert!(store.quarantined().contains(&leaf));
        assert!(!store.iter_held().any(|held| held.unwrap().leaf == leaf));
    }
}

/// The volume files, in order.
pub(crate) fn volume_paths(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder.join("volumes")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Bytes on the disk of everything in a folder.
pub(crate) fn disk_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        bytes += if metadata.is_dir() { disk_bytes(&entry.path()) } else { metadata.blocks() * 512 };
    }
    bytes
}

/// Turns over one byte of a shard where it lies in a volume file.
pub(crate) fn flip(folder: &Path, shard: &[u8]) {
    use std::os::unix::fs::FileExt;
    for path in volume_paths(folder) {
        let bytes = std::fs::read(&path).unwrap();
        let found = bytes.windows(64).step_by(64).position(|window| window == &shard[..64]);
        if let Some(at) = found {
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            let at = at * 64 + shard.len() / 2;
            file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
            return;
        }
    }
    panic!("the shard is in no volume");
}
