#[path = "../../../../protocol/tests/objects/counting.rs"]
mod counting;

use commonhold_protocol::VaultId;
use counting::{Counting, peak_during};
use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    super::entry::{Kind, file_header},
    *,
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A log is read in pieces that are no longer than what is left of it, and an entry is handed out as it lies there; the
/// target has two copies.
const fn bytes_allowed(length: usize) -> usize {
    4 * length + (16 << 10)
}

fn run(target: fn(&[u8]), bytes: &[u8]) -> Result<(), TestCaseError> {
    let ((), peak) = peak_during(|| target(bytes));
    prop_assert!(peak <= bytes_allowed(bytes.len()), "{} bytes took {peak}", bytes.len());
    Ok(())
}

/// A log with entries of these lengths.
fn log(lengths: &[u16]) -> Vec<u8> {
    let mut bytes = file_header(1).to_vec();
    for (number, length) in lengths.iter().enumerate() {
        let kind = Kind::ALL[number % 4];
        let entry = Entry { kind, tag: number as u8, key: [number as u8; 32], owner: VaultId::from_bytes([7; 32]) };
        entry.encode(&vec![b'C'; usize::from(*length)], &mut bytes);
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn noise_harms_nobody(bytes in vec(any::<u8>(), 0..4096)) {
        run(record_entry, &bytes)?;
        run(record_log, &bytes)?;
        // As if entries began there, whatever their lengths.
        run(record_log, &[b"CHRECLOG\x01\0\0\0\0\0\0\0", &b"CHRE"[..], &bytes].concat())?;
    }

    #[test]
    fn damaged_logs_harm_nobody(
        lengths in vec(0..400_u16, 1..8), changes in vec(any::<(Index, u8)>(), 1..6), cut in any::<Index>(),
    ) {
        let mut bytes = log(&lengths);
        run(record_log, &bytes)?;
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        run(record_log, &bytes)?;
        run(record_entry, &bytes[FILE_HEADER_BYTES.min(bytes.len())..])?;
    }
}

#[test]
fn a_length_that_is_not_there_takes_no_memory() {
    let mut bytes = log(&[0]);
    bytes[FILE_HEADER_BYTES + 8..][..4].copy_from_slice(&(1_u32 << 20).to_le_bytes());
    for target in [record_log, |bytes: &[u8]| record_entry(&bytes[FILE_HEADER_BYTES..])] {
        let ((), peak) = peak_during(|| target(&bytes));
        assert!(peak <= bytes_allowed(bytes.len()), "{} bytes took {peak}", bytes.len());
    }
}
