//! What happens at open: unfinished erasing is finished, volumes that may hold more than the index knows are looked
//! through, and everything is counted.
//!
//! An index that was kept is believed about sealed volumes and about what it has; a record that it lacks was never
//! acknowledged or its entry was not yet flushed, so it is read whole and believed only if it fits its root. Without an
//! index, the blocks of sealed volumes say that all in them is durable. `fsck` believes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use commonhold_protocol::ClaimLeaf;

use super::{
    disk::{Disk, Punched, VolumeFile, VolumeNumber},
    error::StoreError,
    index::{Index, Place, SealedState},
    read,
    record::{BLOCK_UNITS, Header, Secret, UNIT_BYTES, VOLUME_UNITS_MAX, VolumeBlock},
    space::{Phase, Space, Volume},
    vaults::Vaults,
};

/// What is believed without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The index, and that it is complete about sealed volumes.
    Index,
    /// The blocks of sealed volumes; the index starts empty.
    Blocks,
    /// Nothing; the index starts empty.
    Nothing,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Records entered into the index.
    pub(crate) entered: u64,
    /// Records that do not fit their root and were never acknowledged, or second copies: erased.
    pub(crate) erased: u64,
    /// Volumes that the index knows and that are gone or replaced.
    pub(crate) lost: Vec<VolumeNumber>,
    /// Bytes between records that were given back.
    pub(crate) punched_bytes: u64,
}

pub(crate) struct Recovery<'a> {
    disk: &'a dyn Disk,
    secret: &'a Secret,
    index: &'a Index,
    trust: Trust,
    space: Space,
    found: Found,
    /// Records that stay, in the volumes that were looked through.
    met: BTreeMap<VolumeNumber, u32>,
    /// Where the last record of each volume ends, as the index says.
    ends: BTreeMap<VolumeNumber, u32>,
}

/// What a look through a volume found.
struct Scan {
    /// The end of the last record.
    end: u32,
    /// Units that were given back.
    punched: u32,
    /// Some of it could not be read: there may be records that were not seen.
    unreadable: bool,
}

/// What reading a record's bytes says of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Intact,
    /// It does not fit its root.
    Torn,
    /// The disk did not say; perhaps it will another time.
    Unreadable,
}

fn judge(file: &dyn VolumeFile, header: &Header) -> Verdict {
    match read::verify(file, header) {
        Ok(true) => Verdict::Intact,
        Ok(false) => Verdict::Torn,
        Err(_) => Verdict::Unreadable,
    }
}

fn own(block: &VolumeBlock, volume: VolumeNumber, secret: &Secret) -> bool {
    block.volume == volume && block.secret == *secret
}

/// The file of a volume, unless it is gone or another volume's file was put in its place.
pub(crate) fn own_file(
    file: io::Result<Arc<dyn VolumeFile>>,
    volume: VolumeNumber,
    secret: &Secret,
) -> Result<Option<Arc<dyn VolumeFile>>, StoreError> {
    let file = match file {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(StoreError::volume("opening", volume))?,
    };
    let block = VolumeBlock::read(file.as_ref()).map_err(StoreError::volume("reading", volume))?;
    Ok(block.is_none_or(|block| own(&block, volume, secret)).then_some(file))
}

impl<'a> Recovery<'a> {
    pub(crate) fn new(
        disk: &'a dyn Disk,
        secret: &'a Secret,
        index: &'a Index,
        trust: Trust,
    ) -> Result<Self, StoreError> {
        let space = Space::new(Vaults::load(index)?);
        Ok(Self {
            disk,
            secret,
            index,
            trust,
            space,
            found: Found::default(),
            met: BTreeMap::new(),
            ends: BTreeMap::new(),
        })
    }

    pub(crate) fn run(mut self) -> Result<(Space, Found), StoreError> {
        self.finish_erasing()?;
        let known: BTreeMap<VolumeNumber, Option<SealedState>> = self.index.volumes()?.into_iter().collect();
        let present = self.disk.volumes().map_err(StoreError::volume("listing", VolumeNumber(0)))?;
        let last = known.keys().chain(&present).max();
        self.space.last_volume = last.copied().unwrap_or(VolumeNumber(0));
        for &volume in &present {
            self.look_at(volume, known.get(&volume).copied())?;
        }
        for &volume in known.keys().filter(|volume| !present.contains(volume)) {
            self.lose(volume, 0);
        }
        self.count()?;
        self.compare(&known)?;
        self.choose_active();
        self.space.vaults.forget_empty(self.index)?;
        Ok((self.space, self.found))
    }

