//! Where the next record goes, and what is counted: volumes, regions being written, vaults, shards. Kept in memory
//! only and counted anew at open, so it cannot drift.
//!
//! Reads and writes nothing; [`Vaults`] alone notes the numbers it gives in the index.

use std::collections::{BTreeMap, BTreeSet};

use commonhold_protocol::ClaimLeaf;

use super::{
    disk::VolumeNumber,
    index::Place,
    record::{BLOCK_UNITS, UNIT_BYTES, VOLUME_UNITS_MAX},
    vaults::Vaults,
};

/// A run of units of one volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) volume: VolumeNumber,
    pub(crate) unit: u32,
    pub(crate) units: u32,
}

impl Region {
    fn end(&self) -> u32 {
        self.unit + self.units
    }
}

/// Where a volume is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Takes new records. One volume at most.
    Active,
    /// Takes no new ones; some may still be being written.
    Full,
    /// All that it holds is durable, and its block says so.
    Sealed,
    /// A sync failed or the file was cut: what was not durable is lost, the rest is served.
    Failed,
    /// The file is gone.
    Lost,
}

/// One volume file, as counted.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub(crate) phase: Phase,
    /// Units of the file.
    pub(crate) units: u32,
    /// The first unit that was never given to a record.
    pub(crate) next: u32,
    /// Units of records in the index.
    pub(crate) live: u32,
    /// Records in the index.
    pub(crate) records: u32,
    /// Units given back to the file system.
    pub(crate) punched: u32,
    /// Regions being written or erased: while there are any, the volume is neither sealed nor deleted.
    pub(crate) busy: u32,
}

impl Volume {
    pub(crate) fn new(phase: Phase, units: u32, next: u32) -> Self {
        Self { phase, units, next, live: 0, records: 0, punched: 0, busy: 0 }
    }

    /// Units that it takes on the disk.
    pub(crate) fn disk_units(&self) -> u32 {
        self.units.saturating_sub(self.punched)
    }
}

/// How large a new volume is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VolumeSize {
    pub(crate) units: u32,
    /// Rather than make a smaller one than this, the pledge counts as full: thousands of tiny files would be a
    /// burden too.
    pub(crate) units_min: u32,
}

impl VolumeSize {
    /// Small pledges have small volumes, so that several fit; each has room for one record of `record_units` at least.
    pub(crate) fn choose(pledge_bytes: u64, record_units: u32) -> Self {
        const UNITS_MIN: u32 = 64;
        let share = u32::try_from(pledge_bytes / 16 / UNIT_BYTES).unwrap_or(u32::MAX);
        let target = share.clamp(UNITS_MIN, VOLUME_UNITS_MAX);
        let needed = record_units + BLOCK_UNITS;
        Self { units: target.max(needed), units_min: (target / 16).max(needed) }
    }

    /// What fits into the bytes that are left, if that is enough.
    pub(crate) fn within(self, left_bytes: u64) -> Option<u32> {
        let left = u32::try_from(left_bytes / UNIT_BYTES).unwrap_or(u32::MAX);
        let units = self.units.min(left);
        (units >= self.units_min).then_some(units)
    }
}

/// Everything that is counted.
pub(crate) struct Space {
    pub(crate) volumes: BTreeMap<VolumeNumber, Volume>,
    pub(crate) vaults: Vaults,
    /// Shards being written.
    pub(crate) in_flight: BTreeSet<ClaimLeaf>,
    /// Shards held, without those in quarantine.
    pub(crate) shards: u64,
    pub(crate) quarantined: BTreeSet<ClaimLeaf>,
    /// The highest number that was ever seen.
    pub(crate) last_volume: VolumeNumber,
    /// Until the file system says that it cannot.
    pub(crate) can_punch: bool,
    pub(crate) stopping: bool,
}

impl Space {
    pub(crate) fn new(vaults: Vaults) -> Self {
        Self {
            volumes: BTreeMap::new(),
            vaults,
            in_flight: BTreeSet::new(),
            shards: 0,
            quarantined: BTreeSet::new(),
            last_volume: VolumeNumber(0),
            can_punch: true,
            stopping: false,
        }
    }

    /// Bytes of all volumes on the disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.volumes.values().map(|volume| u64::from(volume.disk_units()) * UNIT_BYTES).sum()
    }

    /// Bytes of all records.
    pub(crate) fn record_bytes(&self) -> u64 {
        self.volumes.values().map(|volume| u64::from(volume.live) * UNIT_BYTES).sum()
    }

    pub(crate) fn active(&mut self) -> Option<(VolumeNumber, &mut Volume)> {
        let mut newest_first = self.volumes.iter_mut().rev();
        newest_first.find(|(_, volume)| volume.phase == Phase::Active).map(|(number, volume)| (*number, volume))
    }

    /// Units that the active volume has left.
    pub(crate) fn active_units_left(&self) -> u32 {
        let active = self.volumes.values().rev().find(|volume| volume.phase == Phase::Active);
        active.map_or(0, |volume| volume.units - volume.next)
    }

    /// Gives out the next units of the active volume, if it has as many.
    pub(crate) fn reserve(&mut self, units: u32) -> Option<Region> {
        let (volume, active) = self.active()?;
        if active.units - active.next < units {
            return None;
        }
        let region = Region { volume, unit: active.next, units };
        active.next += units;
        active.busy += 1;
        Some(region)
    }

    /// Whether no region was given out after this one, in a volume that is still written to.
    pub(crate) fn is_last(&self, region: &Region) -> bool {
        let volume = self.volumes.get(&region.volume);
        volume.is_some_and(|volume| volume.phase == Phase::Active && volume.next == region.end())
    }

    /// Takes back the region that was given out last; false if others follow it, or the volume is closed.
    pub(crate) fn give_back(&mut self, region: &Region) -> bool {
        let is_last = self.is_last(region);
        if let Some(volume) = self.volumes.get_mut(&region.volume).filter(|_| is_last) {
            volume.next = region.unit;
            volume.busy -= 1;
        }
        is_last
    }

    /// A region is neither written nor erased any more; `punched` if its space was given back.
    pub(crate) fn settle(&mut self, region: &Region, punched: bool) {
        if let Some(volume) = self.volumes.get_mut(&region.volume) {
            volume.busy = volume.busy.saturating_sub(1);
            if punched {
                volume.punched = (volume.punched + region.units).min(volume.units);
            }
        }
    }

    /// Counts nothing any more.
    pub(crate) fn reset(&mut self) {
        self.shards = 0;
        self.quarantined.clear();
        self.vaults.reset();
        for volume in self.volumes.values_mut() {
            (volume.live, volume.records) = (0, 0);
        }
    }

    /// Counts a record of the index.
    pub(crate) fn count(&mut self, leaf: &ClaimLeaf, place: &Place) {
        if let Some(volume) = self.volumes.get_mut(&place.volume) {
            volume.live += u32::from(place.units);
            volume.records += u32::from(place.units > 0);
        }
        if place.quarantined {
            self.quarantined.insert(*leaf);
        } else {
            self.shards += 1;
        }
    }

    /// Counts a record of the index no longer. Its vault is the caller's to subtract.
    pub(crate) fn uncount(&mut self, leaf: &ClaimLeaf, place: &Place) {
        if let Some(volume) = self.volumes.get_mut(&place.volume) {
            volume.live = volume.live.saturating_sub(place.units.into());
            volume.records = volume.records.saturating_sub((place.units > 0).into());
        }
        if place.quarantined {
            self.quarantined.remove(leaf);
        } else {
            self.shards = self.shards.saturating_sub(1);
        }
    }
}
