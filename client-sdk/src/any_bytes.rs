//! What is done with any bytes in the place of what a vault seals and a home keeps: no panic, and what is read is written
//! as something that reads the same. For this crate's tests and, by the feature `fuzzing`, for the fuzz targets; nothing
//! else is built with it.
//!
//! Most of it is sealed, so that damage is never read; here it is sealed as it comes, so that what is behind is.

use std::{fs::File, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use commonhold_protocol::{Coding, Manifest, NetworkName, ShardRoot, Verified};
use commonhold_storage_engine::keys::{VaultKeys, VaultSecret};
use prost::Message;
use rustix::fs::{MemfdFlags, memfd_create};

use crate::{
    head_payload::HeadPayload,
    journal,
    local_seal::LocalSeal,
    spool,
    table::{self, NodeHint, PlacedSegment, SegmentInfo},
    vault_file,
};

const READ: &str = "what was written is read";

fn secret() -> VaultSecret {
    VaultSecret::from_bytes([0xa5; 32])
}

/// The bytes as a file.
fn file(bytes: &[u8]) -> File {
    let file = File::from(memfd_create("any bytes", MemfdFlags::CLOEXEC).expect("memory"));
    file.write_all_at(bytes, 0).expect("memory");
    file
}

fn length_of(bytes: &[u8]) -> [u8; 4] {
    (bytes.len() as u32).to_le_bytes()
}

/// What a head seals.
pub fn head_payload(bytes: &[u8]) {
    if let Ok(payload) = HeadPayload::decode(Bytes::copy_from_slice(bytes)) {
        assert_eq!(HeadPayload::decode(payload.encode().into()).expect(READ), payload);
    }
}

/// Keys and values of the segment table.
pub fn segment_table(bytes: &[u8]) {
    if let Ok(chunks) = table::unpack(bytes) {
        assert_eq!(table::pack(&chunks), bytes);
    }
    if let Ok(info) = SegmentInfo::decode(Bytes::copy_from_slice(bytes)) {
        assert_eq!(SegmentInfo::decode(info.to_wire().encode_to_vec().into()).expect(READ), info);
    }
    if let Ok(hint) = NodeHint::decode(Bytes::copy_from_slice(bytes)) {
        assert_eq!(NodeHint::decode(hint.to_wire().encode_to_vec().into()).expect(READ), hint);
    }
    if let Ok(id) = table::segment_of_key(bytes) {
        assert_eq!(table::segment_key(&id), bytes);
    }
    if let Ok(id) = table::segment_of_part(bytes) {
        assert!(bytes[1..].starts_with(id.as_bytes()));
    }
    let _ = table::described_by(bytes);
    if let Some((value, key)) = bytes.split_first_chunk::<8>()
        && let Ok((id, counter)) = table::tombstone(key, value)
    {
        assert_eq!((table::tombstone_key(&id).as_slice(), &table::tombstone_value(counter)), (key, value));
    }
}

/// The vault file, as it is and with all put right that must be; at little cost, since the rest would only take time.
pub fn vault_file(bytes: &[u8]) {
    let _ = vault_file::Parsed::of(bytes);
    let mut file: [u8; vault_file::FILE_BYTES] = std::array::from_fn(|at| bytes.get(at).copied().unwrap_or_default());
    file[..8].copy_from_slice(vault_file::MAGIC);
    let (memory_kib, passes) = (u32::from(file[8]), u32::from(file[12] % 3));
    file[8..12].copy_from_slice(&memory_kib.to_le_bytes());
    file[12..16].copy_from_slice(&passes.to_le_bytes());
    let (body, sum) = file.split_at_mut(vault_file::FILE_BYTES - 8);
    sum.copy_from_slice(&vault_file::checksum(body));
    let parsed = vault_file::Parsed::of(&file).expect("it is whole");
    if let Some(key) = parsed.key("any passphrase") {
        assert!(parsed.open(&key).is_none(), "no passphrase fits by chance");
    }
}

/// A journal, and an entry of one.
pub fn journal(bytes: &[u8]) {
    let seal = LocalSeal::of(&secret());
    let end = journal::read_log(&Arc::new(file(bytes)), &seal, &mut |_, _| panic!("nothing opens by chance"));
    assert_eq!(end.expect("memory is readable"), 0);

    let sealed = seal.seal_with(&[1; 24], journal::PURPOSE, bytes).expect("short");
    // What follows an entry must not matter to it.
    let log = [&length_of(&sealed), &sealed[..], bytes].concat();
    let mut found = Vec::new();
    let end = journal::read_log(&Arc::new(file(&log)), &seal, &mut |segment, _| {
        found.push(segment.to_bytes());
        Ok(())
    });
    assert_eq!(end.ok(), found.first().map(|_| 4 + sealed.len() as u64));
    for written in found {
        assert_eq!(PlacedSegment::from_bytes(written.clone().into()).expect(READ).to_bytes(), written);
    }
}

/// A slot of the spool, its description, and what stands in and behind that of a segment of ours.
pub fn spool(bytes: &[u8]) {
    const SEGMENT: [u8; 64] = [7; 64];
    let (seal, keys) = (LocalSeal::of(&secret()), VaultKeys::derive(&secret()));
    let network: NetworkName = "any-bytes".parse().expect("a name");
    let read = |slot: &[u8]| spool::read(&file(slot), &seal, &network).expect("memory is readable");
    assert!(read(bytes).is_none(), "nothing opens by chance");

    let slot = |description: &[u8]| {
        let sealed = seal.seal_with(&[1; 24], spool::PURPOSE, description).expect("short");
        [spool::MAGIC, &1_u32.to_le_bytes()[..], &length_of(&sealed), &sealed, bytes].concat()
    };
    assert!(read(&slot(bytes)).is_none(), "nobody signs by chance");

    let manifest = Manifest {
        vault: keys.vault_id(),
        salt: [1; 16],
        coding: Coding::ONE,
        length: SEGMENT.len() as u64,
        roots: vec![ShardRoot::from_bytes(*blake3::hash(&SEGMENT).as_bytes())],
    };
    let manifest = Verified::sign(manifest, keys.signing(), &network).to_bytes();
    let chunks = Bytes::copy_from_slice(bytes);
    let found = read(&slot(&spool::DescriptionWire { manifest, chunks }.encode_to_vec()));
    assert_eq!(found.is_some(), table::unpack(bytes).is_ok());
    if let Some(found) = found {
        let notes = bytes.len().saturating_sub(SEGMENT.len()) / spool::SENT_BYTES;
        assert_eq!((found.is_whole, found.sent.len()), (bytes.starts_with(&SEGMENT), notes.min(spool::SENT_MAX)));
    }
}

#[cfg(test)]
pub(crate) mod tests;
