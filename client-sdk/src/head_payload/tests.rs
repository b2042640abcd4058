use std::{fs, path::PathBuf};

use commonhold_protocol::NodeId;
use commonhold_storage_engine::{
    chunk_ref::{ChunkKey, ChunkRef},
    tree::{ChunkSink, map::Builder},
};
use proptest::prelude::*;

use super::*;

/// Gives every chunk a place that follows from its bytes.
struct Anywhere;

impl ChunkSink for Anywhere {
    type Error = Error;

    fn put(&mut self, plain: &[u8]) -> Result<ChunkRef, Error> {
        let key = *blake3::hash(plain).as_bytes();
        let segment = SegmentId::from_bytes(*blake3::hash(&key).as_bytes());
        let length = plain.len() as u32;
        Ok(ChunkRef {
            segment,
            offset: 4711,
            sealed_length: length + 17,
            plain_length: length,
            key: ChunkKey::from_bytes(key),
        })
    }
}

fn root(number: u64) -> TreeRoot {
    let mut builder = Builder::new();
    builder.push(&mut Anywhere, &number.to_le_bytes(), b"value").expect("pushed");
    builder.finish(&mut Anywhere).expect("a root")
}

fn version(counters: &[(u8, u64)]) -> Version {
    Version::from_counters(counters.iter().map(|(device, counter)| (DeviceId([*device; 8]), *counter)))
}

fn ancestor(counter: u64) -> Ancestor {
    Ancestor {
        version: version(&[(1, counter)]),
        written_at: Timestamp(1_700_000_000_000 + counter),
        root: root(counter),
        table: TreeRoot::EMPTY,
    }
}

fn node(number: u16, addresses: usize) -> NodeHint {
    let id = *blake3::hash(&number.to_le_bytes()).as_bytes();
    let address = |port| format!("/ip6/2001:db8::{number:x}/udp/{port}/quic-v1").parse().expect("an address");
    NodeHint { node: NodeId::from_bytes(id), addresses: (0..addresses).map(address).collect() }
}

/// A hint of a segment whose shard `i` is at node `first + i`.
fn hint(number: u16, n: u8, first: u16, in_table: bool) -> SegmentHint {
    let holders = (0..u16::from(n)).map(|index| Some(NodeKey::of(&node(first + index, 0).node))).collect();
    let coding = Coding::new(n.div_ceil(2), n).expect("a coding");
    let id = SegmentId::from_bytes(*blake3::hash(&number.to_be_bytes()).as_bytes());
    SegmentHint { id, info: SegmentInfo { coding, length: 1 + u64::from(number), holders }, in_table }
}

fn payload() -> HeadPayload {
    HeadPayload {
        root: root(1),
        table: root(2),
        coding: Some(Coding::new(7, 14).expect("a coding")),
        nodes: (0..4).map(|number| node(number, 2)).collect(),
        hints: vec![hint(1, 4, 0, true), hint(2, 4, 0, false)],
        device: DeviceId([9; 8]),
        written_at: Timestamp(1_763_900_000_000),
        history: History { states: vec![ancestor(1), ancestor(2)], marks: Vec::new() },
    }
}

/// A head that was written once is read for ever. `COMMONHOLD_WRITE_GOLDEN=1` writes the file if it is missing.
#[test]
fn golden_payload_of_version_1() {
    assert_golden("head_payload_v1.bin", &payload());
}

/// Since segments are pruned, the tables of former states are kept too.
#[test]
fn golden_payload_of_version_1_with_former_tables() {
    let mut with_tables = payload();
    for (number, former) in with_tables.history.states.iter_mut().enumerate() {
        former.table = root(10 + number as u64);
    }
    assert_golden("head_payload_v1_tables.bin", &with_tables);
}

fn assert_golden(name: &str, payload: &HeadPayload) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if !path.exists() && std::env::var_os("COMMONHOLD_WRITE_GOLDEN").is_some() {
        fs::write(&path, payload.encode()).expect("written");
    }
    let golden = fs::read(&path).expect("the golden file");
    assert_eq!(HeadPayload::decode(golden.clone().into()).expect("readable"), *payload);
    assert!(payload.encode() == golden, "today's encoding is another");
}

