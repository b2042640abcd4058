//! What is done with arbitrary bytes, one function for each decoder of what comes from a peer or from a disk.
//!
//! Each module stands on its own: the crate that it is about runs it on stable too, as a property test.

pub mod protocol;
pub mod storage_engine;
