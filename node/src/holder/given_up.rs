//! Shards that are given up here since another node keeps them.
//!
//! A steward that did not hear of it asks for the shard weeks later, and would take "I do not have it" for a failed audit.
//! So what was given up is remembered over restarts too, in a file to which entries of [`ENTRY_BYTES`] are appended; one
//! that a kill has cut short, or a disk has changed, is left out.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use commonhold_protocol::{ClaimLeaf, SegmentId, ShardIndex, Timestamp, ask::Refusal};
use commonhold_storage_engine::store::StoreError;

use super::{Holder, refusal};
use crate::{data_dir::write_atomically, recent::Recent};

/// Shards that are remembered to have been given up.
const GIVEN_UP_MAX: usize = 1 << 16;
/// And for how long: one steward audits a shard once in eight weeks with the usual times.
const REMEMBERED_MS: u64 = 90 * 24 * 60 * 60 * 1000;
/// Segment, index, moment, check sum.
const ENTRY_BYTES: usize = 32 + 1 + 8 + 4;

/// What was given up.
#[derive(Debug)]
pub(super) struct GivenUp {
    path: PathBuf,
    leaves: Mutex<Recent<ClaimLeaf, ()>>,
    /// By itself: what asks for a shard does not wait for a disk.
    appended: Mutex<Appended>,
}

/// The file.
#[derive(Debug)]
struct Appended {
    /// None: it cannot be written.
    file: Option<fs::File>,
    entries: usize,
}

impl GivenUp {
    /// What the file says, if there is one.
    pub(super) fn open(path: PathBuf, now: Timestamp) -> Self {
        let (known, appended) = open(&path, now).unwrap_or_else(|error| {
            complain(&path, &error);
            (Vec::new(), Appended { file: None, entries: 0 })
        });
        let mut leaves = Recent::new(GIVEN_UP_MAX);
        known.into_iter().for_each(|leaf| leaves.note(leaf, ()));
        Self { path, leaves: Mutex::new(leaves), appended: Mutex::new(appended) }
    }

    fn leaves(&self) -> MutexGuard<'_, Recent<ClaimLeaf, ()>> {
        self.leaves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is given up now. That it cannot be written down is no reason to keep it.
    fn note(&self, leaf: ClaimLeaf, now: Timestamp) {
        self.leaves().note(leaf, ());
        let mut appended = self.appended.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = appended.append(&self.path, &leaf, now) {
            complain(&self.path, &error);
            // What was written of the entry stays the end of the file, and the next start leaves it out.
            appended.file = None;
        }
    }

    /// It is held again.
    pub(super) fn forget(&self, leaf: &ClaimLeaf) {
        self.leaves().remove(leaf);
    }

    /// What a steward is told that wants to see a shard which cannot be read.
    pub(super) fn refusal(&self, leaf: &ClaimLeaf, error: &StoreError) -> Refusal {
        let given_up = || self.leaves().get(leaf).is_some();
        if matches!(error, StoreError::NotHeld { .. }) && given_up() { Refusal::Released } else { refusal(error) }
    }
}

fn complain(path: &Path, error: &io::Error) {
    tracing::warn!(%error, path = %path.display(), "what was given up cannot be remembered over a restart");
}

