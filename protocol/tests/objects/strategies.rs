//! Any signed object, record and message, for the property tests: valid, of every size that a format allows.

#![allow(dead_code, reason = "each test binary takes the strategies that it needs")]

use bytes::Bytes;
use commonhold_protocol::{
    AuditStatement, Claim, ClaimLeaf, Coding, DeviceId, Drop, DropKind, Head, Lease, Manifest, NetworkName, NodeId,
    Record, SegmentId, ShardIndex, ShardRoot, SignedObject, SigningKey, Timestamp, Unverified, VaultId, Verified,
    Version,
    ask::{
        ASK_IDS_MAX, ASK_RANGES_MAX, ASK_RECORDS_MAX, ClaimStanding, Entry, HEAD_SIBLINGS_MAX, HealthReport, Range,
        RangeDigest, Refusal, Request, Response,
    },
    audit::{AuditAnswer, Challenge, ChallengedShard, ShardAnswer},
    claim::BATCH_CLAIMS_MAX,
    manifest::SEGMENT_BYTES_MAX,
    shard_stream::{ENCODED_BYTES_MAX, GROUP_BYTES, GroupRange, READ_RANGES_MAX, ShardReply, ShardRequest},
};
use proptest::{collection::vec, option, prelude::*};

/// The network that everything here is signed for.
pub(crate) fn network() -> NetworkName {
    "test-net".parse().unwrap()
}

/// A key from a seed.
pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// The vault of a key.
pub(crate) fn vault(key: &SigningKey) -> VaultId {
    VaultId::from_bytes(key.public())
}

pub(crate) fn coding() -> impl Strategy<Value = Coding> {
    (1..=255_u8).prop_flat_map(|n| (1..=n, Just(n))).prop_map(|(k, n)| Coding::new(k, n).unwrap())
}

/// Small codings, so that lists of whole records stay below the limit of a message.
fn small_coding() -> impl Strategy<Value = Coding> {
    (1..=20_u8).prop_flat_map(|n| (1..=n, Just(n))).prop_map(|(k, n)| Coding::new(k, n).unwrap())
}

fn manifest_with(coding: impl Strategy<Value = Coding>) -> impl Strategy<Value = (Manifest, u8)> {
    (any::<u8>(), any::<[u8; 16]>(), coding, 1..=SEGMENT_BYTES_MAX)
        .prop_flat_map(|(seed, salt, coding, length)| {
            let roots = vec(any::<[u8; 32]>().prop_map(ShardRoot::from_bytes), usize::from(coding.n()));
            (Just((seed, salt, coding, length)), roots)
        })
        .prop_map(|((seed, salt, coding, length), roots)| {
            (Manifest { vault: vault(&key(seed)), salt, coding, length, roots }, seed)
        })
}

/// A manifest and the seed of the key that may sign it.
pub(crate) fn manifest() -> impl Strategy<Value = (Manifest, u8)> {
    manifest_with(coding())
}

pub(crate) fn version() -> impl Strategy<Value = Version> {
    proptest::collection::btree_map(any::<[u8; 8]>().prop_map(DeviceId), 1..=u64::MAX, 0..=256)
        .prop_map(Version::from_counters)
}

/// A head and the seed of its key.
pub(crate) fn head() -> impl Strategy<Value = (Head, u8)> {
    let sealed = prop_oneof![8 => vec(any::<u8>(), 0..2048), 1 => vec(any::<u8>(), 48 << 10)];
    (any::<u8>(), version(), any::<[u8; 24]>(), sealed).prop_map(|(seed, version, nonce, sealed)| {
        (Head { vault: vault(&key(seed)), version, nonce, sealed: Bytes::from(sealed) }, seed)
    })
}

/// A lease and the seed of its key.
pub(crate) fn lease() -> impl Strategy<Value = (Lease, u8)> {
    (any::<u8>(), any::<u64>(), any::<u64>()).prop_map(|(seed, counter, end)| {
        (Lease { vault: vault(&key(seed)), counter, valid_until: Timestamp(end) }, seed)
    })
}

fn segment() -> impl Strategy<Value = SegmentId> {
    any::<[u8; 32]>().prop_map(SegmentId::from_bytes)
}

/// A drop and the seed of its key.
pub(crate) fn drop() -> impl Strategy<Value = (Drop, u8)> {
    let kind = prop_oneof![Just(DropKind::Drop), Just(DropKind::Undrop)];
    (any::<u8>(), any::<u64>(), kind, vec(segment(), 1..=256))
        .prop_map(|(seed, counter, kind, segments)| (Drop { vault: vault(&key(seed)), counter, kind, segments }, seed))
}

