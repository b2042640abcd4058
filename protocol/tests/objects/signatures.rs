//! Promise: an object is believed only with the signature of the key that it names, over exactly its bytes, for its
//! kind and its network.

use std::fmt::Debug;

use super::strategies::{self, key, network};
use bytes::Bytes;
use commonhold_protocol::{
    Lease, Manifest, NetworkName, ShardRoot, SignedObject, SigningKey, Timestamp, Unverified, VaultId, Verified,
    VerifyError, format::FormatError,
};
use proptest::prelude::*;

/// An envelope of any payload and signature, as someone else could write it.
fn envelope<T: SignedObject>(payload: &[u8], signature: &[u8]) -> Unverified<T> {
    let mut bytes = vec![0x0a];
    prost::encode_length_delimiter(payload.len(), &mut bytes).unwrap();
    bytes.extend_from_slice(payload);
    bytes.push(0x12);
    prost::encode_length_delimiter(signature.len(), &mut bytes).unwrap();
    bytes.extend_from_slice(signature);
    Unverified::from_bytes(bytes.into()).unwrap()
}

/// The signature in an envelope: its last 64 bytes.
fn signature_of(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.len() - 64..]
}

fn refused<T: SignedObject + Debug>(object: Unverified<T>, network: &NetworkName) {
    match object.verify(network) {
        Err(VerifyError::Signature { what }) => assert_eq!(what, T::WHAT),
        other => panic!("{}: {other:?}", T::WHAT),
    }
}

/// The attacks that every kind of object has to stand.
fn stands<T: SignedObject + Clone + PartialEq + Debug>(object: &T, seed: u8, flip: prop::sample::Index, bit: u32) {
    let signed = Verified::sign(object.clone(), &key(seed), &network());
    let bytes = signed.to_bytes();

    // Made for another network.
    refused(signed.to_unverified(), &"test-net2".parse().unwrap());
    refused(signed.to_unverified(), &"test-ne".parse().unwrap());

    // Signed by another key, over the same bytes and for the same kind.
    let stranger = signed_by::<T>(&key(seed.wrapping_add(1)), signed.payload());
    refused(envelope::<T>(signed.payload(), &stranger), &network());

    // No signature, or half of one.
    refused(envelope::<T>(signed.payload(), &[]), &network());
    refused(envelope::<T>(signed.payload(), &signature_of(&bytes)[..63]), &network());

    // One flipped bit, anywhere.
    let mut flipped = bytes.to_vec();
    flipped[flip.index(bytes.len())] ^= 1 << bit;
    if let Ok(read) = Unverified::<T>::from_bytes(flipped.into()) {
        assert!(read.verify(&network()).is_err());
    }
}

/// What a stranger gets by signing someone else's payload as his own: his object's signature over those bytes.
fn signed_by<T: SignedObject>(stranger: &SigningKey, payload: &Bytes) -> Vec<u8> {
    let forged = Forged::<T> { payload: payload.clone(), signer: stranger.public(), kind: std::marker::PhantomData };
    signature_of(&Verified::sign(forged, stranger, &network()).to_bytes()).to_vec()
}

/// A payload that names one key and is signed by another, in the context of `T`.
#[derive(Debug)]
struct Forged<T> {
    payload: Bytes,
    signer: [u8; 32],
    kind: std::marker::PhantomData<T>,
}

impl<T: SignedObject> SignedObject for Forged<T> {
    const WHAT: &'static str = T::WHAT;
    const CONTEXT: &'static str = T::CONTEXT;
    const BYTES_MAX: usize = T::BYTES_MAX;

    fn encode(&self) -> Vec<u8> {
        self.payload.to_vec()
    }

    fn decode(_: Bytes) -> Result<Self, FormatError> {
        Err(FormatError::Encoding { what: Self::WHAT })
    }

    fn signer(&self) -> [u8; 32] {
        self.signer
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_manifest_stands((object, seed) in strategies::manifest(), flip in any::<prop::sample::Index>(), bit in 0..8_u32) {
        stands(&object, seed, flip, bit);
    }

    #[test]
    fn a_head_stands((object, seed) in strategies::head(), flip in any::<prop::sample::Index>(), bit in 0..8_u32) {
        stands(&object, seed, flip, bit);
    }

    #[test]
    fn a_lease_stands((object, seed) in strategies::lease(), flip in any::<prop::sample::Index>(), bit in 0..8_u32) {
        stands(&object, seed, flip, bit);
    }

    #[test]
    fn a_drop_stands((object, seed) in strategies::drop(), flip in any::<prop::sample::Index>(), bit in 0..8_u32) {
        stands(&object, seed, flip, bit);
    }

    #[test]
    fn an_audit_statement_stands((object, seed) in strategies::audit_statement(), flip in any::<prop::sample::Index>(), bit in 0..8_u32) {
        stands(&object, seed, flip, bit);
    }
}

/// A lease under another context string: the same bytes, the same key, another kind.
#[derive(Debug, Clone, PartialEq)]
struct OtherKind(Lease);

impl SignedObject for OtherKind {
    const WHAT: &'static str = "other kind";
    const CONTEXT: &'static str = "commonhold 2026 other v1";
    const BYTES_MAX: usize = Lease::BYTES_MAX;

