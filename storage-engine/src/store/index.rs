//! The index in sled: where each shard lies. All of it can be rebuilt from the volumes.
//!
//! Keys and values of shards have 22 bytes, which sled keeps inline: a million took 60 to 95 MiB of memory here, while
//! longer ones took 1.7 GiB. For the same reason shards are inserted one by one (batches of 1,000 took 1.7 GiB with
//! short keys too): a shard's entry needs no other to be right.
//!
//! ```text
//! tree "shards"   key    segment id [..21] ‖ index u8
//!                 value  segment id [21..] ‖ volume u24 ‖ unit u16 ‖ units u16 ‖ vault u24 ‖ flags u8
//! tree "state"    'm'                        format version u8 ‖ store id [16]; written last when rebuilt
//!                 'n' ‖ vault u32            vault id
//!                 'v' ‖ volume u32           0 open | 1 sealed ‖ records u32 ‖ modified u64
//!                 'f' ‖ volume u32 ‖ unit u32   a record that is being freed: key ‖ value as in "shards"
//! ```
//! Numbers are big-endian.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::{Duration, Instant},
};

use commonhold_protocol::{ClaimLeaf, SegmentId, ShardIndex, VaultId};

use super::disk::VolumeNumber;

const FORMAT_VERSION: u8 = 1;
const KEY_SEGMENT_BYTES: usize = 21;
const ENTRY_BYTES: usize = 22;
/// sled's page cache; more buys little, for a lookup is followed by a read of the volume.
const CACHE_BYTES: u64 = 1 << 20;
/// How long an entry may stay unsynced. What is lost with it is found again in the volumes.
const FLUSH_EVERY_MS: u64 = 500;

/// One that was dropped a moment ago may be open still in a thread of sled's. So long it is tried again, ...
const LOCKED_MAX: Duration = Duration::from_secs(5);
/// ... each time after this.
const LOCKED_AGAIN: Duration = Duration::from_millis(10);

/// A vault's number in this index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct VaultNumber(pub(crate) u32);

impl VaultNumber {
    /// Vault numbers have 24 bits.
    pub(crate) const MAX: u32 = (1 << 24) - 1;
}

/// Volume numbers have 24 bits.
pub(crate) const VOLUME_NUMBER_MAX: u32 = (1 << 24) - 1;

/// Where a record lies, and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) volume: VolumeNumber,
    pub(crate) unit: u16,
    /// Units of the record; 0 if nothing is left of it.
    pub(crate) units: u16,
    pub(crate) vault: VaultNumber,
    pub(crate) quarantined: bool,
}

impl Place {
    /// Units counted for its vault. A shard of which nothing is left still names its vault.
    pub(crate) fn vault_units(&self) -> u64 {
        self.units.max(1).into()
    }

    /// Whether both are the same record, quarantined or not.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        (self.volume, self.unit) == (other.volume, other.unit)
    }
}

/// A sealed volume, as the index last saw it. Should it look otherwise, one of the two has changed behind the other's
/// back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SealedState {
    /// Its entries in the index.
    pub(crate) records: u32,
    /// [`VolumeFile::modified`](super::disk::VolumeFile::modified).
    pub(crate) modified: u64,
}

fn shard_key(leaf: &ClaimLeaf) -> [u8; ENTRY_BYTES] {
    let mut key = [0; ENTRY_BYTES];
    key[..KEY_SEGMENT_BYTES].copy_from_slice(&leaf.segment.as_bytes()[..KEY_SEGMENT_BYTES]);
    key[KEY_SEGMENT_BYTES] = leaf.index.0;
    key
}

fn shard_value(leaf: &ClaimLeaf, place: &Place) -> [u8; ENTRY_BYTES] {
    let mut value = [0; ENTRY_BYTES];
    value[..11].copy_from_slice(&leaf.segment.as_bytes()[KEY_SEGMENT_BYTES..]);
    value[11..14].copy_from_slice(&place.volume.0.to_be_bytes()[1..]);
    value[14..16].copy_from_slice(&place.unit.to_be_bytes());
    value[16..18].copy_from_slice(&place.units.to_be_bytes());
    value[18..21].copy_from_slice(&place.vault.0.to_be_bytes()[1..]);
    value[21] = u8::from(place.quarantined);
    value
}

