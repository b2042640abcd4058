//! Whatever arrives in whatever order from whomever: stewards end with the same, and strangers change nothing.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use commonhold_policy::{
    drops::{self, DropRefusal},
    heads::{self, HeadRefusal, WRITE_ENOUGH, WriteState, write_state},
    leases::{self, GRACE_MS, LEASE_MS, LeaseRefusal, RENEW_EVERY_MS},
    records::{RecordRefusal, RecordState, VerifiedRecord},
};
use commonhold_protocol::{
    Claim, ClaimLeaf, Coding, DeviceId, Drop, DropKind, Head, Lease, Manifest, NetworkName, NodeId, SegmentId,
    ShardIndex, ShardRoot, SigningKey, Timestamp, VaultId, Verified, VerifiedClaim, Version,
    ask::{HEAD_SIBLINGS_MAX, Refusal},
    record::CLAIMS_PER_INDEX_MAX,
};
use proptest::prelude::*;

const OWNER: u8 = 1;
const STRANGER: u8 = 2;
const N: u8 = 4;

fn network() -> NetworkName {
    "test".parse().unwrap()
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn vault(seed: u8) -> VaultId {
    VaultId::from_bytes(key(seed).public())
}

fn manifest(owner: u8, salt: u8, root: u8) -> Verified<Manifest> {
    let manifest = Manifest {
        vault: vault(owner),
        salt: [salt; 16],
        coding: Coding::new(2, N).unwrap(),
        length: 100_000,
        roots: vec![ShardRoot::from_bytes([root; 32]); usize::from(N)],
    };
    Verified::sign(manifest, &key(owner), &network())
}

fn holder_key(number: u8) -> SigningKey {
    key(100 + number)
}

fn claim(segment: SegmentId, index: u8, holder: u8, signed_at: u64) -> VerifiedClaim {
    let leaf = ClaimLeaf { segment, index: ShardIndex(index) };
    let claims = Claim::sign_batch(&[leaf], Timestamp(signed_at), &holder_key(holder), &network());
    claims.into_iter().next().unwrap().verify(&network()).unwrap()
}

fn drop_of(owner: u8, counter: u64, kind: DropKind, segments: Vec<SegmentId>) -> Verified<Drop> {
    Verified::sign(Drop { vault: vault(owner), counter, kind, segments }, &key(owner), &network())
}

fn segment() -> SegmentId {
    manifest(OWNER, 0, 0).id()
}

/// What may be said of the one segment: a claim, or a drop.
#[derive(Debug, Clone, Copy)]
enum Said {
    Claim { index: u8, holder: u8, signed_at: u64 },
    Drop { counter: u64, kind: DropKind },
}

impl Said {
    fn record(self) -> VerifiedRecord {
        let mut record = VerifiedRecord { manifest: manifest(OWNER, 0, 0), claims: Vec::new(), drop: None };
        match self {
            Self::Claim { index, holder, signed_at } => record.claims.push(claim(segment(), index, holder, signed_at)),
            Self::Drop { counter, kind } => record.drop = Some(drop_of(OWNER, counter, kind, vec![segment()])),
        }
        record
    }
}

fn claims(holders: u8) -> impl Strategy<Value = Said> {
    (0..N, 0..holders, 1..5u64).prop_map(|(index, holder, signed_at)| Said::Claim { index, holder, signed_at })
}

fn all_kinds(holders: u8, kinds: &'static [DropKind]) -> impl Strategy<Value = Vec<Said>> {
    let drop = (1..4u64, prop::sample::select(kinds)).prop_map(|(counter, kind)| Said::Drop { counter, kind });
    prop::collection::vec(prop_oneof![8 => claims(holders), 1 => drop], 1..24)
}

fn merged(all: &[Said]) -> RecordState {
    let mut state = RecordState::new(manifest(OWNER, 0, 0));
    for said in all {
        state.merge(said.record());
    }
    state
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn merging_a_record_again_changes_nothing(all in all_kinds(6, &[DropKind::Drop, DropKind::Undrop])) {
        let mut state = merged(&all);
        let before = state.to_record();
        let last = all[all.len() - 1];
        prop_assert!(!state.merge(last.record()).changed);
        prop_assert_eq!(state.to_record(), before);
    }

    #[test]
    fn the_order_of_merges_does_not_matter_below_the_limit(
        (all, shuffled) in all_kinds(CLAIMS_PER_INDEX_MAX as u8, &[DropKind::Drop])
            .prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
    ) {
        prop_assert_eq!(merged(&all).to_record(), merged(&shuffled).to_record());
    }

    /// The oracle: a map of maps, written down without a thought for bytes or order.
    #[test]
    fn claims_are_kept_first_come_and_each_holders_newest(all in prop::collection::vec(claims(6), 1..40)) {
        let mut model: BTreeMap<u8, BTreeMap<NodeId, u64>> = BTreeMap::new();
        let mut state = RecordState::new(manifest(OWNER, 0, 0));
        for said in &all {
            let Said::Claim { index, holder, signed_at } = *said else { continue };
            let holder = NodeId::from_bytes(holder_key(holder).public());
            let of_index = model.entry(index).or_default();
            let full = of_index.len() == CLAIMS_PER_INDEX_MAX && !of_index.contains_key(&holder);
            let changes = !full && of_index.get(&holder).is_none_or(|kept| *kept < signed_at);
            if changes {
                of_index.insert(holder, signed_at);
            }
            let result = state.merge(said.record());
            prop_assert_eq!(result.changed, changes);
            prop_assert_eq!(result.refused.len(), usize::from(full));
        }
        let kept: BTreeMap<u8, BTreeMap<NodeId, u64>> = state
            .claims()
            .iter()
            .map(|(index, claims)| (index.0, claims.iter().map(|claim| (claim.holder, claim.signed_at.0)).collect()))
            .collect();
        prop_assert_eq!(kept, model);
    }

    /// One stranger signs claims for everything, as often and as lately as it likes.
    #[test]
    fn no_claim_displaces_another_holders(strangers in prop::collection::vec((0..N, 10..20u8, 1..9u64), 1..40)) {
        let honest: Vec<Said> = (0..N).map(|index| Said::Claim { index, holder: index, signed_at: 1 }).collect();
        let mut state = merged(&honest);
        for (index, holder, signed_at) in strangers {
            state.merge(Said::Claim { index, holder, signed_at }.record());
        }
        for (index, claims) in state.claims() {
            let holders: BTreeSet<NodeId> = claims.iter().map(|claim| claim.holder).collect();
            prop_assert!(holders.contains(&NodeId::from_bytes(holder_key(index.0).public())));
            prop_assert!(holders.len() <= CLAIMS_PER_INDEX_MAX);
        }
    }

    #[test]
    fn nothing_but_a_newer_undrop_brings_a_dropped_record_back(later in all_kinds(6, &[DropKind::Drop])) {
        let claimed = Said::Claim { index: 0, holder: 0, signed_at: 1 };
        let drop = |counter, kind| Said::Drop { counter, kind }.record();
        let mut state = merged(&[claimed]);
        prop_assert!(state.merge(drop(5, DropKind::Drop)).changed);
        for said in later {
            prop_assert!(!state.merge(said.record()).changed);
        }
        prop_assert!(state.is_dropped());
        prop_assert!(state.claims().is_empty());
        prop_assert!(!state.merge(drop(4, DropKind::Undrop)).changed);
        prop_assert!(state.merge(drop(6, DropKind::Undrop)).changed);
        prop_assert!(!state.is_dropped());
        prop_assert!(state.merge(claimed.record()).changed);
    }
}

/// Merges `record` into one that holds an honest claim, and asserts that this changed nothing; gives the reasons.
fn refused(record: VerifiedRecord) -> Vec<RecordRefusal> {
    let mut state = merged(&[Said::Claim { index: 0, holder: 0, signed_at: 1 }]);
    let before = state.to_record();
    let result = state.merge(record);
    assert!(!result.changed);
    assert_eq!(state.to_record(), before);
    result.refused
}

#[test]
fn a_strangers_record_changes_nothing() {
    let stranger = manifest(STRANGER, 0, 0);
    let claims = vec![claim(stranger.id(), 1, 7, 9)];
    let drop = Some(drop_of(STRANGER, 9, DropKind::Drop, vec![segment()]));
    assert_eq!(
        refused(VerifiedRecord { manifest: stranger, claims, drop }),
        [
            RecordRefusal::OtherManifest { segment: segment() },
            RecordRefusal::Drop { segment: segment(), reason: DropRefusal::OtherVault },
        ]
    );
}

#[test]
fn a_second_manifest_for_an_id_changes_nothing_and_nor_do_its_claims() {
    let second = manifest(OWNER, 0, 9);
    assert_eq!(second.id(), segment());
    let record = VerifiedRecord { manifest: second, claims: vec![claim(segment(), 1, 7, 9)], drop: None };
    assert_eq!(refused(record), [RecordRefusal::OtherManifest { segment: segment() }]);
}

#[test]
fn claims_and_drops_that_do_not_fit_are_refused_one_by_one() {
    let other = manifest(OWNER, 1, 0).id();
    let claims = vec![claim(other, 0, 7, 9), claim(segment(), N, 7, 9), claim(segment(), 0, 0, 1)];
    let drop = Some(drop_of(OWNER, 9, DropKind::Drop, vec![other]));
    let reasons = refused(VerifiedRecord { manifest: manifest(OWNER, 0, 0), claims, drop });
    let holder = NodeId::from_bytes(holder_key(7).public());
    assert_eq!(
        reasons,
        [
            RecordRefusal::Drop { segment: segment(), reason: DropRefusal::OtherSegment },
            RecordRefusal::OtherSegment { segment: segment(), claimed: other, holder },
            RecordRefusal::NoSuchShard { segment: segment(), index: ShardIndex(N), n: N, holder },
        ]
    );
    assert!(reasons.iter().all(|reason| reason.refusal() == Refusal::Invalid));
}

#[test]
fn what_fits_is_kept_though_its_neighbours_are_refused() {
    let mut state = RecordState::new(manifest(OWNER, 0, 0));
    let claims = vec![claim(segment(), N, 7, 1), claim(segment(), 1, 7, 1)];
    let result = state.merge(VerifiedRecord { manifest: manifest(OWNER, 0, 0), claims, drop: None });
    assert!(result.changed);
    assert_eq!(result.refused.len(), 1);
    assert_eq!(state.claims().keys().copied().collect::<Vec<_>>(), [ShardIndex(1)]);
}

/// A claim that this steward found lost gives way, and only that one.
#[test]
fn a_claim_that_is_removed_makes_room_for_another() {
    let mut state = RecordState::new(manifest(OWNER, 0, 0));
    for holder in 0..CLAIMS_PER_INDEX_MAX as u8 {
        assert_eq!(state.merge_claim(claim(segment(), 0, holder, 1)), Ok(true));
    }
    let newcomer = claim(segment(), 0, 9, 1);
    assert!(matches!(state.merge_claim(newcomer.clone()), Err(RecordRefusal::ClaimsFull { .. })));
    let lost = claim(segment(), 0, 1, 1).holder;
    assert!(!state.remove_claim(ShardIndex(1), &lost), "it claims another shard");
    assert!(state.remove_claim(ShardIndex(0), &lost));
    assert!(!state.remove_claim(ShardIndex(0), &lost), "it is gone already");
    assert_eq!(state.merge_claim(newcomer.clone()), Ok(true));
    let holders: Vec<NodeId> = state.claims()[&ShardIndex(0)].iter().map(|claim| claim.holder).collect();
    assert_eq!(holders.len(), CLAIMS_PER_INDEX_MAX);
    assert!(holders.contains(&newcomer.holder) && !holders.contains(&lost));
}

/// Three dead holders of a shard kept its place for ever: the claim that a repair brought was refused.
#[test]
fn the_oldest_claim_that_does_not_stand_makes_room_and_only_where_there_is_none() {
    let mut state = RecordState::new(manifest(OWNER, 0, 0));
    let all: Vec<VerifiedClaim> = (0..3).map(|holder| claim(segment(), 0, holder, 10 - u64::from(holder))).collect();
    for claim in &all[..2] {
        state.merge_claim(claim.clone()).unwrap();
    }
    assert!(!state.make_room(ShardIndex(0), |_| false), "there is room");
    state.merge_claim(all[2].clone()).unwrap();
    assert!(!state.make_room(ShardIndex(0), |_| true) && !state.make_room(ShardIndex(1), |_| false));
    // The third claim is the oldest, but stands.
    assert!(state.make_room(ShardIndex(0), |node| *node == all[2].holder));
    let left: Vec<NodeId> = state.claims()[&ShardIndex(0)].iter().map(|claim| claim.holder).collect();
    assert!(left.contains(&all[0].holder) && left.contains(&all[2].holder) && left.len() == 2);
    assert_eq!(state.merge_claim(claim(segment(), 0, 9, 1)), Ok(true));
}

#[test]
fn two_devices_that_drop_and_undrop_at_one_counter_end_alike_and_keep_the_data() {
    let drop = drop_of(OWNER, 3, DropKind::Drop, vec![segment()]);
    let undrop = drop_of(OWNER, 3, DropKind::Undrop, vec![segment()]);
    for (first, second) in [(&drop, &undrop), (&undrop, &drop)] {
        let mut kept = None;
        drops::merge(&mut kept, first.clone(), &segment(), &vault(OWNER)).unwrap();
        let _ = drops::merge(&mut kept, second.clone(), &segment(), &vault(OWNER));
        assert!(!drops::is_dropped(kept.as_deref()));
    }
}

fn head(owner: u8, counters: &[u64], sealed: u8) -> Verified<Head> {
    let devices = (0u8..).map(|device| DeviceId([device; 8]));
    let counters = devices.zip(counters.iter().copied()).filter(|(_, counter)| *counter > 0);
    let head = Head {
        vault: vault(owner),
        version: Version::from_counters(counters),
        nonce: [sealed; 24],
        sealed: Bytes::copy_from_slice(&[sealed]),
    };
    Verified::sign(head, &key(owner), &network())
}

fn payloads(heads: &[Verified<Head>]) -> BTreeSet<Bytes> {
    heads.iter().map(|head| head.payload().clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_heads_that_no_other_covers_are_kept_in_whatever_order_they_come(
        all in prop::collection::vec((prop::collection::vec(0..3u64, 2), 0..2u8), 1..12),
    ) {
        let all: Vec<Verified<Head>> = all.iter().map(|(counters, sealed)| head(OWNER, counters, *sealed)).collect();
        let mut kept = Vec::new();
        for head in &all {
            let known = kept.iter().any(|kept: &Verified<Head>| kept.payload() == head.payload());
            match heads::merge(&mut kept, head.clone()) {
                Ok(changed) => prop_assert_eq!(changed, !known),
                Err(reason) => prop_assert_eq!(reason, HeadRefusal::Outdated),
            }
        }
        prop_assert_eq!(payloads(&kept), payloads(&heads::maximal(all.clone())));

        let sealed: Vec<&[u8]> = kept.iter().map(|head| &head.payload()[..]).collect();
        prop_assert!(sealed.is_sorted(), "every reader sees the same order");
        for head in &all {
            prop_assert!(kept.iter().any(|kept| kept.version.covers(&head.version)), "something was lost");
        }
        for (a, b) in kept.iter().flat_map(|a| kept.iter().map(move |b| (a, b))) {
            prop_assert!(!a.version.covers(&b.version) || b.version.covers(&a.version), "history was kept");
        }
        let join = heads::join(&all);
        prop_assert!(!heads::is_rollback(&join, &kept), "all that was ever seen is still covered");
        prop_assert!(heads::is_rollback(&join.next(DeviceId([0; 8])), &kept));

        let merging = Verified::sign(
            Head { vault: vault(OWNER), version: join.next(DeviceId([0; 8])), nonce: [9; 24], sealed: Bytes::new() },
            &key(OWNER),
            &network(),
        );
        prop_assert!(heads::merge(&mut kept, merging.clone()).unwrap());
        prop_assert_eq!(payloads(&kept), payloads(&[merging]));
    }
}

#[test]
fn a_ninth_sibling_is_refused_until_someone_merges() {
    let sibling = |device: usize| {
        let mut counters = [0; 10];
        counters[device] = 1;
        head(OWNER, &counters, 0)
    };
    let mut kept = Vec::new();
    for device in 0..HEAD_SIBLINGS_MAX {
        assert_eq!(heads::merge(&mut kept, sibling(device)), Ok(true));
    }
    assert_eq!(heads::merge(&mut kept, sibling(8)), Err(HeadRefusal::TooManySiblings));
    assert_eq!(kept.len(), HEAD_SIBLINGS_MAX);
    assert_eq!(heads::merge(&mut kept, head(OWNER, &[1, 1, 0, 0, 0, 0, 0, 0, 0, 0], 0)), Ok(true));
    assert_eq!(heads::merge(&mut kept, sibling(8)), Ok(true));
}

#[test]
fn a_strangers_head_or_lease_changes_nothing() {
    let mut kept = vec![head(OWNER, &[1], 0)];
    assert_eq!(heads::merge(&mut kept, head(STRANGER, &[9, 9], 0)), Err(HeadRefusal::OtherVault));
    assert_eq!(payloads(&kept), payloads(&[head(OWNER, &[1], 0)]));

    let mut kept = Some(lease(OWNER, 1, 1_000));
    assert_eq!(leases::merge(&mut kept, lease(STRANGER, 9, 9_000)), Err(LeaseRefusal::OtherVault));
    assert_eq!(kept.unwrap().valid_until, Timestamp(1_000));
}

#[test]
fn a_replayed_head_or_lease_changes_nothing() {
    let mut kept = vec![head(OWNER, &[2], 0)];
    assert_eq!(heads::merge(&mut kept, head(OWNER, &[1], 0)), Err(HeadRefusal::Outdated));
    assert_eq!(heads::merge(&mut kept, head(OWNER, &[2], 0)), Ok(false));

    let mut kept = Some(lease(OWNER, 2, 1_000));
    assert_eq!(leases::merge(&mut kept, lease(OWNER, 1, 900)), Err(LeaseRefusal::Outdated));
    assert_eq!(leases::merge(&mut kept, lease(OWNER, 2, 1_000)), Ok(false));
}

#[test]
fn a_write_is_done_at_five_or_at_all_that_answer() {
    assert_eq!(write_state(WRITE_ENOUGH - 1, 0, 4), WriteState::Open);
    assert_eq!(write_state(WRITE_ENOUGH, 0, 3), WriteState::Done);
    assert_eq!(write_state(WRITE_ENOUGH, 3, 0), WriteState::Done);
    assert_eq!(write_state(3, 0, 0), WriteState::DoneThin { kept: 3 });
    assert_eq!(write_state(2, 0, 0), WriteState::DoneThin { kept: 2 });
    assert_eq!(write_state(1, 0, 0), WriteState::Failed { kept: 1, need: 2 });
    assert_eq!(write_state(0, 0, 0), WriteState::Failed { kept: 0, need: 2 });
    // A steward that says no has answered.
    assert_eq!(write_state(3, 1, 0), WriteState::Failed { kept: 3, need: 4 });
    assert_eq!(write_state(4, 4, 0), WriteState::Failed { kept: 4, need: 5 });
}

fn lease(owner: u8, counter: u64, valid_until: u64) -> Verified<Lease> {
    let lease = Lease { vault: vault(owner), counter, valid_until: Timestamp(valid_until) };
    Verified::sign(lease, &key(owner), &network())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_newest_lease_is_kept_in_whatever_order_they_come(all in prop::collection::vec((1..5u64, 1..5u64), 1..10)) {
        let mut kept = None;
        for (counter, valid_until) in &all {
            let _ = leases::merge(&mut kept, lease(OWNER, *counter, *valid_until));
        }
        let kept = kept.expect("the first is always kept");
        let newest = all.iter().map(|(counter, valid_until)| (*valid_until, *counter)).max();
        prop_assert_eq!(Some((kept.valid_until.0, kept.counter)), newest);
    }
}

#[test]
fn a_lease_is_renewed_once_a_day_and_outlasts_its_end_by_the_grace() {
    let start = Timestamp(1_000_000);
    let first = leases::renewal(None, vault(OWNER), start).expect("there is none yet");
    assert_eq!((first.counter, first.valid_until), (1, start.after_ms(LEASE_MS)));
    assert_eq!(leases::renewal(Some(&first), vault(OWNER), start.after_ms(RENEW_EVERY_MS - 1)), None);
    let second = leases::renewal(Some(&first), vault(OWNER), start.after_ms(RENEW_EVERY_MS)).expect("a day is over");
    assert!(second.newer_than(&first));

    let end = first.valid_until.after_ms(GRACE_MS);
    assert!(!leases::is_over(Some(&first), end, GRACE_MS));
    assert!(leases::is_over(Some(&first), end.after_ms(1), GRACE_MS));
    assert!(!leases::is_over(None, Timestamp(u64::MAX), 0), "silence means keep");
}
