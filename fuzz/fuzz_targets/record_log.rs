//! Arbitrary bytes for [`commonhold_node::records::any_bytes::record_log`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| commonhold_node::records::any_bytes::record_log(bytes));
