//! Signatures made from what `docs/FORMAT.md` says, not by the code under test: over any object, by any key, for any
//! network.

use bytes::Bytes;
use commonhold_protocol::{NetworkName, SignedObject, Unverified};
use ed25519_dalek::{Signer, SigningKey};
use prost::Message;

/// A signed object as it travels.
#[derive(Clone, PartialEq, prost::Message)]
struct Envelope {
    #[prost(bytes = "bytes", tag = "1")]
    payload: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    signature: Bytes,
}

/// Signs `object` with the key of `seed`, whether that is the one that it names or not.
pub(crate) fn forge<T: SignedObject>(object: &T, seed: &[u8; 32], network: &NetworkName) -> Unverified<T> {
    let payload = object.encode();
    let message = [T::CONTEXT.as_bytes(), b"\0", network.as_str().as_bytes(), b"\0", &payload].concat();
    let signature = SigningKey::from_bytes(seed).sign(&message).to_bytes();
    let envelope = Envelope { payload: payload.into(), signature: Bytes::copy_from_slice(&signature) };
    Unverified::from_bytes(envelope.encode_to_vec().into()).unwrap()
}

/// The public half of a seed.
pub(crate) fn public_of(seed: &[u8; 32]) -> [u8; 32] {
    SigningKey::from_bytes(seed).verifying_key().to_bytes()
}

/// `bytes` with each `old` in it replaced by `new`, of the same length.
pub(crate) fn replace(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let mut replaced = bytes.to_vec();
    let mut at = 0;
    let mut count = 0;
    while at + old.len() <= replaced.len() {
        if replaced[at..].starts_with(old) {
            replaced[at..at + old.len()].copy_from_slice(new);
            count += 1;
        }
        at += 1;
    }
    assert!(count > 0, "nothing to replace");
    replaced
}
