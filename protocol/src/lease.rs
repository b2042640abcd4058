//! The owner-signed date until which a vault is to be kept: one for all of it, merged by maximum.

use bytes::Bytes;

use crate::{
    format::{self, FormatError, array},
    ids::VaultId,
    sign::SignedObject,
    time::Timestamp,
};

/// "Keep this vault until `valid_until`."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whose.
    pub vault: VaultId,
    /// Rises with every renewal.
    pub counter: u64,
    /// The end.
    pub valid_until: Timestamp,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "bytes", tag = "2")]
    vault: Bytes,
    #[prost(uint64, tag = "3")]
    counter: u64,
    #[prost(uint64, tag = "4")]
    valid_until: u64,
}

impl Lease {
    /// Which of two leases of one vault counts: the later end, then the higher counter.
    pub fn newer_than(&self, other: &Self) -> bool {
        (self.valid_until, self.counter) > (other.valid_until, other.counter)
    }
}

impl SignedObject for Lease {
    const WHAT: &'static str = "lease";
    const CONTEXT: &'static str = "commonhold 2026 lease v1";
    const BYTES_MAX: usize = 80;

    fn encode(&self) -> Vec<u8> {
        let wire = Wire {
            version: 1,
            vault: Bytes::copy_from_slice(self.vault.as_bytes()),
            counter: self.counter,
            valid_until: self.valid_until.0,
        };
        prost::Message::encode_to_vec(&wire)
    }

    fn decode(payload: Bytes) -> Result<Self, FormatError> {
        let wire: Wire = format::decode(Self::WHAT, payload, Self::BYTES_MAX, &[])?;
        format::check_version(Self::WHAT, wire.version, 1)?;
        Ok(Self {
            vault: VaultId::from_bytes(array(Self::WHAT, "vault", &wire.vault)?),
            counter: wire.counter,
            valid_until: Timestamp(wire.valid_until),
        })
    }

    fn signer(&self) -> [u8; 32] {
        *self.vault.as_bytes()
    }
}
