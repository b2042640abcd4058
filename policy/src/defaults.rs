//! The times that a node goes by where its config names no others; simulated networks too. `docs/durability.md` has
//! what other choices would cost, from simulated runs.

const HOUR_MS: u64 = 60 * 60 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// `[audit] every`: the mean time between audits of one shard, all stewards together.
pub const AUDIT_EVERY_MS: u64 = 7 * DAY_MS;
/// `[pledge] announce`: in this time a holder tells the stewards of all its shards of them once.
pub const ANNOUNCE_MS: u64 = 7 * DAY_MS;
/// `[audit] grace`: how long a node may be silent before it counts as gone.
pub const GRACE_MS: u64 = 12 * HOUR_MS;
/// `[repair] top-up`: how long a segment above its threshold may stay below n. Long, since nodes that were given up come
/// back, and several shards are rebuilt for the price of reading k; what is urgent does not wait for it.
pub const TOP_UP_MS: u64 = 60 * DAY_MS;
