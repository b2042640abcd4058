//! Promise: `docs/FORMAT.md` states the contexts and limits that the code has.

use commonhold_protocol::{
    AuditStatement, Claim, ClaimBatch, Drop, Head, Lease, Manifest, SignedObject,
    ask::{ASK_BYTES_MAX, ASK_IDS_MAX, ASK_RANGES_MAX, ASK_RECORDS_MAX, HEAD_SIBLINGS_MAX, Refusal},
    audit::{CHALLENGE_GROUPS_MAX, CHALLENGE_SHARDS_MAX},
    claim::BATCH_CLAIMS_MAX,
    drop::DROP_SEGMENTS_MAX,
    head::{HEAD_DEVICES_MAX, HEAD_SEALED_BYTES_MAX},
    manifest::SEGMENT_BYTES_MAX,
    record::{RECORD_BYTES_MAX, RECORD_CLAIMS_MAX},
    shard_stream::{ENCODED_BYTES_MAX, GROUP_BYTES, HEADER_BYTES_MAX, READ_RANGES_MAX},
};

const PAGE: &str = include_str!("../../../docs/FORMAT.md");

fn states(text: &str) {
    assert!(PAGE.contains(text), "docs/FORMAT.md does not say {text:?}");
}

/// 12345 as "12,345".
fn grouped(number: usize) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", grouped(number / 1000), number % 1000) }
}

fn signed<T: SignedObject>(signer: &str) {
    states(&format!("| {} | `{}` | {signer} | {} |", T::WHAT, T::CONTEXT, grouped(T::BYTES_MAX)));
}

#[test]
fn signed_objects_are_those_of_the_page() {
    signed::<Manifest>("vault");
    signed::<ClaimBatch>("holder");
    signed::<Head>("vault");
    signed::<Lease>("vault");
    signed::<Drop>("vault");
    signed::<AuditStatement>("holder");
}

#[test]
fn limits_are_those_of_the_page() {
    states(&format!("| segment, most bytes | {} MiB |", SEGMENT_BYTES_MAX >> 20));
    states(&format!("| chunk group | {} KiB |", GROUP_BYTES >> 10));
    states(&format!("| small message, most bytes | {} MiB |", ASK_BYTES_MAX >> 20));
    states(&format!("| header of a shard stream, most bytes | {} KiB |", HEADER_BYTES_MAX >> 10));
    states(&format!("4 count  1..={BATCH_CLAIMS_MAX}"));
    states(&format!("5 segments  1..={DROP_SEGMENTS_MAX} × 32"));
    states(&format!("3 counters, at most {HEAD_DEVICES_MAX}"));
    states(&format!("5 sealed payload, at most {} KiB", HEAD_SEALED_BYTES_MAX >> 10));
    states(&format!("Limit: {} bytes.", Claim::BYTES_MAX));
    states(&format!("Limit: {} bytes.", grouped(HEAD_DEVICES_MAX * 32)));
    states(&format!("send each other, at most {} bytes", grouped(RECORD_BYTES_MAX)));
    states(&format!("3 claims, at most {RECORD_CLAIMS_MAX} "));
    states(&format!("3 keep records    1 records, at most {ASK_RECORDS_MAX} "));
    states(&format!("5 lack records    at most {} segment ids", grouped(ASK_IDS_MAX)));
    states(&format!("12 fetch versions  at most {} segment ids", grouped(ASK_IDS_MAX)));
    states(&format!("13 fetch digests   at most {ASK_RANGES_MAX} ranges"));
    states(&format!("2 shards, 1 to {CHALLENGE_SHARDS_MAX}, of at most {CHALLENGE_GROUPS_MAX} chunk groups together"));
    states(&format!("6 heads           1 envelopes, at most {HEAD_SIBLINGS_MAX} "));
    states(&format!("first, count, first, count, …  1 to {READ_RANGES_MAX}, ascending"));
    states(&format!("1 raw bytes that follow u64, at most {} MiB", ENCODED_BYTES_MAX >> 20));
}

/// Each refusal's number, and the words of its variant's name.
#[test]
fn refusals_are_those_of_the_page() {
    for code in (1..=13).chain([15, 16]) {
        let name = format!("{:?}", Refusal::from_code(code));
        let words: String = name
            .chars()
            .enumerate()
            .flat_map(|(at, c)| if at > 0 && c.is_uppercase() { vec![' ', c] } else { vec![c] })
            .collect();
        states(&format!("| {code} | {}", words.to_lowercase()));
    }
    // There is none that the page does not have.
    assert!([0, 14].into_iter().chain(17..100).all(|code| Refusal::from_code(code) == Refusal::Other));
}
