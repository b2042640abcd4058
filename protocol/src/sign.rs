//! Signatures and trust: `Unverified<T> → Verified<T>` is the only way from outside to a reader.
//!
//! A signature is ed25519 over `context ‖ 0 ‖ network name ‖ 0 ‖ exact bytes` (neither the contexts nor a network
//! name can hold a zero byte, so the parts cannot be shifted against each other). The bytes that were signed are
//! kept and verified; nothing is re-encoded to be checked.

use std::ops::Deref;

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, VerifyingKey};

use crate::{
    format::{self, FormatError},
    network::NetworkName,
};

/// An ed25519 signing key; wiped when dropped.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// The key of this 32-byte seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The public half.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }
}

/// An object that someone signs: how it is written, how long it may be, and whose signature it needs.
pub trait SignedObject: Sized {
    /// Its name in errors.
    const WHAT: &'static str;
    /// Separates this kind's signatures from all others'. Holds no zero byte.
    const CONTEXT: &'static str;
    /// The most bytes that its payload may have.
    const BYTES_MAX: usize;

    /// The payload.
    fn encode(&self) -> Vec<u8>;
    /// Reads a payload of at most [`Self::BYTES_MAX`] bytes.
    fn decode(payload: Bytes) -> Result<Self, FormatError>;
    /// The public key that must have signed it.
    fn signer(&self) -> [u8; 32];
}

/// Why a signed object was not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Its signature is not by the key that it names, over these bytes, for this network.
    #[error("{what}: the signature does not fit its signer, its bytes or this network")]
    Signature {
        /// The kind of object.
        what: &'static str,
    },
}

/// A signed object as it travels and is stored; nothing about it is believed yet.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Envelope {
    #[prost(bytes = "bytes", tag = "1")]
    payload: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    signature: Bytes,
}

/// A signed object from outside, unread.
#[derive(Debug)]
pub struct Unverified<T> {
    payload: Bytes,
    signature: Bytes,
    kind: std::marker::PhantomData<fn() -> T>,
}

impl<T> Clone for Unverified<T> {
    fn clone(&self) -> Self {
        Self { payload: self.payload.clone(), signature: self.signature.clone(), kind: self.kind }
    }
}

impl<T> PartialEq for Unverified<T> {
    fn eq(&self, other: &Self) -> bool {
        self.payload == other.payload && self.signature == other.signature
    }
}

impl<T> Eq for Unverified<T> {}

/// Bytes that an envelope adds to its payload, at most: two tags, two lengths, a signature.
pub const ENVELOPE_BYTES_MAX: usize = 64 + 16;

impl<T: SignedObject> Unverified<T> {
    /// Reads an envelope: payload and signature, neither believed.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, FormatError> {
        let Envelope { payload, signature } = format::decode(T::WHAT, bytes, T::BYTES_MAX + ENVELOPE_BYTES_MAX, &[])?;
        Ok(Self { payload, signature, kind: std::marker::PhantomData })
    }

    /// The envelope's bytes.
    pub fn to_bytes(&self) -> Bytes {
        let envelope = Envelope { payload: self.payload.clone(), signature: self.signature.clone() };
        prost::Message::encode_to_vec(&envelope).into()
    }

    /// Reads the payload and checks that the key which it names signed exactly these bytes for `network`.
    pub fn verify(self, network: &NetworkName) -> Result<Verified<T>, VerifyError> {
        let object = self.decode()?;
        let refused = || VerifyError::Signature { what: T::WHAT };
        let signature: [u8; 64] = self.signature.as_ref().try_into().map_err(|_| refused())?;
        let key = VerifyingKey::from_bytes(&object.signer()).map_err(|_| refused())?;
        let message = signed_message(T::CONTEXT, network, &self.payload);
        key.verify_strict(&message, &Signature::from_bytes(&signature)).map_err(|_| refused())?;
        Ok(Verified { object, payload: self.payload, signature: self.signature })
    }

    fn decode(&self) -> Result<T, FormatError> {
        format::check_length(T::WHAT, &self.payload, T::BYTES_MAX)?;
        T::decode(self.payload.clone())
    }

    /// Stands for exactly these bytes and this signature, as an object of this kind.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(T::CONTEXT.as_bytes()).update(&[0]);
        // With its length, so that payload and signature cannot be shifted against each other.
        hasher.update(&(self.payload.len() as u64).to_le_bytes()).update(&self.payload).update(&self.signature);
        *hasher.finalize().as_bytes()
    }

    /// Reads what [`Self::verify`] found valid before, with this very signature.
    pub(crate) fn verified_before(self) -> Result<Verified<T>, VerifyError> {
        Ok(Verified { object: self.decode()?, payload: self.payload, signature: self.signature })
    }
}

/// A signed object whose signature was checked, with the exact bytes that were signed.
#[derive(Debug, Clone)]
pub struct Verified<T> {
    object: T,
    payload: Bytes,
    signature: Bytes,
}

impl<T: SignedObject> Verified<T> {
    /// Signs `object`. The key must be the one that the object names, or nobody will believe it.
    pub fn sign(object: T, key: &SigningKey, network: &NetworkName) -> Self {
        debug_assert_eq!(object.signer(), key.public());
        let payload = Bytes::from(object.encode());
        let signature = key.0.sign(&signed_message(T::CONTEXT, network, &payload));
        Self { object, payload, signature: Bytes::copy_from_slice(&signature.to_bytes()) }
    }

    /// What is sent or stored.
    pub fn to_unverified(&self) -> Unverified<T> {
        Unverified { payload: self.payload.clone(), signature: self.signature.clone(), kind: std::marker::PhantomData }
    }

    /// The envelope's bytes.
    pub fn to_bytes(&self) -> Bytes {
        self.to_unverified().to_bytes()
    }

    /// The exact bytes that were signed.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The object alone.
    pub fn into_object(self) -> T {
        self.object
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.object
    }
}

fn signed_message(context: &str, network: &NetworkName, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(context.len() + network.as_str().len() + payload.len() + 2);
    message.extend_from_slice(context.as_bytes());
    message.push(0);
    message.extend_from_slice(network.as_str().as_bytes());
    message.push(0);
    message.extend_from_slice(payload);
    message
}
