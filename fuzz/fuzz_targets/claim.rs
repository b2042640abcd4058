//! Arbitrary bytes for [`commonhold_fuzz::protocol::claim`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| commonhold_fuzz::protocol::claim(bytes));
