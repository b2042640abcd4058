//! Promise: what is written is read back as it was, whatever its size, and within the length that its format names.

use std::fmt::Debug;

use super::strategies::{self, key, network};
use commonhold_protocol::{
    Claim, Coding, NetworkName, NodeId, Record, SegmentId, SignedObject, Unverified, Verified, Version,
    ask::{ASK_BYTES_MAX, Refusal, Request, Response},
    record::RECORD_BYTES_MAX,
    shard_stream::{GROUP_BYTES, GroupRange, HEADER_BYTES_MAX, ShardReply, ShardRequest},
    sign::ENVELOPE_BYTES_MAX,
};
use proptest::prelude::*;

/// Payload and envelope both come back, verify, and keep within their limits.
fn comes_back<T: SignedObject + Clone + PartialEq + Debug>(object: &T, seed: u8) {
    let payload = object.encode();
    assert!(payload.len() <= T::BYTES_MAX, "{} bytes of {}", payload.len(), T::BYTES_MAX);
    assert_eq!(&T::decode(payload.clone().into()).unwrap(), object);

    let signed = Verified::sign(object.clone(), &key(seed), &network());
    assert_eq!(signed.payload(), &payload);
    let bytes = signed.to_bytes();
    assert!(bytes.len() <= T::BYTES_MAX + ENVELOPE_BYTES_MAX);
    let read = Unverified::<T>::from_bytes(bytes.clone()).unwrap();
    assert_eq!(read.to_bytes(), bytes);
    let verified = read.verify(&network()).unwrap();
    assert_eq!(verified.to_bytes(), bytes);
    assert_eq!(verified.into_object(), *object);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_manifest_comes_back((manifest, seed) in strategies::manifest()) {
        comes_back(&manifest, seed);
    }

    #[test]
    fn a_head_comes_back((head, seed) in strategies::head()) {
        comes_back(&head, seed);
    }

    #[test]
    fn a_lease_comes_back((lease, seed) in strategies::lease()) {
        comes_back(&lease, seed);
    }

    #[test]
    fn a_drop_comes_back((drop, seed) in strategies::drop()) {
        comes_back(&drop, seed);
    }

    #[test]
    fn a_version_comes_back(version in strategies::version()) {
        prop_assert_eq!(&Version::from_bytes(version.to_bytes().into()).unwrap(), &version);
    }

    #[test]
    fn a_claim_comes_back(claim in strategies::claim()) {
        let bytes = claim.to_bytes();
        prop_assert!(bytes.len() <= Claim::BYTES_MAX);
        prop_assert_eq!(&Claim::from_bytes(bytes.into()).unwrap(), &claim);
    }

    #[test]
    fn a_record_comes_back(record in strategies::record()) {
        let bytes = record.to_bytes();
        prop_assert!(bytes.len() <= RECORD_BYTES_MAX);
        prop_assert_eq!(&Record::from_bytes(bytes.into()).unwrap(), &record);
    }

    #[test]
    fn a_request_comes_back(request in strategies::request()) {
        let bytes = request.to_bytes();
        prop_assert!(bytes.len() <= ASK_BYTES_MAX);
        prop_assert_eq!(&Request::from_bytes(bytes.into()).unwrap(), &request);
    }

    #[test]
    fn a_response_comes_back(response in strategies::response()) {
        let bytes = response.to_bytes();
        prop_assert!(bytes.len() <= ASK_BYTES_MAX);
        prop_assert_eq!(&Response::from_bytes(bytes.into()).unwrap(), &response);
    }

    #[test]
    fn a_shard_request_comes_back(request in strategies::shard_request()) {
        let bytes = request.to_bytes();
        prop_assert!(bytes.len() <= HEADER_BYTES_MAX);
        prop_assert_eq!(&ShardRequest::from_bytes(bytes.into()).unwrap(), &request);
    }

    #[test]
    fn a_shard_reply_comes_back(reply in strategies::shard_reply()) {
        let bytes = reply.to_bytes();
        prop_assert!(bytes.len() <= HEADER_BYTES_MAX);
        prop_assert_eq!(&ShardReply::from_bytes(bytes.into()).unwrap(), &reply);
    }

    /// A value that a newer version adds under a number of its own is skipped, not refused.
    #[test]
    fn an_unknown_field_is_skipped(request in strategies::request(), value in any::<[u8; 5]>()) {
        let mut bytes = request.to_bytes();
        bytes.extend_from_slice(&[0x9a, 0x06, 5]); // field 99, length-delimited
        bytes.extend_from_slice(&value);
        prop_assert_eq!(Request::from_bytes(bytes.into()).unwrap(), request);
    }

    #[test]
    fn ids_are_read_from_the_hex_that_they_print(bytes in any::<[u8; 32]>()) {
        let id = SegmentId::from_bytes(bytes);
        prop_assert_eq!(SegmentId::from_hex(&format!("{id:#}")), Some(id));
        prop_assert_eq!(SegmentId::from_hex(&format!("{id:#}0")), None);
        let node = NodeId::from_bytes(bytes);
        prop_assert_eq!(NodeId::from_peer_id_bytes(&node.peer_id_bytes()), Some(node));
    }

    #[test]
    fn a_coding_is_read_from_what_it_prints(coding in strategies::coding()) {
        prop_assert_eq!(coding.to_string().parse::<Coding>().unwrap(), coding);
    }

    /// Short segments take fewer data shards, never more than the vault's, and lose none of the tolerance.
    #[test]
    fn a_short_segment_keeps_its_loss_tolerance(coding in strategies::coding(), length in 1..=16_u64 << 20) {
        let short = coding.for_length(length);
        prop_assert_eq!(short.parity(), coding.parity());
        prop_assert!(short.k() <= coding.k());
        prop_assert!(short.shard_length(length) * u64::from(short.k()) >= length);
        prop_assert!(short.k() <= short.threshold() && short.threshold() <= short.placed_enough());
        prop_assert!(short.placed_enough() <= short.n());
    }

    /// The groups that hold a byte range hold all of it, and are the fewest that do.
    #[test]
    fn group_ranges_cover_their_bytes(start in 0..1_u64 << 24, length in 1..1_u64 << 20) {
        let shard_length = 1 << 25;
        let covered = GroupRange::of_bytes(start, start + length).bytes(shard_length);
        prop_assert!(covered.start <= start && start + length <= covered.end);
        prop_assert!(start - covered.start < GROUP_BYTES && covered.end - (start + length) < GROUP_BYTES);
    }
}

