use commonhold_protocol::{DeviceId, head::HEAD_SEALED_BYTES_MAX};

use super::*;
use crate::keys::{VaultKeys, VaultSecret};

fn keys(byte: u8) -> VaultKeys {
    VaultKeys::derive(&VaultSecret::from_bytes([byte; 32]))
}

fn frame(bytes: &[u8]) -> Frame {
    Frame::from_bytes(bytes.to_vec())
}

#[test]
fn a_frame_comes_back_and_is_not_seen_meanwhile() {
    let plain = b"\x00a secret that must not be seen".repeat(50);
    let sealed = seal(frame(&plain), 1500, keys(1).convergence());
    assert_eq!(sealed.bytes.len(), plain.len() + SEAL_BYTES);
    assert!(!sealed.bytes.windows(8).any(|window| plain.windows(8).any(|seen| seen == window)));
    assert_eq!(open(sealed.bytes.clone(), &sealed.key).unwrap().as_bytes(), plain);
}

#[test]
fn the_same_frame_seals_alike_in_one_vault_and_differently_in_another() {
    let one = seal(frame(b"\x00chunk"), 5, keys(1).convergence());
    let again = seal(frame(b"\x00chunk"), 5, keys(1).convergence());
    let other = seal(frame(b"\x00chunk"), 5, keys(2).convergence());
    assert!(one.bytes == again.bytes && one.key == again.key);
    assert!(one.bytes != other.bytes && one.key != other.key);
    assert!(open(one.bytes.clone(), &other.key).is_err());
}

/// The rule that makes the fixed nonce safe: one byte of difference in the frame, another key.
#[test]
fn different_frames_never_share_a_key() {
    let mut seen = std::collections::BTreeSet::new();
    for length in 0..200 {
        for last in [0u8, 1] {
            let mut bytes = vec![0; length];
            bytes.push(last);
            assert!(seen.insert(*seal(frame(&bytes), 0, keys(1).convergence()).key.as_bytes()));
        }
    }
}

#[test]
fn every_changed_byte_is_noticed() {
    let sealed = seal(frame(b"\x00some chunk"), 10, keys(1).convergence());
    for at in 0..sealed.bytes.len() {
        let mut changed = sealed.bytes.clone();
        changed[at] ^= 1;
        assert!(open(changed, &sealed.key).is_err(), "byte {at}");
    }
    for length in 0..sealed.bytes.len() {
        assert!(open(sealed.bytes[..length].to_vec(), &sealed.key).is_err(), "cut to {length}");
    }
    assert!(open([sealed.bytes.as_slice(), &[0]].concat(), &sealed.key).is_err());
}

/// What was sealed in version 1 opens for ever, and seals to the same bytes (or nothing would be stored only once).
#[test]
fn golden_seal_of_version_1() {
    let sealed = seal(frame(b"\x00golden chunk"), 12, keys(7).convergence());
    assert_eq!(hex(sealed.key.as_bytes()), "5b9b1a45759f90568b620898f4a578a5d717561e208aba421408f371cbf4fc9e");
    assert_eq!(hex(&sealed.bytes), "8c37e20c7abfa6a822c4bfe7b8cc42a8339a75584f88479f8dbf10af8f");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn version(counter: u64) -> Version {
    Version::from_counters([(DeviceId([3; 8]), counter)])
}

fn sealed_head(payload: &[u8], vault: &VaultKeys, counter: u64) -> Head {
    let SealedHead { nonce, sealed } =
        seal_head(payload, &vault.vault_id(), &version(counter), vault.head_key()).unwrap();
    Head { vault: vault.vault_id(), version: version(counter), nonce, sealed: sealed.into() }
}

#[test]
fn a_head_comes_back_only_as_what_it_was() {
    let vault = keys(1);
    let head = sealed_head(b"the root", &vault, 4);
    assert_eq!(open_head(&head, vault.head_key()).unwrap().as_slice(), b"the root");

    let refused = |head: &Head| open_head(head, vault.head_key()).is_err();
    assert!(refused(&Head { version: version(5), ..head.clone() }), "moved to another version");
    assert!(refused(&Head { vault: keys(2).vault_id(), ..head.clone() }), "moved to another vault");
    let mut nonce = head.nonce;
    nonce[0] ^= 1;
    assert!(refused(&Head { nonce, ..head.clone() }));
    for at in 0..head.sealed.len() {
        let mut sealed = head.sealed.to_vec();
        sealed[at] ^= 1;
        assert!(refused(&Head { sealed: sealed.into(), ..head.clone() }), "byte {at}");
    }
    assert!(refused(&Head { sealed: head.sealed.slice(..10), ..head.clone() }));
    assert!(open_head(&head, keys(2).head_key()).is_err());
}

/// Two devices may write two heads of one version: were the nonce derived from it, both would share a key stream.
#[test]
fn two_heads_of_one_version_share_no_nonce() {
    let vault = keys(1);
    let (one, two) = (sealed_head(b"payload", &vault, 1), sealed_head(b"payload", &vault, 1));
    assert_ne!(one.nonce, two.nonce);
    assert_ne!(one.sealed, two.sealed);
}

#[test]
fn a_head_has_a_limit() {
    let vault = keys(1);
    let seal = |bytes| seal_head(&vec![0; bytes], &vault.vault_id(), &version(1), vault.head_key());
    assert_eq!(seal(HEAD_SEALED_BYTES_MAX - SEAL_BYTES).unwrap().sealed.len(), HEAD_SEALED_BYTES_MAX);
    assert!(matches!(seal(HEAD_SEALED_BYTES_MAX), Err(SealError::TooLong { .. })));
}