    fn lose(&mut self, volume: VolumeNumber, units: u32) {
        tracing::error!(%volume, "a volume is gone, or another file is in its place");
        self.found.lost.push(volume);
        self.space.volumes.insert(volume, Volume::new(Phase::Lost, units, units));
    }

    /// Records whose erasing was noted: whatever of it was done, it is done again.
    pub(crate) fn finish_erasing(&mut self) -> Result<(), StoreError> {
        let noted = self.index.noted_free()?;
        for (leaf, place) in &noted {
            if self.index.get(leaf)?.is_some_and(|now| now.is_at(place)) {
                self.index.remove(leaf)?;
            }
            if let Some(file) = own_file(self.disk.open(place.volume), place.volume, self.secret)? {
                // Without its header it is erased already; were the header merely damaged, fsck punches the gap.
                if let Some(header) = self.header_of(file.as_ref(), leaf, place) {
                    self.erase(file.as_ref(), &header)?;
                }
            }
        }
        if !noted.is_empty() {
            // The units may be given to new records: the notes must be gone before that.
            self.index.flush()?;
            for (_, place) in &noted {
                self.index.forget_free(place)?;
            }
            self.index.flush()?;
        }
        Ok(())
    }

    fn erase(&mut self, file: &dyn VolumeFile, header: &Header) -> Result<(), StoreError> {
        file.write(header.offset(), &[0; UNIT_BYTES as usize])
            .and_then(|()| file.punch(header.offset(), u64::from(header.units()) * UNIT_BYTES))
            .and_then(|_| file.sync())
            .map_err(StoreError::volume("erasing in", header.volume))
    }

    fn look_at(&mut self, volume: VolumeNumber, in_index: Option<Option<SealedState>>) -> Result<(), StoreError> {
        let failed = |doing| StoreError::volume(doing, volume);
        let file = self.disk.open(volume).map_err(failed("opening"))?;
        let length = file.length().map_err(failed("opening"))?;
        let units = u32::try_from(length / UNIT_BYTES).unwrap_or(u32::MAX).min(VOLUME_UNITS_MAX);
        let block = VolumeBlock::read(file.as_ref()).map_err(failed("reading"))?;
        if block.as_ref().is_some_and(|block| !own(block, volume, self.secret)) {
            self.lose(volume, units);
            return Ok(());
        }
        let sealed = match self.trust {
            Trust::Index => matches!(in_index, Some(Some(_))),
            Trust::Blocks | Trust::Nothing => block.as_ref().is_some_and(|block| block.sealed),
        };
        let mut known = Volume::new(if sealed { Phase::Sealed } else { Phase::Full }, units, units);
        let before = file.disk_bytes().map_err(failed("reading"))?;
        if !(sealed && self.trust == Trust::Index) {
            let records_durable = sealed && self.trust == Trust::Blocks;
            let scan = self.scan(volume, file.as_ref(), units, records_durable)?;
            (known.next, known.punched) = (scan.end, scan.punched);
            if scan.unreadable {
                // Nothing is appended to it, cut off or punched: what was not seen may still be there.
                known.phase = Phase::Failed;
            } else if sealed {
                self.punch_gap(file.as_ref(), scan.end, units);
                known.next = units;
            }
            if scan.end == BLOCK_UNITS && !scan.unreadable && block.is_none() && in_index.is_none() {
                // We died while making it.
                self.disk.delete(volume).map_err(failed("deleting"))?;
                return Ok(());
            }
        }
        let after = file.disk_bytes().map_err(failed("reading"))?;
        self.found.punched_bytes += before.saturating_sub(after);
        if sealed {
            known.punched = units.saturating_sub(u32::try_from(after / UNIT_BYTES).unwrap_or(u32::MAX));
        }
        if !(sealed && self.trust == Trust::Index) {
            self.index.set_volume(volume, None)?;
        }
        self.space.volumes.insert(volume, known);
        Ok(())
    }

