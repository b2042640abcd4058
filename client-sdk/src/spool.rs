//! The segments of a put that are under way, on disk, so that a put that was killed goes on with them.
//!
//! Before the first shard of a segment leaves, the segment (sealed as it is) is written to a slot, and before a shard
//! is sent to a node, the slot says so. Whoever finds the slot sends the same shards to the same nodes, and those that
//! have theirs answer with a claim at once; if nobody wants the segment any more, all of them are told to drop it.
//!
//! A slot is a file that one segment after another overwrites in place: fresh pages would cost more than the copying.
//! Nothing is synced but that a segment was given up. After a power cut a slot may hold anything: its description is sealed, its bytes are compared
//! with the signed roots, and that its segment is not in the vault after all is for the reader to make sure.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, IoSlice, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use commonhold_protocol::{Manifest, NetworkName, NodeId, SegmentId, ShardIndex, Unverified, Verified};
use commonhold_storage_engine::segment::SegmentBuilder;
use zeroize::Zeroizing;

use crate::{
    error::{Error, IoContext},
    home::{Device, Home},
    local_seal::LocalSeal,
    table::{PackedChunk, pack, unpack},
};

pub(crate) const PURPOSE: &[u8] = b"spool v1";
pub(crate) const MAGIC: &[u8; 8] = b"CHSPOOL1";
/// Magic, state (u32), bytes of the description (u32).
const HEADER_BYTES: u64 = 16;
/// Where the state stands.
const STATE_AT: u64 = 8;
/// A description has a manifest (8 KiB) and [`SEGMENT_CHUNKS_MAX`](crate::table::SEGMENT_CHUNKS_MAX) chunks (1 MiB).
const DESCRIPTION_BYTES_MAX: u32 = 2 << 20;
/// A shard index and a node.
pub(crate) const SENT_BYTES: usize = 33;
/// Notes read from one slot: 255 shards, each tried at a few nodes.
pub(crate) const SENT_MAX: usize = 255 * 8;
/// Slots of one device. Full segments under way are far fewer; of tiny ones, what exceeds this is not spooled.
const SLOTS_MAX: usize = 256;

/// What a slot holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Free = 0,
    /// A segment that is being placed.
    UnderWay = 1,
    /// A segment that holders are, or soon will be, told to drop: its id can never be used again.
    GivenUp = 2,
}

/// The slots of our device.
pub(crate) struct Spool {
    dir: PathBuf,
    device: usize,
    seal: Arc<LocalSeal>,
    pool: Arc<Mutex<Pool>>,
}

/// The slots that are free.
#[derive(Default)]
struct Pool {
    files: Vec<SlotFile>,
    /// The number of the next new file.
    next: usize,
    /// True once it was said that a segment cannot be spooled.
    complained: bool,
}

struct SlotFile {
    file: Arc<fs::File>,
    path: PathBuf,
}

/// A segment's place in the spool. Stays on disk when dropped, for whoever comes next; see [`Slot::free`].
pub(crate) struct Slot {
    file: SlotFile,
    sent: Vec<(ShardIndex, NodeId)>,
    /// Where the notes begin: right behind the segment.
    sent_at: u64,
    pool: Arc<Mutex<Pool>>,
}

/// A segment that was under way when its put ended.
pub(crate) struct Spooled {
    pub(crate) manifest: Verified<Manifest>,
    pub(crate) chunks: Vec<PackedChunk>,
    pub(crate) slot: Slot,
    /// False if holders can only be told to drop it.
    pub(crate) is_whole: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DescriptionWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) manifest: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) chunks: Bytes,
}