pub(crate) fn leaf() -> impl Strategy<Value = ClaimLeaf> {
    (segment(), any::<u8>()).prop_map(|(segment, index)| ClaimLeaf { segment, index: ShardIndex(index) })
}

/// One claim out of a batch of any size, at any place in it.
pub(crate) fn claim() -> impl Strategy<Value = Claim> {
    (any::<u8>(), any::<u64>(), vec(leaf(), 1..=BATCH_CLAIMS_MAX), any::<prop::sample::Index>()).prop_map(
        |(seed, at, leaves, which)| {
            let mut claims = Claim::sign_batch(&leaves, Timestamp(at), &key(seed), &network());
            claims.swap_remove(which.index(leaves.len()))
        },
    )
}

fn signed<T: SignedObject>((object, seed): (T, u8)) -> Unverified<T> {
    Verified::sign(object, &key(seed), &network()).to_unverified()
}

pub(crate) fn record() -> impl Strategy<Value = Record> {
    (manifest_with(small_coding()), vec(claim(), 0..4), option::of(drop()))
        .prop_map(|(manifest, claims, drop)| Record { manifest: signed(manifest), claims, drop: drop.map(signed) })
}

pub(crate) fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        Just(Request::About),
        (vec(record(), 0..8), option::of(lease()))
            .prop_map(|(records, lease)| Request::KeepRecords { records, lease: lease.map(signed) }),
        vec(segment(), 0..=ASK_RECORDS_MAX).prop_map(|segments| Request::FetchRecords { segments }),
        vec(segment(), 0..=ASK_IDS_MAX).prop_map(|segments| Request::LackRecords { segments }),
        (head(), option::of(lease()))
            .prop_map(|(head, lease)| Request::KeepHead { head: signed(head), lease: lease.map(signed) }),
        any::<[u8; 32]>().prop_map(|vault| Request::FetchHeads { vault: VaultId::from_bytes(vault) }),
        lease().prop_map(|lease| Request::KeepLease { lease: signed(lease) }),
        drop().prop_map(|drop| Request::KeepDrop { drop: signed(drop) }),
        challenge().prop_map(Request::Audit),
        vec(segment(), 0..=ASK_IDS_MAX).prop_map(|segments| Request::FetchHealth { segments }),
        vec(leaf(), 0..=ASK_IDS_MAX).prop_map(|shards| Request::Release { shards }),
        vec(segment(), 0..=ASK_IDS_MAX).prop_map(|segments| Request::FetchVersions { segments }),
        vec(key_range(), 0..=ASK_RANGES_MAX).prop_map(|ranges| Request::FetchDigests { ranges }),
        key_range().prop_map(|range| Request::ListRecords { range }),
        vec(leaf(), 0..=ASK_IDS_MAX).prop_map(|shards| Request::Announce { shards }),
    ]
}

fn key_range() -> impl Strategy<Value = Range> {
    any::<([u8; 32], [u8; 32])>().prop_map(|(first, last)| Range { first, last })
}

fn claim_standing() -> impl Strategy<Value = ClaimStanding> {
    let keeper = any::<[u8; 32]>().prop_map(NodeId::from_bytes);
    prop_oneof![
        Just(ClaimStanding::Lacking),
        Just(ClaimStanding::Known),
        keeper.prop_map(|keeper| ClaimStanding::Surplus { keeper }),
    ]
}

/// Within the limits: a challenge of one to eight shards.
fn challenge() -> impl Strategy<Value = Challenge> {
    let shard = (segment(), any::<u8>(), any::<[u8; 32]>(), 0..1000_u32, 1..=4_u32);
    let shard = shard.prop_map(|(segment, index, manifest, first, count)| {
        let ranges = vec![GroupRange { first, count }];
        ChallengedShard { segment, index: ShardIndex(index), manifest, ranges }
    });
    (any::<[u8; 32]>(), vec(shard, 1..=8)).prop_map(|(nonce, shards)| Challenge { nonce, shards })
}

pub(crate) fn audit_statement() -> impl Strategy<Value = (AuditStatement, u8)> {
    let statement = |(challenge, answers, seed): ([u8; 32], [u8; 32], u8)| {
        (AuditStatement { holder: node(&key(seed)), challenge, answers }, seed)
    };
    any::<([u8; 32], [u8; 32], u8)>().prop_map(statement)
}

fn audit_answer() -> impl Strategy<Value = AuditAnswer> {
    let proof = vec(any::<u8>(), 0..64).prop_map(|proof| ShardAnswer::Proof(proof.into()));
    let other = manifest_with(small_coding()).prop_map(|other| ShardAnswer::OtherManifest(signed(other)));
    let answers = vec(prop_oneof![proof, refusal().prop_map(ShardAnswer::Refused), other], 0..8);
    (answers, audit_statement()).prop_map(|(answers, statement)| AuditAnswer { answers, statement: signed(statement) })
}

