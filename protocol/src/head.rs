//! The vault's mutable pointer to its (sealed) root, versioned by device.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;

use crate::{
    format::{self, FormatError, Repeated, array, check_count},
    ids::VaultId,
    sign::SignedObject,
};

/// The most bytes of a head's sealed payload.
pub const HEAD_SEALED_BYTES_MAX: usize = 48 << 10;
/// The most devices that a vault's version counts.
pub const HEAD_DEVICES_MAX: usize = 256;

/// A device: one home that writes to a vault; random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub [u8; 8]);

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceId({self})")
    }
}

/// A version vector: how many heads each device has written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Version(BTreeMap<DeviceId, u64>);

impl Version {
    /// The version with these counters.
    pub fn from_counters(counters: impl IntoIterator<Item = (DeviceId, u64)>) -> Self {
        Self(counters.into_iter().collect())
    }

    /// Device and counter, in order of device.
    pub fn counters(&self) -> impl Iterator<Item = (DeviceId, u64)> {
        self.0.iter().map(|(device, counter)| (*device, *counter))
    }

    /// True if this version has seen all that `other` has.
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(device, counter)| self.0.get(device).is_some_and(|mine| mine >= counter))
    }

    /// The least version that covers both.
    pub fn join(&self, other: &Self) -> Self {
        let mut joined = self.clone();
        for (device, counter) in &other.0 {
            let mine = joined.0.entry(*device).or_default();
            *mine = (*mine).max(*counter);
        }
        joined
    }

    /// The next version by `device`.
    pub fn next(&self, device: DeviceId) -> Self {
        let mut next = self.clone();
        let counter = next.0.entry(device).or_default();
        *counter = counter.saturating_add(1);
        next
    }
}

/// A head: version in the open (stewards keep the newest), content sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Whose.
    pub vault: VaultId,
    /// What it has seen.
    pub version: Version,
    /// XChaCha20 nonce, random.
    pub nonce: [u8; 24],
    /// The sealed payload, at most [`HEAD_SEALED_BYTES_MAX`].
    pub sealed: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CounterWire {
    #[prost(bytes = "bytes", tag = "1")]
    device: Bytes,
    #[prost(uint64, tag = "2")]
    counter: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "bytes", tag = "2")]
    vault: Bytes,
    #[prost(message, repeated, tag = "3")]
    counters: Vec<CounterWire>,
    #[prost(bytes = "bytes", tag = "4")]
    nonce: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    sealed: Bytes,
}

/// The counters of a version, in the field `tag`; one is at least a device (10 bytes) and a counter (2).
const fn counters_field(tag: u32) -> Repeated {
    Repeated { tag, count_max: HEAD_DEVICES_MAX, bytes_min: 12, inner: &[] }
}

fn counters_to_wire(version: &Version) -> Vec<CounterWire> {
    version
        .counters()
        .map(|(device, counter)| CounterWire { device: Bytes::copy_from_slice(&device.0), counter })
        .collect()
}

fn counters_from_wire(what: &'static str, counters: Vec<CounterWire>) -> Result<Version, FormatError> {
    check_count(what, "version", counters.len(), HEAD_DEVICES_MAX)?;
    let mut version = Version::default();
    for CounterWire { device, counter } in counters {
        let fresh = version.0.insert(DeviceId(array(what, "version", &device)?), counter).is_none();
        if !fresh || counter == 0 {
            return Err(FormatError::Field { what, field: "version" });
        }
    }
    Ok(version)
}

#[derive(Clone, PartialEq, prost::Message)]
struct VersionWire {
    #[prost(message, repeated, tag = "1")]
    counters: Vec<CounterWire>,
}

impl Version {
    /// The version's bytes: the same for the same version.
    pub fn to_bytes(&self) -> Vec<u8> {
        prost::Message::encode_to_vec(&VersionWire { counters: counters_to_wire(self) })
    }

    /// Reads a version of at most [`HEAD_DEVICES_MAX`] devices.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, FormatError> {
        let wire: VersionWire = format::decode("version", bytes, HEAD_DEVICES_MAX * 32, &[counters_field(1)])?;
        counters_from_wire("version", wire.counters)
    }
}

impl Head {
    /// What the seal is bound to besides its bytes: `head v1 ‖ vault ‖ version`.
    pub fn associated_data(vault: &VaultId, version: &Version) -> Vec<u8> {
        let mut data = b"head v1".to_vec();
        data.extend_from_slice(vault.as_bytes());
        data.extend_from_slice(&version.to_bytes());
        data
    }
}

impl SignedObject for Head {
    const WHAT: &'static str = "head";
    const CONTEXT: &'static str = "commonhold 2026 head v1";
    const BYTES_MAX: usize = HEAD_SEALED_BYTES_MAX + HEAD_DEVICES_MAX * 32 + 128;

    fn encode(&self) -> Vec<u8> {
        let wire = Wire {
            version: 1,
            vault: Bytes::copy_from_slice(self.vault.as_bytes()),
            counters: counters_to_wire(&self.version),
            nonce: Bytes::copy_from_slice(&self.nonce),
            sealed: self.sealed.clone(),
        };
        prost::Message::encode_to_vec(&wire)
    }

    fn decode(payload: Bytes) -> Result<Self, FormatError> {
        let what = Self::WHAT;
        let wire: Wire = format::decode(what, payload, Self::BYTES_MAX, &[counters_field(3)])?;
        format::check_version(what, wire.version, 1)?;
        format::check_length(what, &wire.sealed, HEAD_SEALED_BYTES_MAX)?;
        Ok(Self {
            vault: VaultId::from_bytes(array(what, "vault", &wire.vault)?),
            version: counters_from_wire(what, wire.counters)?,
            nonce: array(what, "nonce", &wire.nonce)?,
            sealed: wire.sealed,
        })
    }

    fn signer(&self) -> [u8; 32] {
        *self.vault.as_bytes()
    }
}
