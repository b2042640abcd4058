//! What came out of a scenario: as a table, as JSON, as a page with plots.

mod closed_form;
mod durability;
mod extrapolate;
pub mod html;
pub mod plots;
mod reads;
mod table;

use commonhold_policy::{
    audit::schedule::{self, Rate},
    stewards::STEWARDS,
};
use serde::Serialize;

pub use self::{
    closed_form::{ClosedForm, NoClosedForm},
    durability::{Durability, Found, Method},
};
use crate::{
    confidence::quantile,
    scenario::{DAY_MS, Scenario},
    tally::{Tally, Thin},
};

/// What came out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub name: String,
    /// Where its figures come from.
    pub source: String,
    /// The seed.
    pub seed: u64,
    /// Runs put together.
    pub runs: u32,
    /// What was simulated.
    pub settings: Settings,
    /// What was lost.
    pub durability: Durability,
    /// What the closed form says of the same, where it can.
    pub closed_form: Option<ClosedForm>,
    /// Why it cannot.
    pub no_closed_form: Option<NoClosedForm>,
    /// Reads at a random moment of a segment that is not lost.
    pub availability: Estimate,
    /// The part of the nodes that is on, on average.
    pub nodes_online: f64,
    /// What repairs moved.
    pub repair: Repair,
    /// What audits move.
    pub audit: Audit,
    /// What a steward has to do, on average.
    pub steward: Steward,
    /// Shards that are not what they should be, if anybody cheats.
    pub cheats: Option<Cheats>,
    /// Bytes on disks for each byte stored.
    pub overhead: f64,
    /// Segments by the shards that are alive at the end: `[alive, segments]`.
    pub alive_at_end: Vec<(u8, u64)>,
    /// Events that were played.
    pub events: u64,
}

/// What was simulated.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    /// Nodes in each run.
    pub nodes: u32,
    /// Segments in each run.
    pub segments: u32,
    /// Years in each run.
    pub years: f64,
    /// Shards that restore a segment.
    pub k: u8,
    /// Shards in all.
    pub n: u8,
    /// At so many a segment is repaired at once.
    pub threshold: u8,
    /// Bytes of a shard.
    pub shard_bytes: u64,
    /// Grace time in hours.
    pub grace_hours: f64,
    /// Mean days between two audits of a shard.
    pub audit_days: f64,
    /// Top-up time in days.
    pub top_up_days: f64,
}

/// A share with its 95% interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The share, 0 to 1.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// A distribution over nodes, or over events.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// So many were seen; of none, all else is 0.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// One of twenty is below this.
    pub p5: f64,
    /// Median.
    pub p50: f64,
    /// One of twenty is above this.
    pub p95: f64,
    /// One of a hundred is above this.
    pub p99: f64,
    /// What each twentieth is below of, from none to all.
    pub twentieths: [f64; 21],
}

impl Spread {
    fn of(values: &mut [f32]) -> Self {
        values.sort_by(f32::total_cmp);
        // An empty sum is -0.
        let mean =
            values.iter().copied().map(f64::from).fold(0.0, |sum, value| sum + value) / values.len().max(1) as f64;
        let [p5, p50, p95, p99] = [0.05, 0.5, 0.95, 0.99].map(|part| quantile(values, part));
        let twentieths = std::array::from_fn(|number| quantile(values, number as f64 / 20.0));
        Self { count: values.len() as u64, mean, p5, p50, p95, p99, twentieths }
    }
}

/// What repairs moved.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Repair {
    /// Repairs that were done.
    pub repairs: u64,
    /// Repairs that found too few holders on, or no room, and were tried again.
    pub failed: u64,
    /// Shards rebuilt.
    pub shards_rebuilt: u64,
    /// Bytes that repairs moved, in and out of the steward.
    pub bytes: u64,
    /// Nodes that left for good.
    pub nodes_left: u64,
    /// Times that a node was given up that came back.
    pub given_up_wrongly: u64,
    /// Shards rebuilt in vain: their first holder came back.
    pub surplus_shards: u64,
    /// Bytes moved for each byte stored and 30 days (Storj's ratio).
    pub bytes_per_byte_month: f64,
    /// Bytes of repair traffic, in and out, of a node in a day.
    pub node_bytes_per_day: Spread,
    /// Hours from a node's leaving to its shards counting as lost.
    pub detect_hours: Spread,
    /// Hours for which a segment was below n, until its repair ended: most of them the wait for a top-up.
    pub thin_hours: Spread,
    /// Hours from a segment's coming down to its threshold to the end of the repair, of those that came that far down:
    /// until the departure was noticed, a steward had its turn, and the shards were held again.
    pub urgent_hours: Spread,
}

/// What audits move: from the law of the schedule, since audits are not played.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Audit {
    /// Chunk groups asked of a shard each time.
    pub groups: u32,
    /// Bytes for each shard and day.
    pub shard_bytes_per_day: f64,
    /// Bytes that a node sends in a day.
    pub node_bytes_per_day: f64,
    /// Bytes moved for each byte stored and 30 days.
    pub bytes_per_byte_month: f64,
}

/// What a steward has to do, on average.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Steward {
    /// Records that it keeps.
    pub records: f64,
    /// Shards that it audits in a day.
    pub shards_audited_per_day: f64,
    /// Repairs that it does in a day.
    pub repairs_per_day: f64,
}

