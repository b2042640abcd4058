#[path = "../../../protocol/tests/objects/counting.rs"]
mod counting;

use std::{fs, path::PathBuf};

use counting::{Counting, peak_during};
use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;
use crate::table::tests::segment;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type Target = fn(&[u8]);

const TARGETS: [Target; 5] = [head_payload, segment_table, vault_file, journal, spool];

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The path of a golden file. `COMMONHOLD_WRITE_GOLDEN=1` writes it if it is missing; one that is there never changes.
pub(crate) fn golden(name: &str, written: &[u8]) -> PathBuf {
    let path = path(name);
    if !path.exists() && std::env::var_os("COMMONHOLD_WRITE_GOLDEN").is_some() {
        fs::write(&path, written).expect("written");
    }
    path
}

/// Two bytes can be an empty hint, which takes 88 while its list grows. Besides that, the memory that the passphrase of
/// a vault file takes here.
const fn bytes_allowed(length: usize) -> usize {
    160 * length + (512 << 10)
}

fn run(target: Target, bytes: &[u8]) -> Result<(), TestCaseError> {
    let ((), peak) = peak_during(|| target(bytes));
    prop_assert!(peak <= bytes_allowed(bytes.len()), "{} bytes took {peak}", bytes.len());
    Ok(())
}

/// `bytes` with a few of them changed, and perhaps cut.
fn damage(mut bytes: Vec<u8>, changes: &[(Index, u8)], cut: &Option<Index>) -> Vec<u8> {
    for (at, value) in changes {
        let at = at.index(bytes.len());
        bytes[at] = *value;
    }
    if let Some(cut) = cut {
        bytes.truncate(cut.index(bytes.len() + 1));
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn noise_harms_nobody(bytes in vec(any::<u8>(), 0..2000)) {
        for target in TARGETS {
            run(target, &bytes)?;
        }
    }

    /// Values, entries and files of version 1 that were changed.
    #[test]
    fn damage_harms_nobody(changes in vec(any::<(Index, u8)>(), 0..5), cut in any::<Option<Index>>()) {
        for name in ["head_payload_v1_tables.bin", "table_node_v1.bin", "table_segment_v1.bin", "vault_v1.bin"] {
            let bytes = damage(fs::read(path(name)).unwrap(), &changes, &cut);
            for target in [head_payload, segment_table, vault_file] {
                run(target, &bytes)?;
            }
        }
        run(journal, &damage(segment(1, 3).to_bytes(), &changes, &cut))?;
        run(spool, &damage(fs::read(path("spool_v1.bin")).unwrap(), &changes, &cut))?;
    }

    /// Whole chunks, so that what is behind them is read too.
    #[test]
    fn what_stands_behind_a_slots_description_harms_nobody(chunks in vec(any::<[u8; 60]>(), 0..20), whole: bool) {
        let mut bytes = chunks.concat();
        if whole && bytes.len() > 64 {
            bytes[..64].fill(7);
        }
        run(spool, &bytes)?;
    }
}

/// The longest payload that a head can seal, of empty hints and of empty former states.
#[test]
fn a_payload_of_empty_fields_stays_small() {
    for field in [6_u8, 7, 8] {
        let bytes = [&[0x08, 1][..], &[field << 3 | 2, 0].repeat(24 << 10)].concat();
        let ((), peak) = peak_during(|| head_payload(&bytes));
        assert!(peak <= bytes_allowed(bytes.len()), "field {field}: {} bytes took {peak}", bytes.len());
    }
}

/// The most that an entry of a journal and the description of a slot may say to have.
#[test]
fn a_length_that_is_not_there_takes_no_memory() {
    let entry = (16_u32 << 20).to_le_bytes();
    let slot = [b"CHSPOOL1", &1_u32.to_le_bytes()[..], &(2_u32 << 20).to_le_bytes(), b"short"].concat();
    for (target, bytes) in [(journal as Target, &entry[..]), (spool, &slot)] {
        let ((), peak) = peak_during(|| target(bytes));
        assert!(peak <= 64 << 10, "{} bytes took {peak}", bytes.len());
    }
}
