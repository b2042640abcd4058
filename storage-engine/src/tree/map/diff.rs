//! What differs between two maps: walks both in order of keys, and steps over every node that both have.

use std::cmp::Ordering;

use bytes::Bytes;

use super::{Place, TreeRoot, open};
use crate::{
    chunk_ref::ChunkRef,
    tree::{ChunkSource, TreeError, node::Node},
};

/// One key whose value differs; at least one side has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Bytes,
    /// Its value in the first map.
    pub before: Option<Bytes>,
    /// Its value in the second map.
    pub after: Option<Bytes>,
}

struct Frame {
    node: Node,
    next: usize,
}

/// What stands next on one side.
enum Next {
    Node(u8, ChunkRef),
    Entry(Bytes, Bytes),
    End,
}

/// One side's place: before a node that is not opened, or before an entry.
struct Side {
    /// The top node, until it is opened or stepped over.
    top: Option<(u8, ChunkRef)>,
    frames: Vec<Frame>,
    last_key: Option<Bytes>,
}

impl Side {
    fn new(root: &TreeRoot) -> Self {
        Self { top: root.top().cloned(), frames: Vec::new(), last_key: None }
    }

    fn next(&mut self) -> Next {
        if let Some((level, chunk)) = &self.top {
            return Next::Node(*level, chunk.clone());
        }
        while let Some(Frame { node, next }) = self.frames.last() {
            match node {
                Node::Leaf(leaf) if *next < leaf.len() => {
                    let (key, value) = leaf.entry(*next);
                    return Next::Entry(key, value);
                }
                Node::Inner(inner) if *next < inner.len() => {
                    return Next::Node(inner.level() - 1, inner.child(*next));
                }
                _ => {
                    self.frames.pop();
                }
            }
        }
        Next::End
    }

    /// Steps over what stands next, unopened.
    fn skip(&mut self) {
        if self.top.take().is_none()
            && let Some(frame) = self.frames.last_mut()
        {
            frame.next += 1;
        }
    }

    /// Opens the node that stands next.
    fn open<S: ChunkSource>(&mut self, source: &S) -> Result<(), TreeError<S::Error>> {
        let Next::Node(level, chunk) = self.next() else { return Ok(()) };
        let last_key = match self.frames.last() {
            Some(Frame { node: Node::Inner(inner), next }) => Some(inner.key(*next)),
            _ => None,
        };
        let (_, node) = open(source, &Place { chunk: &chunk, level, last_key })?;
        self.skip();
        self.frames.push(Frame { node, next: 0 });
        Ok(())
    }

    /// Steps over an entry, and checks the order between nodes.
    fn pass<E>(&mut self, key: &Bytes) -> Result<(), TreeError<E>> {
        if self.last_key.as_ref().is_some_and(|last| last >= key) {
            return Err(TreeError::Misplaced { what: "key order" });
        }
        self.last_key = Some(key.clone());
        self.skip();
        Ok(())
    }

    /// True if `chunk` is the node on `level` that follows the open leaf: then it follows every entry left in it.
    fn leads_to(&self, level: u8, chunk: &ChunkRef) -> bool {
        self.frames.iter().any(|Frame { node, next }| match node {
            Node::Inner(inner) => inner.level() == level + 1 && *next < inner.len() && inner.child(*next) == *chunk,
            _ => false,
        })
    }
}

/// The changes from one map to another, in order of keys. Holds one node per level and side; ends after an error.
pub struct Diff<'s, S> {
    source: &'s S,
    before: Side,
    after: Side,
    ended: bool,
}

impl<'s, S: ChunkSource> Diff<'s, S> {
    pub(super) fn new(source: &'s S, before: &TreeRoot, after: &TreeRoot) -> Self {
        Self { source, before: Side::new(before), after: Side::new(after), ended: false }
    }

    fn step(&mut self) -> Result<Option<Change>, TreeError<S::Error>> {
        let Self { source, before, after, .. } = self;
        loop {
            match (before.next(), after.next()) {
                (Next::End, Next::End) => return Ok(None),
                (Next::Node(_, old), Next::Node(_, new)) if old == new => {
                    before.skip();
                    after.skip();
                }
                (Next::Node(old, _), Next::Node(new, _)) => match old.cmp(&new) {
                    Ordering::Greater => before.open(*source)?,
                    Ordering::Less => after.open(*source)?,
                    Ordering::Equal => {
                        before.open(*source)?;
                        after.open(*source)?;
                    }
                },
                (Next::Node(level, chunk), Next::Entry(key, value)) if after.leads_to(level, &chunk) => {
                    after.pass(&key)?;
                    return Ok(Some(Change { key, before: None, after: Some(value) }));
                }
                (Next::Entry(key, value), Next::Node(level, chunk)) if before.leads_to(level, &chunk) => {
                    before.pass(&key)?;
                    return Ok(Some(Change { key, before: Some(value), after: None }));
                }
                (Next::Node(..), _) => before.open(*source)?,
                (_, Next::Node(..)) => after.open(*source)?,
                (Next::Entry(key, value), Next::End) => {
                    before.pass(&key)?;
                    return Ok(Some(Change { key, before: Some(value), after: None }));
                }
                (Next::End, Next::Entry(key, value)) => {
                    after.pass(&key)?;
                    return Ok(Some(Change { key, before: None, after: Some(value) }));
                }
                (Next::Entry(old_key, old), Next::Entry(new_key, new)) => match old_key.cmp(&new_key) {
                    Ordering::Less => {
                        before.pass(&old_key)?;
                        return Ok(Some(Change { key: old_key, before: Some(old), after: None }));
                    }
                    Ordering::Greater => {
                        after.pass(&new_key)?;
                        return Ok(Some(Change { key: new_key, before: None, after: Some(new) }));
                    }
                    Ordering::Equal => {
                        before.pass(&old_key)?;
                        after.pass(&new_key)?;
                        if old != new {
                            return Ok(Some(Change { key: old_key, before: Some(old), after: Some(new) }));
                        }
                    }
                },
            }
        }
    }
}

impl<S: ChunkSource> Iterator for Diff<'_, S> {
    type Item = Result<Change, TreeError<S::Error>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step();
        self.ended = !matches!(step, Ok(Some(_)));
        step.transpose()
    }
}