fn lock(pool: &Mutex<Pool>) -> MutexGuard<'_, Pool> {
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spool {
    /// Opens the spool of our device, and takes over the slots of devices whose locks are ours too; gives back the
    /// segments in them. The spool only spares work: what cannot be read or written is left out, and logged.
    pub(crate) fn open(
        home: &Home,
        device: &Device,
        taken_over: &[usize],
        seal: Arc<LocalSeal>,
        network: &NetworkName,
    ) -> (Self, Vec<Spooled>) {
        let spool = Self { dir: home.spool_dir(), device: device.number, seal, pool: Arc::default() };
        let found = spool.find(taken_over, network).unwrap_or_else(|error| {
            tracing::warn!("what was under way in an earlier put is not found again: {error}");
            Vec::new()
        });
        (spool, found)
    }

    fn find(&self, taken_over: &[usize], network: &NetworkName) -> Result<Vec<Spooled>, Error> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).doing("create", &self.dir)?;
        let (mut ours, mut theirs) = (BTreeMap::new(), Vec::new());
        for (device, number, path) in slots(&self.dir)? {
            if device == self.device {
                ours.insert(number, path);
            } else if taken_over.contains(&device) {
                theirs.push(path);
            }
        }
        let mut next = ours.last_key_value().map_or(0, |(number, _)| number.saturating_add(1));
        for path in theirs {
            // Their lock will be let go before our slots are.
            let to = self.path(next);
            fs::rename(&path, &to).doing("rename", &path)?;
            ours.insert(next, to);
            next += 1;
        }
        lock(&self.pool).next = next;
        let mut found = Vec::new();
        for path in ours.into_values() {
            let file = fs::OpenOptions::new().read(true).write(true).open(&path).doing("open", &path)?;
            let file = SlotFile { file: Arc::new(file), path };
            match read(&file.file, &self.seal, network).doing("read", &file.path)? {
                Some(Description { manifest, chunks, sent_at, sent, is_whole }) => {
                    let slot = Slot { file, sent, sent_at, pool: self.pool.clone() };
                    found.push(Spooled { manifest, chunks, slot, is_whole });
                }
                None => lock(&self.pool).files.push(file),
            }
        }
        Ok(found)
    }

    fn path(&self, number: usize) -> PathBuf {
        self.dir.join(format!("{}-{number}", self.device))
    }

    /// Keeps a segment until its slot is freed. None if there is no room: then it is sent anew after a kill.
    pub(crate) fn write(
        &self,
        manifest: &Verified<Manifest>,
        chunks: &[PackedChunk],
        shards: &[Bytes],
    ) -> Option<Slot> {
        self.try_write(manifest, chunks, shards).unwrap_or_else(|error| {
            if !std::mem::replace(&mut lock(&self.pool).complained, true) {
                tracing::warn!("what is under way cannot be kept, and is sent anew if this is interrupted: {error}");
            }
            None
        })
    }

    fn try_write(
        &self,
        manifest: &Verified<Manifest>,
        chunks: &[PackedChunk],
        shards: &[Bytes],
    ) -> Result<Option<Slot>, Error> {
        let chunks = Zeroizing::new(pack(chunks));
        let wire = DescriptionWire { manifest: manifest.to_bytes(), chunks: Bytes::copy_from_slice(&chunks) };
        let description = self.seal.seal(PURPOSE, &Zeroizing::new(prost::Message::encode_to_vec(&wire)))?;
        let Some(file) = self.free_file()? else { return Ok(None) };
        let sent_at = HEADER_BYTES + description.len() as u64 + manifest.length;
        let header = [MAGIC.as_slice(), &[0; 4], &(description.len() as u32).to_le_bytes(), &description].concat();
        let mut pieces = vec![IoSlice::new(&header)];
        let mut left = manifest.length as usize;
        for shard in shards {
            let bytes = left.min(shard.len());
            pieces.push(IoSlice::new(&shard[..bytes]));
            left -= bytes;
            if left == 0 {
                break;
            }
        }
        let written = file.write(&mut pieces).and_then(|()| file.file.set_len(sent_at));
        if let Err(error) = written.and_then(|()| file.set_state(State::UnderWay)) {
            // Whoever is short of room has it back at once.
            let _ = fs::remove_file(&file.path);
            return Err(error).doing("write", &file.path);
        }
        Ok(Some(Slot { file, sent: Vec::new(), sent_at, pool: self.pool.clone() }))
    }

    /// A free slot: the one that was used last, since its pages are warm.
    fn free_file(&self) -> Result<Option<SlotFile>, Error> {
        let mut pool = lock(&self.pool);
        if let Some(file) = pool.files.pop() {
            return Ok(Some(file));
        }
        if pool.next >= SLOTS_MAX {
            return Ok(None);
        }
        let path = self.path(pool.next);
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path).doing("create", &path)?;
        pool.next += 1;
        Ok(Some(SlotFile { file: Arc::new(file), path }))
    }
}

