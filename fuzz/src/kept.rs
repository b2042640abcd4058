//! Decoders of what a node and a client's home keep, and of what a head seals: no part of any crate's interface, so they
//! stand where they belong, and are only listed here.

use commonhold_client_sdk::any_bytes as client;
use commonhold_node::{auditor, expiry, records::any_bytes as records};

/// What is done with any bytes.
pub type Target = fn(&[u8]);

/// Each decoder, by the name of its fuzz target.
pub const TARGETS: &[(&str, Target)] = &[
    ("head_payload", client::head_payload),
    ("segment_table", client::segment_table),
    ("vault_file", client::vault_file),
    ("journal", client::journal),
    ("spool", client::spool),
    ("record_entry", records::record_entry),
    ("record_log", records::record_log),
    ("audits", auditor::audits_of_any_bytes),
    ("proven", auditor::proven_of_any_bytes),
    ("ended", expiry::ended_of_any_bytes),
];
