//! Giving space back: removed records become holes, empty volumes are deleted, and where no holes can be punched,
//! almost empty volumes are rewritten.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, PoisonError},
};

use commonhold_protocol::{ClaimLeaf, SegmentId, ShardIndex, VaultId};

use super::{
    ShardStore,
    aligned::AlignedReader,
    disk::{Punched, VolumeFile, VolumeNumber},
    error::StoreError,
    index::{Place, SealedState},
    record::{Header, UNIT_BYTES, VolumeBlock},
    space::{Phase, Region},
};

/// The most shards removed under one flush of the index: each is noted in it until its space is given back.
const REMOVED_AT_ONCE_MAX: usize = 256;
/// A volume is rewritten when less than one part in so many is left of it: copying costs at most a third of what it
/// gives back.
const SPARSE_DIVISOR: u32 = 4;

impl ShardStore {
    /// Removes a shard and gives its space back. Durable when it returns.
    pub fn remove(&self, segment: SegmentId, index: ShardIndex) -> Result<(), StoreError> {
        let leaf = ClaimLeaf { segment, index };
        if self.remove_all(&[leaf])? == 0 { Err(StoreError::NotHeld { leaf }) } else { Ok(()) }
    }

    /// Removes those of the shards that are held or quarantined; says how many. Cheaper than one by one: they share
    /// their syncs.
    pub fn remove_all(&self, leaves: &[ClaimLeaf]) -> Result<usize, StoreError> {
        let _housekeeping = self.housekeeping.lock().unwrap_or_else(PoisonError::into_inner);
        let mut removed = 0;
        for leaves in leaves.chunks(REMOVED_AT_ONCE_MAX) {
            let mut places = Vec::new();
            for leaf in leaves {
                places.extend(self.forget_shard(leaf)?);
            }
            removed += places.len();
            if !places.is_empty() {
                // Only when the index has durably forgotten a record may its bytes go: after a crash it would promise
                // what is no longer there.
                self.index.flush()?;
                self.erase(&places)?;
            }
        }
        self.seal_full()?;
        if !self.space().can_punch {
            self.rewrite_sparse()?;
        }
        Ok(removed)
    }

    /// Removes all shards of a vault, held or quarantined; says how many. One that is stored meanwhile may stay.
    pub fn remove_vault(&self, vault: &VaultId) -> Result<usize, StoreError> {
        let Some(number) = self.space().vaults.number(vault) else { return Ok(0) };
        let mut leaves = Vec::new();
        for entry in self.index.iter_after(None) {
            let (leaf, place) = entry?;
            // Once the last of its shards is gone, another vault may get its number.
            if place.vault == number && self.space().vaults.id(number) == Some(*vault) {
                leaves.push(leaf);
            }
        }
        self.remove_all(&leaves)
    }

    fn forget_shard(&self, leaf: &ClaimLeaf) -> Result<Option<Place>, StoreError> {
        let mut space = self.space();
        let Some(place) = self.index.get(leaf)? else { return Ok(None) };
        self.index.note_free(leaf, &place)?;
        self.index.remove(leaf)?;
        space.uncount(leaf, &place);
        space.vaults.subtract(place.vault, place.vault_units(), &self.index)?;
        if let Some(volume) = space.volumes.get_mut(&place.volume) {
            volume.busy += 1;
        }
        Ok(Some(place))
    }

    /// Erases records that the index noted as free, and their notes.
    pub(crate) fn erase(&self, places: &[Place]) -> Result<(), StoreError> {
        let mut by_volume: BTreeMap<VolumeNumber, Vec<&Place>> = BTreeMap::new();
        for place in places {
            by_volume.entry(place.volume).or_default().push(place);
        }
        for (volume, places) in by_volume {
            let erased = self.erase_in(volume, &places);
            let mut space = self.space();
            for (at, place) in places.iter().enumerate() {
                let region = Region { volume, unit: place.unit.into(), units: place.units.into() };
                space.settle(&region, erased.as_ref().is_ok_and(|(punched, _)| punched[at]));
                if erased.is_ok() {
                    self.index.forget_free(place)?;
                }
            }
            if let (Some(known), Ok((_, modified))) = (space.volumes.get(&volume), &erased)
                && known.phase == Phase::Sealed
            {
                self.index.set_volume(volume, Some(SealedState { records: known.records, modified: *modified }))?;
            }
            drop(space);
            erased?;
            self.delete_if_empty(volume)?;
        }
        Ok(())
    }

