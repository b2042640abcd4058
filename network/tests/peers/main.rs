//! What a peer promises, on real sockets: several peers in one process, on ports of the kernel's choice.

mod asks;
mod finding;
mod harness;
mod hostile;
mod limits;
mod observer;
mod processes;
mod relays;
mod separation;
mod shards;
mod stranger;
