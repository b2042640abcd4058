//! What is done with arbitrary bytes, one function for each decoder of what comes from a peer or from a disk.
//!
//! [`protocol`] and [`storage_engine`] stand on their own: the crates that they are about run them on stable too, as
//! property tests. [`store`] and `kept` list what crates keep to themselves and open by their feature `fuzzing`; their
//! unit tests run that.

#[cfg(feature = "kept")]
pub mod kept;
pub mod protocol;
pub mod storage_engine;
pub mod store;
