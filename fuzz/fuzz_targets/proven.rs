//! Arbitrary bytes for [`commonhold_node::auditor::proven_of_any_bytes`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| commonhold_node::auditor::proven_of_any_bytes(bytes));