    /// Which of the records were punched, and when the volume was written to last; all are durably erased.
    fn erase_in(&self, volume: VolumeNumber, places: &[&Place]) -> Result<(Vec<bool>, u64), StoreError> {
        let Some(file) = self.own_file(volume)? else { return Ok((vec![false; places.len()], 0)) };
        let length = file.length().map_err(StoreError::volume("opening", volume))?;
        let mut punched = Vec::with_capacity(places.len());
        for place in places.iter() {
            let region = Region { volume, unit: place.unit.into(), units: place.units.into() };
            let offset = u64::from(region.unit) * UNIT_BYTES;
            let within = region.units > 0 && offset < length;
            if within {
                let zeros = [0; UNIT_BYTES as usize];
                file.write(offset, &zeros).map_err(StoreError::volume("erasing in", volume))?;
            }
            punched.push(within && self.punch(file.as_ref(), &region));
        }
        file.sync().map_err(StoreError::volume("syncing", volume))?;
        let modified = file.modified().map_err(StoreError::volume("erasing in", volume))?;
        Ok((punched, modified))
    }

    /// Gives the space of a region back, if the file system can.
    pub(crate) fn punch(&self, file: &dyn VolumeFile, region: &Region) -> bool {
        if region.units == 0 || !self.space().can_punch {
            return false;
        }
        match file.punch(u64::from(region.unit) * UNIT_BYTES, u64::from(region.units) * UNIT_BYTES) {
            Ok(Punched::Yes) => true,
            Ok(Punched::Unsupported) => {
                tracing::warn!("holes cannot be punched here; almost empty volumes are rewritten instead");
                self.space().can_punch = false;
                false
            }
            Err(error) => {
                tracing::warn!(volume = %region.volume, %error, "punching a hole");
                false
            }
        }
    }

    /// Seals the volumes that are full and at rest: they need no look at the next open.
    pub(crate) fn seal_full(&self) -> Result<(), StoreError> {
        let at_rest: Vec<VolumeNumber> = {
            let space = self.space();
            let full = space.volumes.iter().filter(|(_, volume)| volume.phase == Phase::Full && volume.busy == 0);
            full.map(|(number, _)| *number).collect()
        };
        for volume in at_rest {
            if self.delete_if_empty(volume)? {
                continue;
            }
            let Some(file) = self.own_file(volume)? else {
                self.lose_volume(volume)?;
                continue;
            };
            let (secret, network) = (self.label.secret.clone(), self.options.network.clone());
            let block = VolumeBlock { volume, sealed: true, secret, network };
            block.write(file.as_ref()).and_then(|()| file.sync()).map_err(StoreError::volume("sealing", volume))?;
            // A sealed volume is not looked through at open: its entries must be durable first.
            self.index.flush()?;
            if let Some(known) = self.space().volumes.get_mut(&volume)
                && known.phase == Phase::Full
            {
                let modified = file.modified().map_err(StoreError::volume("sealing", volume))?;
                self.index.set_volume(volume, Some(SealedState { records: known.records, modified }))?;
                known.phase = Phase::Sealed;
            }
        }
        Ok(())
    }

