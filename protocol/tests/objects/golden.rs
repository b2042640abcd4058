//! Promise: every version of every format that was ever written is still read, and written byte for byte the same.
//!
//! `golden/NAME.vN.hex` holds one object of each kind. They were written once, with fixed keys; a file that exists is
//! never changed. `COMMONHOLD_WRITE_GOLDEN=1` writes those that are missing.

use std::{fs, path::PathBuf};

use bytes::Bytes;
use commonhold_protocol::{
    AuditStatement, Claim, ClaimLeaf, Coding, DeviceId, Drop, DropKind, Head, Lease, Manifest, NetworkName, NodeId,
    Record, SegmentId, ShardIndex, ShardRoot, SignedObject, SigningKey, Timestamp, Unverified, VaultId, Verified,
    Version,
    ask::{ClaimStanding, Entry, HealthReport, Range, RangeDigest, Refusal, Request, Response, record_version},
    audit::{AuditAnswer, Challenge, ChallengedShard, ShardAnswer},
    shard_stream::{GroupRange, ShardReply, ShardRequest},
};

fn network() -> NetworkName {
    "golden".parse().unwrap()
}

fn owner() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

fn holder() -> SigningKey {
    SigningKey::from_seed(&[2; 32])
}

fn vault() -> VaultId {
    VaultId::from_bytes(owner().public())
}

fn sign<T: SignedObject>(object: T) -> Unverified<T> {
    Verified::sign(object, &owner(), &network()).to_unverified()
}

fn manifest() -> Manifest {
    Manifest {
        vault: vault(),
        salt: *b"sixteen bytes ok",
        coding: Coding::new(2, 4).unwrap(),
        length: 5000,
        roots: (1..=4).map(|i| ShardRoot::from_bytes([i; 32])).collect(),
    }
}

fn version() -> Version {
    Version::from_counters([(DeviceId(*b"device-a"), 1), (DeviceId(*b"device-b"), 300)])
}

fn head() -> Head {
    Head { vault: vault(), version: version(), nonce: [3; 24], sealed: Bytes::from_static(b"sealed payload") }
}

fn lease() -> Lease {
    Lease { vault: vault(), counter: 7, valid_until: Timestamp(1_800_000_000_000) }
}

fn drop_of(kind: DropKind) -> Drop {
    Drop { vault: vault(), counter: 9, kind, segments: vec![manifest().id(), SegmentId::from_bytes([5; 32])] }
}

/// The third of five claims of a batch: its path has a left and a right sibling.
fn claim() -> Claim {
    let leaves: Vec<ClaimLeaf> = (0..5).map(|i| ClaimLeaf { segment: manifest().id(), index: ShardIndex(i) }).collect();
    Claim::sign_batch(&leaves, Timestamp(1_700_000_000_000), &holder(), &network()).swap_remove(2)
}

fn record() -> Record {
    Record { manifest: sign(manifest()), claims: vec![claim()], drop: Some(sign(drop_of(DropKind::Undrop))) }
}

