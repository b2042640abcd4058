//! Copy-on-write edits: reads the nodes on the way to a change, writes the ones that differ, and keeps the rest by
//! their refs.

use super::{
    Place, TreeRoot,
    build::{Known, Origin, Writer},
    open,
};
use crate::{
    chunk_ref::ChunkRef,
    tree::{ChunkSink, ChunkSource, TreeError, node::Node},
};

/// A node of the old version that is being read.
struct Frame {
    node: Node,
    next: usize,
    /// On the way to the last entry: the node ended because the entries did, so it may not be kept before others.
    rightmost: bool,
}

/// Edits a map in ascending order of keys, in one pass. Holds one old and one new node per level.
pub struct Editor<'s, S> {
    source: &'s S,
    root: TreeRoot,
    opened: bool,
    frames: Vec<Frame>,
    writer: Writer,
}

impl<'s, S: ChunkSource> Editor<'s, S> {
    /// An editor of the map under `root`, which itself stays as it is.
    pub fn new(source: &'s S, root: &TreeRoot) -> Self {
        Self { source, root: root.clone(), opened: false, frames: Vec::new(), writer: Writer::default() }
    }

    /// Gives `key` a value, or takes it away; keys in strictly ascending order. To take away what is not there is
    /// no error.
    pub fn edit<K: ChunkSink<Error = S::Error>>(
        &mut self,
        sink: &mut K,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), TreeError<S::Error>> {
        self.keep_until(sink, Some(key))?;
        match value {
            Some(value) => self.writer.entry(sink, key, value),
            None => Ok(()),
        }
    }

    /// Keeps the rest, and gives the root of the new version: the old one, if nothing has changed.
    pub fn finish<K: ChunkSink<Error = S::Error>>(mut self, sink: &mut K) -> Result<TreeRoot, TreeError<S::Error>> {
        if !self.opened {
            return Ok(self.root);
        }
        self.keep_until(sink, None)?;
        let (mut root, origin) = self.writer.finish(sink)?;
        // What is left of the old tree may be a column of nodes with one child each: the lowest of them is the top.
        // A node that was just written has more children, so nothing is read back.
        while let (Origin::Kept, Some((level @ 1.., chunk))) = (origin, root.top()) {
            match open(self.source, &Place { chunk, level: *level, last_key: None })?.1 {
                Node::Inner(inner) if inner.len() == 1 => root = TreeRoot::new(level - 1, inner.child(0)),
                _ => break,
            }
        }
        Ok(root)
    }

    fn open(
        &mut self,
        chunk: &ChunkRef,
        level: u8,
        last_key: Option<&[u8]>,
        rightmost: bool,
    ) -> Result<(), TreeError<S::Error>> {
        let (bytes, node) = open(self.source, &Place { chunk, level, last_key })?;
        self.writer.remember(level, Known { bytes, chunk: chunk.clone() });
        self.frames.push(Frame { node, next: 0, rightmost });
        Ok(())
    }

    /// Moves the old entries before `until` (all, if none) to the new version, and steps over one with that key.
    fn keep_until<K: ChunkSink<Error = S::Error>>(
        &mut self,
        sink: &mut K,
        until: Option<&[u8]>,
    ) -> Result<(), TreeError<S::Error>> {
        if !self.opened {
            self.opened = true;
            if let Some((level, chunk)) = self.root.top().cloned() {
                self.open(&chunk, level, None, true)?;
            }
        }
        while let Some(frame) = self.frames.last_mut() {
            match &frame.node {
                Node::Leaf(leaf) => {
                    while frame.next < leaf.len() {
                        let key = leaf.key(frame.next);
                        match until.map(|until| key.cmp(until)) {
                            None | Some(std::cmp::Ordering::Less) => {}
                            Some(std::cmp::Ordering::Equal) => {
                                frame.next += 1;
                                return Ok(());
                            }
                            Some(std::cmp::Ordering::Greater) => return Ok(()),
                        }
                        self.writer.entry(sink, key, leaf.value(frame.next))?;
                        frame.next += 1;
                    }
                    self.frames.pop();
                }
                Node::Inner(inner) if frame.next == inner.len() => {
                    self.frames.pop();
                }
                Node::Inner(inner) => {
                    let at = frame.next;
                    frame.next += 1;
                    let (key, level, chunk) = (inner.key(at), inner.level() - 1, inner.child(at));
                    let rightmost = frame.rightmost && frame.next == inner.len();
                    let untouched = until.is_none_or(|until| !rightmost && key < until);
                    if untouched && self.writer.is_clean(level) {
                        self.writer.node(sink, level, key, &chunk)?;
                    } else {
                        let key = key.to_vec();
                        self.open(&chunk, level, Some(&key), rightmost)?;
                    }
                }
                Node::File(_) => return Err(TreeError::Misplaced { what: "kind" }),
            }
        }
        Ok(())
    }
}

/// Applies edits, sorted by key, to the map under `root`: only the nodes that they touch are read and written.
pub fn apply<'e, S, K, E>(source: &S, sink: &mut K, root: &TreeRoot, edits: E) -> Result<TreeRoot, TreeError<S::Error>>
where
    S: ChunkSource,
    K: ChunkSink<Error = S::Error>,
    E: IntoIterator<Item = (&'e [u8], Option<&'e [u8]>)>,
{
    let mut editor = Editor::new(source, root);
    for (key, value) in edits {
        editor.edit(sink, key, value)?;
    }
    editor.finish(sink)
}
