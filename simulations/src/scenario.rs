//! What is simulated: a TOML file with the network, its volunteers, and what befalls them.
//!
//! All keys are in `docs/simulations.md`. A key that is missing, unknown or not allowed is an error that names the
//! file, the line and what is allowed.

mod check;
mod error;
mod trace;

use std::path::Path;

use commonhold_policy::{defaults, parameters};
use commonhold_protocol::Coding;
use serde::{Deserialize, Serialize};
use toml::Spanned;

pub use self::error::ScenarioError;
use crate::{
    distribution::Distribution,
    quantity::{Rate, Share, Size, Span, above_nothing, all_above_nothing},
};

/// The most bytes of a scenario or of a file of measured values.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// The most nodes and segments: their numbers, the departed included, have to fit 32 bits.
const NODES_MAX: u32 = 10_000_000;
const SEGMENTS_MAX: u32 = 100_000_000;
/// The most combinations of a sweep.
const COMBINATIONS_MAX: usize = 10_000;

/// A scenario.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Scenario {
    /// What it is called in reports.
    pub name: String,
    /// Where its figures come from, each with its mark: seen, remembered, computed or assumed.
    pub source: String,
    /// The seed; `--seed` stands above it.
    #[serde(default)]
    pub seed: u64,
    /// Independent runs, whose results are put together.
    #[serde(default = "one")]
    pub runs: Spanned<u32>,
    /// Simulated time.
    pub duration: Spanned<Span>,
    /// How much there is.
    pub network: Network,
    /// Audits, as in a node's config.
    #[serde(default)]
    pub audit: Audit,
    /// Repairs, as in a node's config.
    #[serde(default)]
    pub repair: Repair,
    /// The volunteers.
    pub population: Vec<Population>,
    /// What befalls many at once.
    #[serde(default)]
    pub incident: Vec<Incident>,
    /// What `--sweep` varies.
    #[serde(default)]
    pub sweep: Option<Spanned<Sweep>>,
}

/// How much there is.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Network {
    /// Nodes; who leaves for good is replaced by a newcomer of the same population.
    pub nodes: Spanned<u32>,
    /// Segments, all placed at the start.
    pub segments: Spanned<u32>,
    /// Bytes of each.
    #[serde(default = "segment_size")]
    pub segment_size: Size,
    /// The coding; chosen by policy from the number of nodes if not given.
    pub coding: Option<Spanned<String>>,
    /// At so many shards or fewer a segment is repaired at once; the coding's own if not given.
    pub threshold: Option<Spanned<u8>>,
    /// Whether a lost segment is replaced by a new one: then the rate of losses is steady.
    #[serde(default)]
    pub renew_lost: bool,
}

/// Audits.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Audit {
    /// Mean time between audits of one shard, all stewards together.
    #[serde(deserialize_with = "above_nothing")]
    pub every: Span,
    /// How long a node may be silent before it counts as gone.
    pub grace: Span,
}

impl Default for Audit {
    fn default() -> Self {
        Self { every: Span(defaults::AUDIT_EVERY_MS as f64), grace: Span(defaults::GRACE_MS as f64) }
    }
}

/// Repairs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Repair {
    /// How long a segment above its threshold may stay below n.
    pub top_up: Span,
    /// How long one repair takes; from the bytes and the links if not given.
    pub time: Option<Distribution>,
    /// The most that a steward moves for repairs in all; without it, what a node's own budget allows.
    pub rate: Option<Rate>,
}

impl Default for Repair {
    fn default() -> Self {
        Self { top_up: Span(defaults::TOP_UP_MS as f64), time: None, rate: None }
    }
}