impl Drop for Spool {
    /// Gives the free slots back to the disk. Others stay for whoever comes next.
    fn drop(&mut self) {
        for file in lock(&self.pool).files.drain(..) {
            let _ = fs::remove_file(file.path);
        }
    }
}

/// What a slot says, and where its notes begin.
pub(crate) struct Description {
    manifest: Verified<Manifest>,
    chunks: Vec<PackedChunk>,
    sent_at: u64,
    pub(crate) sent: Vec<(ShardIndex, NodeId)>,
    pub(crate) is_whole: bool,
}

/// What is in a slot; none if it is free, or nothing that can be made out.
pub(crate) fn read(file: &fs::File, seal: &LocalSeal, network: &NetworkName) -> io::Result<Option<Description>> {
    let file_bytes = file.metadata()?.len();
    let mut header = [0; HEADER_BYTES as usize];
    if file_bytes < HEADER_BYTES {
        return Ok(None);
    }
    file.read_exact_at(&mut header, 0)?;
    let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| header[at + i]));
    let (state, bytes) = (word(STATE_AT as usize), word(12));
    let known = [State::UnderWay, State::GivenUp].into_iter().find(|known| *known as u32 == state);
    let Some(state) = known.filter(|_| header.starts_with(MAGIC)) else { return Ok(None) };
    if bytes > DESCRIPTION_BYTES_MAX || file_bytes < HEADER_BYTES + u64::from(bytes) {
        return Ok(None);
    }
    let mut sealed = vec![0; bytes as usize];
    file.read_exact_at(&mut sealed, HEADER_BYTES)?;
    let Some((manifest, chunks)) = description(&sealed, seal, network) else { return Ok(None) };
    let segment_at = HEADER_BYTES + u64::from(bytes);
    let sent_at = segment_at + manifest.length;
    let builder = segment(file, &manifest, sent_at)?;
    let notes_bytes = file_bytes.saturating_sub(sent_at).min((SENT_MAX * SENT_BYTES) as u64);
    let mut notes = vec![0; notes_bytes as usize];
    file.read_exact_at(&mut notes, sent_at)?;
    let (notes, _) = notes.as_chunks::<SENT_BYTES>();
    let note =
        |note: &[u8; SENT_BYTES]| (ShardIndex(note[0]), NodeId::from_bytes(std::array::from_fn(|i| note[i + 1])));
    let is_whole = state == State::UnderWay && builder.is_some();
    Ok(Some(Description { manifest, chunks, sent_at, sent: notes.iter().map(note).collect(), is_whole }))
}

fn description(
    sealed: &[u8],
    seal: &LocalSeal,
    network: &NetworkName,
) -> Option<(Verified<Manifest>, Vec<PackedChunk>)> {
    let wire: DescriptionWire = prost::Message::decode(seal.open(PURPOSE, sealed)?).ok()?;
    let manifest = Unverified::<Manifest>::from_bytes(wire.manifest).ok()?.verify(network).ok()?;
    Some((manifest, unpack(&wire.chunks).ok()?))
}

