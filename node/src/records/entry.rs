//! The format of the record logs: a file header, then entries, each with its own check sum.
//!
//! Of the entries of one key the last one counts. All numbers are little-endian. A file begins with `CHRECLOG`, the version (u32) and its own number (u32). An entry:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `CHRE`, so that entries behind damaged bytes are found again |
//! | 4 | CRC-32 of all that follows |
//! | 4 | length of the body |
//! | 1 | kind |
//! | 1 | tag: what is asked often, so that the body need not be read for it |
//! | 2 | zero |
//! | 32 | key: a segment or a vault |
//! | 32 | owner: the vault |
//! | length | body |

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use commonhold_protocol::VaultId;

use super::RecordsError;

pub(super) const FILE_HEADER_BYTES: usize = 16;
const FILE_MAGIC: &[u8; 8] = b"CHRECLOG";
const VERSION: u32 = 1;
const MAGIC: &[u8; 4] = b"CHRE";
pub(super) const ENTRY_HEADER_BYTES: usize = 80;
/// The most bytes of a body: more than the longest record, and than eight of the longest heads.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;
/// Read at once while scanning.
const SCAN_BYTES: usize = 256 << 10;

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The record of a segment; the key is the segment.
    Segment,
    /// The heads of a vault; the key is the vault.
    Heads,
    /// The lease of a vault; the key is the vault.
    Lease,
    /// The newest drop or undrop of a segment of which shards are held here; the key is the segment.
    Drop,
}

impl Kind {
    /// All kinds, by their number on disk less one.
    pub(super) const ALL: [Self; 4] = [Self::Segment, Self::Heads, Self::Lease, Self::Drop];

    pub(super) fn number(self) -> u8 {
        self as u8 + 1
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// The tag of an entry that says: there is nothing any more.
pub(super) const TAG_REMOVED: u8 = 255;

/// An entry without its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) tag: u8,
    pub(super) key: [u8; 32],
    pub(super) owner: VaultId,
}

impl Entry {
    /// Appends the entry to `out`.
    pub(super) fn encode(&self, body: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(&[self.kind.number(), self.tag, 0, 0]);
        out.extend_from_slice(&self.key);
        out.extend_from_slice(self.owner.as_bytes());
        out.extend_from_slice(body);
        let crc = crc32fast::hash(&out[start + 8..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads an entry at the start of `bytes`; none if it is not whole and undamaged.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let header: &[u8; ENTRY_HEADER_BYTES] = bytes.first_chunk()?;
        let length = body_length(header)?;
        let body = bytes.get(ENTRY_HEADER_BYTES..ENTRY_HEADER_BYTES + length)?;
        let crc = u32::from_le_bytes(array(header, 4));
        if crc32fast::hash(&bytes[8..ENTRY_HEADER_BYTES + length]) != crc {
            return None;
        }
        let entry = Self {
            kind: Kind::from_number(header[12])?,
            tag: header[13],
            key: array(header, 16),
            owner: Self::owner_in(header),
        };
        Some((entry, body))
    }
}

impl Entry {
    /// The owner in an entry's header.
    pub(super) fn owner_in(header: &[u8; ENTRY_HEADER_BYTES]) -> VaultId {
        VaultId::from_bytes(array(header, 48))
    }
}

/// The body's length, if `header` begins like an entry.
fn body_length(header: &[u8; ENTRY_HEADER_BYTES]) -> Option<usize> {
    let length = u32::from_le_bytes(array(header, 8)) as usize;
    (header.starts_with(MAGIC) && length <= BODY_BYTES_MAX).then_some(length)
}

fn array<const N: usize>(header: &[u8; ENTRY_HEADER_BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|i| header[at + i])
}

pub(super) fn file_header(number: u32) -> [u8; FILE_HEADER_BYTES] {
    let mut header = [0; FILE_HEADER_BYTES];
    header[..8].copy_from_slice(FILE_MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..].copy_from_slice(&number.to_le_bytes());
    header
}

/// The version of a log file that this program cannot read; none if it can, or if the header is damaged.
pub(super) fn unknown_version(file: &File) -> io::Result<Option<u32>> {
    let mut header = [0; FILE_HEADER_BYTES];
    match file.read_exact_at(&mut header, 0) {
        Ok(()) => {
            let version = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
            Ok((header.starts_with(FILE_MAGIC) && version != VERSION).then_some(version))
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the good bytes of a log file end, and how many bytes before that are damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scanned {
    pub(super) end: u32,
    pub(super) damaged_bytes: u64,
}

/// Visits every undamaged entry from byte `from` on: its offset, itself, its body. Damaged bytes are skipped; those
/// behind the last good entry (the tail of a node that was killed) are not counted as damaged.
pub(super) fn scan(
    file: &File,
    path: &Path,
    from: u32,
    mut visit: impl FnMut(u32, Entry, &[u8]) -> Result<(), RecordsError>,
) -> Result<Scanned, RecordsError> {
    let failed = |source| RecordsError::Io { path: path.to_owned(), source };
    let file_bytes = file.metadata().map_err(failed)?.len();
    let mut at = u64::from(from).max(FILE_HEADER_BYTES as u64);
    let mut scanned = Scanned { end: at as u32, damaged_bytes: 0 };
    let (mut buffer, mut buffer_at) = (Vec::new(), at);
    while at < file_bytes {
        let rest = &buffer[(at - buffer_at) as usize..];
        let remaining = (file_bytes - at) as usize;
        let wanted = ENTRY_HEADER_BYTES + rest.first_chunk().and_then(body_length).unwrap_or(0);
        if rest.len() < wanted.min(remaining) {
            buffer_at = at;
            buffer.resize(wanted.max(SCAN_BYTES).min(remaining), 0);
            file.read_exact_at(&mut buffer, at).map_err(failed)?;
            continue;
        }
        match Entry::decode(rest) {
            Some((entry, body)) => {
                scanned.damaged_bytes += at - u64::from(scanned.end);
                visit(at as u32, entry, body)?;
                at += (ENTRY_HEADER_BYTES + body.len()) as u64;
                scanned.end = at as u32;
            }
            // Not an entry: on to the next place that could be one.
            None => at += next_magic(rest) as u64,
        }
    }
    Ok(scanned)
}

/// How far it is to the next magic behind the first byte, or to where one could begin in bytes that were not read yet.
fn next_magic(bytes: &[u8]) -> usize {
    let tail = &bytes[1.min(bytes.len())..];
    match tail.windows(MAGIC.len()).position(|window| window == MAGIC) {
        Some(distance) => distance + 1,
        None => bytes.len().saturating_sub(MAGIC.len() - 1).max(1),
    }
}
