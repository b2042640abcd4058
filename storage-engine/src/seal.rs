//! The third stage: a frame is sealed under a key that only its own bytes give; and the sealing of heads.
//!
//! Chunks: ChaCha20-Poly1305, `key = keyed_hash(convergence key, frame)`, nonce zero. A key that derives from exactly
//! the bytes it seals never seals two messages, so a fixed nonce is safe; the same frame in the same vault seals to
//! the same bytes, in another vault it does not. Heads: XChaCha20-Poly1305 under the vault's head key with a fresh
//! random nonce, because two devices may write different heads of one version.

use chacha20poly1305::{
    AeadInOut, ChaCha20Poly1305, KeyInit, Nonce, Tag, XChaCha20Poly1305, XNonce, aead::inout::InOutBuf,
};
use commonhold_protocol::{Head, VaultId, Version, head::HEAD_SEALED_BYTES_MAX};
use zeroize::Zeroizing;

use crate::{
    chunk_ref::ChunkKey,
    frame::{Frame, SEAL_BYTES},
    keys::{ConvergenceKey, HeadKey},
};

/// Bound into every sealed chunk: the version of this format.
const CHUNK_ASSOCIATED_DATA: &[u8] = b"chunk v1";

/// A sealed chunk, ready to be appended to a segment.
#[derive(Clone)]
pub struct Sealed {
    /// What holders see.
    pub bytes: Vec<u8>,
    /// What opens it.
    pub key: ChunkKey,
    /// Bytes of the chunk inside.
    pub plain_length: u32,
}

/// Why something sealed does not open, or cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Not sealed with this key, or changed since.
    #[error("{what}: does not open with its key: damaged, or sealed for another")]
    Unopenable {
        /// What it is.
        what: &'static str,
    },
    /// More than can be sealed.
    #[error("{what}: {bytes} bytes, at most {bytes_max} can be sealed")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// Bytes given.
        bytes: usize,
        /// Bytes allowed.
        bytes_max: usize,
    },
    /// The system's generator gave no nonce.
    #[error("no random bytes from the system")]
    Random(#[from] getrandom::Error),
}

/// Seals a frame of a chunk of `plain_length` bytes.
pub fn seal(frame: Frame, plain_length: u32, convergence: &ConvergenceKey) -> Sealed {
    let key = ChunkKey::from_bytes(*blake3::keyed_hash(convergence.as_bytes(), frame.as_bytes()).as_bytes());
    let mut bytes = frame.into_bytes();
    let cipher = ChaCha20Poly1305::new(key.as_bytes().into());
    // The cipher refuses more than 256 GiB under one nonce; a frame is half a MiB.
    let tag = cipher
        .encrypt_inout_detached(&Nonce::default(), CHUNK_ASSOCIATED_DATA, InOutBuf::from(bytes.as_mut_slice()))
        .expect("a frame is far shorter than the cipher allows");
    bytes.extend_from_slice(&tag);
    Sealed { bytes, key, plain_length }
}

/// Opens a sealed chunk, in place; the frame still has to be opened with the length that the ref states.
pub fn open(mut sealed: Vec<u8>, key: &ChunkKey) -> Result<Frame, SealError> {
    let unopenable = SealError::Unopenable { what: "chunk" };
    let Some((body, tag)) = sealed.split_last_chunk_mut::<SEAL_BYTES>() else {
        return Err(unopenable);
    };
    let tag = Tag::from(*tag);
    let cipher = ChaCha20Poly1305::new(key.as_bytes().into());
    let opened = cipher.decrypt_inout_detached(&Nonce::default(), CHUNK_ASSOCIATED_DATA, InOutBuf::from(body), &tag);
    match opened {
        Ok(()) => {
            sealed.truncate(sealed.len() - SEAL_BYTES);
            Ok(Frame::from_bytes(sealed))
        }
        Err(_) => Err(unopenable),
    }
}

/// A sealed head payload and the nonce that goes with it.
pub struct SealedHead {
    /// Random.
    pub nonce: [u8; 24],
    /// The payload, sealed.
    pub sealed: Vec<u8>,
}

/// Seals the payload of the head of `vault` at `version`, under a fresh nonce.
pub fn seal_head(payload: &[u8], vault: &VaultId, version: &Version, key: &HeadKey) -> Result<SealedHead, SealError> {
    let bytes_max = HEAD_SEALED_BYTES_MAX - SEAL_BYTES;
    if payload.len() > bytes_max {
        return Err(SealError::TooLong { what: "head", bytes: payload.len(), bytes_max });
    }
    let mut nonce = [0; 24];
    getrandom::fill(&mut nonce)?;
    let mut sealed = Vec::with_capacity(payload.len() + SEAL_BYTES);
    sealed.extend_from_slice(payload);
    let tag = XChaCha20Poly1305::new(key.as_bytes().into())
        .encrypt_inout_detached(
            &XNonce::from(nonce),
            &Head::associated_data(vault, version),
            InOutBuf::from(sealed.as_mut_slice()),
        )
        .expect("a head is far shorter than the cipher allows");
    sealed.extend_from_slice(&tag);
    Ok(SealedHead { nonce, sealed })
}

/// Opens a head's payload, which holds refs and therefore keys: it is wiped when dropped.
pub fn open_head(head: &Head, key: &HeadKey) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let unopenable = SealError::Unopenable { what: "head" };
    let Some((body, tag)) = head.sealed.split_last_chunk::<SEAL_BYTES>() else {
        return Err(unopenable);
    };
    let mut payload = Zeroizing::new(body.to_vec());
    let opened = XChaCha20Poly1305::new(key.as_bytes().into()).decrypt_inout_detached(
        &XNonce::from(head.nonce),
        &Head::associated_data(&head.vault, &head.version),
        InOutBuf::from(payload.as_mut_slice()),
        &Tag::from(*tag),
    );
    match opened {
        Ok(()) => Ok(payload),
        Err(_) => Err(unopenable),
    }
}

#[cfg(test)]
mod tests;
