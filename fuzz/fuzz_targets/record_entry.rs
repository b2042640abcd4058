//! Arbitrary bytes for [`commonhold_node::records::any_bytes::record_entry`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| commonhold_node::records::any_bytes::record_entry(bytes));
