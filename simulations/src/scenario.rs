//! What is simulated: a TOML file with the network, its volunteers, and what befalls them.
//!
//! All keys are in `docs/simulations.md`. A key that is missing, unknown or not allowed is an error that names the
//! file, the line and what is allowed.

mod error;
mod trace;

use std::path::Path;

use commonhold_policy::parameters;
use commonhold_protocol::Coding;
use serde::{Deserialize, Serialize};
use toml::Spanned;

pub use self::error::ScenarioError;
use crate::{
    distribution::Distribution,
    quantity::{Rate, Share, Size, Span, above_nothing},
};

/// The most bytes of a scenario or of a file of measured values.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// The most nodes and segments: their numbers, the departed included, have to fit 32 bits.
const NODES_MAX: u32 = 10_000_000;
const SEGMENTS_MAX: u32 = 100_000_000;

/// A scenario.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Scenario {
    /// What it is called in reports.
    pub name: String,
    /// Where its figures come from, each with its mark: seen, remembered or assumed.
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
    pub sweep: Option<Sweep>,
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
        Self { every: Span(7.0 * DAY_MS), grace: Span(DAY_MS / 2.0) }
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
    /// The most that a steward spends on repairs; without it, its download.
    pub rate: Option<Rate>,
}

impl Default for Repair {
    fn default() -> Self {
        Self { top_up: Span(7.0 * DAY_MS), time: None, rate: None }
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
    /// It throws away this part of the chunk groups of each of its shards, and is silent about them.
    Drop {
        /// Which part; with 1 it stores nothing.
        lost: Share,
        /// Whether it answers wrongly instead of leaving out what it lost: then the first challenge convicts it.
        #[serde(default)]
        wrong: bool,
    },
    /// It stores nothing and fetches from k others when it is asked: audits do not find it.
    FetchOnDemand,
}

/// What befalls many at once.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Incident {
    /// When.
    pub at: Spanned<Span>,
    /// Whom: nodes of this region; of all, if neither is given.
    pub region: Option<Spanned<String>>,
    /// Whom: nodes of this population.
    pub population: Option<Spanned<String>>,
    /// So many of them, drawn; instead of `share`.
    pub nodes: Option<u32>,
    /// Which part of them: whole operators.
    #[serde(default = "whole")]
    pub share: Share,
    /// For how long they are off; for good if not given.
    pub lasts: Option<Span>,
}