impl Appended {
    fn append(&mut self, path: &Path, leaf: &ClaimLeaf, now: Timestamp) -> io::Result<()> {
        if self.file.is_some() && self.entries >= 2 * GIVEN_UP_MAX {
            *self = open(path, now)?.1;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(&encode(leaf, now))?;
        file.sync_data()?;
        self.entries += 1;
        Ok(())
    }
}

/// Reads the file, and writes it anew with what is not too old.
fn open(path: &Path, now: Timestamp) -> io::Result<(Vec<ClaimLeaf>, Appended)> {
    let mut bytes = Vec::new();
    match fs::File::open(path) {
        // An entry more than there are ever.
        Ok(file) => file.take(((2 * GIVEN_UP_MAX + 1) * ENTRY_BYTES) as u64).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let all = bytes.chunks_exact(ENTRY_BYTES).filter_map(decode);
    let known: Vec<(ClaimLeaf, Timestamp)> = all.filter(|(_, at)| now.ms_since(*at) <= REMEMBERED_MS).collect();
    let known = &known[known.len().saturating_sub(GIVEN_UP_MAX)..];
    let kept: Vec<u8> = known.iter().flat_map(|(leaf, at)| encode(leaf, *at)).collect();
    if kept != bytes {
        write_atomically(path, &kept)?;
    }
    let file = fs::OpenOptions::new().create(true).append(true).open(path)?;
    let leaves = known.iter().map(|(leaf, _)| *leaf).collect();
    Ok((leaves, Appended { file: Some(file), entries: known.len() }))
}

fn encode(leaf: &ClaimLeaf, at: Timestamp) -> [u8; ENTRY_BYTES] {
    let mut bytes = [0; ENTRY_BYTES];
    bytes[..32].copy_from_slice(leaf.segment.as_bytes());
    bytes[32] = leaf.index.0;
    bytes[33..41].copy_from_slice(&at.0.to_le_bytes());
    let sum = crc32fast::hash(&bytes[..41]);
    bytes[41..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn decode(entry: &[u8]) -> Option<(ClaimLeaf, Timestamp)> {
    let (segment, rest) = entry.split_first_chunk::<32>()?;
    let (index, rest) = rest.split_first()?;
    let (at, sum) = rest.split_first_chunk::<8>()?;
    let leaf = ClaimLeaf { segment: SegmentId::from_bytes(*segment), index: ShardIndex(*index) };
    let is_whole = sum == crc32fast::hash(&entry[..41]).to_le_bytes();
    is_whole.then(|| (leaf, Timestamp(u64::from_le_bytes(*at))))
}

/// Shards that are about to be given up.
#[derive(Debug, Clone, Default)]
pub(super) struct GivingUp(Arc<Mutex<BTreeSet<ClaimLeaf>>>);

/// While it lives, a shard is proven and sent to nobody.
#[derive(Debug)]
pub(crate) struct Yielding {
    leaf: ClaimLeaf,
    all: GivingUp,
}

impl Drop for Yielding {
    fn drop(&mut self) {
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.leaf);
    }
}

impl GivingUp {
    fn begin(&self, leaf: ClaimLeaf) -> Option<Yielding> {
        let is_first = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(leaf);
        is_first.then(|| Yielding { leaf, all: self.clone() })
    }

    /// Refuses what is about to be given up, for a moment.
    pub(super) fn check(&self, leaf: &ClaimLeaf) -> Result<(), Refusal> {
        let is_kept = !self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(leaf);
        if is_kept { Ok(()) } else { Err(Refusal::Busy) }
    }
}

impl Holder {
    /// Begins to give a shard up: to be done before another's proof that it keeps the shard is asked for. Of two that give
    /// up in favour of each other at one moment, at least one gets no proof; and nobody borrows the proof from here. None:
    /// somebody does so already.
    pub(crate) fn yield_up(&self, leaf: ClaimLeaf) -> Option<Yielding> {
        self.giving_up.begin(leaf)
    }

    /// Removes a shard that most of its stewards were told is given up, and remembers that for those who were not: asked
    /// for it, we say so, instead of as one that has lost it. How many were removed: one, or none.
    pub(crate) async fn give_up(&self, leaf: ClaimLeaf) -> Result<usize, StoreError> {
        let (store, given_up, now) = (self.store.clone(), self.given_up.clone(), self.steward.clock().now());
        let give_up = move || {
            given_up.note(leaf, now);
            store.remove_all(&[leaf])
        };
        // A panic in there is logged by the runtime.
        tokio::task::spawn_blocking(give_up).await.unwrap_or(Ok(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1 << 40);

    fn leaf(number: u32) -> ClaimLeaf {
        let segment = SegmentId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes());
        ClaimLeaf { segment, index: ShardIndex(number as u8) }
    }

    fn is_released(given_up: &GivenUp, leaf: &ClaimLeaf) -> bool {
        let error = StoreError::NotHeld { leaf: *leaf };
        given_up.refusal(leaf, &error) == Refusal::Released
    }

    #[test]
    fn what_was_given_up_is_known_over_restarts_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("given-up");
        let open = |now| GivenUp::open(path.clone(), now);
        let given_up = open(NOW);
        assert!(!is_released(&given_up, &leaf(1)));
        given_up.note(leaf(1), NOW);
        drop(given_up);
        let later = NOW.after_ms(REMEMBERED_MS / 2);
        let given_up = open(later);
        assert!(is_released(&given_up, &leaf(1)) && !is_released(&given_up, &leaf(2)));
        given_up.note(leaf(2), later);
        drop(given_up);
        // Cut short by a kill, and changed by a disk.
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(&encode(&leaf(3), later)[..ENTRY_BYTES - 1]);
        fs::write(&path, &bytes).unwrap();
        let given_up = open(later);
        assert!(is_released(&given_up, &leaf(1)) && is_released(&given_up, &leaf(2)));
        assert_eq!(fs::read(&path).unwrap(), bytes[..2 * ENTRY_BYTES], "what comes next begins where an entry does");
        bytes.truncate(2 * ENTRY_BYTES);
        bytes[40] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let given_up = open(later);
        assert!(!is_released(&given_up, &leaf(1)) && is_released(&given_up, &leaf(2)));
        drop(given_up);
        let given_up = open(later.after_ms(REMEMBERED_MS + 1));
        assert!(!is_released(&given_up, &leaf(2)));
        assert_eq!(fs::read(&path).unwrap(), b"");
        // A file that cannot be written is no reason to keep anything.
        let nowhere = GivenUp::open(folder.path().join("no-folder/given-up"), NOW);
        nowhere.note(leaf(5), NOW);
        assert!(is_released(&nowhere, &leaf(5)));
    }

    #[test]
    fn the_file_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("given-up");
        let many: Vec<u8> = (0..2 * GIVEN_UP_MAX as u32 + 9).flat_map(|number| encode(&leaf(number), NOW)).collect();
        fs::write(&path, many).unwrap();
        let given_up = GivenUp::open(path.clone(), NOW);
        assert_eq!(fs::metadata(&path).unwrap().len(), (GIVEN_UP_MAX * ENTRY_BYTES) as u64);
        assert!(is_released(&given_up, &leaf(2 * GIVEN_UP_MAX as u32)) && !is_released(&given_up, &leaf(0)));
        given_up.appended.lock().unwrap().entries = 2 * GIVEN_UP_MAX;
        given_up.note(leaf(u32::MAX), NOW);
        assert_eq!(fs::metadata(&path).unwrap().len(), ((GIVEN_UP_MAX + 1) * ENTRY_BYTES) as u64);
    }

    #[test]
    fn what_is_being_given_up_is_proven_to_nobody_until_that_is_over() {
        let [leaf, other] =
            [1, 2].map(|of| ClaimLeaf { segment: SegmentId::from_bytes([of; 32]), index: ShardIndex(0) });
        let all = GivingUp::default();
        let yielding = all.begin(leaf).expect("nobody does so yet");
        assert!(all.begin(leaf).is_none(), "two at once would each believe that the other's proof still counts");
        assert_eq!((all.check(&leaf), all.check(&other)), (Err(Refusal::Busy), Ok(())));
        drop(yielding);
        assert_eq!(all.check(&leaf), Ok(()));
        assert!(all.begin(leaf).is_some());
    }
}
