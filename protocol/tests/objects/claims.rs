//! Promise: a claim proves its own leaf of its own batch, for every size of batch and every place in it, and
//! nothing else.

use super::strategies::{self, key, network};
use commonhold_protocol::{
    Claim, ClaimLeaf, NodeId, SegmentId, ShardIndex, Timestamp, Verifier, VerifyError, claim::BATCH_CLAIMS_MAX,
};
use proptest::prelude::*;

fn leaves(count: usize) -> Vec<ClaimLeaf> {
    let leaf = |i: usize| ClaimLeaf { segment: SegmentId::from_bytes([i as u8; 32]), index: ShardIndex((i / 7) as u8) };
    (0..count).map(leaf).collect()
}

#[test]
fn every_place_of_every_batch_verifies() {
    let holder = key(9);
    for count in 1..=BATCH_CLAIMS_MAX {
        let leaves = leaves(count);
        let claims = Claim::sign_batch(&leaves, Timestamp(count as u64), &holder, &network());
        assert_eq!(claims.len(), count);
        for (position, claim) in claims.into_iter().enumerate() {
            let read = Claim::from_bytes(claim.to_bytes().into()).unwrap();
            let verified = read.verify(&network()).unwrap_or_else(|error| panic!("{position} of {count}: {error}"));
            assert_eq!(verified.claim.leaf, leaves[position]);
            assert_eq!(verified.holder, NodeId::from_bytes(holder.public()));
            assert_eq!(verified.signed_at, Timestamp(count as u64));
        }
    }
}

#[test]
fn no_leaves_make_no_claims() {
    assert!(Claim::sign_batch(&[], Timestamp(0), &key(1), &network()).is_empty());
}

/// Whether a claim is refused, also by a verifier that has just verified `genuine`.
fn refused(claim: Claim, genuine: &Claim) -> bool {
    let verifier = Verifier::new(network());
    verifier.verify_claim(genuine.clone()).unwrap();
    let outcomes = [claim.clone().verify(&network()), verifier.verify_claim(claim)];
    outcomes.iter().all(|outcome| matches!(outcome, Err(VerifyError::Signature { .. } | VerifyError::Format(_))))
}

#[test]
fn a_batch_costs_a_verifier_one_check_and_each_claim_is_still_proven() {
    let leaves = leaves(200);
    let claims = Claim::sign_batch(&leaves, Timestamp(1), &key(9), &network());
    let verifier = Verifier::new(network());
    for (claim, leaf) in claims.iter().zip(&leaves) {
        assert_eq!(verifier.verify_claim(claim.clone()).unwrap().claim.leaf, *leaf);
    }
    assert_eq!(verifier.signatures_checked(), 1);
    let mut other = claims[0].clone();
    other.leaf = leaves[1];
    assert!(verifier.verify_claim(other).is_err());
    // What is wrong is checked each time, and a verifier of another network has verified none of it.
    let elsewhere = Verifier::new("elsewhere".parse().unwrap());
    for number in 1..=2 {
        assert!(elsewhere.verify_claim(claims[0].clone()).is_err());
        assert_eq!(elsewhere.signatures_checked(), number);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// A holder of shard 3 cannot pass its claim off as one of shard 4, nor of another segment.
    #[test]
    fn another_leaf_is_refused(mut claim in strategies::claim(), other in strategies::leaf()) {
        prop_assume!(claim.leaf != other);
        let genuine = claim.clone();
        claim.leaf = other;
        prop_assert!(refused(claim, &genuine));
    }

    #[test]
    fn a_flipped_bit_is_refused(claim in strategies::claim(), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let mut bytes = claim.to_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(read) = Claim::from_bytes(bytes.into()) {
            // A flip can turn a field into one that is not known, and so remove it; a claim that is left whole is the
            // same claim.
            prop_assert!(read == claim || refused(read, &claim));
        }
    }

    /// A claim for one network says nothing in another.
    #[test]
    fn another_network_is_refused(claim in strategies::claim()) {
        let refused = matches!(claim.verify(&"other-net".parse().unwrap()), Err(VerifyError::Signature { .. }));
        prop_assert!(refused);
    }
}
