//! Nodes that are each well formed, put together by a stranger so that they contradict each other: every reader finds
//! it out, none goes on for ever, and none panics. (Single nodes, made of noise, are the matter of
//! `arbitrary_bytes.rs`.)

use std::ops::Bound;

use commonhold_storage_engine::{
    chunk_ref::ChunkRef,
    tree::{
        TreeError,
        directory::DirectoryBuilder,
        entry::{Entry, EntryKind, FileContent, FileTime, Xattrs},
        file::{self, FileBuilder, FileRoot},
        map::{self, Builder, TreeRoot},
        merge::{self, ConflictLabel, Labels},
        name::Name,
        node::Node,
        walk::{self, Part},
    },
};
use proptest::{prelude::*, sample::Index};

use super::memory::{Memory, Missing};

type Done = Result<(), TreeError<Missing>>;

fn key(number: u32) -> Vec<u8> {
    format!("{number:06}").into_bytes()
}

fn map_of(store: &mut Memory, numbers: impl IntoIterator<Item = u32>) -> TreeRoot {
    let mut builder = Builder::new();
    for number in numbers {
        builder.push(store, &key(number), &[7; 1000]).unwrap();
    }
    builder.finish(store).unwrap()
}

/// The children of the top node.
fn children(store: &Memory, root: &TreeRoot) -> Vec<(Vec<u8>, ChunkRef)> {
    match Node::decode(store.bytes(root.chunk().unwrap())).unwrap() {
        Node::Inner(inner) => (0..inner.len()).map(|at| (inner.key(at).to_vec(), inner.child(at))).collect(),
        _ => panic!("the top is a leaf"),
    }
}

/// All that can be done with a map, each on its own.
fn map_operations(store: &Memory, root: &TreeRoot, other: &TreeRoot) -> Vec<Done> {
    let numbers = (0..200).step_by(3);
    vec![
        numbers.clone().try_for_each(|number| map::get(store, root, &key(number)).map(drop)),
        map::range(store, root, Bound::Unbounded).try_for_each(|entry| entry.map(drop)),
        map::diff(store, other, root).try_for_each(|change| change.map(drop)),
        {
            let edits: Vec<_> = numbers.map(key).collect();
            let edits = edits.iter().map(|key| (&key[..], Some(&b"new"[..])));
            map::apply(store, &mut store.clone(), root, edits).map(drop)
        },
    ]
}

fn is_misplaced(done: &Done) -> bool {
    matches!(done, Err(TreeError::Misplaced { .. } | TreeError::NotAscending | TreeError::Format(_)))
}

