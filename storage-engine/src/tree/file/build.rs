//! Writes a file's nodes as its chunks come: one open node per level.

use super::{Extent, FILE_BYTES_MAX, FileRoot, ROOT_EXTENTS_MAX, Top};
use crate::{
    chunk_ref::ChunkRef,
    tree::{
        ChunkSink, TreeError,
        node::{FAN_OUT_MAX, FileDraft, LEVEL_MAX},
    },
};

/// Below so many slots no node ends.
const SLOTS_LEAST: usize = 256;
/// From there on, one chunk in so many ends a node; about 500 slots on average.
const ENDS_ONE_IN: u32 = 256;

/// True if a node of `slots` slots ends with `chunk`.
fn ends_node(chunk: &ChunkRef, slots: usize) -> bool {
    let key = chunk.key.as_bytes();
    let hash = u32::from_le_bytes([key[0], key[1], key[2], key[3]]);
    slots >= FAN_OUT_MAX || (slots >= SLOTS_LEAST && hash.is_multiple_of(ENDS_ONE_IN))
}

/// The open node of one level.
#[derive(Default)]
struct Open {
    draft: FileDraft,
    span: u64,
    /// The node added last, from level 2 on.
    last: Option<ChunkRef>,
}

/// Builds a file from its chunks and holes, in order.
#[derive(Default)]
pub struct FileBuilder {
    length: u64,
    /// Zeros that were pushed and not yet written: runs of holes become one.
    hole: u64,
    /// The first extents, as long as they fit into the root.
    first: Vec<Extent>,
    slots: u64,
    /// By level, from 1.
    open: Vec<Open>,
}

impl FileBuilder {
    /// A builder of an empty file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    fn check_length<E>(&self) -> Result<(), TreeError<E>> {
        if self.length > FILE_BYTES_MAX {
            return Err(TreeError::TooLarge { what: "file", bytes: self.length, bytes_max: FILE_BYTES_MAX });
        }
        Ok(())
    }

    /// The next chunk.
    pub fn push<K: ChunkSink>(&mut self, sink: &mut K, chunk: ChunkRef) -> Result<(), TreeError<K::Error>> {
        self.length = self.length.saturating_add(chunk.plain_length.into());
        self.check_length()?;
        self.write_hole(sink)?;
        self.write(sink, Extent::Data(chunk))
    }

    /// The next hole: so many zeros. Holes one after another are one; if the file gets too long, the next call fails.
    pub fn push_hole(&mut self, length: u64) {
        self.length = self.length.saturating_add(length);
        self.hole = self.hole.saturating_add(length);
    }

    fn write_hole<K: ChunkSink>(&mut self, sink: &mut K) -> Result<(), TreeError<K::Error>> {
        match std::mem::take(&mut self.hole) {
            0 => Ok(()),
            length => self.write(sink, Extent::Hole(length)),
        }
    }

    fn level(&mut self, level: u8) -> &mut Open {
        let at = usize::from(level) - 1;
        if self.open.len() <= at {
            self.open.resize_with(at + 1, Open::default);
        }
        &mut self.open[at]
    }

    fn write<K: ChunkSink>(&mut self, sink: &mut K, extent: Extent) -> Result<(), TreeError<K::Error>> {
        self.slots += 1;
        let open = self.level(1);
        open.span += extent.length();
        let ends = match &extent {
            Extent::Data(chunk) => {
                open.draft.push_chunk(chunk);
                ends_node(chunk, open.draft.len())
            }
            Extent::Hole(length) => {
                open.draft.push_hole(*length);
                open.draft.len() >= FAN_OUT_MAX
            }
        };
        if self.first.len() < ROOT_EXTENTS_MAX {
            self.first.push(extent);
        }
        if ends { self.close(sink, 1) } else { Ok(()) }
    }

    /// Writes the open node of `level` and adds it to the level above.
    fn close<K: ChunkSink>(&mut self, sink: &mut K, level: u8) -> Result<(), TreeError<K::Error>> {
        if level >= LEVEL_MAX {
            return Err(TreeError::TooDeep { what: "a file", depth_max: usize::from(LEVEL_MAX) });
        }
        let Open { mut draft, span, .. } = std::mem::take(self.level(level));
        let node = sink.put(&draft.take(level)).map_err(TreeError::Chunk)?;
        let above = self.level(level + 1);
        above.draft.push_node(&node, span);
        above.span += span;
        let ends = ends_node(&node, above.draft.len());
        above.last = Some(node);
        if ends { self.close(sink, level + 1) } else { Ok(()) }
    }

    /// Writes the nodes that are still open.
    pub fn finish<K: ChunkSink>(mut self, sink: &mut K) -> Result<FileRoot, TreeError<K::Error>> {
        self.check_length()?;
        self.write_hole(sink)?;
        let length = self.length;
        if self.slots <= ROOT_EXTENTS_MAX as u64 {
            return Ok(FileRoot { length, top: Top::Extents(self.first) });
        }
        for level in 1..=LEVEL_MAX {
            let at = usize::from(level) - 1;
            if self.open[at].draft.len() == 0 {
                continue;
            }
            if self.open[at + 1..].iter().all(|open| open.draft.len() == 0) {
                let open = &mut self.open[at];
                return match open.last.take() {
                    Some(only) if open.draft.len() == 1 => Ok(FileRoot { length, top: Top::Node(level - 1, only) }),
                    _ => {
                        let node = sink.put(&open.draft.take(level)).map_err(TreeError::Chunk)?;
                        Ok(FileRoot { length, top: Top::Node(level, node) })
                    }
                };
            }
            self.close(sink, level)?;
        }
        Err(TreeError::TooDeep { what: "a file", depth_max: usize::from(LEVEL_MAX) })
    }
}
