//! Arbitrary bytes for [`commonhold_storage_engine::store::any_bytes::volume_block`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| commonhold_storage_engine::store::any_bytes::volume_block(bytes));
