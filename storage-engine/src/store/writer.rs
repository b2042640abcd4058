//! Writing one shard into its region: whole units as they fill, and last the first one, whose header makes it a record.

use std::sync::Arc;

use commonhold_protocol::{ClaimLeaf, Manifest, ShardIndex, Verified};

use super::{
    ShardStore,
    aligned::{AlignedBuffer, PIECE_BYTES},
    disk::{VolumeFile, VolumeNumber},
    error::StoreError,
    index::{Place, VaultNumber},
    record::{Header, UNIT_BYTES},
    space::{Phase, Region, Volume},
};
use crate::prove::RootBuilder;

/// A region that was given out; given back when dropped, unless its record was committed.
pub(crate) struct Reservation {
    pub(crate) store: Arc<ShardStore>,
    pub(crate) leaf: ClaimLeaf,
    pub(crate) vault: VaultNumber,
    pub(crate) region: Region,
    pub(crate) file: Arc<dyn VolumeFile>,
    /// Something was written there.
    written: bool,
    header_written: bool,
    pub(crate) committed: bool,
}

impl Reservation {
    /// Where the record is, once it is one.
    pub(crate) fn place(&self) -> Place {
        Place {
            volume: self.region.volume,
            // A volume has at most 2^16 units, so both fit.
            unit: self.region.unit as u16,
            units: self.region.units as u16,
            vault: self.vault,
            quarantined: false,
        }
    }

    fn give_back(&mut self) {
        let offset = u64::from(self.region.unit) * UNIT_BYTES;
        if self.header_written
            && let Err(error) = self.file.write(offset, &[0; UNIT_BYTES as usize])
        {
            // Should it turn up again after a crash, it is a whole shard that fits its root, or it is erased then.
            tracing::warn!(volume = %self.region.volume, %error, "a record that was given up could not be erased");
        }
        // Before another can write there. What of it was written would else stay on the disk until one does.
        if self.written
            && self.store.space().is_last(&self.region)
            && let Err(error) = self.file.clear(offset, u64::from(self.region.units) * UNIT_BYTES)
        {
            tracing::warn!(volume = %self.region.volume, %error, "what was written of a shard that was given up could not be cleared");
        }
        let given_back = self.store.space().give_back(&self.region);
        let punched = !given_back && self.store.punch(self.file.as_ref(), &self.region);
        let mut space = self.store.space();
        if !given_back {
            space.settle(&self.region, punched);
        }
        space.in_flight.remove(&self.leaf);
        if let Err(error) = space.vaults.subtract(self.vault, self.region.units.into(), &self.store.index) {
            tracing::error!(%error, "the index failed");
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.committed {
            self.give_back();
        }
    }
}

/// A shard that is being written. Dropping it gives its space back.
pub struct ShardWriter {
    reservation: Reservation,
    header: Header,
    builder: RootBuilder,
    /// The record's first unit, which stays until the end, and then the bytes that wait to be written.
    buffer: AlignedBuffer,
    /// Where in the record those that wait begin: a multiple of a unit.
    waiting_at: u64,
}

impl std::fmt::Debug for ShardWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardWriter").field("leaf", &self.header.leaf).finish_non_exhaustive()
    }
}

/// A shard that is written and fits its root, but is not durable yet: hand it to [`ShardStore::commit`]. Dropping it
/// gives its space back.
pub struct WrittenShard {
    pub(crate) reservation: Reservation,
}

impl std::fmt::Debug for WrittenShard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WrittenShard").field("leaf", &self.reservation.leaf).finish_non_exhaustive()
    }
}