    /// Looks for records unit by unit, enters those that the index lacks and punches the gaps between them.
    fn scan(
        &mut self,
        volume: VolumeNumber,
        file: &dyn VolumeFile,
        units: u32,
        records_durable: bool,
    ) -> Result<Scan, StoreError> {
        let mut scan = Scan { end: BLOCK_UNITS, punched: 0, unreadable: false };
        let (mut unit, mut met) = (BLOCK_UNITS, 0);
        while unit < units {
            let header = Header::read(file, self.secret, volume, unit);
            scan.unreadable |= matches!(&header, Err(error) if error.kind() != io::ErrorKind::UnexpectedEof);
            let Some(header) = header.ok().flatten().filter(|header| header.units() <= units - unit) else {
                unit += 1;
                continue;
            };
            if self.meet(file, &header, records_durable)? {
                met += 1;
                if !scan.unreadable {
                    scan.punched += self.punch_gap(file, scan.end, unit);
                }
                scan.end = unit + header.units();
            }
            unit += header.units();
        }
        self.met.insert(volume, met);
        Ok(scan)
    }

    /// The units that were given back: all or none.
    fn punch_gap(&mut self, file: &dyn VolumeFile, from: u32, to: u32) -> u32 {
        if from == to || !self.space.can_punch {
            return 0;
        }
        match file.punch(u64::from(from) * UNIT_BYTES, u64::from(to - from) * UNIT_BYTES) {
            Ok(Punched::Yes) => to - from,
            Ok(Punched::Unsupported) => {
                self.space.can_punch = false;
                0
            }
            Err(error) => {
                tracing::warn!(%error, "punching a hole");
                0
            }
        }
    }

    /// A record was found; says whether it stays.
    fn meet(&mut self, file: &dyn VolumeFile, header: &Header, durable: bool) -> Result<bool, StoreError> {
        let known = self.index.get(&header.leaf)?;
        if let Some(known) = &known
            && (known.volume, u32::from(known.unit)) == (header.volume, header.unit)
        {
            return Ok(true);
        }
        let verdict = if durable { Verdict::Intact } else { judge(file, header) };
        if let Some(known) = known {
            // Two records of one shard: it was being moved, or stored anew after it was damaged.
            if verdict != Verdict::Intact || self.is_intact(&header.leaf, &known) {
                self.erase_copy(file, header)?;
                return Ok(false);
            }
            self.enter(header, false)?;
            let other = self.disk.open(known.volume).ok();
            let record = other.as_deref().map(|other| self.header_of(other, &header.leaf, &known));
            if let (Some(other), Some(Some(record))) = (&other, &record) {
                self.erase_copy(other.as_ref(), record)?;
            }
            return Ok(true);
        }
        if verdict == Verdict::Torn && self.trust == Trust::Index {
            self.erase_copy(file, header)?;
            return Ok(false);
        }
        self.enter(header, verdict != Verdict::Intact)?;
        Ok(true)
    }

    fn erase_copy(&mut self, file: &dyn VolumeFile, header: &Header) -> Result<(), StoreError> {
        self.found.erased += 1;
        self.erase(file, header)
    }

    fn is_intact(&self, leaf: &ClaimLeaf, place: &Place) -> bool {
        let Ok(file) = self.disk.open(place.volume) else { return false };
        let header = self.header_of(file.as_ref(), leaf, place);
        header.is_some_and(|header| judge(file.as_ref(), &header) == Verdict::Intact)
    }

    fn header_of(&self, file: &dyn VolumeFile, leaf: &ClaimLeaf, place: &Place) -> Option<Header> {
        let header = Header::read(file, self.secret, place.volume, place.unit.into()).ok()??;
        (header.leaf == *leaf).then_some(header)
    }

    fn enter(&mut self, header: &Header, quarantined: bool) -> Result<(), StoreError> {
        // Counted with all others later; here only the vault's number is wanted.
        let Some(vault) = self.space.vaults.add(&header.vault, 0, self.index)? else { return Ok(()) };
        let place =
            Place { volume: header.volume, unit: header.unit as u16, units: header.units() as u16, vault, quarantined };
        self.found.entered += 1;
        self.index.insert(&header.leaf, &place)?;
        Ok(())
    }

