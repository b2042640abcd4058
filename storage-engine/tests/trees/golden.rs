//! The bytes of version 1 of every tree format stay readable, and are still what is written: two devices must make
//! the same tree, and a snapshot lasts longer than a program.
//!
//! `COMMONHOLD_WRITE_GOLDEN=1` writes the files anew; a changed file is a changed format, and needs a new version.

use std::{convert::Infallible, path::PathBuf};

use bytes::Bytes;
use commonhold_protocol::SegmentId;
use commonhold_storage_engine::{
    chunk_ref::{ChunkKey, ChunkRef},
    tree::{
        ChunkSink,
        entry::{Entry, EntryKind, FileContent, FileTime, LinkGroup, Xattrs},
        file::{FileBuilder, FileRoot},
        map::{Builder, TreeRoot},
        node::{FileSlot, Node},
    },
};

/// Compares with the file of that name.
fn golden(name: &str, bytes: &[u8]) -> Bytes {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}_v1.bin"));
    if std::env::var_os("COMMONHOLD_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    let kept = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(bytes, kept, "{name} is no longer written as it was");
    kept.into()
}

fn chunk(number: u32) -> ChunkRef {
    ChunkRef {
        segment: SegmentId::from_bytes([0xa0 + (number % 2) as u8; 32]),
        offset: number * 1000,
        sealed_length: 900 + number,
        plain_length: 1900 + number,
        key: ChunkKey::from_bytes(std::array::from_fn(|i| (number as usize + i) as u8)),
    }
}

/// Refs by number; keeps what was put.
#[derive(Default)]
struct Counted(Vec<Bytes>);

impl ChunkSink for Counted {
    type Error = Infallible;

    fn put(&mut self, plain: &[u8]) -> Result<ChunkRef, Infallible> {
        self.0.push(Bytes::copy_from_slice(plain));
        Ok(chunk(self.0.len() as u32))
    }
}

#[test]
fn a_leaf() {
    let mut sink = Counted::default();
    let mut builder = Builder::new();
    builder.push(&mut sink, b"", b"nothing").unwrap();
    builder.push(&mut sink, b"key", b"value").unwrap();
    builder.push(&mut sink, &[0xff; 300], b"").unwrap();
    let root = builder.finish(&mut sink).unwrap();
    assert_eq!((root.level(), sink.0.len()), (0, 1));
    let Node::Leaf(leaf) = Node::decode(golden("tree_leaf", &sink.0[0])).unwrap() else { panic!("a leaf") };
    assert_eq!((leaf.len(), leaf.key(0), leaf.value(0)), (3, &b""[..], &b"nothing"[..]));
    assert_eq!((leaf.key(1), leaf.value(1)), (&b"key"[..], &b"value"[..]));
    assert_eq!((leaf.key(2), leaf.value(2)), (&[0xff; 300][..], &b""[..]));
}

/// Where the nodes end is fixed too: were it not, devices of two versions would rewrite each other's trees.
#[test]
fn an_inner_node_and_where_leaves_end() {
    let mut sink = Counted::default();
    let mut builder = Builder::new();
    for number in 0..1000 {
        builder.push(&mut sink, format!("name {number:04}").as_bytes(), &[7; 100]).unwrap();
    }
    let root = builder.finish(&mut sink).unwrap();
    assert_eq!(root.level(), 1);
    golden("tree_map_root", &root.to_bytes());
    assert_eq!(TreeRoot::from_bytes(&root.to_bytes()).unwrap(), root);
    let top = golden("tree_inner", sink.0.last().unwrap());
    let Node::Inner(inner) = Node::decode(top).unwrap() else { panic!("an inner node") };
    assert_eq!((inner.level(), inner.len()), (1, sink.0.len() - 1));
    let keys: Vec<_> = (0..inner.len()).map(|at| String::from_utf8_lossy(inner.key(at)).into_owned()).collect();
    assert_eq!(keys.last().map(String::as_str), Some("name 0999"));
    assert_eq!(inner.child(1), chunk(2));
}

#[test]
fn file_nodes() {
    let mut sink = Counted::default();
    let mut builder = FileBuilder::new();
    for number in 0..5 {
        builder.push(&mut sink, chunk(number)).unwrap();
        builder.push_hole(u64::from(number) << 34);
    }
    let root = builder.finish(&mut sink).unwrap();
    assert_eq!(sink.0.len(), 1);
    let Node::File(node) = Node::decode(golden("file_node_1", &sink.0[0])).unwrap() else { panic!("a file node") };
    assert_eq!((node.level(), node.len(), node.span()), (1, 9, root.length()));
    assert!(matches!(node.slot(0), FileSlot::Ref(first) if first == chunk(0)));
    assert!(matches!(node.slot(8), FileSlot::Hole));
    assert_eq!(node.bytes(2), 1900 + 1901..1900 + 1901 + (1 << 34));

    let mut sink = Counted::default();
    let mut builder = FileBuilder::new();
    for number in 0..3000 {
        builder.push(&mut sink, chunk(number)).unwrap();
    }
    let root = builder.finish(&mut sink).unwrap();
    golden("file_root_node", &root.to_bytes());
    assert_eq!(FileRoot::from_bytes(&root.to_bytes()).unwrap(), root);
    let top = golden("file_node_2", sink.0.last().unwrap());
    let Node::File(node) = Node::decode(top).unwrap() else { panic!("a file node") };
    assert_eq!((node.level(), node.len(), node.span()), (2, sink.0.len() - 1, root.length()));
}

fn entries() -> Vec<(&'static str, Entry)> {
    let file = {
        let mut builder = FileBuilder::new();
        builder.push(&mut Counted::default(), chunk(1)).unwrap();
        builder.push_hole(1 << 33);
        builder.push(&mut Counted::default(), chunk(2)).unwrap();
        builder.finish(&mut Counted::default()).unwrap()
    };
    let directory = {
        let mut builder = Builder::new();
        builder.push(&mut Counted::default(), b"a", b"b").unwrap();
        builder.finish(&mut Counted::default()).unwrap()
    };
    let plain = |kind| Entry {
        kind,
        mode: 0o644,
        uid: 1000,
        gid: 100,
        modified: FileTime::new(1_763_900_000, 123_456_789).unwrap(),
        link_group: None,
        xattrs: Xattrs::default(),
    };
    let mut all = plain(EntryKind::File(FileContent::Inline(b"inline"[..].into())));
    all.mode = 0o4755;
    all.modified = FileTime::new(-1, 999_999_999).unwrap();
    all.link_group = Some(LinkGroup([9; 16]));
    all.xattrs.insert("user.one", "1").unwrap();
    all.xattrs.insert("user.two", "").unwrap();
    vec![
        ("entry_inline", all),
        ("entry_chunks", plain(EntryKind::File(FileContent::Chunks(file)))),
        ("entry_directory", plain(EntryKind::Directory(directory))),
        ("entry_empty_directory", plain(EntryKind::Directory(TreeRoot::EMPTY))),
        ("entry_symlink", plain(EntryKind::Symlink(b"../target"[..].into()))),
        ("entry_fifo", plain(EntryKind::Fifo)),
        ("entry_char_device", plain(EntryKind::CharDevice { major: 1, minor: 3 })),
        ("entry_block_device", plain(EntryKind::BlockDevice { major: 259, minor: 70_000 })),
        ("entry_socket", plain(EntryKind::Socket)),
    ]
}

#[test]
fn every_kind_of_entry() {
    for (name, entry) in entries() {
        let kept = golden(name, &entry.encode().unwrap());
        assert_eq!(Entry::decode(kept).unwrap(), entry, "{name}");
    }
}