#[test]
fn a_node_that_is_not_what_its_parent_says_is_found_out() {
    let honest = || {
        let mut store = Memory::new();
        let root = map_of(&mut store, 0..200);
        let children = children(&store, &root);
        assert!(children.len() > 3);
        (store, root, children)
    };
    let last_number = |key: &[u8]| std::str::from_utf8(key).unwrap().parse::<u32>().unwrap();
    type Forge<'f> = &'f dyn Fn(&mut Memory, &TreeRoot, &[(Vec<u8>, ChunkRef)]);
    let forgeries: [(&str, Forge<'_>); 6] = [
        ("another leaf", &|store, _, children| store.forge(&children[1].1, store.bytes(&children[2].1))),
        ("the top itself", &|store, root, children| {
            store.forge(&children[1].1, store.bytes(root.chunk().unwrap()));
        }),
        ("a file's node", &|store, _, children| {
            let mut builder = FileBuilder::new();
            for seed in 0..9_u8 {
                let chunk = store.refer(&[seed; 10]);
                builder.push(store, chunk).unwrap();
            }
            let root = builder.finish(store).unwrap();
            store.forge(&children[1].1, store.bytes(root.node().unwrap()));
        }),
        ("a leaf that lacks its last entry", &|store, _, children| {
            let (first, last) = (last_number(&children[0].0) + 1, last_number(&children[1].0));
            let leaf = map_of(store, first..last);
            assert_eq!(leaf.level(), 0);
            store.forge(&children[1].1, store.bytes(leaf.chunk().unwrap()));
        }),
        ("a top in place of a leaf, with the right last key", &|store, _, children| {
            let last = last_number(&children[1].0);
            let top = map_of(store, 0..=last);
            assert_eq!(top.level(), 1);
            store.forge(&children[1].1, store.bytes(top.chunk().unwrap()));
        }),
        ("nothing at all", &|store, _, children| store.forge(&children[1].1, vec![])),
    ];
    for (forgery, forge) in forgeries {
        let (mut store, root, children) = honest();
        let other = map_of(&mut store, 50..250);
        assert!(map_operations(&store, &root, &other).iter().all(Result::is_ok));
        forge(&mut store, &root, &children);
        for (at, done) in map_operations(&store, &root, &other).iter().enumerate() {
            assert!(is_misplaced(done), "{forgery}: operation {at} gave {done:?}");
        }
    }
}

/// A listing in which names come twice, or go backwards, would make a restore write a file twice.
#[test]
fn leaves_that_overlap_are_found_out() {
    let mut store = Memory::new();
    let root = map_of(&mut store, 0..200);
    let children = children(&store, &root);
    let last = std::str::from_utf8(&children[1].0).unwrap().parse::<u32>().unwrap();
    let leaf = map_of(&mut store, [0, last]);
    store.forge(&children[1].1, store.bytes(leaf.chunk().unwrap()));
    let done = map_operations(&store, &root, &TreeRoot::EMPTY);
    assert!(done[1..].iter().all(is_misplaced), "{done:?}");
}

fn file_of(store: &mut Memory, count: u32) -> FileRoot {
    let mut builder = FileBuilder::new();
    for seed in 0..count {
        let chunk = store.refer(&seed.to_le_bytes());
        builder.push(store, chunk).unwrap();
    }
    builder.finish(store).unwrap()
}

fn read_file(store: &Memory, root: &FileRoot) -> Done {
    file::extents(store, root, 0).try_for_each(|extent| extent.map(drop))?;
    (0..root.length())
        .step_by(997)
        .try_for_each(|offset| file::extents(store, root, offset).next().map_or(Ok(()), |extent| extent.map(drop)))
}

#[test]
fn a_file_whose_nodes_do_not_add_up_is_found_out() {
    let mut store = Memory::new();
    let root = file_of(&mut store, 3000);
    read_file(&store, &root).unwrap();
    let Node::File(top) = Node::decode(store.bytes(root.node().unwrap())).unwrap() else { panic!("a file node") };
    let child = match top.slot(1) {
        commonhold_storage_engine::tree::node::FileSlot::Ref(chunk) => chunk,
        commonhold_storage_engine::tree::node::FileSlot::Hole => panic!("level 2 has no holes"),
    };
    let shorter = file_of(&mut store, 100);
    let map = map_of(&mut store, 0..3);
    let honest = store.bytes(&child);
    for forged in [shorter.node().unwrap(), map.chunk().unwrap(), root.node().unwrap()] {
        store.forge(&child, store.bytes(forged));
        let done = read_file(&store, &root);
        assert!(is_misplaced(&done), "{done:?}");
        let done = walk::file(&store, &root, |_, _| true);
        assert!(is_misplaced(&done), "{done:?}");
    }
    store.forge(&child, honest);
    read_file(&store, &root).unwrap();
}

fn entry(kind: EntryKind) -> Entry {
    let (modified, xattrs) = (FileTime::default(), Xattrs::default());
    Entry { kind, mode: 0o644, uid: 0, gid: 0, modified, link_group: None, xattrs }
}

fn name(number: u32) -> Name {
    Name::new(key(number)).unwrap()
}

/// A drive: directories in directories, files in nodes.
fn drive(store: &mut Memory, salt: u32) -> TreeRoot {
    let mut top = DirectoryBuilder::new();
    for number in 0..4 {
        let mut inner = DirectoryBuilder::new();
        for file in 0..40 {
            let root = file_of(store, 3 + salt + 8 * file % 1500);
            inner.push(store, &name(file), &entry(EntryKind::File(FileContent::Chunks(root)))).unwrap();
        }
        let inner = entry(EntryKind::Directory(inner.finish(store).unwrap()));
        top.push(store, &name(number), &inner).unwrap();
    }
    top.finish(store).unwrap()
}

#[test]
fn a_walk_names_every_chunk_and_steps_over_what_it_is_told_to() {
    let mut store = Memory::new();
    let mut top = DirectoryBuilder::new();
    let root = file_of(&mut store, 2500);
    let small = file_of(&mut store, 2);
    top.push(&mut store, &name(1), &entry(EntryKind::File(FileContent::Chunks(root)))).unwrap();
    top.push(&mut store, &name(2), &entry(EntryKind::File(FileContent::Chunks(small)))).unwrap();
    top.push(&mut store, &name(3), &entry(EntryKind::File(FileContent::Inline(vec![1].into())))).unwrap();
    let top = top.finish(&mut store).unwrap();
    let nodes = store.puts();
    store.reset();
    let (mut named, mut data) = (Vec::new(), 0);
    walk::directory(&store, &top, |chunk, part| {
        match part {
            Part::Node => named.push(*chunk.key.as_bytes()),
            Part::Data => data += 1,
        }
        true
    })
    .unwrap();
    assert_eq!((named.len(), data, store.gets()), (nodes, 2500 + 2, nodes));
    assert_eq!(named[0], *top.chunk().unwrap().key.as_bytes(), "parents come first");
    store.reset();
    let mut seen = 0;
    walk::directory(&store, &top, |_, _| {
        seen += 1;
        false
    })
    .unwrap();
    assert_eq!((seen, store.gets()), (1, 0));
}

#[test]
fn the_nodes_of_a_map_are_named_without_opening_its_leaves() {
    let mut store = Memory::new();
    let mut builder = Builder::new();
    for number in 0..20_000_u32 {
        builder.push(&mut store, &number.to_be_bytes(), &[7; 300]).unwrap();
    }
    let root = builder.finish(&mut store).unwrap();
    assert!(root.level() > 0);
    let nodes = store.puts();
    store.reset();
    let mut named = Vec::new();
    walk::map(&store, &root, |chunk| {
        named.push(*chunk.key.as_bytes());
        true
    })
    .unwrap();
    let inner = store.gets();
    assert_eq!(named.len(), nodes);
    assert!(inner < nodes / 10, "{inner} of {nodes} were opened");
    // Whoever reads the entries reads all of them.
    store.reset();
    assert!(map::range(&store, &root, Bound::Unbounded).all(|entry| entry.is_ok()));
    assert_eq!(store.gets(), nodes);
    store.reset();
    let mut seen = 0;
    let mut once = |_: &_| {
        seen += 1;
        false
    };
    walk::map(&store, &root, &mut once).unwrap();
    walk::map(&store, &TreeRoot::EMPTY, &mut once).unwrap();
    assert_eq!((seen, store.gets()), (1, 0));
}

/// No honest hash makes one, but a source that lies can: a directory that lies in itself.
#[test]
fn a_directory_without_a_bottom_is_given_up() {
    let mut store = Memory::new();
    let mut inner = DirectoryBuilder::new();
    inner.push(&mut store, &name(1), &entry(EntryKind::Fifo)).unwrap();
    let inner = inner.finish(&mut store).unwrap();
    let mut outer = DirectoryBuilder::new();
    outer.push(&mut store, &name(1), &entry(EntryKind::Directory(inner.clone()))).unwrap();
    let outer = outer.finish(&mut store).unwrap();
    store.forge(inner.chunk().unwrap(), store.bytes(outer.chunk().unwrap()));
    let walked = walk::directory(&store, &outer, |_, _| true);
    assert!(matches!(walked, Err(TreeError::TooDeep { .. })), "{walked:?}");
}

fn labels() -> Labels {
    let label = |text| ConflictLabel::new(text).unwrap();
    Labels { ours: label("a"), theirs: label("b") }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever one node of a drive becomes, all that is done with the drive ends, and does not panic.
    #[test]
    fn a_drive_with_a_forged_node_harms_nobody(
        which in any::<Index>(), from in any::<Index>(), changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4),
    ) {
        let mut store = Memory::new();
        let (base, ours) = (drive(&mut store, 0), drive(&mut store, 1));
        let mut nodes = Vec::new();
        for root in [&base, &ours] {
            walk::directory(&store, root, |chunk, part| {
                if part == Part::Node {
                    nodes.push(chunk.clone());
                }
                true
            })
            .unwrap();
        }
        // Another node of the same drive, with a few bytes changed.
        let mut bytes = store.bytes(from.get(&nodes)).to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        store.forge(which.get(&nodes), bytes);
        for root in [&base, &ours] {
            let _ = map_operations(&store, root, &ours);
            let _ = walk::directory(&store, root, |_, _| true);
            let _ = walk::map(&store, root, |_| true);
        }
        let theirs = map_of(&mut store, 0..3);
        for roots in [[&base, &ours, &theirs], [&TreeRoot::EMPTY, &ours, &base], [&ours, &base, &TreeRoot::EMPTY]] {
            let [base, ours, theirs] = roots;
            let _ = merge::merge(&store, &mut store.clone(), base, ours, theirs, &labels(), &mut |_| {});
        }
    }
}
