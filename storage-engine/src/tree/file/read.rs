//! Reads a file's extents from any byte on.

use super::{Extent, FileRoot, Top};
use crate::{
    chunk_ref::ChunkRef,
    tree::{
        ChunkSource, TreeError,
        node::{FileNode, FileSlot, Node},
    },
};

struct Frame {
    node: FileNode,
    /// The file's byte that the node starts with.
    start: u64,
}

impl Frame {
    fn holds(&self, offset: u64) -> bool {
        offset.checked_sub(self.start).is_some_and(|inside| inside < self.node.span())
    }
}

/// Fetches a node and checks that it is what its parent says: its level, and that it has `span` bytes.
pub(in crate::tree) fn open<S: ChunkSource>(
    source: &S,
    chunk: &ChunkRef,
    level: u8,
    span: u64,
) -> Result<FileNode, TreeError<S::Error>> {
    let bytes = source.get(chunk).map_err(TreeError::Chunk)?;
    let Node::File(node) = Node::decode(bytes)? else {
        return Err(TreeError::Misplaced { what: "kind" });
    };
    if node.level() != level {
        return Err(TreeError::Misplaced { what: "level" });
    }
    if node.span() != span {
        return Err(TreeError::Misplaced { what: "length" });
    }
    Ok(node)
}

/// The extents of a file, each with the byte that it starts at. Holds one node per level; ends after an error.
pub struct Extents<'s, S> {
    source: &'s S,
    root: FileRoot,
    offset: u64,
    /// The path to the extent before `offset`, or what is left of it.
    frames: Vec<Frame>,
}

impl<'s, S: ChunkSource> Extents<'s, S> {
    pub(super) fn new(source: &'s S, root: &FileRoot, offset: u64) -> Self {
        Self { source, root: root.clone(), offset, frames: Vec::new() }
    }

    /// Goes on with the extent that holds byte `offset`; nodes on the way that are open already are not read again.
    pub fn seek(&mut self, offset: u64) {
        self.offset = offset;
    }

    fn open(&mut self, chunk: &ChunkRef, level: u8, start: u64, span: u64) -> Result<(), TreeError<S::Error>> {
        let node = open(self.source, chunk, level, span)?;
        self.frames.push(Frame { node, start });
        Ok(())
    }

    fn step(&mut self) -> Result<Option<(u64, Extent)>, TreeError<S::Error>> {
        if self.offset >= self.root.length {
            return Ok(None);
        }
        let (level, top) = match &self.root.top {
            Top::Node(level, chunk) => (*level, chunk.clone()),
            Top::Extents(extents) => {
                let mut start = 0;
                for extent in extents {
                    let end = start + extent.length();
                    if self.offset < end {
                        self.offset = end;
                        return Ok(Some((start, extent.clone())));
                    }
                    start = end;
                }
                return Ok(None);
            }
        };
        while self.frames.pop_if(|frame| !frame.holds(self.offset)).is_some() {}
        if self.frames.is_empty() {
            self.open(&top, level, 0, self.root.length)?;
        }
        while let Some(Frame { node, start }) = self.frames.last() {
            let at = node.search(self.offset - start);
            let bytes = node.bytes(at);
            let (first, span) = (start + bytes.start, bytes.end - bytes.start);
            let (level, slot) = (node.level(), node.slot(at));
            match slot {
                FileSlot::Ref(chunk) if level > 1 => self.open(&chunk, level - 1, first, span)?,
                FileSlot::Ref(chunk) => {
                    self.offset = first + span;
                    return Ok(Some((first, Extent::Data(chunk))));
                }
                FileSlot::Hole => {
                    self.offset = first + span;
                    return Ok(Some((first, Extent::Hole(span))));
                }
            }
        }
        Ok(None)
    }
}

impl<S: ChunkSource> Iterator for Extents<'_, S> {
    type Item = Result<(u64, Extent), TreeError<S::Error>>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.offset = self.root.length;
        }
        step.transpose()
    }
}
