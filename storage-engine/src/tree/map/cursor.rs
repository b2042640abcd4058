//! Reads a map in order of keys, from any key on.

use std::ops::Bound;

use bytes::Bytes;

use super::{Place, TreeRoot, open};
use crate::{
    chunk_ref::ChunkRef,
    tree::{ChunkSource, TreeError, node::Node},
};

/// Children that a source is told of ahead of a scan.
const HINT_NODES_MAX: usize = 16;

struct Frame {
    node: Node,
    next: usize,
}

/// The entries of a map in order of keys. Holds one node per level; ends after an error.
pub struct Cursor<'s, S> {
    source: &'s S,
    root: TreeRoot,
    /// Where to start; taken by the first step.
    start: Option<Bound<Vec<u8>>>,
    frames: Vec<Frame>,
    last_key: Option<Bytes>,
}

impl<'s, S: ChunkSource> Cursor<'s, S> {
    pub(super) fn new(source: &'s S, root: &TreeRoot, start: Bound<&[u8]>) -> Self {
        let start = Some(start.map(<[u8]>::to_vec));
        Self { source, root: root.clone(), start, frames: Vec::new(), last_key: None }
    }

    fn open(&mut self, chunk: &ChunkRef, level: u8, last_key: Option<&[u8]>) -> Result<(), TreeError<S::Error>> {
        let (_, node) = open(self.source, &Place { chunk, level, last_key })?;
        self.frames.push(Frame { node, next: 0 });
        Ok(())
    }

    /// Opens the path to the first entry at or after `start`.
    fn seek(&mut self, start: &Bound<Vec<u8>>) -> Result<(), TreeError<S::Error>> {
        let Some((level, chunk)) = self.root.top().cloned() else { return Ok(()) };
        self.open(&chunk, level, None)?;
        let (Bound::Included(key) | Bound::Excluded(key)) = start else { return Ok(()) };
        while let Some(frame) = self.frames.last_mut() {
            match &frame.node {
                Node::Inner(inner) => {
                    frame.next = inner.search(key).unwrap_or(inner.len());
                    if frame.next == inner.len() {
                        return Ok(());
                    }
                    self.descend()?;
                }
                Node::Leaf(leaf) => {
                    frame.next = match (leaf.search(key), start) {
                        (Ok(at), Bound::Excluded(_)) => at + 1,
                        (Ok(at) | Err(at), _) => at,
                    };
                    return Ok(());
                }
                Node::File(_) => return Err(TreeError::Misplaced { what: "kind" }),
            }
        }
        Ok(())
    }

    /// Opens the next child of the lowest node, which is an inner node that has one.
    fn descend(&mut self) -> Result<(), TreeError<S::Error>> {
        let Some(Frame { node: Node::Inner(inner), next }) = self.frames.last_mut() else { return Ok(()) };
        let at = *next;
        *next += 1;
        if inner.level() == 1 && at.is_multiple_of(HINT_NODES_MAX) {
            let soon: Vec<ChunkRef> =
                (at..inner.len().min(at + HINT_NODES_MAX)).map(|child| inner.child(child)).collect();
            self.source.hint(&soon);
        }
        let (key, level, chunk) = (inner.key(at).to_vec(), inner.level() - 1, inner.child(at));
        self.open(&chunk, level, Some(&key))
    }

    fn step(&mut self) -> Result<Option<(Bytes, Bytes)>, TreeError<S::Error>> {
        if let Some(start) = self.start.take() {
            self.seek(&start)?;
        }
        while let Some(frame) = self.frames.last_mut() {
            match &frame.node {
                Node::Leaf(leaf) if frame.next < leaf.len() => {
                    let (key, value) = leaf.entry(frame.next);
                    frame.next += 1;
                    // Order within a node was checked when it was decoded; this is the order between nodes.
                    if self.last_key.as_ref().is_some_and(|last| *last >= key) {
                        return Err(TreeError::Misplaced { what: "key order" });
                    }
                    self.last_key = Some(key.clone());
                    return Ok(Some((key, value)));
                }
                Node::Inner(inner) if frame.next < inner.len() => self.descend()?,
                _ => {
                    self.frames.pop();
                }
            }
        }
        Ok(None)
    }
}

impl<S: ChunkSource> Iterator for Cursor<'_, S> {
    type Item = Result<(Bytes, Bytes), TreeError<S::Error>>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.frames.clear();
        }
        step.transpose()
    }
}
