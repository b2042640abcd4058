//! What lies in a volume file, byte for byte. Nothing here opens a file or decides what is kept.
//!
//! A volume is a row of 4 KiB units. Unit 0 is the volume's block; records follow, each from a unit of its own:
//!
//! ```text
//! volume block                              record
//!   0  magic "CHVOLUME"                       0  magic "CHRECORD"
//!   8  version u32 = 1                        8  version u32 = 1
//!  12  volume number u32                     12  header bytes u32 (168 + manifest)
//!  16  sealed u32: 0 | 1                     16  volume number u32
//!  20  network name: bytes u32               20  unit u32: where this record begins
//!  24  secret [32]                           24  units u32: the whole record
//!  56  check sum [32]                        28  shard index u32
//!  88  network name                          32  shard length u64
//!                                            40  segment id [32]
//!                                            72  vault id [32]
//!                                           104  root [32]
//!                                           136  check sum [32]
//!                                           168  manifest envelope
//!                                           then, from a multiple of 64: the shard; right after it its outboard
//! ```
//!
//! Numbers are little-endian. A check sum is BLAKE3, keyed with the store's secret, over the block or header without
//! the check sum itself. The secret is random and never leaves this disk: a shard whose bytes were chosen to look like
//! a record cannot pass for one. Volume and unit are part of the header: a record that was copied to another place is
//! none there.

use std::io;

use bytes::Bytes;
use commonhold_protocol::{
    ClaimLeaf, Manifest, NetworkName, SegmentId, ShardIndex, ShardRoot, SignedObject, VaultId,
    manifest::SEGMENT_BYTES_MAX, sign::ENVELOPE_BYTES_MAX,
};

use super::disk::{VolumeFile, VolumeNumber};
use crate::prove::Outboard;

/// Records begin at multiples of this many bytes.
pub(crate) const UNIT_BYTES: u64 = 4096;
/// The most units of a volume: 256 MiB, so that a unit's number has 16 bits.
pub(crate) const VOLUME_UNITS_MAX: u32 = 1 << 16;
/// The volume's block.
pub(crate) const BLOCK_UNITS: u32 = 1;

const VERSION: u32 = 1;
const BLOCK_MAGIC: &[u8; 8] = b"CHVOLUME";
const RECORD_MAGIC: &[u8; 8] = b"CHRECORD";
const BLOCK_FIXED_BYTES: usize = 88;
const HEADER_FIXED_BYTES: usize = 168;
const HEADER_BYTES_MAX: usize = HEADER_FIXED_BYTES + Manifest::BYTES_MAX + ENVELOPE_BYTES_MAX;
const CHECKSUM_BYTES: usize = 32;
const DATA_ALIGN_BYTES: u64 = 64;

/// Keys the check sums of one store.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) [u8; 32]);

impl Secret {
    /// Over all but the check sum, which lies at `at`.
    fn checksum(&self, bytes: &[u8], at: usize) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&bytes[..at]);
        hasher.update(&bytes[at + CHECKSUM_BYTES..]);
        *hasher.finalize().as_bytes()
    }

    pub(crate) fn seal(&self, bytes: &mut [u8], at: usize) {
        let checksum = self.checksum(bytes, at);
        bytes[at..at + CHECKSUM_BYTES].copy_from_slice(&checksum);
    }

    fn fits(&self, bytes: &[u8], at: usize) -> bool {
        self.checksum(bytes, at) == bytes[at..at + CHECKSUM_BYTES]
    }
}

/// The bytes of a unit.
pub(crate) type Unit = [u8; UNIT_BYTES as usize];

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

/// The first unit of a volume.
pub(crate) struct VolumeBlock {
    pub(crate) volume: VolumeNumber,
    /// Nothing will be appended any more, and all that it holds is durable.
    pub(crate) sealed: bool,
    pub(crate) secret: Secret,
    pub(crate) network: NetworkName,
}

impl VolumeBlock {
    pub(crate) const CHECKSUM_AT: usize = 56;

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(UNIT_BYTES as usize);
        bytes.extend_from_slice(BLOCK_MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.volume.0.to_le_bytes());
        bytes.extend_from_slice(&u32::from(self.sealed).to_le_bytes());
        bytes.extend_from_slice(&(self.network.as_str().len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.secret.0);
        bytes.extend_from_slice(&[0; CHECKSUM_BYTES]);
        bytes.extend_from_slice(self.network.as_str().as_bytes());
        bytes.resize(UNIT_BYTES as usize, 0);
        self.secret.seal(&mut bytes, Self::CHECKSUM_AT);
        bytes
    }

    pub(crate) fn write(&self, file: &dyn VolumeFile) -> io::Result<()> {
        file.write(0, &self.to_bytes())
    }

    /// The block in a volume's first unit, if that is one that fits itself.
    pub(crate) fn decode(bytes: &Unit) -> Option<Self> {
        let secret = Secret(array(bytes, 24));
        if !bytes.starts_with(BLOCK_MAGIC) || u32_at(bytes, 8) != VERSION || !secret.fits(bytes, Self::CHECKSUM_AT) {
            return None;
        }
        let name = bytes[BLOCK_FIXED_BYTES..].get(..u32_at(bytes, 20) as usize)?;
        let network = std::str::from_utf8(name).ok()?.parse().ok()?;
        Some(Self { volume: VolumeNumber(u32_at(bytes, 12)), sealed: u32_at(bytes, 16) == 1, secret, network })
    }

