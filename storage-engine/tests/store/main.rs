//! What the shard store promises, one file per promise.

mod crash;
mod damage;
mod everyday;
mod faults;
mod golden;
mod harness;
mod kill;
mod limits;
mod no_direct_io;
mod recovery;
mod space;
