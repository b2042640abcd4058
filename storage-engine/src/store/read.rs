//! Reading: nothing leaves the store that does not fit its root, and what does not fit is quarantined.

use std::{io, sync::Arc};

use commonhold_protocol::{
    ClaimLeaf, Manifest, SegmentId, ShardIndex, Unverified,
    shard_stream::{GroupRange, READ_RANGES_MAX},
};

use super::{
    ShardStore,
    aligned::AlignedReader,
    disk::{DIRECT_BYTES_MIN, VolumeFile, VolumeNumber},
    error::StoreError,
    index::Place,
    record::{Header, VolumeBlock},
    space::Phase,
};
use crate::prove::{self, Outboard, ProveError, RootBuilder};

/// Chunk groups of a shard, with their proof.
#[derive(Debug)]
pub struct RangeRead {
    /// The Bao response.
    pub encoded: Vec<u8>,
    /// The segment's manifest, as it came with the shard.
    pub manifest: Unverified<Manifest>,
}

/// Why a record could not be read.
enum Fault {
    /// It is not what was written.
    Damaged(&'static str),
    /// The volume's file is gone, or is another volume's.
    VolumeLost,
    /// Something that may work the next time.
    Passing(StoreError),
}

/// Whether an error says that we are short of something, rather than that the disk lost bytes.
fn is_passing(error: &io::Error) -> bool {
    const SHORTAGES: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EAGAIN];
    error.raw_os_error().is_some_and(|code| SHORTAGES.contains(&code)) || error.kind() == io::ErrorKind::Interrupted
}

fn fault(volume: VolumeNumber) -> impl Fn(io::Error) -> Fault {
    move |error| match is_passing(&error) {
        true => Fault::Passing(StoreError::volume("reading", volume)(error)),
        false => Fault::Damaged("the disk cannot read it"),
    }
}

/// Whether a record's shard and outboard fit its root. Errors are the disk's.
pub(crate) fn verify(file: &dyn VolumeFile, header: &Header) -> io::Result<bool> {
    let mut builder = RootBuilder::new();
    let mut reader = AlignedReader::new(file);
    let (data, end) = (header.offset() + header.data_offset(), header.offset() + header.outboard_offset());
    while data + builder.length() < end {
        builder.update(reader.first_of(data + builder.length()..end)?);
    }
    let (root, outboard) = builder.finish();
    let mut kept = vec![0; outboard.as_bytes().len()];
    file.read(header.offset() + header.outboard_offset(), &mut kept)?;
    Ok(root == header.root && kept == outboard.as_bytes())
}

/// What reads a shard's groups for a proof of `ranges`: a long run in few pieces, a short one group by group.
fn group_reader<'a>(
    file: &'a dyn VolumeFile,
    header: &Header,
    ranges: &'a [GroupRange],
) -> impl FnMut(u64, &mut [u8]) -> io::Result<()> + 'a {
    let start = header.offset() + header.data_offset();
    let mut runs = ranges.iter().map({
        let shard_length = header.shard_length;
        move |range| range.bytes(shard_length)
    });
    let mut run = 0..0;
    let mut reader = AlignedReader::new(file);
    move |offset, mut group| {
        // Groups are asked for in order, and each lies in one of the runs.
        while run.end <= offset
            && let Some(next) = runs.next()
        {
            run = next;
        }
        if run.end - run.start < DIRECT_BYTES_MIN as u64 {
            return file.read(start + offset, group);
        }
        let mut at = start + offset;
        while !group.is_empty() {
            let bytes = reader.first_of(at..start + run.end)?;
            let (now, rest) = group.split_at_mut(bytes.len().min(group.len()));
            now.copy_from_slice(&bytes[..now.len()]);
            at += now.len() as u64;
            group = rest;
        }
        Ok(())
    }
}

impl ShardStore {
    /// Reads chunk groups of a shard (1 to [`READ_RANGES_MAX`] runs, ascending and apart) with their proof. A shard that
    /// turns out to be damaged is quarantined.
    pub fn read(&self, segment: SegmentId, index: ShardIndex, ranges: &[GroupRange]) -> Result<RangeRead, StoreError> {
        if ranges.len() > READ_RANGES_MAX {
            return Err(StoreError::Ranges);
        }
        self.with_record(ClaimLeaf { segment, index }, |file, header| {
            let mut outboard = vec![0; Outboard::length_for(header.shard_length)];
            let failed = fault(header.volume);
            file.read(header.offset() + header.outboard_offset(), &mut outboard).map_err(&failed)?;
            let encoded = prove::encode_ranges(
                group_reader(file, header, ranges),
                &outboard,
                &header.root,
                header.shard_length,
                ranges,
            );
            let encoded = encoded.map_err(|error| match error {
                ProveError::Ranges { .. } => Fault::Passing(StoreError::Ranges),
                ProveError::Read(error) => failed(error),
                _ => Fault::Damaged("its bytes do not fit its root"),
            })?;
            let manifest = Unverified::from_bytes(header.manifest.clone());
            Ok(RangeRead { encoded, manifest: manifest.map_err(|_| Fault::Damaged("its manifest is unreadable"))? })
        })
    }

