//! Decoders of the shard store's files: no part of its interface, so they stand beside them, and are only listed here.

use commonhold_storage_engine::store::any_bytes as store;

/// What is done with any bytes.
pub type Target = fn(&[u8]);

/// Each decoder, by the name of its fuzz target.
pub const TARGETS: &[(&str, Target)] = &[
    ("volume_block", store::volume_block),
    ("record_header", store::record_header),
    ("store_label", store::store_label),
];
