//! Bytes on one machine: the stages between a file and the shards of a segment, and the store that keeps shards.
//!
//! In the order of the way of a file: [`chunk`] → [`frame`] → [`seal`] → [`segment`] (with [`code`]) → [`prove`] →
//! [`store`]. [`tree`] ties chunks into files and directories, [`keys`] holds what a vault's secret derives,
//! [`chunk_ref`] says where a chunk lies. Nothing here knows of a network, a clock or another machine.

pub mod chunk;
pub mod chunk_ref;
pub mod code;
pub mod frame;
pub mod keys;
pub mod prove;
pub mod seal;
pub mod segment;
pub mod store;
pub mod tree;