fn shard_entry(key: &[u8], value: &[u8]) -> Option<(ClaimLeaf, Place)> {
    let (key, value): (&[u8; ENTRY_BYTES], &[u8; ENTRY_BYTES]) = (key.try_into().ok()?, value.try_into().ok()?);
    let mut segment = [0; 32];
    segment[..KEY_SEGMENT_BYTES].copy_from_slice(&key[..KEY_SEGMENT_BYTES]);
    segment[KEY_SEGMENT_BYTES..].copy_from_slice(&value[..11]);
    let leaf = ClaimLeaf { segment: SegmentId::from_bytes(segment), index: ShardIndex(key[KEY_SEGMENT_BYTES]) };
    let place = Place {
        volume: VolumeNumber(u32::from_be_bytes([0, value[11], value[12], value[13]])),
        unit: u16::from_be_bytes([value[14], value[15]]),
        units: u16::from_be_bytes([value[16], value[17]]),
        vault: VaultNumber(u32::from_be_bytes([0, value[18], value[19], value[20]])),
        quarantined: value[21] & 1 == 1,
    };
    Some((leaf, place))
}

fn numbered<const N: usize>(kind: u8, numbers: [u32; N]) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
    key
}

fn number_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn corrupt() -> sled::Error {
    sled::Error::Corruption { at: None, bt: () }
}

/// The open index.
pub(crate) struct Index {
    db: sled::Db,
    shards: sled::Tree,
    state: sled::Tree,
}