/// The bytes of a golden file, written first if asked for and missing.
fn golden(name: &str, written: &[u8]) -> Bytes {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/golden", &format!("{name}.hex")].iter().collect();
    if std::env::var_os("COMMONHOLD_WRITE_GOLDEN").is_some() && !path.exists() {
        let digits: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
        let lines: Vec<&str> = (0..digits.len()).step_by(96).map(|at| &digits[at..digits.len().min(at + 96)]).collect();
        fs::write(&path, lines.join("\n") + "\n").unwrap();
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect::<Vec<u8>>().into()
}

/// A signed object: the file verifies, holds what was signed, and today's writer gives the same bytes.
fn signed<T: SignedObject + PartialEq + std::fmt::Debug + Clone>(name: &str, object: &T) {
    let today = sign(object.clone()).to_bytes();
    let bytes = golden(name, &today);
    let verified = Unverified::<T>::from_bytes(bytes.clone()).unwrap().verify(&network()).unwrap();
    assert_eq!(verified.to_bytes(), bytes, "{name}");
    assert_eq!(&verified.into_object(), object, "{name}");
    assert_eq!(today, bytes, "{name}");
}

/// A message: the file is read as `value`, which is written as the file.
fn message<M: PartialEq + std::fmt::Debug, E: std::fmt::Debug>(
    name: &str,
    value: &M,
    write: impl Fn(&M) -> Vec<u8>,
    read: impl Fn(Bytes) -> Result<M, E>,
) {
    let bytes = golden(name, &write(value));
    let found = read(bytes.clone()).unwrap();
    assert_eq!(&found, value, "{name}");
    assert_eq!(write(&found), bytes, "{name}");
}

#[test]
fn signed_objects() {
    signed("manifest.v1", &manifest());
    signed("head.v1", &head());
    signed("lease.v1", &lease());
    signed("drop.v1", &drop_of(DropKind::Drop));
    signed("undrop.v1", &drop_of(DropKind::Undrop));
}

#[test]
fn claims() {
    message("claim.v1", &claim(), Claim::to_bytes, Claim::from_bytes);
    let verified = Claim::from_bytes(golden("claim.v1", &[])).unwrap().verify(&network()).unwrap();
    assert_eq!(verified.holder.as_bytes(), &holder().public());
}

#[test]
fn versions_and_what_heads_are_sealed_with() {
    message("version.v1", &version(), Version::to_bytes, Version::from_bytes);
    let data = Head::associated_data(&vault(), &version());
    assert_eq!(golden("head-associated-data.v1", &data), data);
}

#[test]
fn ids() {
    assert_eq!(golden("segment-id.v1", manifest().id().as_bytes()), manifest().id().as_bytes().as_slice());
}

#[test]
fn records() {
    message("record.v1", &record(), Record::to_bytes, Record::from_bytes);
}

fn challenge() -> Challenge {
    let shard = |index| ChallengedShard {
        segment: manifest().id(),
        index: ShardIndex(index),
        manifest: manifest().hash(),
        ranges: vec![GroupRange { first: 1, count: 2 }, GroupRange { first: 9, count: 1 }],
    };
    Challenge { nonce: [7; 32], shards: vec![shard(0), shard(3)] }
}

fn audit_answer() -> AuditAnswer {
    let answers = vec![
        ShardAnswer::Proof(Bytes::from_static(b"groups")),
        ShardAnswer::Refused(Refusal::Unknown),
        ShardAnswer::OtherManifest(sign(manifest())),
    ];
    let hash = AuditAnswer::hash(&answers);
    let node = NodeId::from_bytes(holder().public());
    let statement = AuditStatement { holder: node, challenge: challenge().hash(), answers: hash };
    AuditAnswer { answers, statement: Verified::sign(statement, &holder(), &network()).to_unverified() }
}

fn range() -> Range {
    Range { first: [3; 32], last: [5; 32] }
}

/// A record as two stewards compare it.
fn entry() -> Entry {
    Entry { key: *manifest().id().as_bytes(), version: record_version(&record().to_bytes()) }
}

#[test]
fn requests() {
    let segments = vec![manifest().id()];
    let requests = [
        ("about", Request::About),
        ("keep-records", Request::KeepRecords { records: vec![record()], lease: Some(sign(lease())) }),
        ("fetch-records", Request::FetchRecords { segments: segments.clone() }),
        ("lack-records", Request::LackRecords { segments: segments.clone() }),
        ("fetch-versions", Request::FetchVersions { segments }),
        ("fetch-digests", Request::FetchDigests { ranges: vec![Range::ALL, range()] }),
        ("list-records", Request::ListRecords { range: range() }),
        ("announce", Request::Announce { shards: vec![ClaimLeaf { segment: manifest().id(), index: ShardIndex(3) }] }),
        ("keep-head", Request::KeepHead { head: sign(head()), lease: None }),
        ("fetch-heads", Request::FetchHeads { vault: vault() }),
        ("keep-lease", Request::KeepLease { lease: sign(lease()) }),
        ("keep-drop", Request::KeepDrop { drop: sign(drop_of(DropKind::Drop)) }),
        ("audit", Request::Audit(challenge())),
        ("fetch-health", Request::FetchHealth { segments: vec![manifest().id()] }),
        ("release", Request::Release { shards: vec![ClaimLeaf { segment: manifest().id(), index: ShardIndex(3) }] }),
    ];
    for (name, request) in requests {
        message(&format!("request-{name}.v1"), &request, Request::to_bytes, Request::from_bytes);
    }
}

#[test]
fn responses() {
    let about = |shards| Response::About {
        free_bytes: 1 << 40,
        shards,
        clock: Timestamp(1_700_000_000_001),
        steward: true,
        domain: Some("rack-3".into()),
    };
    let health = HealthReport {
        healthy: 17,
        suspect: 2,
        lost: 1,
        repaired_at: Some(Timestamp(1_700_000_000_001)),
        repairing: true,
        resting: false,
    };
    let keeper = NodeId::from_bytes(holder().public());
    let standings = vec![ClaimStanding::Lacking, ClaimStanding::Known, ClaimStanding::Surplus { keeper }];
    let responses = [
        // As it was before it said how many shards there are.
        ("about", about(0)),
        ("about-shards", about(300_000)),
        ("kept", Response::Kept(vec![Ok(()), Err(Refusal::Outdated), Err(Refusal::RecordLimit)])),
        ("records", Response::Records(vec![Some(record()), None])),
        ("lacking", Response::Lacking(vec![manifest().id()])),
        ("heads", Response::Heads { heads: vec![sign(head())], lease: Some(sign(lease())) }),
        ("refused", Response::Refused(Refusal::Busy)),
        ("audited", Response::Audited(audit_answer())),
        ("health", Response::Health(vec![Some(health), None])),
        ("versions", Response::Versions(vec![Some(entry().version), None])),
        ("digests", Response::Digests(vec![RangeDigest::of(&[entry()]), RangeDigest::default()])),
        ("entries", Response::Entries(vec![entry()])),
        ("standings", Response::Standings(standings)),
    ];
    for (name, response) in responses {
        message(&format!("response-{name}.v1"), &response, Response::to_bytes, Response::from_bytes);
    }
}

#[test]
fn shard_streams() {
    let index = ShardIndex(3);
    let ranges = vec![GroupRange { first: 0, count: 2 }, GroupRange { first: 5, count: 1 }];
    let requests = [
        ("store", ShardRequest::Store { manifest: sign(manifest()), index, lease: Some(sign(lease())) }),
        ("read", ShardRequest::Read { segment: manifest().id(), index, ranges, want_manifest: true }),
    ];
    for (name, request) in requests {
        message(&format!("shard-request-{name}.v1"), &request, ShardRequest::to_bytes, ShardRequest::from_bytes);
    }
    let replies = [
        ("go", ShardReply::Go),
        ("stored", ShardReply::Stored { claim: claim() }),
        ("range", ShardReply::Range { encoded_bytes: 16_456, manifest: Some(sign(manifest())) }),
        ("refused", ShardReply::Refused(Refusal::PledgeFull)),
    ];
    for (name, reply) in replies {
        message(&format!("shard-reply-{name}.v1"), &reply, ShardReply::to_bytes, ShardReply::from_bytes);
    }
}