    /// The newest volume that has room goes on; the others give their tails back. The index knows of records whose
    /// headers cannot be read: they are neither overwritten nor cut off.
    fn choose_active(&mut self) {
        let mut open = self.space.volumes.iter_mut().rev().filter(|(_, volume)| volume.phase == Phase::Full);
        let next = |number: &VolumeNumber, volume: &Volume| {
            self.ends.get(number).map_or(volume.next, |end| volume.next.max(*end).min(volume.units))
        };
        if let Some((number, volume)) = open.next() {
            volume.next = next(number, volume);
            if volume.next < volume.units {
                volume.phase = Phase::Active;
            }
        }
        for (number, volume) in open {
            volume.next = next(number, volume);
            let cut = self.disk.open(*number).and_then(|file| file.truncate(u64::from(volume.next) * UNIT_BYTES));
            match cut {
                Ok(()) => volume.units = volume.next,
                Err(error) => tracing::warn!(volume = %number, %error, "giving the tail of a volume back"),
            }
        }
    }

    /// sled, damaged, can come up as it was some time ago and say nothing. Where the index and a volume do not agree,
    /// both are looked through: what the index lacks is entered, what the volume lacks is quarantined.
    fn compare(&mut self, known: &BTreeMap<VolumeNumber, Option<SealedState>>) -> Result<(), StoreError> {
        let mut sealed = BTreeMap::new();
        let mut differ = BTreeSet::new();
        let volumes: Vec<_> = self.space.volumes.iter().map(|(&number, volume)| (number, volume.clone())).collect();
        for (number, volume) in volumes.iter().filter(|(_, volume)| volume.phase != Phase::Lost) {
            let failed = || StoreError::volume("comparing", *number);
            let file = self.disk.open(*number).map_err(failed())?;
            if volume.phase == Phase::Sealed {
                let state = SealedState { records: volume.records, modified: file.modified().map_err(failed())? };
                if known.get(number) == Some(&Some(state)) {
                    continue;
                }
                let looked_through = match self.trust {
                    Trust::Index => !self.scan(*number, file.as_ref(), volume.units, false)?.unreadable,
                    Trust::Blocks | Trust::Nothing => true,
                };
                if looked_through {
                    sealed.insert(*number, file.clone());
                }
            }
            if self.met.get(number) != Some(&volume.records) {
                tracing::warn!(volume = %number, records = volume.records, "index and volume do not agree");
                differ.insert(*number);
            }
        }
        if !differ.is_empty() {
            self.quarantine_absent(&differ)?;
            self.count()?;
        }
        for (number, file) in sealed {
            let modified = file.modified().map_err(StoreError::volume("comparing", number))?;
            let records = self.space.volumes.get(&number).map_or(0, |volume| volume.records);
            self.index.set_volume(number, Some(SealedState { records, modified }))?;
        }
        Ok(())
    }

    /// Quarantines the shards whose headers are not where the index says, in these volumes.
    fn quarantine_absent(&mut self, volumes: &BTreeSet<VolumeNumber>) -> Result<(), StoreError> {
        let mut absent = Vec::new();
        for entry in self.index.iter_after(None) {
            let (leaf, place) = entry?;
            if !place.quarantined && volumes.contains(&place.volume) {
                let file = self.disk.open(place.volume).map_err(StoreError::volume("comparing", place.volume))?;
                if self.header_of(file.as_ref(), &leaf, &place).is_none() {
                    absent.push((leaf, Place { quarantined: true, ..place }));
                }
            }
        }
        for (leaf, place) in absent {
            self.index.insert(&leaf, &place)?;
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), StoreError> {
        self.space.reset();
        let mut lost = Vec::new();
        for entry in self.index.iter_after(None) {
            let (leaf, mut place) = entry?;
            if self.space.vaults.id(place.vault).is_none() {
                return Err(StoreError::Sled(sled::Error::Corruption { at: None, bt: () }));
            }
            let end = u32::from(place.unit) + u32::from(place.units);
            let known_end = self.ends.entry(place.volume).or_default();
            *known_end = end.max(*known_end);
            let volume = self.space.volumes.get(&place.volume);
            let there = volume.is_some_and(|volume| volume.phase != Phase::Lost && end <= volume.units);
            if !there && !place.quarantined {
                place.quarantined = true;
                lost.push((leaf, place));
            }
            self.space.count(&leaf, &place);
            self.space.vaults.count(place.vault, place.vault_units());
        }
        for (leaf, place) in lost {
            self.index.insert(&leaf, &place)?;
        }
        Ok(())
    }
}
