//! Arbitrary bytes for [`commonhold_fuzz::protocol::audit_statement`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| commonhold_fuzz::protocol::audit_statement(bytes));
