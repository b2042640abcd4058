//! What is done with any bytes in the place of a record log: no panic, and what is read is written as it was. For this
//! crate's tests and, by the feature `fuzzing`, for the fuzz targets; nothing else is built with it.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use rustix::fs::{MemfdFlags, memfd_create};

use super::entry::{ENTRY_HEADER_BYTES, Entry, FILE_HEADER_BYTES, scan, unknown_version};

/// The bytes as a file.
fn file(bytes: &[u8]) -> File {
    let file = File::from(memfd_create("any bytes", MemfdFlags::CLOEXEC).expect("memory"));
    file.write_all_at(bytes, 0).expect("memory");
    file
}

/// An entry, as it is and with magic, length and check sum put right.
pub fn record_entry(bytes: &[u8]) {
    check_entry(bytes);
    let Some(body) = bytes.len().checked_sub(ENTRY_HEADER_BYTES) else { return };
    let mut whole = bytes.to_vec();
    whole[..4].copy_from_slice(b"CHRE");
    whole[8..12].copy_from_slice(&(body as u32).to_le_bytes());
    let sum = crc32fast::hash(&whole[8..]);
    whole[4..8].copy_from_slice(&sum.to_le_bytes());
    check_entry(&whole);
}

fn check_entry(bytes: &[u8]) {
    let Some((entry, body)) = Entry::decode(bytes) else { return };
    let mut again = Vec::new();
    entry.encode(body, &mut again);
    assert_eq!(Entry::decode(&again), Some((entry, body)));
    let length = ENTRY_HEADER_BYTES + body.len();
    // All but the two bytes that are zero today, and the check sum over them.
    assert_eq!(again.len(), length);
    assert_eq!((&again[8..14], &again[16..]), (&bytes[8..14], &bytes[16..length]));
}

/// A log file: each entry that is found stands where it is said to, and they come one after another.
pub fn record_log(bytes: &[u8]) {
    let log = file(bytes);
    unknown_version(&log).expect("memory is readable");
    let mut from = FILE_HEADER_BYTES;
    let scanned = scan(&log, Path::new("any bytes"), 0, |offset, entry, body| {
        let offset = offset as usize;
        assert!(offset >= from && Entry::decode(&bytes[offset..]) == Some((entry, body)));
        from = offset + ENTRY_HEADER_BYTES + body.len();
        Ok(())
    });
    let scanned = scanned.expect("memory is readable");
    assert_eq!(scanned.end as usize, from);
    assert!(scanned.damaged_bytes <= bytes.len() as u64);
}

#[cfg(test)]
mod tests;