impl ShardStore {
    /// Reserves space for a shard: against the pledge, the floor of free space and the vault's limit.
    pub fn begin(
        self: &Arc<Self>,
        manifest: &Verified<Manifest>,
        index: ShardIndex,
    ) -> Result<ShardWriter, StoreError> {
        let root = *manifest.root(index).ok_or(StoreError::Index { index, shards: manifest.coding.n() })?;
        let mut header = Header {
            volume: VolumeNumber(0),
            unit: 0,
            leaf: ClaimLeaf { segment: manifest.id(), index },
            vault: manifest.vault,
            root,
            shard_length: manifest.shard_length(),
            manifest: manifest.to_bytes(),
        };
        let (region, vault, file) = self.reserve(&header.leaf, &header.vault, header.units())?;
        header.volume = region.volume;
        header.unit = region.unit;
        let reservation = Reservation {
            store: self.clone(),
            leaf: header.leaf,
            vault,
            region,
            file,
            written: false,
            header_written: false,
            committed: false,
        };
        let buffer = AlignedBuffer::with_capacity(buffer_units(header.units()) * UNIT_BYTES as usize);
        let mut writer =
            ShardWriter { reservation, header, builder: RootBuilder::new(), buffer, waiting_at: UNIT_BYTES };
        // All that the header says is known by now. It may be longer than a unit.
        let mut bytes = writer.header.to_bytes(&self.label.secret);
        bytes.resize(writer.header.data_offset() as usize, 0);
        writer.append(&bytes)?;
        Ok(writer)
    }
}

/// Units of a writer's memory: the record's first unit, and its others in as few pieces of equal size as may be, so that
/// none is too short to be written directly.
fn buffer_units(record_units: u32) -> usize {
    let others = record_units as usize - 1;
    let pieces = others.div_ceil(PIECE_BYTES / UNIT_BYTES as usize).max(1);
    1 + others.div_ceil(pieces)
}

impl ShardWriter {
    /// The shard's next bytes.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        let shard_length = self.header.shard_length;
        let written = self.builder.length();
        let bytes = written + piece.len() as u64;
        if bytes > shard_length {
            return Err(StoreError::Length { bytes, shard_length });
        }
        self.append(piece)?;
        self.builder.update(piece);
        Ok(())
    }

    /// Compares the root and writes what is left; the header last.
    pub fn finish(mut self) -> Result<WrittenShard, StoreError> {
        let shard_length = self.header.shard_length;
        let bytes = self.builder.length();
        if bytes != shard_length {
            return Err(StoreError::Length { bytes, shard_length });
        }
        let (found, outboard) = std::mem::take(&mut self.builder).finish();
        if found != self.header.root {
            return Err(StoreError::Root { expected: self.header.root, found });
        }
        self.append(outboard.as_bytes())?;
        self.buffer.set_length(self.buffer.as_slice().len().next_multiple_of(UNIT_BYTES as usize));
        self.write_waiting()?;
        self.reservation.header_written = true;
        self.put(0, self.buffer.as_slice())?;
        Ok(WrittenShard { reservation: self.reservation })
    }

    /// The record's next bytes.
    fn append(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        loop {
            bytes = self.buffer.fill(bytes);
            if bytes.is_empty() {
                return Ok(());
            }
            self.write_waiting()?;
        }
    }

    /// Writes all but the first unit, and keeps that alone.
    fn write_waiting(&mut self) -> Result<(), StoreError> {
        self.reservation.written = true;
        let (_, waiting) = self.buffer.as_slice().split_at(UNIT_BYTES as usize);
        let length = waiting.len() as u64;
        if length > 0 {
            self.put(self.waiting_at, waiting)?;
        }
        self.waiting_at += length;
        self.buffer.set_length(UNIT_BYTES as usize);
        Ok(())
    }

    /// Writes at an offset from the record's begin.
    fn put(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let Reservation { store, file, region, .. } = &self.reservation;
        let failed = |volume: &Volume| matches!(volume.phase, Phase::Failed | Phase::Lost);
        let failed = store.space().volumes.get(&region.volume).is_none_or(failed);
        if failed {
            return Err(StoreError::VolumeFailed { volume: region.volume });
        }
        file.write(self.header.offset() + offset, bytes).map_err(StoreError::volume("writing", region.volume))
    }
}
