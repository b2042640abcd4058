//! The contents of a file that does not lie inline: chunks and holes, in order, as a B-tree with up to 1,024 slots
//! per node.
//!
//! Up to four extents stand in the [`FileRoot`] itself, so most files take no node at all. A node ends where the key
//! of its last chunk says (a chunk's key is a hash of its content), so that after an insertion into a large file the
//! nodes behind it are the same as before. A reader goes to any byte by one node per level.

use bytes::Bytes;
use commonhold_protocol::{
    FormatError,
    format::{check_length, check_version},
};
use prost::Message;

use super::{
    ChunkSource, TreeError,
    node::LEVEL_MAX,
    packed_ref::{PACKED_REF_BYTES, RefPacker, RefTable, Slot},
};
use crate::chunk_ref::ChunkRef;

mod build;
mod read;

pub use build::FileBuilder;
pub use read::Extents;
pub(super) use read::open;

/// The most extents that stand in the root itself.
pub const ROOT_EXTENTS_MAX: usize = 4;
/// The most bytes of a file, holes included: what an `off_t` counts.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;
/// The most bytes of an encoded [`FileRoot`].
pub const FILE_ROOT_BYTES_MAX: usize = ROOT_EXTENTS_MAX * (PACKED_REF_BYTES + 32) + 32;

const WHAT: &str = "file root";

const fn field(field: &'static str) -> FormatError {
    FormatError::Field { what: WHAT, field }
}

/// A run of a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// The bytes of a chunk.
    Data(ChunkRef),
    /// So many zeros that are stored nowhere.
    Hole(u64),
}

impl Extent {
    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        match self {
            Self::Data(chunk) => chunk.plain_length.into(),
            Self::Hole(length) => *length,
        }
    }

    /// True if both hold the same bytes, wherever they lie: a chunk's key is a hash of what it opens.
    fn same_bytes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Data(a), Self::Data(b)) => a.plain_length == b.plain_length && a.key == b.key,
            (Self::Hole(a), Self::Hole(b)) => a == b,
            _ => false,
        }
    }
}

impl From<Slot> for Extent {
    fn from(slot: Slot) -> Self {
        match slot {
            Slot::Ref(chunk) => Self::Data(chunk),
            Slot::Hole(length) => Self::Hole(length),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Top {
    /// At most [`ROOT_EXTENTS_MAX`], none empty, together the file's length.
    Extents(Vec<Extent>),
    /// The top node, and its level, from 1.
    Node(u8, ChunkRef),
}

/// A file's length and where its bytes are. Whoever has it can read the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRoot {
    length: u64,
    top: Top,
}

#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint64, tag = "2")]
    length: u64,
    #[prost(uint32, tag = "3")]
    level: u32,
    #[prost(bytes = "bytes", tag = "4")]
    segments: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    refs: Bytes,
}

impl FileRoot {
    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The top node, if the extents do not stand here.
    pub fn node(&self) -> Option<&ChunkRef> {
        match &self.top {
            Top::Node(_, chunk) => Some(chunk),
            Top::Extents(_) => None,
        }
    }

    pub(super) fn top(&self) -> &Top {
        &self.top
    }

    /// The root's bytes, at most [`FILE_ROOT_BYTES_MAX`]; refs are packed as in a node, with a table of segments.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut packer = RefPacker::default();
        let level = match &self.top {
            Top::Extents(extents) => {
                for extent in extents {
                    match extent {
                        Extent::Data(chunk) => packer.push(chunk),
                        Extent::Hole(length) => packer.push_hole(*length),
                    }
                }
                0
            }
            Top::Node(level, chunk) => {
                packer.push(chunk);
                *level
            }
        };
        let (segments, refs) = packer.take();
        Wire { version: 1, length: self.length, level: level.into(), segments, refs }.encode_to_vec()
    }

    /// Reads a root.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        check_length(WHAT, bytes, FILE_ROOT_BYTES_MAX)?;
        let wire = Wire::decode(bytes).map_err(|_| FormatError::Encoding { what: WHAT })?;
        check_version(WHAT, wire.version, 1)?;
        let length = Some(wire.length).filter(|length| *length <= FILE_BYTES_MAX).ok_or(field("length"))?;
        let level = u8::try_from(wire.level).ok().filter(|level| *level <= LEVEL_MAX).ok_or(field("level"))?;
        if level > 0 {
            let table = RefTable::decode(WHAT, wire.segments, wire.refs, 1, false)?;
            let top = Top::Node(level, table.chunk(0));
            return if length > 0 { Ok(Self { length, top }) } else { Err(field("length")) };
        }
        let extents: Vec<Extent> = if wire.refs.is_empty() && wire.segments.is_empty() {
            Vec::new()
        } else {
            let table = RefTable::decode(WHAT, wire.segments, wire.refs, ROOT_EXTENTS_MAX, true)?;
            (0..table.len()).map(|at| table.slot(at).into()).collect()
        };
        let sum = extents.iter().try_fold(0_u64, |sum, extent| sum.checked_add(extent.length()));
        if sum == Some(length) { Ok(Self { length, top: Top::Extents(extents) }) } else { Err(field("length")) }
    }
}

/// The extents of a file from the one that holds byte `offset` on.
pub fn extents<'s, S: ChunkSource>(source: &'s S, root: &FileRoot, offset: u64) -> Extents<'s, S> {
    Extents::new(source, root, offset)
}

/// True if two files surely hold the same bytes, though another device may have stored them elsewhere. Reads both
/// files' nodes, and none of their data; may say false of equal files that were cut or compressed differently.
pub fn same_content<S: ChunkSource>(source: &S, a: &FileRoot, b: &FileRoot) -> Result<bool, TreeError<S::Error>> {
    if a == b || a.length != b.length {
        return Ok(a == b);
    }
    let (mut a, mut b) = (extents(source, a, 0), extents(source, b, 0));
    loop {
        match (a.next().transpose()?, b.next().transpose()?) {
            (Some((_, a)), Some((_, b))) if a.same_bytes(&b) => {}
            (None, None) => return Ok(true),
            _ => return Ok(false),
        }
    }
}