/// The segment that ends at `end` of a file; none if it is not what the manifest describes.
fn segment(file: &fs::File, manifest: &Manifest, end: u64) -> io::Result<Option<SegmentBuilder>> {
    let mut bytes = vec![0; manifest.length as usize];
    match file.read_exact_at(&mut bytes, end - manifest.length) {
        Ok(()) => Ok(SegmentBuilder::of_manifest(manifest, bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the slots of a device that was another home's.
pub(crate) fn forget(home: &Home, device: usize) -> Result<(), Error> {
    let dir = home.spool_dir();
    if !dir.exists() {
        return Ok(());
    }
    let of_device = slots(&dir)?.into_iter().filter(|(of, ..)| *of == device);
    of_device.into_iter().try_for_each(|(.., path)| fs::remove_file(&path).doing("remove", &path))
}

/// The slots in a folder, each with its device and number.
fn slots(dir: &Path) -> Result<Vec<(usize, usize, PathBuf)>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).doing("list", dir)? {
        let path = entry.doing("list", dir)?.path();
        found.extend(numbers(&path).map(|(device, number)| (device, number, path)));
    }
    Ok(found)
}

/// Device and number of a slot.
fn numbers(path: &Path) -> Option<(usize, usize)> {
    let (device, number) = path.file_name()?.to_str()?.split_once('-')?;
    Some((device.parse().ok()?, number.parse().ok()?))
}

impl SlotFile {
    fn set_state(&self, state: State) -> io::Result<()> {
        self.file.write_all_at(&(state as u32).to_le_bytes(), STATE_AT)
    }

    /// Overwrites the file from its beginning.
    fn write(&self, mut pieces: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut file = &*self.file;
        file.seek(SeekFrom::Start(0))?;
        while !pieces.is_empty() {
            match file.write_vectored(pieces) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => IoSlice::advance_slices(&mut pieces, bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Slot {
    /// Every node that may have a shard.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.sent.iter().map(|(_, node)| *node)
    }

    /// To whom each shard was sent last.
    pub(crate) fn sent(&self) -> BTreeMap<ShardIndex, NodeId> {
        self.sent.iter().copied().collect()
    }

    /// Notes that shards are about to be sent. If that fails, they are sent all the same.
    pub(crate) async fn note(&mut self, shards: impl Iterator<Item = (ShardIndex, NodeId)>) {
        let new: Vec<(ShardIndex, NodeId)> = shards.filter(|shard| !self.sent.contains(shard)).collect();
        if new.is_empty() {
            return;
        }
        let note = |(index, node): &(ShardIndex, NodeId)| [&[index.0], node.as_bytes().as_slice()].concat();
        let notes: Vec<u8> = new.iter().flat_map(note).collect();
        let (file, at) = (self.file.file.clone(), self.sent_at + (self.sent.len() * SENT_BYTES) as u64);
        // On a thread of its own: a disk that stalls must not stall the sockets.
        match tokio::task::spawn_blocking(move || file.write_all_at(&notes, at)).await {
            Ok(Ok(())) => self.sent.extend(new),
            Ok(Err(error)) => tracing::debug!("{} cannot be written: {error}", self.file.path.display()),
            Err(_) => {}
        }
    }

    /// From now on the segment can only be dropped: whoever hears of its drop never takes a shard of it again. A power
    /// cut must not make us forget that, so this alone is synced.
    pub(crate) fn give_up(&self) -> Result<(), Error> {
        let written = self.file.set_state(State::GivenUp).and_then(|()| self.file.file.sync_data());
        written.doing("write", &self.file.path)
    }

    /// The segment is safe, or gone from its holders: the slot is for another.
    pub(crate) fn free(self) -> Result<(), Error> {
        let Self { file, pool, .. } = self;
        match file.set_state(State::Free) {
            Ok(()) => lock(&pool).files.push(file),
            // Whatever keeps a file system from overwriting, removing it may work.
            Err(_) => fs::remove_file(&file.path).doing("remove", &file.path)?,
        }
        Ok(())
    }
}

impl Spooled {
    pub(crate) fn id(&self) -> SegmentId {
        self.manifest.id()
    }

    /// The segment, read back.
    pub(crate) fn segment(&self) -> Result<SegmentBuilder, Error> {
        let Slot { file, sent_at, .. } = &self.slot;
        let changed = || io::Error::other("the spool was changed by someone else");
        let segment = segment(&file.file, &self.manifest, *sent_at).doing("read", &file.path)?;
        segment.ok_or_else(changed).doing("read", &file.path)
    }
}

#[cfg(test)]
mod tests;