/// What `--sweep` varies: every combination is simulated.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Sweep {
    /// Codings.
    pub coding: Vec<Spanned<String>>,
    /// Thresholds, as the part of n - k that may be missing: 0.5 is policy's own.
    pub threshold: Vec<Share>,
    /// Grace times.
    pub grace: Vec<Span>,
    /// Mean times between audits.
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
                trace::fill(law.get_mut(), folder)?;
            }
        }
        scenario.check_laws(&lines)?;
        if let Some(law) = &mut scenario.repair.time {
            trace::fill(law, folder)?;
        }
        Ok(scenario)
    }

    /// What no single key can show.
    fn check(&self, lines: &error::Lines<'_>) -> Result<(), ScenarioError> {
        let network = &self.network;
        let (nodes, segments) = (*network.nodes.get_ref(), *network.segments.get_ref());
        lines.allow(
            (parameters::HOLDERS_MIN as u32..=NODES_MAX).contains(&nodes),
            &network.nodes,
            "`[network] nodes`: 4 to 10000000 nodes are allowed",
        )?;
        lines.allow(
            (1..=SEGMENTS_MAX).contains(&segments),
            &network.segments,
            "`[network] segments`: 1 to 100000000 segments are allowed",
        )?;
        lines.allow((1..=10_000).contains(self.runs.get_ref()), &self.runs, "`runs`: 1 to 10000 runs are allowed")?;
        let years = self.duration.get_ref().ms() / DAY_MS / 365.25;
        lines.allow(
            years > 0.0 && years <= 1000.0,
            &self.duration,
            "`duration`: more than 0 and at most 1000 years are allowed",
        )?;
        let coding = self.checked_coding(lines)?;
        if let Some(threshold) = &network.threshold {
            let allowed = format!(
                "`[network] threshold`: with coding {coding}, {} to {} are allowed: k shards or more restore a segment, \
                 and n need no repair",
                coding.k(),
                coding.n() - 1
            );
            lines.allow((coding.k()..coding.n()).contains(threshold.get_ref()), threshold, &allowed)?;
        }
        lines.allow(
            !self.population.is_empty(),
            &network.nodes,
            "`population`: at least one [[population]] is needed",
        )?;
        let shares: f64 = self.population.iter().map(|population| population.share.get_ref().0).sum();
        if let Some(last) = self.population.last() {
            lines.allow(
                (shares - 1.0).abs() < 1e-6,
                &last.share,
                &format!("`share`: the shares of all populations must add up to 1, not {shares}"),
            )?;
        }
        for population in &self.population {
            for (key, count) in [("per-domain", &population.per_domain), ("per-operator", &population.per_operator)] {
                let allowed = format!("`[[population]] {key}`: 1 to {NODES_MAX} nodes are allowed");
                lines.allow((1..=NODES_MAX).contains(count.get_ref()), count, &allowed)?;
            }
            if let Some(online) = &population.online {
                let allowed = "`[[population]] online`: give `offline` too, and not `night`";
                lines.allow(population.offline.is_some() && population.night.is_none(), online, allowed)?;
            }
            if let (Some(offline), None) = (&population.offline, &population.online) {
                return Err(lines.not_allowed(offline, "`[[population]] offline`: give `online` too"));
            }
            if let Some(night) = &population.night {
                let sane = night.get_ref().asleep.ms() < 22.0 / 24.0 * DAY_MS && !night.get_ref().zones.is_empty();
                lines.allow(sane, night, "`[[population]] night`: less than 22 h asleep, in one zone or more")?;
                let zones = &night.get_ref().zones;
                let sane = zones.iter().all(|zone| (-12..=14).contains(zone));
                lines.allow(sane, night, "`[[population]] zones`: -12 to 14 hours from UTC are allowed")?;
            }
        }
        for incident in &self.incident {
            let ends = self.duration.get_ref().ms();
            let allowed = "`[[incident]] at`: a time before the end of the simulation is allowed";
            lines.allow(incident.at.get_ref().ms() < ends, &incident.at, allowed)?;
            if let Some(name) = &incident.population {
                let names: Vec<&str> = self.population.iter().map(|population| population.name.as_str()).collect();
                let allowed = format!("`[[incident]] population`: allowed are {}", names.join(", "));
                lines.allow(names.contains(&name.get_ref().as_str()), name, &allowed)?;
            }
            if let Some(name) = &incident.region {
                let names: Vec<&str> =
                    self.population.iter().flat_map(|population| &population.regions).map(String::as_str).collect();
                let allowed = format!("`[[incident]] region`: allowed are {}", names.join(", "));
                lines.allow(names.contains(&name.get_ref().as_str()), name, &allowed)?;
            }
        }
        for coding in self.sweep.iter().flat_map(|sweep| &sweep.coding) {
            parse_coding(coding, nodes, lines)?;
        }
        Ok(())
    }

    /// What is seen of laws once measured values are read: an endless number of lives or sessions in no time.
    fn check_laws(&self, lines: &error::Lines<'_>) -> Result<(), ScenarioError> {
        for population in &self.population {
            let sessions = [("online", &population.online), ("offline", &population.offline)];
            let laws = sessions.into_iter().filter_map(|(key, law)| law.as_ref().map(|law| (key, law)));
            for (key, law) in laws.chain([("lifetime", &population.lifetime)]) {
                let allowed = format!("`[[population]] {key}`: a mean of 1 s or more is allowed");
                lines.allow(law.get_ref().mean() >= 1_000.0 || key == "offline", law, &allowed)?;
            }
        }
        Ok(())
    }

    fn checked_coding(&self, lines: &error::Lines<'_>) -> Result<Coding, ScenarioError> {
        let nodes = *self.network.nodes.get_ref();
        match &self.network.coding {
            Some(text) => parse_coding(text, nodes, lines),
            None => Ok(self.coding()),
        }
    }

    /// The coding: as given, else policy's choice for this many nodes.
    pub fn coding(&self) -> Coding {
        let given = self.network.coding.as_ref().and_then(|text| text.get_ref().parse().ok());
        given.unwrap_or_else(|| {
            let nodes = *self.network.nodes.get_ref() as usize;
            parameters::choose(None, nodes.max(parameters::HOLDERS_MIN)).expect("at least four nodes")
        })
    }

    /// The threshold: as given, else the coding's own.
    pub fn threshold(&self) -> u8 {
        self.network.threshold.as_ref().map_or(self.coding().threshold(), |threshold| *threshold.get_ref())
    }

    /// The same scenario with another coding; its threshold is the coding's own unless one is set again.
    pub(crate) fn set_coding(&mut self, coding: Coding, threshold: Option<u8>) {
        self.network.coding = Some(spanned(coding.to_string()));
        self.network.threshold = threshold.map(spanned);
    }
}

fn parse_coding(text: &Spanned<String>, nodes: u32, lines: &error::Lines<'_>) -> Result<Coding, ScenarioError> {
    let coding = text.get_ref().parse::<Coding>();
    let Ok(coding) = coding.as_ref().copied() else {
        let told = coding.err().map(|error| error.to_string()).unwrap_or_default();
        return Err(lines.not_allowed(text, &format!("`coding`: {told}")));
    };
    let allowed = format!("`coding`: {coding} needs {} nodes, and there are {nodes}", coding.n());
    lines.allow(u32::from(coding.n()) <= nodes, text, &allowed)?;
    let allowed = "`coding`: more shards than restore a segment are needed: k below n, as in 20/40";
    lines.allow(coding.k() < coding.n(), text, allowed)?;
    Ok(coding)
}