    fn encode(&self) -> Vec<u8> {
        self.0.encode()
    }

    fn decode(payload: Bytes) -> Result<Self, FormatError> {
        Lease::decode(payload).map(Self)
    }

    fn signer(&self) -> [u8; 32] {
        self.0.signer()
    }
}

#[test]
fn a_signature_for_one_kind_is_none_for_another() {
    let owner = key(5);
    let lease = Lease { vault: VaultId::from_bytes(owner.public()), counter: 3, valid_until: Timestamp(77) };
    let bytes = Verified::sign(OtherKind(lease.clone()), &owner, &network()).to_bytes();
    assert!(Unverified::<OtherKind>::from_bytes(bytes.clone()).unwrap().verify(&network()).is_ok());
    refused(Unverified::<Lease>::from_bytes(bytes).unwrap(), &network());
}

/// The network's name ends with a zero byte in the signed message: `a` + `bc` is not `ab` + `c`.
#[test]
fn context_and_network_cannot_be_shifted_against_each_other() {
    #[derive(Debug)]
    struct Short(Lease);
    impl SignedObject for Short {
        const WHAT: &'static str = "short";
        const CONTEXT: &'static str = "commonhold 2026 lease v";
        const BYTES_MAX: usize = Lease::BYTES_MAX;
        fn encode(&self) -> Vec<u8> {
            self.0.encode()
        }
        fn decode(payload: Bytes) -> Result<Self, FormatError> {
            Lease::decode(payload).map(Self)
        }
        fn signer(&self) -> [u8; 32] {
            self.0.signer()
        }
    }
    let owner = key(5);
    let lease = Lease { vault: VaultId::from_bytes(owner.public()), counter: 3, valid_until: Timestamp(77) };
    let bytes = Verified::sign(Short(lease), &owner, &"1test".parse().unwrap()).to_bytes();
    refused(Unverified::<Lease>::from_bytes(bytes).unwrap(), &"test".parse().unwrap());
}

/// Ed25519 has points of small order for which a signature fits many messages; a vault with such an id is nobody's.
#[test]
fn a_key_of_small_order_signs_nothing() {
    let mut identity = [0; 32];
    identity[0] = 1;
    let lease = Lease { vault: VaultId::from_bytes(identity), counter: 1, valid_until: Timestamp(u64::MAX) };
    let mut signature = [0; 64];
    signature[0] = 1;
    refused(envelope::<Lease>(&lease.encode(), &signature), &network());
}

#[test]
fn a_version_that_is_not_known_is_refused_by_number() {
    let owner = key(5);
    let lease = Lease { vault: VaultId::from_bytes(owner.public()), counter: 3, valid_until: Timestamp(77) };
    let mut payload = lease.encode();
    assert_eq!(payload[..2], [0x08, 1]);
    payload[1] = 2;
    let error = Lease::decode(payload.into()).unwrap_err();
    assert_eq!(error, FormatError::Version { what: "lease", found: 2 });
}

#[test]
fn fields_out_of_range_are_refused() {
    let owner = key(5);
    let good = Manifest {
        vault: VaultId::from_bytes(owner.public()),
        salt: [7; 16],
        coding: commonhold_protocol::Coding::new(2, 4).unwrap(),
        length: 100,
        roots: vec![ShardRoot::from_bytes([1; 32]); 4],
    };
    assert!(Manifest::decode(good.encode().into()).is_ok());
    let field = |manifest: Manifest| match Manifest::decode(manifest.encode().into()) {
        Err(FormatError::Field { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(Manifest { length: 0, ..good.clone() }), "length");
    assert_eq!(field(Manifest { length: (16 << 20) + 1, ..good.clone() }), "length");
    assert_eq!(field(Manifest { roots: vec![ShardRoot::from_bytes([1; 32]); 3], ..good.clone() }), "roots");
    assert_eq!(field(Manifest { roots: vec![ShardRoot::from_bytes([1; 32]); 5], ..good }), "roots");
}
