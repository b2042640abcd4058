//! Promise: whatever a stranger's tree, frame or proof is made of, no decoder panics, and none takes memory out of
//! proportion to it.
//!
//! The target functions are those of the fuzzer (`fuzz/`), run here on stable with noise and with nodes, entries and
//! proofs that were valid until a few bytes changed.

#[path = "../../protocol/tests/objects/counting.rs"]
mod counting;
#[expect(unreachable_pub, reason = "they are the library of the fuzz crate")]
#[path = "../../fuzz/src/storage_engine.rs"]
mod targets;

use bytes::Bytes;
use std::{cell::Cell, convert::Infallible};

use commonhold_protocol::{SegmentId, shard_stream::GroupRange};
use commonhold_storage_engine::{
    chunk_ref::{ChunkKey, ChunkRef},
    prove,
    tree::{
        ChunkSink,
        entry::{Entry, EntryKind, FileContent, FileTime, Xattrs},
        file::FileBuilder,
        map,
    },
};
use counting::{Counting, peak_during};
use proptest::{collection::vec, prelude::*, sample::Index};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most bytes held while `length` bytes are decoded: a node keeps its bytes and 8 for each of its items, which have 4
/// at least. An entry's attributes take 64 bytes for each 2 of theirs before they are counted, but an entry has at
/// most 24 KiB; and a frame may be said to hold a chunk of half a MiB, besides zstd's tables.
const fn bytes_allowed(length: usize) -> usize {
    16 * length + (3 << 20)
}

fn run(target: targets::Target, bytes: &[u8]) -> Result<(), TestCaseError> {
    let ((), peak) = peak_during(|| target(bytes));
    prop_assert!(peak <= bytes_allowed(bytes.len()), "{} bytes took {peak}", bytes.len());
    Ok(())
}

/// Keeps the nodes that it is given.
#[derive(Default)]
struct Nodes(Vec<Vec<u8>>);

thread_local! {
    static PLACE: Cell<u32> = const { Cell::new(0) };
}

fn chunk_ref(plain_length: u32, seed: u8) -> ChunkRef {
    let offset = PLACE.get() % (15 << 20);
    PLACE.set(offset + 100);
    let segment = SegmentId::from_bytes([seed % 5; 32]);
    ChunkRef { segment, offset, sealed_length: 100, plain_length, key: ChunkKey::from_bytes([seed; 32]) }
}

impl ChunkSink for Nodes {
    type Error = Infallible;

    fn put(&mut self, plain: &[u8]) -> Result<ChunkRef, Infallible> {
        self.0.push(plain.to_vec());
        Ok(chunk_ref(plain.len() as u32, self.0.len() as u8))
    }
}

fn entry(seed: u8, inline: Vec<u8>) -> Entry {
    let mut xattrs = Xattrs::default();
    for number in 0..seed % 4 {
        xattrs.insert(vec![b'a' + number], vec![seed; 5]).expect("few and short");
    }
    Entry {
        kind: EntryKind::File(FileContent::Inline(inline.into())),
        mode: 0o644,
        uid: seed.into(),
        gid: 100,
        modified: FileTime::new(i64::from(seed) - 100, 5).expect("less than a second"),
        link_group: None,
        xattrs,
    }
}

/// All nodes of a directory of `count` entries: leaves, and inner nodes if they are many.
fn map_nodes(count: u16, inline_bytes: usize) -> Vec<Vec<u8>> {
    let mut nodes = Nodes::default();
    let mut builder = map::Builder::default();
    for number in 0..count {
        let value = entry(number as u8, vec![number as u8; inline_bytes]).encode().expect("short");
        builder.push(&mut nodes, format!("name-{number:05}").as_bytes(), &value).expect("in order");
    }
    builder.finish(&mut nodes).expect("kept");
    nodes.0
}