/// Whether somebody has the index open: that says nothing about how sound it is.
pub(crate) fn is_locked(error: &sled::Error) -> bool {
    // sled has no kind of its own for it.
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

impl Index {
    /// Opens the index in `folder`, or an empty one. sled can panic on a damaged folder: that is an error here.
    pub(crate) fn open(folder: &Path) -> Result<Self, sled::Error> {
        let begun = Instant::now();
        loop {
            match Self::open_once(folder) {
                Err(error) if is_locked(&error) && begun.elapsed() < LOCKED_MAX => std::thread::sleep(LOCKED_AGAIN),
                opened => return opened,
            }
        }
    }

    fn open_once(folder: &Path) -> Result<Self, sled::Error> {
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let db = sled::Config::new()
                .path(folder)
                .mode(sled::Mode::LowSpace)
                .cache_capacity(CACHE_BYTES)
                .flush_every_ms(Some(FLUSH_EVERY_MS))
                .open()?;
            let (shards, state) = (db.open_tree("shards")?, db.open_tree("state")?);
            Ok(Self { db, shards, state })
        }));
        opened.unwrap_or_else(|_| Err(corrupt()))
    }

    /// Whether this is a complete index of the store with this id.
    pub(crate) fn is_of(&self, store_id: &[u8; 16]) -> Result<bool, sled::Error> {
        Ok(self.state.get(b"m")?.is_some_and(|value| value[..] == [&[FORMAT_VERSION], &store_id[..]].concat()))
    }

    /// Says that the index is complete; until then it is rebuilt at every open.
    pub(crate) fn set_complete(&self, store_id: &[u8; 16]) -> Result<(), sled::Error> {
        self.flush()?;
        self.state.insert(b"m", [&[FORMAT_VERSION], &store_id[..]].concat())?;
        self.flush()
    }

    pub(crate) fn get(&self, leaf: &ClaimLeaf) -> Result<Option<Place>, sled::Error> {
        let key = shard_key(leaf);
        let Some(value) = self.shards.get(key)? else { return Ok(None) };
        let (found, place) = shard_entry(&key, &value).ok_or_else(corrupt)?;
        // Another segment with the same first 21 bytes would have to be ground out of 2^168 tries.
        Ok((found == *leaf).then_some(place))
    }

    pub(crate) fn insert(&self, leaf: &ClaimLeaf, place: &Place) -> Result<(), sled::Error> {
        self.shards.insert(shard_key(leaf), &shard_value(leaf, place))?;
        Ok(())
    }

    pub(crate) fn remove(&self, leaf: &ClaimLeaf) -> Result<(), sled::Error> {
        self.shards.remove(shard_key(leaf))?;
        Ok(())
    }

    /// All entries, or those after a shard, in the order of their segment ids. What is inserted or removed meanwhile
    /// may be seen or not.
    pub(crate) fn iter_after(
        &self,
        after: Option<&ClaimLeaf>,
    ) -> impl Iterator<Item = Result<(ClaimLeaf, Place), sled::Error>> + use<> {
        let from = after.map_or(std::ops::Bound::Unbounded, |leaf| std::ops::Bound::Excluded(shard_key(leaf)));
        self.shards.range::<[u8; ENTRY_BYTES], _>((from, std::ops::Bound::Unbounded)).map(|entry| {
            let (key, value) = entry?;
            shard_entry(&key, &value).ok_or_else(corrupt)
        })
    }

    pub(crate) fn set_vault(&self, number: VaultNumber, vault: Option<&VaultId>) -> Result<(), sled::Error> {
        let key = numbered(b'n', [number.0]);
        match vault {
            Some(vault) => self.state.insert(key, vault.as_bytes())?,
            None => self.state.remove(key)?,
        };
        Ok(())
    }

    pub(crate) fn vaults(&self) -> Result<Vec<(VaultNumber, VaultId)>, sled::Error> {
        self.state
            .scan_prefix(b"n")
            .map(|entry| {
                let (key, value) = entry?;
                let number = number_at(&key, 1).filter(|&number| number <= VaultNumber::MAX).ok_or_else(corrupt)?;
                let vault: [u8; 32] = value.as_ref().try_into().map_err(|_| corrupt())?;
                Ok((VaultNumber(number), VaultId::from_bytes(vault)))
            })
            .collect()
    }

    /// None: the volume is open.
    pub(crate) fn set_volume(&self, volume: VolumeNumber, seal: Option<SealedState>) -> Result<(), sled::Error> {
        let SealedState { records, modified } = seal.unwrap_or_default();
        let value = [&[u8::from(seal.is_some())][..], &records.to_be_bytes(), &modified.to_be_bytes()].concat();
        self.state.insert(numbered(b'v', [volume.0]), value)?;
        Ok(())
    }

    pub(crate) fn forget_volume(&self, volume: VolumeNumber) -> Result<(), sled::Error> {
        self.state.remove(numbered(b'v', [volume.0]))?;
        Ok(())
    }

    /// The volumes that the index refers to, and how it last saw the sealed ones.
    pub(crate) fn volumes(&self) -> Result<Vec<(VolumeNumber, Option<SealedState>)>, sled::Error> {
        self.state
            .scan_prefix(b"v")
            .map(|entry| {
                let (key, value) = entry?;
                let volume = VolumeNumber(number_at(&key, 1).ok_or_else(corrupt)?);
                let records = number_at(&value, 1).ok_or_else(corrupt)?;
                let modified = value.get(5..).and_then(|value| value.try_into().ok()).ok_or_else(corrupt)?;
                let state = SealedState { records, modified: u64::from_be_bytes(modified) };
                Ok((volume, (value[0] == 1).then_some(state)))
            })
            .collect()
    }

    /// Notes that a record is to be erased, so that this is done even if we die meanwhile.
    pub(crate) fn note_free(&self, leaf: &ClaimLeaf, place: &Place) -> Result<(), sled::Error> {
        if place.units == 0 {
            return Ok(());
        }
        let entry = [shard_key(leaf), shard_value(leaf, place)].concat();
        self.state.insert(numbered(b'f', [place.volume.0, place.unit.into()]), entry)?;
        Ok(())
    }

    pub(crate) fn forget_free(&self, place: &Place) -> Result<(), sled::Error> {
        self.state.remove(numbered(b'f', [place.volume.0, place.unit.into()]))?;
        Ok(())
    }

    /// The records whose erasing was noted and not finished.
    pub(crate) fn noted_free(&self) -> Result<Vec<(ClaimLeaf, Place)>, sled::Error> {
        self.state
            .scan_prefix(b"f")
            .map(|entry| {
                let (_, value) = entry?;
                let (key, value) = value.split_at_checked(ENTRY_BYTES).ok_or_else(corrupt)?;
                shard_entry(key, value).ok_or_else(corrupt)
            })
            .collect()
    }

    /// Returns once all of it is durable.
    pub(crate) fn flush(&self) -> Result<(), sled::Error> {
        self.db.flush().map(|_| ())
    }
}

/// Bytes that a folder takes on the disk, all below it included; 0 if it does not exist.
pub(crate) fn folder_bytes(folder: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        // Whatever was moved aside in the index's place.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(fs::metadata(folder)?.blocks() * 512),
        other => other?,
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry?;
        match entry.metadata() {
            // sled deletes files of its own while we look.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(metadata) if metadata.is_dir() => bytes += folder_bytes(&entry.path())?,
            Ok(metadata) => bytes += metadata.blocks() * 512,
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
