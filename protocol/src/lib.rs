//! What all nodes agree on: ids, time, signed objects, records and wire messages. Pure data.
//!
//! Every object that travels or lasts is decoded by a function here that checks its length before it allocates,
//! its version before it reads fields, and its signature before it hands out a [`Verified`] value. Nothing here
//! opens a socket, reads a clock or decides anything.

pub mod ask;
pub mod audit;
pub mod claim;
pub mod coding;
pub mod drop;
pub mod format;
pub mod head;
pub mod ids;
pub mod lease;
pub mod manifest;
pub mod network;
pub mod record;
pub mod shard_stream;
pub mod sign;
pub mod time;
pub mod verifier;

pub use audit::AuditStatement;
pub use claim::{Claim, ClaimBatch, ClaimLeaf, VerifiedClaim};
pub use coding::{Coding, ShardIndex};
pub use drop::{Drop, DropKind};
pub use format::FormatError;
pub use head::{DeviceId, Head, Version};
pub use ids::{NodeId, SegmentId, ShardRoot, VaultId};
pub use lease::Lease;
pub use manifest::Manifest;
pub use network::NetworkName;
pub use record::Record;
pub use sign::{SignedObject, SigningKey, Unverified, Verified, VerifyError};
pub use time::Timestamp;
pub use verifier::Verifier;