    /// Reads a whole shard and its outboard and compares them with the root: one step of a scrub. A damaged one is
    /// quarantined.
    pub fn verify(&self, segment: SegmentId, index: ShardIndex) -> Result<(), StoreError> {
        self.with_record(ClaimLeaf { segment, index }, |file, header| match verify(file, header) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Fault::Damaged("its bytes do not fit its root")),
            Err(error) => Err(fault(header.volume)(error)),
        })
    }

    /// The manifest that came with a shard.
    pub fn manifest(&self, segment: SegmentId, index: ShardIndex) -> Result<Unverified<Manifest>, StoreError> {
        self.with_record(ClaimLeaf { segment, index }, |_, header| {
            let manifest = Unverified::from_bytes(header.manifest.clone());
            manifest.map_err(|_| Fault::Damaged("its manifest is unreadable"))
        })
    }

    fn with_record<T>(
        &self,
        leaf: ClaimLeaf,
        read: impl Fn(&dyn VolumeFile, &Header) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        loop {
            let place = self.index.get(&leaf)?.ok_or(StoreError::NotHeld { leaf })?;
            if place.quarantined {
                return Err(StoreError::Damaged { leaf });
            }
            let fault = match self.open_record(&leaf, &place).and_then(|(file, header)| read(file.as_ref(), &header)) {
                Ok(value) => return Ok(value),
                Err(fault) => fault,
            };
            // It may have been removed or moved while we read: then the fault is none, and the next look says so.
            let now = self.index.get(&leaf)?;
            if now.is_none_or(|now| !now.is_at(&place)) {
                continue;
            }
            match fault {
                Fault::Passing(error) => return Err(error),
                Fault::Damaged(reason) => self.quarantine(&leaf, &place, reason)?,
                Fault::VolumeLost => self.lose_volume(place.volume)?,
            }
        }
    }

    fn open_record(&self, leaf: &ClaimLeaf, place: &Place) -> Result<(Arc<dyn VolumeFile>, Header), Fault> {
        let volume = place.volume;
        let file = match self.files.get(volume) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Fault::VolumeLost),
            // The file is there but cannot be opened: nothing is known about its bytes.
            Err(error) => return Err(Fault::Passing(StoreError::volume("opening", volume)(error))),
        };
        let header = Header::read(file.as_ref(), &self.label.secret, volume, place.unit.into());
        match header.map_err(fault(volume))? {
            Some(header) if header.leaf == *leaf && header.units() == u32::from(place.units) => Ok((file, header)),
            _ => match VolumeBlock::read(file.as_ref()) {
                Ok(Some(block)) if block.volume != volume || block.secret != self.label.secret => {
                    Err(Fault::VolumeLost)
                }
                _ => Err(Fault::Damaged("its header is not there")),
            },
        }
    }

    /// Keeps a shard from being served and counted as held, until it is stored anew or removed.
    pub(crate) fn quarantine(&self, leaf: &ClaimLeaf, place: &Place, reason: &str) -> Result<(), StoreError> {
        let mut space = self.space();
        if self.index.get(leaf)?.is_none_or(|now| !now.is_at(place) || now.quarantined) {
            return Ok(());
        }
        let flagged = Place { quarantined: true, ..*place };
        self.index.insert(leaf, &flagged)?;
        space.uncount(leaf, place);
        space.count(leaf, &flagged);
        tracing::warn!(segment = %leaf.segment, index = %leaf.index, volume = %place.volume, reason, "shard quarantined");
        Ok(())
    }

    /// The file of a volume is gone: so are all its shards.
    pub(crate) fn lose_volume(&self, volume: VolumeNumber) -> Result<(), StoreError> {
        self.files.forget(volume);
        self.lose_from(volume, 0)
    }

    /// Quarantines all shards of a volume that reach beyond its first `units` units.
    pub(crate) fn lose_from(&self, volume: VolumeNumber, units: u32) -> Result<(), StoreError> {
        tracing::error!(%volume, units, "a volume is cut or gone; its shards are quarantined");
        if let Some(known) = self.space().volumes.get_mut(&volume) {
            known.phase = if units == 0 { Phase::Lost } else { Phase::Failed };
            known.punched = known.punched.max(known.units.saturating_sub(units));
        }
        for entry in self.index.iter_after(None) {
            let (leaf, place) = entry?;
            if place.volume == volume && u32::from(place.unit) + u32::from(place.units) > units {
                self.quarantine(&leaf, &place, "its volume is cut or gone")?;
            }
        }
        Ok(())
    }
}
