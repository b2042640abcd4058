//! The vault's secret at rest: sealed under a passphrase with Argon2id and XChaCha20-Poly1305, file mode 0600.
//!
//! ```text
//! magic "CHVAULT\x01" (8) | memory KiB u32 LE | passes u32 LE | salt (16) | nonce (24) | sealed secret (32 + 16)
//! | checksum: first 8 bytes of BLAKE3 over all before
//! ```
//! The checksum tells a damaged file from a wrong passphrase. Everything before the nonce is associated data.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Instant};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305,
    aead::{Aead, Payload},
};
use commonhold_storage_engine::keys::VaultSecret;
use zeroize::Zeroizing;

use crate::{
    error::{Error, IoContext},
    home::write_atomically,
};

const MAGIC: &[u8; 8] = b"CHVAULT\x01";
const HEAD_BYTES: usize = 8 + 4 + 4 + 16;
const FILE_BYTES: usize = HEAD_BYTES + 24 + 48 + 8;
/// Argon2id memory. Peak memory of every command, so kept moderate; the number of passes is tuned instead.
const MEMORY_KIB: u32 = 48 << 10;
/// What a file may ask for, so that a planted one cannot exhaust the machine.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 64;
/// How long one try of a passphrase should take.
const UNLOCK_MS: u128 = 100;

fn derive(passphrase: &str, salt: &[u8], memory_kib: u32, passes: u32) -> Option<Zeroizing<[u8; 32]>> {
    let params = Params::new(memory_kib, passes, 1, Some(32)).ok()?;
    let mut key = Zeroizing::new([0; 32]);
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon.hash_password_into(passphrase.as_bytes(), salt, key.as_mut()).ok()?;
    Some(key)
}

fn tuned_passes() -> u32 {
    let start = Instant::now();
    derive("a passphrase", &[0; 16], MEMORY_KIB, 1);
    (UNLOCK_MS / start.elapsed().as_millis().max(1)).clamp(1, 16) as u32
}

fn checksum(bytes: &[u8]) -> [u8; 8] {
    let mut sum = [0; 8];
    sum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    sum
}

/// Seals `secret` under `passphrase` into the file at `path`.
pub(crate) fn write(path: &Path, secret: &VaultSecret, passphrase: &str) -> Result<(), Error> {
    let (mut salt, mut nonce) = ([0; 16], [0; 24]);
    getrandom::fill(&mut salt).and_then(|()| getrandom::fill(&mut nonce)).map_err(|_| Error::NoRandomness)?;
    let passes = tuned_passes();
    let mut file = Vec::with_capacity(FILE_BYTES);
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&MEMORY_KIB.to_le_bytes());
    file.extend_from_slice(&passes.to_le_bytes());
    file.extend_from_slice(&salt);
    let key = derive(passphrase, &salt, MEMORY_KIB, passes).ok_or(Error::PassphraseUnusable)?;
    let cipher = XChaCha20Poly1305::new(key.as_slice().try_into().map_err(|_| Error::PassphraseUnusable)?);
    let payload = Payload { msg: secret.as_bytes(), aad: &file };
    let sealed = cipher.encrypt((&nonce).into(), payload).map_err(|_| Error::PassphraseUnusable)?;
    file.extend_from_slice(&nonce);
    file.extend_from_slice(&sealed);
    file.extend_from_slice(&checksum(&file));
    write_atomically(path, &file)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).doing("set permissions of", path)
}

/// Opens the file at `path`. A damaged file and a wrong passphrase are told apart.
pub(crate) fn read(path: &Path, passphrase: &str) -> Result<VaultSecret, Error> {
    let file = fs::read(path).doing("read", path)?;
    let damaged = || Error::VaultFileDamaged { path: path.to_owned() };
    if file.len() != FILE_BYTES || !file.starts_with(MAGIC) {
        return Err(damaged());
    }
    let (body, sum) = file.split_at(FILE_BYTES - 8);
    if checksum(body) != sum {
        return Err(damaged());
    }
    let number = |at: usize| body[at..at + 4].try_into().map(u32::from_le_bytes).map_err(|_| damaged());
    let (memory_kib, passes) = (number(8)?, number(12)?);
    if memory_kib > MEMORY_KIB_MAX || passes > PASSES_MAX {
        return Err(damaged());
    }
    let (head, sealed) = body.split_at(HEAD_BYTES);
    let (nonce, sealed) = sealed.split_at(24);
    let key = derive(passphrase, &head[16..], memory_kib, passes).ok_or_else(damaged)?;
    let cipher = XChaCha20Poly1305::new(key.as_slice().try_into().map_err(|_| damaged())?);
    let nonce: [u8; 24] = nonce.try_into().map_err(|_| damaged())?;
    let opened = cipher.decrypt((&nonce).into(), Payload { msg: sealed, aad: head });
    let opened = Zeroizing::new(opened.map_err(|_| Error::WrongPassphrase)?);
    opened.as_slice().try_into().map(VaultSecret::from_bytes).map_err(|_| damaged())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_passphrase_and_each_damaged_byte_are_told_apart() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("vault");
        write(&path, &VaultSecret::from_bytes([7; 32]), "right").expect("written");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&path, "right").expect("opens").as_bytes(), &[7; 32]);
        assert!(matches!(read(&path, "wrong"), Err(Error::WrongPassphrase)));
        let whole = fs::read(&path).expect("readable");
        assert!(!whole.windows(32).any(|window| window == [7; 32]), "the secret must not lie in the open");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).expect("written");
            assert!(matches!(read(&path, "right"), Err(Error::VaultFileDamaged { .. })), "byte {at}");
        }
        fs::write(&path, &whole[..whole.len() - 1]).expect("written");
        assert!(matches!(read(&path, "right"), Err(Error::VaultFileDamaged { .. })));
    }
}
