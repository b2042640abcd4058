//! What a change of the vault took of work and of the network, counted while it was packed and placed.

/// Figures of what was packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct PackFigures {
    /// Chunks that were new.
    pub chunks_new: u64,
    /// Chunks that the vault had already.
    pub chunks_known: u64,
    /// Plain bytes of new chunks.
    pub bytes_new: u64,
    /// Their bytes as sealed, that is after compression.
    pub bytes_sealed: u64,
    /// Segments placed.
    pub segments: u64,
    /// Shard bytes that holders took.
    pub bytes_placed: u64,
    /// Shards that share a failure domain with another of their segment, because there are too few.
    pub shards_sharing: u64,
    /// Shards that found no holder: enough others did, and stewards rebuild these where there is room.
    pub shards_missing: u64,
}
