#[path = "../../../../protocol/tests/objects/counting.rs"]
mod counting;

use std::{fs, path::Path};

use commonhold_protocol::{Manifest, SignedObject, Unverified};
use counting::{Counting, peak_during};
use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Nothing is held but a few copies of a header, whatever length it says to have.
const BYTES_ALLOWED: usize = 64 << 10;

/// A store as version 1 wrote it: see `tests/store/golden.rs`.
fn golden(file: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/golden/v1").join(file)).unwrap()
}

fn volume() -> Vec<u8> {
    golden("volumes/00000001.volume")
}

fn run(target: fn(&[u8]), bytes: &[u8]) -> Result<(), TestCaseError> {
    let ((), peak) = peak_during(|| target(bytes));
    prop_assert!(peak <= BYTES_ALLOWED, "{} bytes took {peak}", bytes.len());
    Ok(())
}

/// `bytes` with a few of them changed.
fn damage(mut bytes: Vec<u8>, changes: &[(Index, u8)]) -> Vec<u8> {
    for (at, value) in changes {
        let at = at.index(bytes.len());
        bytes[at] = *value;
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn noise_harms_nobody(bytes in vec(any::<u8>(), 0..9000)) {
        for target in [volume_block, record_header, store_label] {
            run(target, &bytes)?;
        }
    }

    /// What counts lies in the first few hundred bytes.
    #[test]
    fn damaged_blocks_and_headers_harm_nobody(changes in vec(any::<(Index, u8)>(), 1..4)) {
        let volume = volume();
        run(volume_block, &damage(volume[..120].to_vec(), &changes))?;
        run(record_header, &damage(volume[4096..4096 + 180].to_vec(), &changes))?;
        run(store_label, &damage([&golden("store")[..], b"x"].concat(), &changes))?;
    }
}

/// What version 1 wrote is written so today, byte for byte.
#[test]
fn blocks_headers_and_labels_are_written_as_they_were() {
    let (secret, network) = label::decode(&golden("store")).unwrap();
    assert_eq!(label::encode(&secret, &network), golden("store"));
    let volume = volume();
    let block = VolumeBlock::decode(&unit(&volume)).unwrap();
    assert!(block.secret == secret && block.network == network && !block.sealed);
    assert_eq!(block.to_bytes(), volume[..4096]);
    let mut headers = 0;
    for (at, first) in volume.chunks(4096).enumerate().skip(1) {
        let here = (block.volume, at as u32);
        let Some(length) = Header::length(&unit(first), here.0, here.1) else { continue };
        let header = Header::decode(volume[at * 4096..][..length].to_vec(), &secret, here.0, here.1).unwrap();
        assert_eq!(header.to_bytes(&secret), volume[at * 4096..][..length]);
        let manifest = Unverified::<Manifest>::from_bytes(header.manifest.clone()).unwrap();
        assert_eq!(manifest.verify(&network).unwrap().signer(), *header.vault.as_bytes());
        headers += 1;
    }
    assert_eq!(headers, 3);
}
