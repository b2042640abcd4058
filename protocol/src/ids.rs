//! Names of things: 32-byte ids, one newtype each, so that a vault cannot pass for a segment.

use std::fmt;

use sha2::{Digest, Sha256};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The id with exactly these bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes of the id.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Reads the 64 lower-case hex digits that `{:#}` prints.
            pub fn from_hex(text: &str) -> Option<Self> {
                let text = text.as_bytes();
                let digit = |c: &u8| c.is_ascii_digit() || (b'a'..=b'f').contains(c);
                if text.len() != 64 || !text.iter().all(digit) {
                    return None;
                }
                let mut bytes = [0; 32];
                for (byte, pair) in bytes.iter_mut().zip(text.chunks(2)) {
                    let digits = std::str::from_utf8(pair).ok()?;
                    *byte = u8::from_str_radix(digits, 16).ok()?;
                }
                Some(Self(bytes))
            }
        }

        impl From<[u8; 32]> for $name {
            fn from(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
        }

        /// Short (16 hex digits) with `{}`, whole with `{:#}`.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let shown = if f.alternate() { &self.0[..] } else { &self.0[..8] };
                shown.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

id! {
    /// A segment: derived from the vault and a random salt, so an id never recurs and is known before the roots.
    SegmentId
}
id! {
    /// A shard's plain BLAKE3 hash, the root of its Bao tree.
    ShardRoot
}
id! {
    /// A vault: the public half of its signing key (ed25519).
    VaultId
}
id! {
    /// A node: the public half of its identity key (ed25519), from which its libp2p peer id follows.
    NodeId
}

impl NodeId {
    /// The bytes of the libp2p peer id: an identity multihash of the protobuf-encoded ed25519 public key.
    /// Source: libp2p specs, `peer-ids/peer-ids.md`.
    pub fn peer_id_bytes(&self) -> [u8; 38] {
        let mut bytes = [0; 38];
        bytes[..6].copy_from_slice(&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20]);
        bytes[6..].copy_from_slice(&self.0);
        bytes
    }

    /// The node whose libp2p peer id has these bytes, if that id embeds an ed25519 key.
    pub fn from_peer_id_bytes(bytes: &[u8]) -> Option<Self> {
        let key = bytes.strip_prefix(&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20])?;
        Some(Self(key.try_into().ok()?))
    }

    /// Where Kademlia has a key: keys are near each other there, not as numbers.
    pub fn place_of(key: &[u8; 32]) -> [u8; 32] {
        Sha256::digest(key).into()
    }

    /// The XOR distance between this node and a record's key as Kademlia measures it: both hashed with SHA-256,
    /// compared big-endian.
    pub fn distance(&self, key: &[u8; 32]) -> [u8; 32] {
        let node = Sha256::digest(self.peer_id_bytes());
        let key = Sha256::digest(key);
        std::array::from_fn(|i| node[i] ^ key[i])
    }
}
