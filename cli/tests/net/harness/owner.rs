//! What only the owner of a vault can do, done by hand and without the care that commands take: a head with any
//! content, a tree with any names.

use std::convert::Infallible;

use bytes::Bytes;
use commonhold_protocol::{Coding, DeviceId, Head, NodeId, Record, Verified, ask::Request};
use commonhold_storage_engine::{
    chunk_ref::ChunkRef,
    frame::{Compressor, DEFAULT_LEVEL},
    keys::VaultKeys,
    seal::{open_head, seal, seal_head},
    segment::{CodedSegment, SegmentBuilder},
    tree::{
        ChunkSink,
        entry::{Entry, EntryKind},
        map,
    },
};
use prost::Message;

use super::{Network, Spy, hex_id, noise};

/// Chunks of hand-made segments.
const CHUNK_BYTES: usize = 256 << 10;

/// One segment with `bytes` of noise in it, of the vault with these keys.
pub(crate) fn segment_of_noise(keys: &VaultKeys, seed: u64, bytes: usize, coding: Coding) -> CodedSegment {
    salted_segment_of_noise(keys, rand::random(), seed, bytes, coding)
}

/// The same with a salt, which with the vault makes the segment's id.
pub(crate) fn salted_segment_of_noise(
    keys: &VaultKeys,
    salt: [u8; 16],
    seed: u64,
    bytes: usize,
    coding: Coding,
) -> CodedSegment {
    let mut builder = SegmentBuilder::new(keys.vault_id(), salt);
    for chunk in noise(seed, bytes).chunks(CHUNK_BYTES) {
        let frame = Compressor::new(DEFAULT_LEVEL).unwrap().frame(chunk);
        let sealed = seal(frame, u32::try_from(chunk.len()).unwrap(), keys.convergence());
        builder.push(&sealed).unwrap();
    }
    builder.finish(coding).unwrap()
}

/// What a head's sealed payload says, its hints left out: `docs/FORMAT.md`.
#[derive(Clone, PartialEq, prost::Message)]
struct HeadContent {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "bytes", tag = "2")]
    root: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    table: Bytes,
    #[prost(uint32, tag = "4")]
    k: u32,
    #[prost(uint32, tag = "5")]
    n: u32,
    #[prost(bytes = "bytes", repeated, tag = "6")]
    nodes: Vec<Bytes>,
    #[prost(bytes = "bytes", tag = "9")]
    device: Bytes,
    #[prost(uint64, tag = "10")]
    written_at: u64,
}

/// The owner of a vault, by its phrase.
pub(crate) struct Owner<'n> {
    spy: Spy,
    keys: VaultKeys,
    nodes: Vec<NodeId>,
    _network: &'n Network,
}

impl<'n> Owner<'n> {
    pub(crate) fn new(network: &'n Network, keys: VaultKeys) -> Self {
        let nodes = network.running().into_iter().map(|node| hex_id(&network.node_id(node))).collect();
        Self { spy: Spy::on(network), keys, nodes, _network: network }
    }

    /// The same, who has to do with these nodes alone.
    pub(crate) fn among(network: &'n Network, keys: VaultKeys, nodes: &[usize]) -> Self {
        let nodes = nodes.iter().map(|node| hex_id(&network.node_id(*node))).collect();
        Self { spy: Spy::on(network), keys, nodes, _network: network }
    }

    /// Writes a head that says the same as the newest one, but hints at nothing: neither holders nor addresses, nor
    /// the table of segments that would.
    pub(crate) fn forget_hints(&self) {
        self.rewrite_head(|content| content.table = map::TreeRoot::EMPTY.to_bytes().into());
    }

    /// Makes the vault's drive a folder with just these entries, whatever their names.
    pub(crate) fn plant(&self, entries: &[(&[u8], Entry)]) {
        let mut sink = Sink::new(&self.keys);
        let root = sink.folder(entries);
        self.place(sink.segment);
        self.rewrite_head(|content| content.root = root.to_bytes().into());
    }