    /// The block, if the file begins with one that fits itself. Whose secret it is, the caller compares.
    pub(crate) fn read(file: &dyn VolumeFile) -> io::Result<Option<Self>> {
        let mut bytes = [0; UNIT_BYTES as usize];
        match file.read(0, &mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            other => other.map(|()| Self::decode(&bytes)),
        }
    }
}

/// A record's header.
#[derive(Clone)]
pub(crate) struct Header {
    pub(crate) volume: VolumeNumber,
    /// The unit at which the record begins.
    pub(crate) unit: u32,
    pub(crate) leaf: ClaimLeaf,
    pub(crate) vault: VaultId,
    pub(crate) root: ShardRoot,
    pub(crate) shard_length: u64,
    /// The manifest's envelope.
    pub(crate) manifest: Bytes,
}

impl Header {
    pub(crate) const CHECKSUM_AT: usize = 136;

    /// From the record's begin to the shard's first byte.
    pub(crate) fn data_offset(&self) -> u64 {
        ((HEADER_FIXED_BYTES + self.manifest.len()) as u64).next_multiple_of(DATA_ALIGN_BYTES)
    }

    /// From the record's begin to the outboard's first byte.
    pub(crate) fn outboard_offset(&self) -> u64 {
        self.data_offset() + self.shard_length
    }

    /// Where the record begins in its volume, in bytes.
    pub(crate) fn offset(&self) -> u64 {
        u64::from(self.unit) * UNIT_BYTES
    }

    /// Units of the whole record.
    pub(crate) fn units(&self) -> u32 {
        let bytes = self.outboard_offset() + Outboard::length_for(self.shard_length) as u64;
        bytes.div_ceil(UNIT_BYTES) as u32
    }

    pub(crate) fn to_bytes(&self, secret: &Secret) -> Vec<u8> {
        let header_bytes = HEADER_FIXED_BYTES + self.manifest.len();
        let mut bytes = Vec::with_capacity(header_bytes);
        bytes.extend_from_slice(RECORD_MAGIC);
        let numbers = [VERSION, header_bytes as u32, self.volume.0, self.unit, self.units(), self.leaf.index.0.into()];
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        bytes.extend_from_slice(&self.shard_length.to_le_bytes());
        bytes.extend_from_slice(self.leaf.segment.as_bytes());
        bytes.extend_from_slice(self.vault.as_bytes());
        bytes.extend_from_slice(self.root.as_bytes());
        bytes.extend_from_slice(&[0; CHECKSUM_BYTES]);
        bytes.extend_from_slice(&self.manifest);
        secret.seal(&mut bytes, Self::CHECKSUM_AT);
        bytes
    }

    /// The header of the record that begins at `unit`, if there is one that this store wrote there.
    pub(crate) fn read(
        file: &dyn VolumeFile,
        secret: &Secret,
        volume: VolumeNumber,
        unit: u32,
    ) -> io::Result<Option<Self>> {
        let offset = u64::from(unit) * UNIT_BYTES;
        let mut first = [0; UNIT_BYTES as usize];
        file.read(offset, &mut first)?;
        let Some(header_bytes) = Self::length(&first, volume, unit) else { return Ok(None) };
        let mut bytes = first.to_vec();
        if header_bytes > bytes.len() {
            let have = bytes.len();
            bytes.resize(header_bytes, 0);
            file.read(offset + have as u64, &mut bytes[have..])?;
        }
        bytes.truncate(header_bytes);
        Ok(Self::decode(bytes, secret, volume, unit))
    }

    /// Bytes of the header of which this is the first unit; none if that is not how the header of a record there begins.
    pub(crate) fn length(first: &Unit, volume: VolumeNumber, unit: u32) -> Option<usize> {
        let header_bytes = u32_at(first, 12) as usize;
        let is_here = (u32_at(first, 8), u32_at(first, 16), u32_at(first, 20)) == (VERSION, volume.0, unit);
        let is_sized = (HEADER_FIXED_BYTES..=HEADER_BYTES_MAX).contains(&header_bytes);
        (first.starts_with(RECORD_MAGIC) && is_here && is_sized).then_some(header_bytes)
    }

    /// The header that [`Self::length`] says to have so many bytes.
    pub(crate) fn decode(bytes: Vec<u8>, secret: &Secret, volume: VolumeNumber, unit: u32) -> Option<Self> {
        let shard_length = u64::from_le_bytes(array(&bytes, 32));
        let index = u8::try_from(u32_at(&bytes, 28)).ok()?;
        if !secret.fits(&bytes, Self::CHECKSUM_AT) || shard_length > SHARD_BYTES_MAX {
            return None;
        }
        let segment = SegmentId::from_bytes(array(&bytes, 40));
        let header = Self {
            volume,
            unit,
            leaf: ClaimLeaf { segment, index: ShardIndex(index) },
            vault: VaultId::from_bytes(array(&bytes, 72)),
            root: ShardRoot::from_bytes(array(&bytes, 104)),
            shard_length,
            manifest: Bytes::from(bytes).slice(HEADER_FIXED_BYTES..),
        };
        Some(header)
    }
}

/// The most bytes of a shard: a segment with k = 1, padded.
const SHARD_BYTES_MAX: u64 = SEGMENT_BYTES_MAX + 4096;