    /// Deletes a volume that takes no new records and has none.
    fn delete_if_empty(&self, volume: VolumeNumber) -> Result<bool, StoreError> {
        let mut space = self.space();
        let Some(known) = space.volumes.get(&volume) else { return Ok(false) };
        let closed = matches!(known.phase, Phase::Full | Phase::Sealed | Phase::Failed | Phase::Lost);
        if !closed || known.live > 0 || known.busy > 0 {
            return Ok(false);
        }
        self.files.forget(volume);
        // A lost volume's file, if there is one, is not ours.
        if known.phase != Phase::Lost {
            match self.disk.delete(volume) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::volume("deleting", volume)(error));
                }
                _ => {}
            }
        }
        space.volumes.remove(&volume);
        self.index.forget_volume(volume)?;
        Ok(true)
    }

    /// Where holes cannot be punched: copies what is left of volumes that are less than a quarter full, and deletes
    /// them.
    fn rewrite_sparse(&self) -> Result<(), StoreError> {
        let sparse: Vec<VolumeNumber> = {
            let space = self.space();
            let sparse = space.volumes.iter().filter(|(_, known)| {
                known.phase == Phase::Sealed && known.busy == 0 && known.live < known.units / SPARSE_DIVISOR
            });
            sparse.map(|(number, _)| *number).collect()
        };
        for volume in sparse {
            let mut left = Vec::new();
            for entry in self.index.iter_after(None) {
                let (leaf, place) = entry?;
                if place.volume == volume && !place.quarantined {
                    left.push((leaf, place));
                }
            }
            let moves = left.iter().map_while(|(leaf, place)| self.copy_record(leaf, place).transpose());
            let moves = moves.collect::<Result<Vec<_>, _>>()?;
            self.take_over(moves)?;
        }
        Ok(())
    }

    /// Copies a record to the active volume, not durably yet. None: there is no room, or it cannot be read.
    fn copy_record(&self, leaf: &ClaimLeaf, place: &Place) -> Result<Option<Move>, StoreError> {
        let Some(from) = self.own_file(place.volume)? else { return Ok(None) };
        let secret = &self.label.secret;
        let Ok(Some(header)) = Header::read(from.as_ref(), secret, place.volume, place.unit.into()) else {
            self.quarantine(leaf, place, "its header is not there")?;
            return Ok(None);
        };
        let (region, to) = match self.reserve_region(place.units.into()) {
            Err(StoreError::PledgeFull { .. } | StoreError::DiskFull { .. }) => return Ok(None),
            other => other?,
        };
        let copy = || -> io::Result<()> {
            let moved = Header { volume: region.volume, unit: region.unit, ..header.clone() };
            let end = header.offset() + u64::from(place.units) * UNIT_BYTES;
            let mut reader = AlignedReader::new(from.as_ref());
            let mut first = reader.first_of(header.offset()..header.offset() + UNIT_BYTES)?.to_vec();
            let mut at = header.offset() + UNIT_BYTES;
            while at < end {
                let piece = reader.first_of(at..end)?;
                to.write(moved.offset() + (at - header.offset()), piece)?;
                at += piece.len() as u64;
            }
            // Only what lies in the first unit depends on the place; with it the copy becomes a record.
            let moved_bytes = moved.to_bytes(secret);
            let in_first = moved_bytes.len().min(first.len());
            first[..in_first].copy_from_slice(&moved_bytes[..in_first]);
            to.write(moved.offset(), &first)
        };
        if let Err(error) = copy() {
            self.space().settle(&region, false);
            return Err(StoreError::volume("moving a record from", place.volume)(error));
        }
        Ok(Some(Move { leaf: *leaf, from: *place, region, to }))
    }

    /// Syncs the copies, lets the index lead to them, and erases the originals.
    fn take_over(&self, moves: Vec<Move>) -> Result<(), StoreError> {
        let mut synced = BTreeSet::new();
        let mut freed = Vec::new();
        for Move { leaf, from, region, to } in moves {
            let result = if synced.insert(region.volume) { to.sync() } else { Ok(()) };
            let mut space = self.space();
            space.settle(&region, false);
            result.map_err(StoreError::volume("syncing", region.volume))?;
            let copy = Place { volume: region.volume, unit: region.unit as u16, ..from };
            // Stored anew meanwhile, or quarantined: then the copy is what goes.
            let (stale, fresh) = if self.index.get(&leaf)? == Some(from) { (from, Some(copy)) } else { (copy, None) };
            self.index.note_free(&leaf, &stale)?;
            if let Some(fresh) = fresh {
                self.index.insert(&leaf, &fresh)?;
                space.uncount(&leaf, &from);
                space.count(&leaf, &fresh);
            }
            if let Some(volume) = space.volumes.get_mut(&stale.volume) {
                volume.busy += 1;
            }
            freed.push(stale);
        }
        // Until the new places are durable, the old ones must stay.
        self.index.flush()?;
        self.erase(&freed)
    }
}

/// A record that was copied.
struct Move {
    leaf: ClaimLeaf,
    from: Place,
    region: Region,
    to: Arc<dyn VolumeFile>,
}
