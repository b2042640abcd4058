//! What is remembered of ended leases over a restart, in one small file: for how long the node has been up, and which
//! vaults are in the trash since when. A node that begins both anew at each start gives no space back unless it runs
//! for a week without a break.

use std::{collections::BTreeMap, io, path::Path};

use commonhold_protocol::{Timestamp, VaultId};

use crate::{
    data_dir::write_atomically,
    kept_file::{HEADER_BYTES, KeptFile},
};

/// A vault and a moment.
const ENTRY_BYTES: usize = 40;
/// More vaults in the trash than this are judged from the beginning after a restart.
const ENTRIES_MAX: usize = 1 << 17;
const FILE: KeptFile = KeptFile { magics: &[b"CHENDED1"], bytes_max: HEADER_BYTES + 16 + ENTRIES_MAX * ENTRY_BYTES };

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
    FILE.read(path, decode)
}

fn encode(kept: &Kept) -> Vec<u8> {
    let mut bytes = KeptFile::begin();
    bytes.extend_from_slice(&kept.uptime_ms.to_le_bytes());
    bytes.extend_from_slice(&kept.at.0.to_le_bytes());
    for (vault, since) in kept.trashed.iter().take(ENTRIES_MAX) {
        bytes.extend_from_slice(vault.as_bytes());
        bytes.extend_from_slice(&since.0.to_le_bytes());
    }
    FILE.finish(&mut bytes);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Kept> {
    let (_, rest) = FILE.open(bytes)?;
    let (uptime_ms, rest) = rest.split_first_chunk()?;
    let (at, rest) = rest.split_first_chunk()?;
    let (entries, more) = rest.as_chunks::<ENTRY_BYTES>();
    if !more.is_empty() {
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

/// Any bytes in the place of the file: no panic, and what is read is written as something that reads the same. For
/// tests and, by the feature `fuzzing`, for the fuzz target.
#[cfg(any(test, feature = "fuzzing"))]
pub fn ended_of_any_bytes(bytes: &[u8]) {
    if let Some(kept) = decode(bytes) {
        assert_eq!(decode(&encode(&kept)), Some(kept));
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::kept_file::checks::{damage_is_noticed, file_of};

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

    #[test]
    fn a_damaged_file_is_noticed() {
        damage_is_noticed(&encode(&kept(3)), decode);
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in vec(any::<u8>(), 0..200)) {
            ended_of_any_bytes(&bytes);
            ended_of_any_bytes(&file_of(&FILE, &bytes));
        }
    }
}