/// One sort of volunteers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Population {
    /// Its name.
    pub name: String,
    /// Its part of the nodes.
    #[serde(default = "all")]
    pub share: Spanned<Share>,
    /// How long a node stays until it leaves for good, disk and all.
    pub lifetime: Spanned<Distribution>,
    /// How long it is on at a time; always, if not given. Going off is not leaving: the disk stays.
    pub online: Option<Spanned<Distribution>>,
    /// How long it is off at a time.
    pub offline: Option<Spanned<Distribution>>,
    /// Sleep at night, local time.
    pub night: Option<Spanned<Night>>,
    /// Disk that each lends.
    #[serde(default = "disk")]
    pub disk: Size,
    /// Its uplink.
    #[serde(default = "upload")]
    pub upload: Rate,
    /// Its downlink.
    #[serde(default = "download")]
    pub download: Rate,
    /// Nodes that share a failure domain (subnet), on average.
    #[serde(default = "one_node")]
    pub per_domain: Spanned<u32>,
    /// Nodes that share an operator, on average.
    #[serde(default = "one_node")]
    pub per_operator: Spanned<u32>,
    /// Regions, all alike in size.
    #[serde(default)]
    pub regions: Vec<String>,
    /// Whether the nodes of an operator die together, however many domains they seem to be in: one disk.
    #[serde(default)]
    pub one_disk: bool,
    /// How it cheats, if it does.
    pub cheat: Option<Cheat>,
}

/// Sleep at night.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Night {
    /// From 23:00 local time, half an hour more or less, for so long.
    pub asleep: Span,
    /// The part of the nodes that sleeps.
    #[serde(default = "whole")]
    pub share: Share,
    /// Time zones, hours from UTC; each node is in one of them.
    #[serde(default = "utc")]
    pub zones: Vec<i8>,
}

/// How a population cheats.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Cheat {
    /// It throws away this part of the chunk groups of each of its shards.
    Drop {
        /// Which part; with 1 it stores nothing.
        lost: Share,
        /// What it answers to a challenge for what it lost.
        #[serde(default)]
        answers: Answers,
    },
    /// It stores nothing and fetches from k others when it is asked: audits do not find it.
    FetchOnDemand {},
}

/// What a cheat answers to a challenge in which there is something that it lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answers {
    /// It leaves out what it lost: it is asked again before it has failed, shard by shard.
    #[default]
    WhatItHas,
    /// Something else for what it lost: the first challenge convicts it.
    Wrong,
    /// Nothing at all, it hangs up: it is asked again, and then has failed the whole challenge, where that is the review
    /// that follows a first failure.
    Nothing,
}

/// What befalls many at once.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Incident {
    /// What a later one is `of`.
    pub name: Option<Spanned<String>>,
    /// When.
    pub at: Spanned<Span>,
    /// Whom: nodes that the earlier incident of this name struck; of all, if nothing is said of whom.
    pub of: Option<Spanned<String>>,
    /// Whom: nodes of this region.
    pub region: Option<Spanned<String>>,
    /// Whom: nodes of this population.
    pub population: Option<Spanned<String>>,
    /// Which part of them, by whole operators; all of them, if no number is given either.
    pub share: Option<Spanned<Share>>,
    /// So many whole operators of them, drawn.
    pub operators: Option<Spanned<u32>>,
    /// So many of them, drawn.
    pub nodes: Option<Spanned<u32>>,
    /// For how long they are off; for good if not given.
    pub lasts: Option<Span>,
}

/// What `--sweep` varies: every combination is simulated.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Sweep {
    /// Codings.
    pub coding: Vec<Spanned<String>>,
    /// Thresholds, as the part of n - k that may be missing: 0.25 is policy's own.
    pub threshold: Vec<Share>,
    /// Grace times.
    pub grace: Vec<Span>,
    /// Mean times between audits.
    #[serde(deserialize_with = "all_above_nothing")]
    pub every: Vec<Span>,
    /// Top-up times.
    pub top_up: Vec<Span>,
}

pub(crate) const DAY_MS: f64 = 86_400_000.0;

fn spanned<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}

fn one() -> Spanned<u32> {
    spanned(1)
}

fn one_node() -> Spanned<u32> {
    spanned(1)
}

fn all() -> Spanned<Share> {
    spanned(Share(1.0))
}

fn whole() -> Share {
    Share(1.0)
}

