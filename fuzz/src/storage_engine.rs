//! Decoders of the storage engine: what comes out of a segment may have been written by a stranger (a share link is a
//! tree too), and a proof by a holder that lies.

use bytes::Bytes;
use commonhold_protocol::{
    Head, ShardRoot, VaultId, Version,
    shard_stream::{GROUP_BYTES, GroupRange},
};
use commonhold_storage_engine::{
    chunk_ref::ChunkKey,
    frame::Frame,
    keys::{VaultKeys, VaultSecret},
    prove, seal,
    tree::{entry::Entry, file::FileRoot, map::TreeRoot, name::Name, node::Node, packed_ref},
};

/// What is done with any bytes.
pub type Target = fn(&[u8]);

/// Each decoder, by the name of its fuzz target.
pub const TARGETS: &[(&str, Target)] = &[
    ("frame", frame),
    ("sealed_chunk", sealed_chunk),
    ("range_proof", range_proof),
    ("tree_node", tree_node),
    ("tree_entry", tree_entry),
    ("tree_roots", tree_roots),
];

/// A frame, said to be of a length that its own first bytes give: no more than that comes out.
pub fn frame(bytes: &[u8]) {
    let Some((length, bytes)) = bytes.split_first_chunk::<4>() else { return };
    // Beyond a chunk's limit now and then, which must be refused before it is allocated.
    let plain_length = u32::from_le_bytes(*length) % (600 << 10);
    if let Ok(chunk) = Frame::from_bytes(bytes.to_vec()).open(plain_length) {
        assert_eq!(chunk.len(), plain_length as usize);
    }
}

/// A sealed chunk and a sealed head: neither opens by chance.
pub fn sealed_chunk(bytes: &[u8]) {
    assert!(seal::open(bytes.to_vec(), &ChunkKey::from_bytes([7; 32])).is_err());
    let keys = VaultKeys::derive(&VaultSecret::from_bytes([7; 32]));
    let head = Head {
        vault: VaultId::from_bytes([1; 32]),
        version: Version::default(),
        nonce: [2; 24],
        sealed: Bytes::copy_from_slice(bytes),
    };
    assert!(seal::open_head(&head, keys.head_key()).is_err());
}

/// The proof of a range of a shard, whose length, range and root its own first bytes give.
pub fn range_proof(bytes: &[u8]) {
    let Some((numbers, bytes)) = bytes.split_first_chunk::<12>() else { return };
    let Some((root, encoded)) = bytes.split_first_chunk::<32>() else { return };
    let number = |at: usize| u32::from_le_bytes([numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]]);
    let shard_length = u64::from(number(0) % (17 << 20));
    let ranges = [GroupRange { first: number(4) % 1100, count: number(8) % 1100 }];
    if let Ok(found) =
        prove::decode_ranges(&ShardRoot::from_bytes(*root), shard_length, &ranges, &Bytes::copy_from_slice(encoded))
    {
        // Only a shard of one group has a root that a fuzzer can find, by a copy of a known pair.
        let length: u64 = found.iter().map(|proven| proven.end() - proven.start).sum();
        assert!(length <= encoded.len() as u64 && length <= u64::from(ranges[0].count) * GROUP_BYTES);
    }
}

/// A node of a tree: all that it says can be asked for.
pub fn tree_node(bytes: &[u8]) {
    match Node::decode(Bytes::copy_from_slice(bytes)) {
        Ok(Node::Leaf(leaf)) => {
            for at in 0..leaf.len() {
                assert_eq!(leaf.search(leaf.key(at)), Ok(at));
                let (key, value) = leaf.entry(at);
                if Name::new(key).is_ok() {
                    let _ = Entry::decode(value);
                }
            }
        }
        Ok(Node::Inner(inner)) => {
            for at in 0..inner.len() {
                assert_eq!(inner.search(inner.key(at)), Some(at));
                assert!(inner.child(at).plain_length > 0);
            }
        }
        Ok(Node::File(file)) => {
            for at in 0..file.len() {
                let bytes = file.bytes(at);
                assert_eq!(file.search(bytes.start), at);
                assert_eq!(file.search(bytes.end - 1), at);
                let _ = file.slot(at);
            }
        }
        Err(_) => {}
    }
}

/// A directory's entry.
pub fn tree_entry(bytes: &[u8]) {
    if let Ok(entry) = Entry::decode(Bytes::copy_from_slice(bytes)) {
        let again = entry.encode().expect("what was read is written");
        assert_eq!(Entry::decode(again.into()).as_ref(), Ok(&entry));
        let _ = entry.size();
    }
}

/// The roots of maps and of files, and a ref that stands alone.
pub fn tree_roots(bytes: &[u8]) {
    if let Ok(root) = TreeRoot::from_bytes(bytes) {
        assert_eq!(TreeRoot::from_bytes(&root.to_bytes()).as_ref(), Ok(&root));
    }
    if let Ok(root) = FileRoot::from_bytes(bytes) {
        assert_eq!(FileRoot::from_bytes(&root.to_bytes()).as_ref(), Ok(&root));
    }
    if let Ok(chunk) = packed_ref::decode_whole("ref", bytes) {
        assert_eq!(packed_ref::encode_whole(&chunk).as_slice(), bytes);
    }
}
