//! Decoders of the protocol: whatever the bytes, no panic, and what is read is written as something that reads the
//! same.

use std::fmt::Debug;

use bytes::Bytes;
use commonhold_protocol::{
    AuditStatement, Claim, ClaimBatch, Drop, Head, Lease, Manifest, NetworkName, Record, SignedObject, Unverified,
    Version,
    ask::{Request, Response},
    shard_stream::{ShardReply, ShardRequest},
};

/// What is done with any bytes.
pub type Target = fn(&[u8]);

/// Each decoder, by the name of its fuzz target.
pub const TARGETS: &[(&str, Target)] = &[
    ("manifest", manifest),
    ("claim", claim),
    ("audit_statement", audit_statement),
    ("head", head),
    ("lease", lease),
    ("drop", drop),
    ("record", record),
    ("request", request),
    ("response", response),
    ("shard_request", shard_request),
    ("shard_reply", shard_reply),
];

fn network() -> NetworkName {
    "fuzz".parse().expect("the name is plain")
}

/// The bytes as a payload, and as an envelope.
fn signed<T: SignedObject + PartialEq + Debug>(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(object) = T::decode(bytes.clone()) {
        let again = T::decode(object.encode().into()).expect("what was written is read");
        assert_eq!(again, object);
        let _ = object.signer();
    }
    if let Ok(envelope) = Unverified::<T>::from_bytes(bytes) {
        let again = Unverified::<T>::from_bytes(envelope.to_bytes()).expect("what was written is read");
        assert_eq!(again.to_bytes(), envelope.to_bytes());
        assert!(envelope.verify(&network()).is_err(), "no key signs by chance");
    }
}

/// A manifest.
pub fn manifest(bytes: &[u8]) {
    signed::<Manifest>(bytes);
}

/// A head, and the version in it.
pub fn head(bytes: &[u8]) {
    signed::<Head>(bytes);
    if let Ok(version) = Version::from_bytes(Bytes::copy_from_slice(bytes)) {
        assert_eq!(Version::from_bytes(version.to_bytes().into()).as_ref(), Ok(&version));
        assert!(version.covers(&version) && version.join(&version) == version);
    }
}

/// A lease.
pub fn lease(bytes: &[u8]) {
    signed::<Lease>(bytes);
}

/// A drop.
pub fn drop(bytes: &[u8]) {
    signed::<Drop>(bytes);
}

/// A claim, and the batch in it.
pub fn claim(bytes: &[u8]) {
    signed::<ClaimBatch>(bytes);
    if let Ok(claim) = Claim::from_bytes(Bytes::copy_from_slice(bytes)) {
        assert_eq!(Claim::from_bytes(claim.to_bytes().into()).as_ref(), Ok(&claim));
        assert!(claim.verify(&network()).is_err(), "no key signs by chance");
    }
}

/// What a holder signs of its answer to an audit.
pub fn audit_statement(bytes: &[u8]) {
    signed::<AuditStatement>(bytes);
}

/// A record.
pub fn record(bytes: &[u8]) {
    if let Ok(record) = Record::from_bytes(Bytes::copy_from_slice(bytes)) {
        assert_eq!(Record::from_bytes(record.to_bytes().into()), Ok(record));
    }
}

/// A request.
pub fn request(bytes: &[u8]) {
    if let Ok(request) = Request::from_bytes(Bytes::copy_from_slice(bytes)) {
        assert_eq!(Request::from_bytes(request.to_bytes().into()), Ok(request));
    }
}

/// A response.
pub fn response(bytes: &[u8]) {
    if let Ok(response) = Response::from_bytes(Bytes::copy_from_slice(bytes)) {
        assert_eq!(Response::from_bytes(response.to_bytes().into()), Ok(response));
    }
}

/// The header of a shard request.
pub fn shard_request(bytes: &[u8]) {
    if let Ok(request) = ShardRequest::from_bytes(Bytes::copy_from_slice(bytes)) {
        assert_eq!(ShardRequest::from_bytes(request.to_bytes().into()), Ok(request));
    }
}

/// The header of a shard reply.
pub fn shard_reply(bytes: &[u8]) {
    if let Ok(reply) = ShardReply::from_bytes(Bytes::copy_from_slice(bytes)) {
        assert_eq!(ShardReply::from_bytes(reply.to_bytes().into()), Ok(reply));
    }
}
