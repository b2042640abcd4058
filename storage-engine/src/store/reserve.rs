//! Admission: a region for each record that is to be written, against the pledge, the floor of free space, the vault's
//! limit and the number of writers. Makes and closes volumes.

use std::sync::{Arc, atomic::Ordering};

use commonhold_protocol::{ClaimLeaf, VaultId};

use super::{
    ShardStore,
    disk::{VolumeFile, VolumeNumber, is_full},
    error::StoreError,
    index::{VOLUME_NUMBER_MAX, VaultNumber},
    record::{BLOCK_UNITS, UNIT_BYTES, VolumeBlock},
    space::{Phase, Region, Space, Volume, VolumeSize},
};

/// Shards being written at once: each holds its region until it is finished or dropped.
const WRITERS_MAX: usize = 1024;
/// The index grows in steps: two log segments of sled.
const INDEX_STEP_BYTES: u64 = 1 << 20;
/// Room kept for the index per byte of a new volume: 1/32, that is 256 bytes for each record of the smallest size
/// (8 KiB). Measured: 195 bytes per shard, with what sled has not cleaned up yet.
const INDEX_SHARE: u64 = 32;

/// With less than this free on the file system nothing new is taken, even into space that is reserved already: an index
/// that cannot be written for want of space fails until the store is opened again.
const INDEX_FLOOR_BYTES: u64 = 4 << 20;

impl ShardStore {
    /// Space for a shard's record.
    pub(crate) fn reserve(
        &self,
        leaf: &ClaimLeaf,
        vault: &VaultId,
        units: u32,
    ) -> Result<(Region, VaultNumber, Arc<dyn VolumeFile>), StoreError> {
        let mut space = self.space();
        if space.stopping {
            return Err(StoreError::Stopping);
        }
        if space.in_flight.contains(leaf) {
            return Err(StoreError::BeingWritten { leaf: *leaf });
        }
        // A damaged one may be stored anew.
        if self.holds(leaf)? {
            return Err(StoreError::AlreadyHeld { leaf: *leaf });
        }
        if space.in_flight.len() >= WRITERS_MAX {
            return Err(StoreError::Busy { writers_max: WRITERS_MAX });
        }
        let vault_bytes_max = self.options.vault_bytes_max;
        if (space.vaults.units(vault) + u64::from(units)) * UNIT_BYTES > vault_bytes_max {
            return Err(StoreError::VaultLimit { vault: *vault, vault_bytes_max });
        }
        let (region, file) = self.reserve_units(&mut space, units)?;
        let number = match space.vaults.add(vault, units.into(), &self.index) {
            Ok(Some(number)) => number,
            other => {
                space.give_back(&region);
                other?;
                return Err(StoreError::VaultLimit { vault: *vault, vault_bytes_max });
            }
        };
        space.in_flight.insert(*leaf);
        Ok((region, number, file))
    }

    /// Space for a record that is being moved; its vault is counted already.
    pub(crate) fn reserve_region(&self, units: u32) -> Result<(Region, Arc<dyn VolumeFile>), StoreError> {
        self.reserve_units(&mut self.space(), units)
    }

    fn reserve_units(&self, space: &mut Space, units: u32) -> Result<(Region, Arc<dyn VolumeFile>), StoreError> {
        let free = self.disk.free_bytes().map_err(StoreError::volume("asking for free space of", space.last_volume))?;
        if free < INDEX_FLOOR_BYTES {
            return Err(self.disk_full(units));
        }
        if space.active_units_left() < units {
            self.add_volume(space, units, free)?;
        }
        let region = space.reserve(units).ok_or_else(|| self.pledge_full(units))?;
        match self.files.get(region.volume) {
            Ok(file) => Ok((region, file)),
            Err(error) => {
                space.give_back(&region);
                // The file is gone: what it held is found lost when it is read; new records go elsewhere at once.
                if let Some(volume) = space.volumes.get_mut(&region.volume)
                    && error.kind() == std::io::ErrorKind::NotFound
                {
                    volume.phase = Phase::Lost;
                    volume.punched = volume.units;
                }
                Err(StoreError::volume("opening", region.volume)(error))
            }
        }
    }

    fn pledge_full(&self, units: u32) -> StoreError {
        let needed_bytes = u64::from(units) * UNIT_BYTES;
        StoreError::PledgeFull { needed_bytes, pledge_bytes: self.options.pledge_bytes }
    }