fn utc() -> Vec<i8> {
    vec![0]
}

fn segment_size() -> Size {
    Size(16 << 20)
}

fn disk() -> Size {
    Size(200 << 30)
}

fn upload() -> Rate {
    Rate(20e6 / 8.0)
}

fn download() -> Rate {
    Rate(100e6 / 8.0)
}

impl Sweep {
    /// How many combinations these are.
    fn combinations(&self) -> usize {
        let counts = [self.coding.len(), self.threshold.len(), self.grace.len(), self.every.len(), self.top_up.len()];
        counts.into_iter().fold(1, |product, count| product.saturating_mul(count.max(1)))
    }
}

impl Scenario {
    /// Reads the scenario at `path`; measured values are looked for in its folder.
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        let text = trace::read_text(path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self::parse(&text, path, folder)
    }

    /// Reads a scenario from `text`; errors call it `origin`.
    pub fn parse(text: &str, origin: &Path, folder: &Path) -> Result<Self, ScenarioError> {
        let lines = error::Lines::new(origin, text);
        let mut scenario: Self = toml::from_str(text).map_err(|source| lines.refused(&source))?;
        scenario.check(&lines)?;
        for population in &mut scenario.population {
            let laws = [Some(&mut population.lifetime), population.online.as_mut(), population.offline.as_mut()];
            for law in laws.into_iter().flatten() {
                trace::fill(law.get_mut(), folder, &lines)?;
            }
        }
        scenario.check_laws(&lines)?;
        if let Some(law) = &mut scenario.repair.time {
            trace::fill(law, folder, &lines)?;
        }
        Ok(scenario)
    }

    /// The coding: as given, else policy's choice for this many nodes.
    pub fn coding(&self) -> Coding {
        let given = self.network.coding.as_ref().and_then(|text| text.get_ref().parse().ok());
        given.unwrap_or_else(|| {
            let nodes = *self.network.nodes.get_ref() as usize;
            parameters::choose(None, nodes.max(parameters::HOLDERS_MIN)).expect("at least four nodes")
        })
    }

    /// How many nodes are of each population.
    pub(crate) fn node_counts(&self) -> Vec<u32> {
        let nodes = *self.network.nodes.get_ref();
        let mut share = 0.0;
        let mut made = 0;
        let populations = self.population.iter().zip(1..);
        let counts = populations.map(|(population, number)| {
            share += population.share.get_ref().0;
            let is_last = number == self.population.len();
            let until = if is_last { nodes } else { (f64::from(nodes) * share).round() as u32 };
            let count = until.saturating_sub(made);
            made += count;
            count
        });
        counts.collect()
    }

    /// The threshold: as given, else the coding's own. Where that is n, as without parity, it is the first death at which
    /// a segment is repaired.
    pub fn threshold(&self) -> u8 {
        let coding = self.coding();
        let own = coding.threshold().min(coding.n() - 1);
        self.network.threshold.as_ref().map_or(own, |threshold| *threshold.get_ref())
    }

    /// Milliseconds that a repair of `missing` shards takes a steward of this population that does nothing else: its links
    /// and the slowest uplink of those that it reads from, all of which work at once.
    pub(crate) fn repair_ms(&self, coding: Coding, steward: &Population, missing: u8) -> f64 {
        let shard_bytes = coding.shard_length(self.network.segment_size.0) as f64;
        let (read, sent) = (f64::from(coding.k()), f64::from(missing));
        let slowest = self.population.iter().map(|population| population.upload.0).fold(f64::INFINITY, f64::min);
        let parts = [read / steward.download.0, sent / steward.upload.0, 1.0 / slowest];
        parts.into_iter().fold(0.0, f64::max) * shard_bytes * 1000.0
    }

    /// The same scenario with another coding; its threshold is the coding's own unless one is set again.
    pub(crate) fn set_coding(&mut self, coding: Coding, threshold: Option<u8>) {
        self.network.coding = Some(spanned(coding.to_string()));
        self.network.threshold = threshold.map(spanned);
    }
}