#[test]
fn hex_that_only_a_number_parser_takes_is_no_id() {
    // `u8::from_str_radix` reads "+f" as 15: two texts would have named one id.
    let digits = "0".repeat(62);
    assert!(SegmentId::from_hex(&format!("{digits}0f")).is_some());
    assert_eq!(SegmentId::from_hex(&format!("{digits}+f")), None);
    assert_eq!(SegmentId::from_hex(&format!("{digits}0F")), None);
}

#[test]
fn every_refusal_has_a_number_of_its_own() {
    let refusals: Vec<Refusal> = (1..=13).map(Refusal::from_code).collect();
    for (code, refusal) in (1..).zip(&refusals) {
        assert_eq!(refusal.code(), code);
    }
    assert_eq!(Refusal::from_code(0), Refusal::Other);
    assert_eq!(Refusal::from_code(u32::MAX), Refusal::Other);
}

#[test]
fn the_largest_messages_fit_their_limits() {
    use commonhold_protocol::{Manifest, ShardIndex, ShardRoot, Timestamp, VaultId, claim::BATCH_CLAIMS_MAX};
    let owner = key(1);
    let manifest = Manifest {
        vault: VaultId::from_bytes(owner.public()),
        salt: [0xff; 16],
        coding: Coding::new(128, 255).unwrap(),
        length: 16 << 20,
        roots: vec![ShardRoot::from_bytes([0xff; 32]); 255],
    };
    let id = manifest.id();
    let signed = Verified::sign(manifest, &owner, &network()).to_unverified();
    let leaves: Vec<_> = (0..BATCH_CLAIMS_MAX)
        .map(|i| commonhold_protocol::ClaimLeaf { segment: id, index: ShardIndex(i as u8) })
        .collect();
    let claims = Claim::sign_batch(&leaves, Timestamp(u64::MAX), &key(2), &network());
    let claims: Vec<Claim> = claims.iter().cycle().take(765).cloned().collect();
    let record = Record { manifest: signed.clone(), claims, drop: None };
    assert_eq!(Record::from_bytes(record.to_bytes().into()).unwrap(), record);

    let store = ShardRequest::Store { manifest: signed, index: ShardIndex(254), lease: None };
    assert_eq!(ShardRequest::from_bytes(store.to_bytes().into()).unwrap(), store);

    let records = Request::KeepRecords { records: vec![record.clone(), record], lease: None };
    assert_eq!(Request::from_bytes(records.to_bytes().into()).unwrap(), records);
}

#[test]
fn names_of_networks_are_plain() {
    for name in ["", "Main", "a b", "a\0b", "ü", &"a".repeat(65)] {
        assert!(name.parse::<NetworkName>().is_err(), "{name:?}");
    }
    assert!("main-2".parse::<NetworkName>().is_ok());
}