    /// As [`Self::plant`], with a folder of that name, in which the entries are.
    pub(crate) fn plant_in(&self, folder: &[u8], entries: &[(&[u8], Entry)], attributes: &Entry) {
        let mut sink = Sink::new(&self.keys);
        let inner = sink.folder(entries);
        let entry = Entry { kind: EntryKind::Directory(inner), ..attributes.clone() };
        let root = sink.folder(&[(folder, entry)]);
        self.place(sink.segment);
        self.rewrite_head(|content| content.root = root.to_bytes().into());
    }

    /// Puts a shard on each of the first nodes, and the record on all.
    fn place(&self, segment: SegmentBuilder) {
        let coded = segment.finish(Coding::new(2, 4).unwrap()).unwrap();
        let manifest = Verified::sign(coded.manifest, self.keys.signing(), &self.spy.network);
        let claims = coded
            .shards
            .into_iter()
            .zip(&self.nodes)
            .zip(0..)
            .map(|((shard, node), index)| self.spy.store(*node, manifest.to_unverified(), index, shard).unwrap());
        let record = Record { manifest: manifest.to_unverified(), claims: claims.collect(), drop: None };
        for node in &self.nodes {
            self.spy.keep(*node, Request::KeepRecords { records: vec![record.clone()], lease: None }).unwrap();
        }
    }

    /// Nodes that the newest head names as holders of what it hints.
    pub(crate) fn named_in_head(&self) -> usize {
        self.newest_head().1.nodes.len()
    }

    fn newest_head(&self) -> (Verified<Head>, HeadContent) {
        let vault = self.keys.vault_id();
        let heads = self.nodes.iter().flat_map(|node| self.spy.heads(*node, vault).0);
        let newest = heads
            .map(|head| head.verify(&self.spy.network).unwrap())
            .max_by_key(|head| head.version.counters().map(|(_, counter)| counter).sum::<u64>())
            .expect("a head");
        let payload = open_head(&newest, self.keys.head_key()).unwrap();
        let content = HeadContent::decode(payload.as_slice()).unwrap();
        (newest, content)
    }

    fn rewrite_head(&self, change: impl FnOnce(&mut HeadContent)) {
        let vault = self.keys.vault_id();
        let (newest, mut content) = self.newest_head();
        content.nodes.clear();
        change(&mut content);
        let version = newest.version.next(DeviceId([7; 8]));
        let sealed = seal_head(&content.encode_to_vec(), &vault, &version, self.keys.head_key()).unwrap();
        let head = Head { vault, version, nonce: sealed.nonce, sealed: sealed.sealed.into() };
        let head = Verified::sign(head, self.keys.signing(), &self.spy.network);
        for node in &self.nodes {
            self.spy.keep(*node, Request::KeepHead { head: head.to_unverified(), lease: None }).unwrap();
        }
    }
}

/// Seals chunks into one segment.
struct Sink<'k> {
    keys: &'k VaultKeys,
    compressor: Compressor,
    segment: SegmentBuilder,
}

impl<'k> Sink<'k> {
    fn new(keys: &'k VaultKeys) -> Self {
        let compressor = Compressor::new(DEFAULT_LEVEL).unwrap();
        Self { keys, compressor, segment: SegmentBuilder::new(keys.vault_id(), rand::random()) }
    }

    /// A folder's tree, its names unchecked: a folder is a map from names to entries.
    fn folder(&mut self, entries: &[(&[u8], Entry)]) -> map::TreeRoot {
        let mut builder = map::Builder::new();
        for (name, entry) in entries {
            builder.push(self, name, &entry.encode().unwrap()).unwrap();
        }
        builder.finish(self).unwrap()
    }
}

impl ChunkSink for Sink<'_> {
    type Error = Infallible;

    fn put(&mut self, plain: &[u8]) -> Result<ChunkRef, Infallible> {
        let frame = self.compressor.frame(plain);
        let sealed = seal(frame, u32::try_from(plain.len()).unwrap(), self.keys.convergence());
        Ok(self.segment.push(&sealed).unwrap())
    }
}
