//! The vault's secret at rest: sealed under a passphrase with Argon2id and XChaCha20-Poly1305, file mode 0600.
//!
//! ```text
//! magic "CHVAULT\x01" (8) | memory KiB u32 LE | passes u32 LE | salt (16) | nonce (24) | sealed secret (32 + 16)
//! | checksum: first 8 bytes of BLAKE3 over all before
//! ```
//! The checksum tells a damaged file from a wrong passphrase. Everything before the nonce is associated data.

use std::{fs, io::Read, os::unix::fs::PermissionsExt, path::Path, time::Instant};

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

pub(crate) const MAGIC: &[u8; 8] = b"CHVAULT\x01";
const HEAD_BYTES: usize = 8 + 4 + 4 + 16;
pub(crate) const FILE_BYTES: usize = HEAD_BYTES + 24 + 48 + 8;
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

pub(crate) fn checksum(bytes: &[u8]) -> [u8; 8] {
    let mut sum = [0; 8];
    sum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    sum
}

/// What is chosen anew for each file.
struct Fresh {
    salt: [u8; 16],
    nonce: [u8; 24],
    memory_kib: u32,
    passes: u32,
}

/// Seals `secret` under `passphrase` into the file at `path`.
pub(crate) fn write(path: &Path, secret: &VaultSecret, passphrase: &str) -> Result<(), Error> {
    let (mut salt, mut nonce) = ([0; 16], [0; 24]);
    getrandom::fill(&mut salt).and_then(|()| getrandom::fill(&mut nonce)).map_err(|_| Error::NoRandomness)?;
    let fresh = Fresh { salt, nonce, memory_kib: MEMORY_KIB, passes: tuned_passes() };
    let file = seal(secret, passphrase, &fresh).ok_or(Error::PassphraseUnusable)?;
    write_atomically(path, &file)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).doing("set permissions of", path)
}

fn seal(secret: &VaultSecret, passphrase: &str, fresh: &Fresh) -> Option<Vec<u8>> {
    let Fresh { salt, nonce, memory_kib, passes } = fresh;
    let mut file = Vec::with_capacity(FILE_BYTES);
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&memory_kib.to_le_bytes());
    file.extend_from_slice(&passes.to_le_bytes());
    file.extend_from_slice(salt);
    let key = derive(passphrase, salt, *memory_kib, *passes)?;
    let payload = Payload { msg: secret.as_bytes(), aad: &file };
    let sealed = XChaCha20Poly1305::new((&*key).into()).encrypt(nonce.into(), payload).ok()?;
    file.extend_from_slice(nonce);
    file.extend_from_slice(&sealed);
    file.extend_from_slice(&checksum(&file));
    Some(file)
}

/// A file that is whole, and asks for no more than it may.
pub(crate) struct Parsed<'a> {
    /// All before the nonce.
    head: &'a [u8],
    memory_kib: u32,
    passes: u32,
    nonce: [u8; 24],
    sealed: &'a [u8],
}

impl<'a> Parsed<'a> {
    /// None if the file is damaged, or of a version that is not known here.
    pub(crate) fn of(file: &'a [u8]) -> Option<Self> {
        let file: &[u8; FILE_BYTES] = file.try_into().ok()?;
        let (body, sum) = file.split_at(FILE_BYTES - 8);
        if !file.starts_with(MAGIC) || checksum(body) != sum {
            return None;
        }
        let (head, rest) = body.split_at(HEAD_BYTES);
        let (nonce, sealed) = rest.split_first_chunk()?;
        let number = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        let (memory_kib, passes) = (number(8), number(12));
        let is_bounded = memory_kib <= MEMORY_KIB_MAX && passes <= PASSES_MAX;
        is_bounded.then_some(Self { head, memory_kib, passes, nonce: *nonce, sealed })
    }

    /// What opens it, if the passphrase is right; none if no key can be had as the file says.
    pub(crate) fn key(&self, passphrase: &str) -> Option<Zeroizing<[u8; 32]>> {
        derive(passphrase, &self.head[16..], self.memory_kib, self.passes)
    }

    /// The secret; none if the key is of another passphrase.
    pub(crate) fn open(&self, key: &[u8; 32]) -> Option<VaultSecret> {
        let payload = Payload { msg: self.sealed, aad: self.head };
        let opened = XChaCha20Poly1305::new(key.into()).decrypt((&self.nonce).into(), payload);
        let opened = Zeroizing::new(opened.ok()?);
        opened.as_slice().try_into().ok().map(VaultSecret::from_bytes)
    }
}

/// Opens the file at `path`. A damaged file and a wrong passphrase are told apart.
pub(crate) fn read(path: &Path, passphrase: &str) -> Result<VaultSecret, Error> {
    let mut file = Vec::with_capacity(FILE_BYTES + 1);
    let opened = fs::File::open(path).doing("read", path)?;
    opened.take(FILE_BYTES as u64 + 1).read_to_end(&mut file).doing("read", path)?;
    let damaged = || Error::VaultFileDamaged { path: path.to_owned() };
    let parsed = Parsed::of(&file).ok_or_else(damaged)?;
    let key = parsed.key(passphrase).ok_or_else(damaged)?;
    parsed.open(&key).ok_or(Error::WrongPassphrase)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::any_bytes::tests::golden;

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

    /// A vault made by version 1 opens for ever. `COMMONHOLD_WRITE_GOLDEN=1` writes the file if it is missing.
    #[test]
    fn golden_vault_file_of_version_1() {
        let secret = VaultSecret::from_bytes(std::array::from_fn(|i| i as u8));
        // Less memory than a file gets, so that this takes no time.
        let fresh = Fresh { salt: *b"sixteen bytes ok", nonce: [3; 24], memory_kib: 64, passes: 2 };
        let today = seal(&secret, "right", &fresh).expect("sealed");
        let path = golden("vault_v1.bin", &today);
        assert!(fs::read(&path).expect("the golden file") == today, "today's encoding is another");
        assert!(read(&path, "right").expect("opens") == secret);
        assert!(matches!(read(&path, "wrong"), Err(Error::WrongPassphrase)));
    }
}
