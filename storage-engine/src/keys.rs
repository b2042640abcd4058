//! The vault's secret and everything that derives from it.
//!
//! Each key is `blake3::derive_key(context, secret)` with a context string of its own that carries the version of
//! what the key is used for: no two uses share a key, and a new format version never meets an old key. Nothing here
//! writes a secret anywhere: no `Debug`, wiped on drop. How the secret is shown, typed in and kept at rest is the
//! client's matter.

use commonhold_protocol::{SigningKey, VaultId};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// ed25519 seed; its public half is the vault's id.
const SIGNING_CONTEXT: &str = "commonhold 2026 vault signing key v1";
/// Keys the hash that makes a frame's sealing key.
const CONVERGENCE_CONTEXT: &str = "commonhold 2026 vault convergence key v1";
/// Keys the hash that recognises a chunk already stored.
const DEDUP_CONTEXT: &str = "commonhold 2026 vault dedup key v1";
/// Seeds the chunk boundaries.
const CHUNKER_CONTEXT: &str = "commonhold 2026 vault chunker seed v1";
/// Seals heads.
const HEAD_CONTEXT: &str = "commonhold 2026 vault head key v1";

/// The 32 bytes that are the vault. Wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct VaultSecret([u8; 32]);

impl VaultSecret {
    /// A new vault's secret, from the system's generator.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut secret = Self([0; 32]);
        getrandom::fill(&mut secret.0)?;
        Ok(secret)
    }

    /// The secret with exactly these bytes (what a recovery phrase encodes).
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the secret.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn derive(&self, context: &'static str) -> Zeroizing<[u8; 32]> {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&self.0);
        let mut derived = Zeroizing::new([0; 32]);
        hasher.finalize_xof().fill(derived.as_mut());
        hasher.zeroize();
        derived
    }
}

/// Makes a sealing key out of a frame: the same frame in the same vault gives the same key, in another it does not.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ConvergenceKey([u8; 32]);

impl ConvergenceKey {
    /// The 32 bytes of the key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Seals and opens the vault's heads.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct HeadKey([u8; 32]);

impl HeadKey {
    /// The 32 bytes of the key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// What a vault knows a chunk by before it compresses it. Says nothing to anyone without the vault's dedup key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DedupTag(pub [u8; 32]);

/// All keys of one vault.
pub struct VaultKeys {
    vault: VaultId,
    signing: SigningKey,
    convergence: ConvergenceKey,
    dedup: Zeroizing<[u8; 32]>,
    chunker_seed: Zeroizing<u64>,
    head: HeadKey,
}

impl VaultKeys {
    /// The keys of the vault with this secret.
    pub fn derive(secret: &VaultSecret) -> Self {
        let signing = SigningKey::from_seed(&secret.derive(SIGNING_CONTEXT));
        let seed = secret.derive(CHUNKER_CONTEXT);
        let seed = seed.iter().take(8).rev().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        Self {
            vault: VaultId::from_bytes(signing.public()),
            signing,
            convergence: ConvergenceKey(*secret.derive(CONVERGENCE_CONTEXT)),
            dedup: secret.derive(DEDUP_CONTEXT),
            chunker_seed: Zeroizing::new(seed),
            head: HeadKey(*secret.derive(HEAD_CONTEXT)),
        }
    }

    /// The vault's id.
    pub fn vault_id(&self) -> VaultId {
        self.vault
    }

    /// Signs manifests, heads, leases and drops.
    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// Makes sealing keys.
    pub fn convergence(&self) -> &ConvergenceKey {
        &self.convergence
    }

    /// The tag that finds `chunk` if the vault has stored it already.
    pub fn dedup_tag(&self, chunk: &[u8]) -> DedupTag {
        DedupTag(*blake3::keyed_hash(&self.dedup, chunk).as_bytes())
    }

    /// Sets this vault's chunk boundaries apart from those of all others.
    pub fn chunker_seed(&self) -> u64 {
        *self.chunker_seed
    }

    /// Seals heads.
    pub fn head_key(&self) -> &HeadKey {
        &self.head
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_use_has_a_key_of_its_own() {
        let contexts = [SIGNING_CONTEXT, CONVERGENCE_CONTEXT, DEDUP_CONTEXT, CHUNKER_CONTEXT, HEAD_CONTEXT];
        let secret = VaultSecret::from_bytes([7; 32]);
        let keys: BTreeSet<[u8; 32]> = contexts.iter().map(|context| *secret.derive(context)).collect();
        assert_eq!(keys.len(), contexts.len());
        assert!(contexts.iter().all(|context| context.starts_with("commonhold 2026 ") && context.ends_with(" v1")));
    }

    #[test]
    fn derivation_is_blake3_derive_key() {
        let keys = VaultKeys::derive(&VaultSecret::from_bytes([9; 32]));
        let head = blake3::derive_key("commonhold 2026 vault head key v1", &[9; 32]);
        assert_eq!(keys.head_key().as_bytes(), &head);
        let seed = blake3::derive_key("commonhold 2026 vault chunker seed v1", &[9; 32]);
        assert_eq!(keys.chunker_seed(), u64::from_le_bytes(std::array::from_fn(|i| seed[i])));
    }

    /// A vault made today opens for ever: these values may only change together with the version in the contexts.
    #[test]
    fn golden_keys_of_version_1() {
        let keys = VaultKeys::derive(&VaultSecret::from_bytes(std::array::from_fn(|i| i as u8)));
        let found = [
            format!("{:#}", keys.vault_id()),
            hex(keys.convergence().as_bytes()),
            hex(&keys.dedup_tag(b"chunk").0),
            format!("{:016x}", keys.chunker_seed()),
            hex(keys.head_key().as_bytes()),
        ];
        assert_eq!(
            found,
            [
                "5c219fbaf030a3d9aa618ca29603410cc703f37ede7dd63ba3e50307dd9381e9",
                "9474152e762caac3e4875238260a6b6443a76f23404f6b0000b79939625f99e2",
                "8961089ed0aaefc591a37cee4e9a1df0f8ed7aeeebce0e784063ed6c70efba84",
                "be4d5d421ff9b6fe",
                "2af9af867773be82c17f988bb8f8fd1630f5edb78b853de7cbd3121da80c4b37",
            ]
        );
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn vaults_share_nothing() {
        let one = VaultKeys::derive(&VaultSecret::from_bytes([1; 32]));
        let two = VaultKeys::derive(&VaultSecret::from_bytes([2; 32]));
        assert_ne!(one.vault_id(), two.vault_id());
        assert_ne!(one.dedup_tag(b"chunk"), two.dedup_tag(b"chunk"));
        assert_ne!(one.chunker_seed(), two.chunker_seed());
        assert_ne!(one.convergence().as_bytes(), two.convergence().as_bytes());
    }
}
