//! Arbitrary bytes for [`commonhold_fuzz::storage_engine::range_proof`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| commonhold_fuzz::storage_engine::range_proof(bytes));