    fn disk_full(&self, units: u32) -> StoreError {
        let keep_free_bytes = self.options.keep_free_bytes.max(INDEX_FLOOR_BYTES);
        StoreError::DiskFull { needed_bytes: u64::from(units) * UNIT_BYTES, keep_free_bytes }
    }

    /// Of so many free bytes on the file system, those that volumes may take.
    fn above_floor(&self, free_bytes: u64) -> u64 {
        let floor = self.options.keep_free_bytes.max(INDEX_FLOOR_BYTES);
        Self::without_index_growth(free_bytes.saturating_sub(floor))
    }

    /// Bytes of the pledge that are left for volumes, beyond those that exist.
    fn pledge_left(&self, space: &Space) -> u64 {
        let others = self.index_bytes.load(Ordering::Relaxed) + self.options.other_bytes.load(Ordering::Relaxed);
        self.options.pledge_bytes.saturating_sub(space.disk_bytes().saturating_add(others))
    }

    /// What of these bytes a volume may take, so that the index has room to grow along.
    fn without_index_growth(bytes: u64) -> u64 {
        bytes.saturating_sub(INDEX_STEP_BYTES) / (INDEX_SHARE + 1) * INDEX_SHARE
    }

    /// Closes the active volume and makes a new one with room for `units`, if the limits allow it.
    fn add_volume(&self, space: &mut Space, units: u32, free: u64) -> Result<(), StoreError> {
        self.measure_index()?;
        let size = VolumeSize::choose(self.options.pledge_bytes, units);
        // The tail of the active volume is given back when it is closed.
        let tail = u64::from(space.active_units_left()) * UNIT_BYTES;
        let pledged = Self::without_index_growth(self.pledge_left(space) + tail);
        if size.within(pledged).is_none() || space.last_volume.0 >= VOLUME_NUMBER_MAX {
            return Err(self.pledge_full(units));
        }
        let free = self.above_floor(free + tail);
        let volume_units = size.within(pledged.min(free)).ok_or_else(|| self.disk_full(units))?;
        self.close_active(space)?;
        let number = VolumeNumber(space.last_volume.0 + 1);
        space.last_volume = number;
        let created = self.disk.create(number, u64::from(volume_units) * UNIT_BYTES).and_then(|file| {
            let (secret, network) = (self.label.secret.clone(), self.options.network.clone());
            let block = VolumeBlock { volume: number, sealed: false, secret, network };
            // A volume that cannot take its block is none; the write's error matters more than the deletion's.
            block.write(file.as_ref()).inspect_err(|_| drop(self.disk.delete(number)))?;
            Ok(file)
        });
        let file = match created {
            Ok(file) => file,
            Err(error) if is_full(&error) => return Err(self.disk_full(units)),
            Err(error) => return Err(StoreError::volume("making", number)(error)),
        };
        self.index.set_volume(number, None)?;
        self.files.keep(number, &file);
        space.volumes.insert(number, Volume::new(Phase::Active, volume_units, BLOCK_UNITS));
        Ok(())
    }

    fn close_active(&self, space: &mut Space) -> Result<(), StoreError> {
        let Some((number, volume)) = space.active() else { return Ok(()) };
        let Some(file) = self.own_file(number)? else {
            volume.phase = Phase::Lost;
            volume.punched = volume.units;
            return Ok(());
        };
        file.truncate(u64::from(volume.next) * UNIT_BYTES).map_err(StoreError::volume("closing", number))?;
        volume.units = volume.next;
        volume.phase = Phase::Full;
        Ok(())
    }

    /// Closes the newest volume, which gives the unused part of it back; the next shard begins another.
    pub fn close_volume(&self) -> Result<(), StoreError> {
        let _housekeeping = self.housekeeping.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.close_active(&mut self.space())?;
        self.seal_full()
    }

    /// Bytes of shards that could still be stored, by pledge and disk: what is reserved already and what could be.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        let space = self.space();
        let tail = u64::from(space.active_units_left()) * UNIT_BYTES;
        let free = self.disk.free_bytes().map_err(StoreError::volume("asking for free space of", space.last_volume))?;
        Ok(tail + Self::without_index_growth(self.pledge_left(&space)).min(self.above_floor(free)))
    }
}
