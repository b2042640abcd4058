//! Arbitrary bytes for [`commonhold_fuzz::storage_engine::tree_roots`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| commonhold_fuzz::storage_engine::tree_roots(bytes));
