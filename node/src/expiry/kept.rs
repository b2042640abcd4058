//! What is remembered of ended leases over a restart, in one small file: for how long the node has been up, and which
//! vaults are in the trash since when. A node that begins both anew at each start gives no space back unless it runs
//! for a week without a break.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::Path,
};

use commonhold_protocol::{Timestamp, VaultId};

use crate::data_dir::write_atomically;

const MAGIC: &[u8; 8] = b"CHENDED1";
/// Magic and check sum.
const HEADER_BYTES: usize = 12;
/// A vault and a moment.
const ENTRY_BYTES: usize = 40;
/// More vaults in the trash than this are judged from the beginning after a restart.
const ENTRIES_MAX: usize = 1 << 17;
const FILE_BYTES_MAX: usize = HEADER_BYTES + 16 + ENTRIES_MAX * ENTRY_BYTES;

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// [`crate::clock::Clock::uptime_ms_in_all`].
    pub(super) uptime_ms: u64,
    /// When it was so much.
    pub(super) at: Timestamp,
    /// Since when vaults are in the trash.
    pub(super) trashed: BTreeMap<VaultId, Timestamp>,
}

/// Writes the file.
pub(super) fn write(path: &Path, kept: &Kept) -> io::Result<()> {
    write_atomically(path, &encode(kept))
}

/// What the file says; nothing if there is none.
pub(super) fn read(path: &Path) -> io::Result<Kept> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    decode(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "damaged, or of another version"))
}

fn encode(kept: &Kept) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes.extend_from_slice(&kept.uptime_ms.to_le_bytes());
    bytes.extend_from_slice(&kept.at.0.to_le_bytes());
    for (vault, since) in kept.trashed.iter().take(ENTRIES_MAX) {
        bytes.extend_from_slice(vault.as_bytes());
        bytes.extend_from_slice(&since.0.to_le_bytes());
    }
    let sum = crc32fast::hash(&bytes[HEADER_BYTES..]);
    bytes[..MAGIC.len()].copy_from_slice(MAGIC);
    bytes[MAGIC.len()..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Kept> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    if !header.starts_with(MAGIC) || !header.ends_with(&crc32fast::hash(rest).to_le_bytes()) {
        return None;
    }
    let (uptime_ms, rest) = rest.split_first_chunk()?;
    let (at, rest) = rest.split_first_chunk()?;
    let (entries, more) = rest.as_chunks::<ENTRY_BYTES>();
    if entries.len() > ENTRIES_MAX || !more.is_empty() {
        return None;
    }
    let entry = |entry: &[u8; ENTRY_BYTES]| {
        let (vault, since) = entry.split_first_chunk()?;
        Some((VaultId::from_bytes(*vault), Timestamp(u64::from_le_bytes(since.try_into().ok()?))))
    };
    Some(Kept {
        uptime_ms: u64::from_le_bytes(*uptime_ms),
        at: Timestamp(u64::from_le_bytes(*at)),
        trashed: entries.iter().map(entry).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;

    fn kept(vaults: u8) -> Kept {
        let trashed = (0..vaults).map(|vault| (VaultId::from_bytes([vault; 32]), Timestamp(vault.into()))).collect();
        Kept { uptime_ms: 7, at: Timestamp(1_900_000_000_000), trashed }
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ended");
        assert_eq!(read(&path).unwrap(), Kept::default());
        for vaults in [0, 1, 200] {
            write(&path, &kept(vaults)).unwrap();
            assert_eq!(read(&path).unwrap(), kept(vaults));
        }
    }

    proptest! {
        #[test]
        fn a_damaged_file_is_noticed(at in any::<Index>(), flip in 1..=255_u8, cut in any::<Index>()) {
            let whole = encode(&kept(3));
            let mut damaged = whole.clone();
            damaged[at.index(whole.len())] ^= flip;
            prop_assert_eq!(decode(&damaged), None);
            prop_assert_eq!(decode(&whole[..cut.index(whole.len())]), None);
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in vec(any::<u8>(), 0..200)) {
            let mut whole = vec![0; HEADER_BYTES];
            whole.extend_from_slice(&bytes);
            let sum = crc32fast::hash(&bytes);
            whole[..MAGIC.len()].copy_from_slice(MAGIC);
            whole[MAGIC.len()..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
            if let Some(kept) = decode(&whole) {
                prop_assert_eq!(decode(&encode(&kept)), Some(kept));
            }
        }
    }
}
