//! What is done with any bytes in the place of what the store has written: no panic, and what is read is written as
//! something that reads the same. For this crate's tests and, by the feature `fuzzing`, for the fuzz targets; nothing
//! else is built with it.
//!
//! Check sums are keyed, so that damage is never read; here they are put right, so that what is behind them is.

use super::{
    disk::VolumeNumber,
    label,
    record::{Header, Secret, UNIT_BYTES, VolumeBlock},
};

const SECRET: Secret = Secret([7; 32]);

/// Such bytes, cut or filled with zeros.
fn unit(bytes: &[u8]) -> [u8; UNIT_BYTES as usize] {
    std::array::from_fn(|at| bytes.get(at).copied().unwrap_or_default())
}

/// Writes `known` over the bytes from `at` on.
fn put(bytes: &mut [u8], at: usize, known: &[u8]) {
    bytes[at..at + known.len()].copy_from_slice(known);
}

/// The first unit of a volume, as it is and with all put right that must be.
pub fn volume_block(bytes: &[u8]) {
    let mut unit = unit(bytes);
    assert!(VolumeBlock::decode(&unit).is_none() || bytes.starts_with(b"CHVOLUME"));
    put(&mut unit, 0, b"CHVOLUME\x01\0\0\0");
    put(&mut unit, 24, &SECRET.0);
    SECRET.seal(&mut unit, VolumeBlock::CHECKSUM_AT);
    if let Some(block) = VolumeBlock::decode(&unit) {
        let again = VolumeBlock::decode(&self::unit(&block.to_bytes())).expect("what was written is read");
        assert!(again.secret == SECRET && again.network == block.network);
        assert_eq!((again.volume, again.sealed), (block.volume, block.sealed));
    }
}

/// The header of a record at the place that its own bytes give, as it is and with its check sum put right.
pub fn record_header(bytes: &[u8]) {
    let mut first = unit(bytes);
    put(&mut first, 0, b"CHRECORD\x01\0\0\0");
    let number = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| first[at + i]));
    let (volume, unit) = (VolumeNumber(number(16)), number(20));
    let Some(length) = Header::length(&first, volume, unit) else { return };
    let mut header = first.to_vec();
    header.extend(bytes.iter().skip(header.len()));
    header.resize(length, 0);
    assert!(Header::decode(header.clone(), &SECRET, volume, unit).is_none(), "no check sum fits by chance");
    SECRET.seal(&mut header, Header::CHECKSUM_AT);
    if let Some(read) = Header::decode(header, &SECRET, volume, unit) {
        let again = Header::decode(read.to_bytes(&SECRET), &SECRET, volume, unit).expect("what was written is read");
        assert_eq!((again.leaf, again.vault, again.root), (read.leaf, read.vault, read.root));
        assert_eq!((again.shard_length, &again.manifest), (read.shard_length, &read.manifest));
        assert!(read.data_offset() as usize >= length && read.units() > 0);
    }
}

/// The file `store`, as it is and with all put right that must be.
pub fn store_label(bytes: &[u8]) {
    assert!(label::decode(bytes).is_none(), "no check sum fits by chance");
    let Some(name) = bytes.get(label::FIXED_BYTES..) else { return };
    let sum = label::checksum(&bytes[8..40], name);
    let label = [b"CHSTORE1", &bytes[8..40], &sum, name].concat();
    if let Some((secret, network)) = label::decode(&label) {
        assert_eq!(label::encode(&secret, &network), label);
    }
}

#[cfg(test)]
mod tests;