/// All nodes of a file of `count` chunks, with a hole here and there.
fn file_nodes(count: u16) -> Vec<Vec<u8>> {
    let mut nodes = Nodes::default();
    let mut builder = FileBuilder::new();
    for number in 0..count {
        builder.push(&mut nodes, chunk_ref(1 + u32::from(number), number as u8)).expect("in order");
        if number % 50 == 7 {
            builder.push_hole(4096);
        }
    }
    builder.finish(&mut nodes).expect("kept");
    nodes.0
}

type Changes = Vec<(Index, u8)>;

fn changes() -> impl Strategy<Value = (Changes, Option<Index>)> {
    (vec(any::<(Index, u8)>(), 0..6), any::<Option<Index>>())
}

fn damage(mut bytes: Vec<u8>, (changes, cut): &(Changes, Option<Index>)) -> Vec<u8> {
    for (at, value) in changes {
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
    }
    if let Some(cut) = cut {
        bytes.truncate(cut.index(bytes.len() + 1));
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn noise_harms_nobody(bytes in vec(any::<u8>(), 0..4096)) {
        for (_, target) in targets::TARGETS {
            run(*target, &bytes)?;
        }
    }

    #[test]
    fn damaged_nodes_harm_nobody(
        count in 1..2000_u16, inline in 0..200_usize, which in any::<Index>(), changes in changes(),
    ) {
        let mut nodes = map_nodes(count, inline);
        nodes.extend(file_nodes(count));
        // Sound ones are read whole, or this tests nothing.
        for node in &nodes {
            run(targets::tree_node, node)?;
            prop_assert!(commonhold_storage_engine::tree::node::Node::decode(node.clone().into()).is_ok());
        }
        let node = nodes.swap_remove(which.index(nodes.len()));
        run(targets::tree_node, &damage(node, &changes))?;
    }

    #[test]
    fn damaged_entries_harm_nobody(seed in any::<u8>(), inline in vec(any::<u8>(), 0..4096), changes in changes()) {
        let bytes = entry(seed, inline).encode().expect("short");
        run(targets::tree_entry, &damage(bytes, &changes))?;
    }

    /// A holder that changes a byte of a proof, or leaves one out, is found out: nothing of it is handed on.
    #[test]
    fn a_changed_proof_is_refused(
        shard in vec(any::<u8>(), 1..200_000), first in any::<Index>(), count in 1..5_u32, at in any::<Index>(),
        bit in 0..8_u32,
    ) {
        let length = shard.len() as u64;
        let groups = length.div_ceil(16 << 10) as u32;
        let first = first.index(groups as usize) as u32;
        let ranges = [GroupRange { first, count: count.min(groups - first) }];
        let (root, outboard) = prove::root_of(&shard);
        let read = |offset: u64, buffer: &mut [u8]| {
            buffer.copy_from_slice(&shard[offset as usize..][..buffer.len()]);
            Ok(())
        };
        let mut encoded = prove::encode_ranges(read, outboard.as_bytes(), &root, length, &ranges).expect("sound");
        let whole = Bytes::copy_from_slice(&encoded);
        prop_assert!(prove::decode_ranges(&root, length, &ranges, &whole).is_ok());
        prop_assert!(prove::decode_ranges(&root, length, &ranges, &whole.slice(1..)).is_err());
        let at = at.index(encoded.len());
        encoded[at] ^= 1 << bit;
        prop_assert!(prove::decode_ranges(&root, length, &ranges, &encoded.into()).is_err());
    }
}

/// Two bytes of an entry become an attribute of 64 bytes before it is counted: the limit of an entry bounds it.
#[test]
fn an_entry_of_empty_attributes_stays_small() {
    let bytes = [&[0x08, 1, 0x10, 1][..], &[9 << 3 | 2, 0].repeat(12 << 10)[..24 << 10][4..]].concat();
    let ((), peak) = peak_during(|| targets::tree_entry(&bytes));
    assert!(peak <= 3 << 20, "{} bytes took {peak}", bytes.len());
}
