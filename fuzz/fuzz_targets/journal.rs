//! Arbitrary bytes for [`commonhold_client_sdk::any_bytes::journal`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| commonhold_client_sdk::any_bytes::journal(bytes));
