//! Seals what a home keeps beside the vault file (journals, cache): it holds chunk keys, so the disk must not.

use bytes::Bytes;
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305,
    aead::{Aead, Payload},
};
use commonhold_storage_engine::keys::VaultSecret;
use zeroize::Zeroizing;

use crate::error::Error;

const NONCE_BYTES: usize = 24;

/// A key for this vault's local state, on any machine.
pub(crate) struct LocalSeal(XChaCha20Poly1305);

impl LocalSeal {
    pub(crate) fn of(secret: &VaultSecret) -> Self {
        let key = Zeroizing::new(blake3::derive_key("commonhold 2026 vault local state key v1", secret.as_bytes()));
        Self(XChaCha20Poly1305::new((&*key).into()))
    }

    /// `nonce (24, random) ‖ ciphertext ‖ tag`, bound to `purpose`.
    pub(crate) fn seal(&self, purpose: &[u8], plain: &[u8]) -> Result<Vec<u8>, Error> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| Error::NoRandomness)?;
        self.seal_with(&nonce, purpose, plain)
    }

    /// The same with a nonce that must never have been used before.
    pub(crate) fn seal_with(&self, nonce: &[u8; NONCE_BYTES], purpose: &[u8], plain: &[u8]) -> Result<Vec<u8>, Error> {
        let sealed = self.0.encrypt(nonce.into(), Payload { msg: plain, aad: purpose });
        let sealed = sealed.map_err(|_| Error::NoRandomness)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// None if it was not sealed with this key for this purpose, or was damaged since. Wiped with its last slice.
    pub(crate) fn open(&self, purpose: &[u8], sealed: &[u8]) -> Option<Bytes> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        self.0
            .decrypt(nonce.into(), Payload { msg: sealed, aad: purpose })
            .ok()
            .map(|plain| Bytes::from_owner(Zeroizing::new(plain)))
    }
}