/// Shards that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cheats {
    /// Found by audits.
    pub found: u64,
    /// Nodes of which a shard was found.
    pub nodes_found: u64,
    /// Times that a steward came to trust a holder with nothing more.
    pub disqualified: u64,
    /// Days from taking the first shard to the first that was found.
    pub first_days: Spread,
    /// Days from taking a shard to its being found, of those that were found.
    pub found_days: Spread,
}

impl Report {
    pub(crate) fn new(scenario: &Scenario, seed: u64, runs: Vec<Tally>) -> Self {
        let run_count = runs.len() as u32;
        let mut all = Tally::default();
        for run in &runs {
            all.add(run);
        }
        let durability = Durability::new(scenario, &runs, &all);
        let coding = scenario.coding();
        let shard_bytes = coding.shard_length(scenario.network.segment_size.0);
        let days = scenario.duration.get_ref().ms() / DAY_MS;
        let (nodes, segments) = (*scenario.network.nodes.get_ref(), *scenario.network.segments.get_ref());
        let node_days = f64::from(nodes) * f64::from(run_count) * days;
        let stored = f64::from(segments) * f64::from(run_count) * scenario.network.segment_size.0 as f64;
        let held = all.shards_held as f64 / all.nodes_at_end.max(1) as f64;

        let rate = Rate { every_ms: scenario.audit.every.as_ms().max(1) };
        let groups = rate.groups(held as u64);
        let audit_days = scenario.audit.every.ms() / DAY_MS;
        let per_shard = f64::from(groups) * schedule::proven_group_bytes(shard_bytes) as f64 / audit_days;
        let windows = || runs.iter().flat_map(|run| &run.windows).filter(|window| !window.cut);
        let hours = |thin: Thin| (thin.lasted / 3.6e6) as f32;
        let mut thin: Vec<f32> = windows().map(|window| hours(window.below_n)).collect();
        let mut urgent: Vec<f32> = windows().filter_map(|window| window.at_threshold.map(hours)).collect();
        let mut detections: Vec<f32> = all.detections.iter().map(|ms| ms / 3.6e6).collect();
        let in_days = |all: &[f32]| all.iter().map(|ms| (f64::from(*ms) / DAY_MS) as f32).collect::<Vec<f32>>();
        let (mut found_days, mut first_days) = (in_days(&all.cheat_delays), in_days(&all.cheats_first_found));
        let has_cheats = scenario.population.iter().any(|population| population.cheat.is_some());
        let (on, looked_at) = all.online_sampled;
        let closed_form = closed_form::closed_form(scenario, &durability);

        Self {
            name: scenario.name.clone(),
            source: scenario.source.clone(),
            seed,
            runs: run_count,
            settings: Settings {
                nodes,
                segments,
                years: days / 365.25,
                k: coding.k(),
                n: coding.n(),
                threshold: scenario.threshold(),
                shard_bytes,
                grace_hours: scenario.audit.grace.ms() / 3.6e6,
                audit_days,
                top_up_days: scenario.repair.top_up.ms() / DAY_MS,
            },
            durability,
            closed_form: closed_form.ok(),
            no_closed_form: closed_form.err(),
            availability: reads::availability(&runs),
            nodes_online: on as f64 / looked_at.max(1) as f64,
            repair: Repair {
                repairs: all.repairs,
                failed: all.repairs_failed,
                shards_rebuilt: all.shards_rebuilt,
                bytes: all.repair_bytes,
                nodes_left: all.left,
                given_up_wrongly: all.given_up_wrongly,
                surplus_shards: all.surplus_shards,
                bytes_per_byte_month: all.repair_bytes as f64 / stored / days * 30.0,
                node_bytes_per_day: Spread::of(&mut all.traffic),
                detect_hours: Spread::of(&mut detections),
                thin_hours: Spread::of(&mut thin),
                urgent_hours: Spread::of(&mut urgent),
            },
            audit: Audit {
                groups,
                shard_bytes_per_day: per_shard,
                node_bytes_per_day: per_shard * held,
                bytes_per_byte_month: per_shard * f64::from(coding.n()) / scenario.network.segment_size.0 as f64 * 30.0,
            },
            steward: Steward {
                records: f64::from(segments) * STEWARDS as f64 / f64::from(nodes),
                shards_audited_per_day: f64::from(segments) * f64::from(coding.n()) / f64::from(nodes) / audit_days,
                repairs_per_day: all.repairs as f64 / node_days,
            },
            cheats: has_cheats.then(|| Cheats {
                found: all.cheats_found,
                nodes_found: first_days.len() as u64,
                disqualified: all.disqualified,
                first_days: Spread::of(&mut first_days),
                found_days: Spread::of(&mut found_days),
            }),
            overhead: overhead(scenario, &all, shard_bytes),
            alive_at_end: (0..=255u8).zip(all.alive_at_end).filter(|(_, count)| *count > 0).collect(),
            events: all.events,
        }
    }
}

/// Bytes on disks for each byte of the segments that are not lost.
fn overhead(scenario: &Scenario, all: &Tally, shard_bytes: u64) -> f64 {
    let kept = all.alive_at_end.iter().sum::<u64>() as f64 * scenario.network.segment_size.0 as f64;
    if kept > 0.0 { all.shards_on_disks as f64 * shard_bytes as f64 / kept } else { 0.0 }
}
