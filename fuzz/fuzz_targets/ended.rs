//! Arbitrary bytes for [`commonhold_node::expiry::ended_of_any_bytes`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| commonhold_node::expiry::ended_of_any_bytes(bytes));
