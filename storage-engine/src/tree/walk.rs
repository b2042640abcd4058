//! Every chunk that a tree is made of: what `check` reads, and what `prune` must keep.

use super::{
    ChunkSource, TreeError,
    directory::decode_name,
    entry::{Entry, EntryKind, FileContent},
    file::{self, Extent, FileRoot, Top},
    map::{self, Place, TreeRoot},
    node::{FileNode, FileSlot, Node},
};
use crate::chunk_ref::ChunkRef;

/// Nodes that may be open at once: far beyond any path that a file system can name.
const OPEN_NODES_MAX: usize = 8192;

/// What a chunk is to the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A node of a directory or of a file.
    Node,
    /// Bytes of a file.
    Data,
}

enum Frame {
    Map(Node, usize),
    File(FileNode, usize),
}

/// A file node that was not opened yet.
struct FilePlace {
    chunk: ChunkRef,
    level: u8,
    span: u64,
}

/// Names every chunk below a directory, parents before children, to `visit`. Where that says no to a node, the walk
/// does not open it: so a subtree that was seen already, in another snapshot, costs nothing.
pub fn directory<S, V>(source: &S, root: &TreeRoot, visit: V) -> Result<(), TreeError<S::Error>>
where
    S: ChunkSource,
    V: FnMut(&ChunkRef, Part) -> bool,
{
    let mut walk = Walk { source, visit, frames: Vec::new() };
    walk.enter_map(root)?;
    walk.run()
}

/// The same for a single file.
pub fn file<S, V>(source: &S, root: &FileRoot, visit: V) -> Result<(), TreeError<S::Error>>
where
    S: ChunkSource,
    V: FnMut(&ChunkRef, Part) -> bool,
{
    let mut walk = Walk { source, visit, frames: Vec::new() };
    walk.enter_file(root)?;
    walk.run()
}

/// Names the nodes of a map whose values are of no interest: its leaves are named, but not opened. Where `visit` says no
/// to an inner node, that is not opened either.
pub fn map<S, V>(source: &S, root: &TreeRoot, mut visit: V) -> Result<(), TreeError<S::Error>>
where
    S: ChunkSource,
    V: FnMut(&ChunkRef) -> bool,
{
    let Some((level, chunk)) = root.top() else { return Ok(()) };
    // Inner nodes that are to be opened yet: at most a node's children for each level.
    let mut open = Vec::new();
    if visit(chunk) && *level > 0 {
        open.push((chunk.clone(), *level, None::<Vec<u8>>));
    }
    while let Some((chunk, level, last_key)) = open.pop() {
        let place = Place { chunk: &chunk, level, last_key: last_key.as_deref() };
        let Node::Inner(inner) = map::open(source, &place)?.1 else {
            return Err(TreeError::Misplaced { what: "kind" });
        };
        for at in 0..inner.len() {
            let child = inner.child(at);
            if visit(&child) && level > 1 {
                open.push((child, level - 1, Some(inner.key(at).to_vec())));
            }
        }
    }
    Ok(())
}

struct Walk<'s, S, V> {
    source: &'s S,
    visit: V,
    frames: Vec<Frame>,
}

impl<S: ChunkSource, V: FnMut(&ChunkRef, Part) -> bool> Walk<'_, S, V> {
    fn push(&mut self, frame: Frame) -> Result<(), TreeError<S::Error>> {
        if self.frames.len() == OPEN_NODES_MAX {
            return Err(TreeError::TooDeep { what: "directories", depth_max: OPEN_NODES_MAX });
        }
        self.frames.push(frame);
        Ok(())
    }

    fn enter_map_node(&mut self, place: &Place<'_>) -> Result<(), TreeError<S::Error>> {
        if (self.visit)(place.chunk, Part::Node) {
            let (_, node) = map::open(self.source, place)?;
            self.push(Frame::Map(node, 0))?;
        }
        Ok(())
    }

    fn enter_map(&mut self, root: &TreeRoot) -> Result<(), TreeError<S::Error>> {
        match root.top() {
            Some((level, chunk)) => self.enter_map_node(&Place { chunk, level: *level, last_key: None }),
            None => Ok(()),
        }
    }

    fn enter_file_node(&mut self, place: FilePlace) -> Result<(), TreeError<S::Error>> {
        if (self.visit)(&place.chunk, Part::Node) {
            let node = file::open(self.source, &place.chunk, place.level, place.span)?;
            self.push(Frame::File(node, 0))?;
        }
        Ok(())
    }

    fn enter_file(&mut self, root: &FileRoot) -> Result<(), TreeError<S::Error>> {
        match root.top() {
            Top::Extents(extents) => {
                for extent in extents {
                    if let Extent::Data(chunk) = extent {
                        (self.visit)(chunk, Part::Data);
                    }
                }
                Ok(())
            }
            Top::Node(level, chunk) => {
                self.enter_file_node(FilePlace { chunk: chunk.clone(), level: *level, span: root.length() })
            }
        }
    }

    fn run(&mut self) -> Result<(), TreeError<S::Error>> {
        while let Some(frame) = self.frames.last_mut() {
            match frame {
                Frame::Map(Node::Leaf(leaf), next) if *next < leaf.len() => {
                    let (key, value) = leaf.entry(*next);
                    *next += 1;
                    decode_name(key)?;
                    match Entry::decode(value)?.kind {
                        EntryKind::Directory(root) => self.enter_map(&root)?,
                        EntryKind::File(FileContent::Chunks(root)) => self.enter_file(&root)?,
                        _ => {}
                    }
                }
                Frame::Map(Node::Inner(inner), next) if *next < inner.len() => {
                    let at = *next;
                    *next += 1;
                    let (chunk, level, key) = (inner.child(at), inner.level() - 1, inner.key(at).to_vec());
                    self.enter_map_node(&Place { chunk: &chunk, level, last_key: Some(&key) })?;
                }
                Frame::File(node, next) if *next < node.len() => {
                    let (level, bytes, slot) = (node.level(), node.bytes(*next), node.slot(*next));
                    *next += 1;
                    match slot {
                        FileSlot::Ref(chunk) if level > 1 => {
                            let span = bytes.end - bytes.start;
                            self.enter_file_node(FilePlace { chunk, level: level - 1, span })?;
                        }
                        FileSlot::Ref(chunk) => {
                            (self.visit)(&chunk, Part::Data);
                        }
                        FileSlot::Hole => {}
                    }
                }
                _ => {
                    self.frames.pop();
                }
            }
        }
        Ok(())
    }
}
