//! What must hold of a whole network, each promise with a file of its own. Everything here runs real processes of the
//! very program that is shipped, started through `commonhold dev`, and looks at them from outside.
//!
//! All the promises share one test program, since each links all of the network stack; `cargo nextest run -p
//! commonhold net_dead_nodes` runs one of them.

mod harness;

mod net_announce;
mod net_cheats;
mod net_commands;
mod net_damaged_disks;
mod net_dead_nodes;
mod net_dev;
mod net_drain;
mod net_dying_repairers;
mod net_flood;
mod net_full;
mod net_interrupted;
mod net_interrupted_get;
mod net_leases;
mod net_lying_stewards;
mod net_many_at_once;
mod net_membership;
mod net_memory;
mod net_missing;
mod net_mount;
mod net_partition;
mod net_poor_link;
mod net_power_cut;
mod net_private;
mod net_prune;
mod net_repair;
mod net_repair_limits;
mod net_restart;
mod net_round_trip;
mod net_scrub;
mod net_secrets;
mod net_seen;
mod net_sleepers;
mod net_small_reads;
mod net_space;
mod net_strangers;
mod net_surplus;
mod net_theseus;
mod net_top_up;
mod net_two_homes;
mod net_unreadable;