#[test]
fn a_newer_version_is_named_as_such() {
    let mut bytes = payload().encode();
    assert_eq!(bytes[..2], [0x08, 1], "field 1 is the version");
    bytes[1] = 2;
    let Err(Error::HeadDamaged { reason }) = HeadPayload::decode(bytes.into()) else { panic!("it must be refused") };
    assert!(reason.contains("version 2") && reason.contains("newer"), "{reason}");
}

#[test]
fn a_payload_that_fits_keeps_all_but_nodes_that_nobody_asks_for() {
    let mut trimmed = payload();
    trimmed.nodes.push(node(500, 1));
    trimmed.trim();
    assert_eq!(trimmed, payload());
}

/// Once, forty holders with all their addresses made a head that could not be written.
#[test]
fn many_nodes_with_many_addresses_fit() {
    let mut full = payload();
    full.hints = (0..5).map(|number| hint(number, 40, number * 40, false)).collect();
    full.nodes = (0..200).map(|number| node(number, NODE_ADDRESSES_MAX)).collect();
    assert!(full.encode().len() > PAYLOAD_BYTES_MAX, "else this tests nothing");
    let hints = full.hints.clone();
    full.trim();
    assert!(full.encode().len() <= PAYLOAD_BYTES_MAX);
    assert_eq!(full.hints, hints, "nothing else leads to these");
    assert!(full.nodes.len() == 200 && full.nodes.iter().all(|node| !node.addresses.is_empty()));
}

prop_compose! {
    fn any_payload()(
        (number, pinned) in (any::<u64>(), proptest::option::of(1_u8..=255)),
        hints in proptest::collection::vec((any::<u16>(), 1_u8..=40, 0_u16..300, any::<bool>()), 0..150),
        addresses in 0..=NODE_ADDRESSES_MAX,
        history in proptest::collection::vec((any::<u64>(), 1_usize..40), 0..60),
        marks in proptest::collection::vec(any::<[u8; MARK_BYTES]>(), 0..1000),
    ) -> HeadPayload {
        // What a commit leaves out of the table is bounded; the rest is not.
        let mut bare = 0;
        let hints: Vec<SegmentHint> = hints
            .into_iter()
            .map(|(number, n, first, in_table)| {
                bare += usize::from(!in_table);
                hint(number, n, first, in_table || bare > 40)
            })
            .collect();
        let ancestor = |(number, devices): (u64, usize)| Ancestor {
            version: Version::from_counters((0..devices as u8).map(|device| (DeviceId([device; 8]), number | 1))),
            written_at: Timestamp(number),
            root: root(number),
            table: if number % 3 == 0 { TreeRoot::EMPTY } else { root(number ^ 2) },
        };
        HeadPayload {
            root: root(number),
            table: if number % 5 == 0 { TreeRoot::EMPTY } else { root(number ^ 1) },
            coding: pinned.map(|n| Coding::new(n.div_ceil(2), n).expect("a coding")),
            nodes: (0..340).map(|number| node(number, addresses)).collect(),
            hints,
            device: DeviceId(number.to_le_bytes()),
            written_at: Timestamp(number),
            history: History {
                states: history.into_iter().map(ancestor).collect(),
                marks: marks.into_iter().map(Mark).collect(),
            },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_is_trimmed_fits_in_a_head_and_comes_back(payload in any_payload()) {
        let mut trimmed = payload.clone();
        trimmed.trim();
        let bytes = trimmed.encode();
        prop_assert!(bytes.len() <= PAYLOAD_BYTES_MAX, "{} bytes", bytes.len());
        prop_assert!(trimmed.history.states.len() <= HISTORY_MAX);
        let lacking = |payload: &HeadPayload| payload.hints.iter().filter(|hint| !hint.in_table).count();
        prop_assert_eq!(lacking(&trimmed), lacking(&payload));
        prop_assert_eq!(trimmed.history.is_empty(), payload.history.is_empty());
        prop_assert!(payload.history.states.last().is_none_or(|newest| trimmed.history.states.last() == Some(newest)));
        prop_assert_eq!(HeadPayload::decode(bytes.into()).expect("readable"), trimmed);
    }

    #[test]
    fn damaged_payloads_never_panic(at: proptest::sample::Index, flip in 1_u8..) {
        let mut bytes = payload().encode();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        crate::any_bytes::head_payload(&bytes);
    }
}