/// A segment has a shard at least.
fn health() -> impl Strategy<Value = HealthReport> {
    let counts = (1..=255_u8, any::<u8>(), any::<u8>());
    let flags = (any::<bool>(), any::<bool>());
    (counts, option::of(1..u64::MAX), flags).prop_map(|((healthy, suspect, lost), at, (repairing, resting))| {
        HealthReport { healthy, suspect, lost, repaired_at: at.map(Timestamp), repairing, resting }
    })
}

pub(crate) fn refusal() -> impl Strategy<Value = Refusal> {
    (1..=15_u32).prop_map(Refusal::from_code)
}

pub(crate) fn response() -> impl Strategy<Value = Response> {
    prop_oneof![
        (any::<u64>(), any::<u64>(), any::<u64>(), any::<bool>(), option::of("[a-z0-9-]{1,64}")).prop_map(
            |(free_bytes, shards, clock, steward, domain)| Response::About {
                free_bytes,
                shards,
                clock: Timestamp(clock),
                steward,
                domain
            }
        ),
        vec(prop_oneof![Just(Ok(())), refusal().prop_map(Err)], 0..=ASK_RECORDS_MAX).prop_map(Response::Kept),
        vec(option::of(record()), 0..8).prop_map(Response::Records),
        vec(segment(), 0..=ASK_IDS_MAX).prop_map(Response::Lacking),
        (vec(head(), 0..=HEAD_SIBLINGS_MAX), option::of(lease())).prop_map(|(heads, lease)| Response::Heads {
            heads: heads.into_iter().map(signed).collect(),
            lease: lease.map(signed)
        }),
        refusal().prop_map(Response::Refused),
        audit_answer().prop_map(Response::Audited),
        vec(option::of(health()), 0..=ASK_IDS_MAX).prop_map(Response::Health),
        // No version is all zeros.
        vec(option::of(prop::array::uniform32(1..=255_u8)), 0..=ASK_IDS_MAX).prop_map(Response::Versions),
        vec((any::<u64>(), any::<u128>()).prop_map(|(count, sum)| RangeDigest { count, sum }), 0..=ASK_RANGES_MAX)
            .prop_map(Response::Digests),
        vec(any::<([u8; 32], [u8; 32])>().prop_map(|(key, version)| Entry { key, version }), 0..=ASK_IDS_MAX)
            .prop_map(Response::Entries),
        vec(claim_standing(), 0..=ASK_IDS_MAX).prop_map(Response::Standings),
    ]
}

/// Runs that ascend and do not touch, within what a segment can have.
pub(crate) fn ranges() -> impl Strategy<Value = Vec<GroupRange>> {
    vec((0..8_u32, 1..8_u32), 1..=READ_RANGES_MAX).prop_map(|gaps_and_counts| {
        let mut first = 0;
        let mut ranges = Vec::new();
        for (gap, count) in gaps_and_counts {
            ranges.push(GroupRange { first: first + gap, count });
            first += gap + count + 1;
        }
        let groups_max = (SEGMENT_BYTES_MAX / GROUP_BYTES) as u32;
        ranges.retain(|range| range.first + range.count <= groups_max);
        ranges
    })
}

pub(crate) fn shard_request() -> impl Strategy<Value = ShardRequest> {
    prop_oneof![
        (manifest(), any::<u8>(), option::of(lease())).prop_map(|(manifest, index, lease)| ShardRequest::Store {
            manifest: signed(manifest),
            index: ShardIndex(index),
            lease: lease.map(signed)
        }),
        (segment(), any::<u8>(), ranges(), any::<bool>()).prop_map(|(segment, index, ranges, want_manifest)| {
            ShardRequest::Read { segment, index: ShardIndex(index), ranges, want_manifest }
        }),
    ]
}

pub(crate) fn shard_reply() -> impl Strategy<Value = ShardReply> {
    prop_oneof![
        Just(ShardReply::Go),
        claim().prop_map(|claim| ShardReply::Stored { claim }),
        (0..=ENCODED_BYTES_MAX, option::of(manifest()))
            .prop_map(|(encoded_bytes, manifest)| ShardReply::Range { encoded_bytes, manifest: manifest.map(signed) }),
        refusal().prop_map(ShardReply::Refused),
    ]
}

/// A node's id, from its key.
pub(crate) fn node(key: &SigningKey) -> NodeId {
    NodeId::from_bytes(key.public())
}
