//! What no single key can show: keys that do not go together, and what depends on the size of the network.

use std::collections::BTreeSet;

use commonhold_policy::parameters;
use commonhold_protocol::Coding;
use toml::Spanned;

use super::{
    COMBINATIONS_MAX, DAY_MS, Incident, NODES_MAX, Population, SEGMENTS_MAX, Scenario, ScenarioError, Sweep,
    error::Lines,
};

impl Scenario {
    /// Checks all that can be checked before measured values are read.
    pub(super) fn check(&self, lines: &Lines<'_>) -> Result<(), ScenarioError> {
        self.check_sizes(lines)?;
        self.check_coding(lines)?;
        lines.allow(
            !self.population.is_empty(),
            &self.network.nodes,
            "`population`: at least one [[population]] is needed",
        )?;
        let shares: f64 = self.population.iter().map(|population| population.share.get_ref().0).sum();
        if let Some(last) = self.population.last() {
            let allowed = format!("`share`: the shares of all populations must add up to 1, not {shares}");
            if (shares - 1.0).abs() >= 1e-6 {
                // Where none is written, it is the whole.
                let is_written = !last.share.span().is_empty();
                return Err(if is_written {
                    lines.not_allowed(&last.share, &allowed)
                } else {
                    lines.where_it_says(&last.name, allowed)
                });
            }
        }
        for population in &self.population {
            population.check(lines)?;
        }
        let mut names = BTreeSet::new();
        for name in self.incident.iter().filter_map(|incident| incident.name.as_ref()) {
            let allowed = "`[[incident]] name`: only a name that no other has is allowed";
            lines.allow(names.insert(name.get_ref()), name, allowed)?;
        }
        for incident in &self.incident {
            self.check_incident(incident, lines)?;
        }
        let Some(sweep) = &self.sweep else { return Ok(()) };
        let allowed = "`[sweep]`: lists of values are allowed, one at least: coding, threshold, grace, every or top-up";
        lines.allow(*sweep.get_ref() != Sweep::default(), sweep, allowed)?;
        let count = sweep.get_ref().combinations();
        let allowed = format!("`[sweep]`: at most {COMBINATIONS_MAX} combinations are allowed, and these are {count}");
        lines.allow(count <= COMBINATIONS_MAX, sweep, &allowed)?;
        for coding in &sweep.get_ref().coding {
            parse_coding(coding, *self.network.nodes.get_ref(), lines)?;
        }
        Ok(())
    }

    fn check_sizes(&self, lines: &Lines<'_>) -> Result<(), ScenarioError> {
        let network = &self.network;
        lines.allow(
            (parameters::HOLDERS_MIN as u32..=NODES_MAX).contains(network.nodes.get_ref()),
            &network.nodes,
            "`[network] nodes`: 4 to 10000000 nodes are allowed",
        )?;
        lines.allow(
            (1..=SEGMENTS_MAX).contains(network.segments.get_ref()),
            &network.segments,
            "`[network] segments`: 1 to 100000000 segments are allowed",
        )?;
        lines.allow((1..=10_000).contains(self.runs.get_ref()), &self.runs, "`runs`: 1 to 10000 runs are allowed")?;
        let years = self.duration.get_ref().ms() / DAY_MS / 365.25;
        lines.allow(
            years > 0.0 && years <= 1000.0,
            &self.duration,
            "`duration`: more than 0 and at most 1000 years are allowed",
        )
    }

    fn check_coding(&self, lines: &Lines<'_>) -> Result<(), ScenarioError> {
        let network = &self.network;
        let (coding, whose) = match &network.coding {
            Some(text) => (parse_coding(text, *network.nodes.get_ref(), lines)?, "given"),
            None => (self.coding(), "policy's choice, since none is given"),
        };
        let Some(threshold) = &network.threshold else { return Ok(()) };
        let allowed = format!(
            "`[network] threshold`: with coding {coding} ({whose}), {} to {} are allowed: k shards or more restore a \
             segment, and n need no repair",
            coding.k(),
            coding.n() - 1
        );
        lines.allow((coding.k()..coding.n()).contains(threshold.get_ref()), threshold, &allowed)
    }

    fn check_incident(&self, incident: &Incident, lines: &Lines<'_>) -> Result<(), ScenarioError> {
        let ends = self.duration.get_ref().ms();
        let allowed = "`[[incident]] at`: a time before the end of the simulation is allowed";
        lines.allow(incident.at.get_ref().ms() < ends, &incident.at, allowed)?;
        if let Some(name) = &incident.population {
            let names: Vec<&str> = self.population.iter().map(|population| population.name.as_str()).collect();
            let allowed = format!("`[[incident]] population`: allowed are {}", names.join(", "));
            lines.allow(names.contains(&name.get_ref().as_str()), name, &allowed)?;
        }
        if let Some(name) = &incident.region {
            let of = |population: &&Population| incident.is_of(population);
            let regions = self.population.iter().filter(of).flat_map(|population| &population.regions);
            let names: Vec<&str> = regions.map(String::as_str).collect();
            let allowed = match (names.as_slice(), &incident.population) {
                ([], None) => "none is allowed, since no population has `regions`".to_owned(),
                ([], Some(of)) => format!("none is allowed, since {} has no `regions`", of.get_ref()),
                (names, _) => format!("allowed are {}", names.join(", ")),
            };
            let allowed = format!("`[[incident]] region`: {allowed}");
            lines.allow(names.contains(&name.get_ref().as_str()), name, &allowed)?;
        }
        if let Some(name) = &incident.of {
            let names: Vec<&str> = self.before(incident).map(|(name, _)| name).collect();
            let allowed = match names.as_slice() {
                [] => "none is allowed, since no incident before it has a `name` and `lasts`".to_owned(),
                names => format!("allowed are those before it: {}", names.join(", ")),
            };
            let allowed = format!("`[[incident]] of`: {allowed}");
            lines.allow(names.contains(&name.get_ref().as_str()), name, &allowed)?;
        }
        let one_of_them = "`[[incident]]`: only one of `share`, `operators` and `nodes` is allowed";
        if let Some(operators) = &incident.operators {
            lines.allow(incident.share.is_none(), operators, one_of_them)?;
            let there_are = self.operators_of(incident);
            let allowed =
                format!("`[[incident]] operators`: 1 to {there_are} are allowed, as many as there are to strike");
            lines.allow((1..=there_are).contains(operators.get_ref()), operators, &allowed)?;
        }
        let Some(struck) = &incident.nodes else { return Ok(()) };
        lines.allow(incident.share.is_none() && incident.operators.is_none(), struck, one_of_them)?;
        // So much more than what rounding leaves of a whole number.
        let there_are = (self.nodes_of(incident) + 1e-6).max(1.0) as u32;
        let allowed = format!("`[[incident]] nodes`: 1 to {there_are} are allowed, as many as there are to strike");
        lines.allow((1..=there_are).contains(struck.get_ref()), struck, &allowed)
    }

    /// Incidents that one may be `of`: earlier ones that have a name and an end, since of one without it all have left.
    fn before<'s>(&'s self, incident: &'s Incident) -> impl Iterator<Item = (&'s str, &'s Incident)> {
        let earlier = self.incident.iter().filter(|other| other.at.get_ref() < incident.at.get_ref());
        let returning = earlier.filter(|other| other.lasts.is_some());
        returning.filter_map(|other| other.name.as_ref().map(|name| (name.get_ref().as_str(), other)))
    }

    /// The incident that this one is `of`.
    fn struck_first<'s>(&'s self, incident: &'s Incident) -> Option<&'s Incident> {
        let of = incident.of.as_ref()?.get_ref();
        self.before(incident).find(|(name, _)| name == of).map(|(_, other)| other)
    }

    /// The populations that an incident may strike, with the nodes of each.
    fn populations_of(&self, incident: &Incident) -> impl Iterator<Item = (&Population, u32)> {
        let all = self.population.iter().zip(self.node_counts());
        all.filter(|(population, _)| incident.is_of(population))
    }

    /// The nodes that an incident may strike: on average, where it is drawn in which region each is or whom an earlier
    /// incident strikes.
    fn nodes_of(&self, incident: &Incident) -> f64 {
        let here = |(population, count)| f64::from(count) * incident.part_by_region(population);
        let all: f64 = self.populations_of(incident).map(here).sum();
        self.struck_first(incident).map_or(all, |other| all.min(self.struck_by(other)))
    }

    /// How many nodes an incident strikes, on average.
    fn struck_by(&self, incident: &Incident) -> f64 {
        let (of, operators) = (self.nodes_of(incident), f64::from(self.operators_of(incident)));
        let by_operators = incident.operators.as_ref().map(|count| of * f64::from(*count.get_ref()) / operators);
        let by_share = incident.share.as_ref().map(|share| of * share.get_ref().0);
        let by_number = incident.nodes.as_ref().map(|count| f64::from(*count.get_ref()));
        by_number.or(by_operators).or(by_share).unwrap_or(of)
    }

    /// The operators that there are among those whom an incident may strike.
    fn operators_of(&self, incident: &Incident) -> u32 {
        let here = self.populations_of(incident).filter(|(population, _)| incident.part_by_region(population) > 0.0);
        let all: u32 = here.map(|(population, count)| count.div_ceil(*population.per_operator.get_ref())).sum();
        let Some(other) = self.struck_first(incident) else { return all };
        let struck = other.operators.as_ref().map_or_else(|| self.operators_of(other), |count| *count.get_ref());
        all.min(struck)
    }

    /// What is seen of laws once measured values are read: an endless number of lives or sessions in no time.
    pub(super) fn check_laws(&self, lines: &Lines<'_>) -> Result<(), ScenarioError> {
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
}

impl Incident {
    /// Whether it strikes nodes of this population.
    fn is_of(&self, population: &Population) -> bool {
        self.population.as_ref().is_none_or(|name| *name.get_ref() == population.name)
    }

    /// The part of a population that is in its region.
    fn part_by_region(&self, population: &Population) -> f64 {
        let Some(region) = &self.region else { return 1.0 };
        let alike = population.regions.iter().filter(|name| *name == region.get_ref()).count();
        alike as f64 / population.regions.len().max(1) as f64
    }
}

impl Population {
    fn check(&self, lines: &Lines<'_>) -> Result<(), ScenarioError> {
        for (key, count) in [("per-domain", &self.per_domain), ("per-operator", &self.per_operator)] {
            let allowed = format!("`[[population]] {key}`: 1 to {NODES_MAX} nodes are allowed");
            lines.allow((1..=NODES_MAX).contains(count.get_ref()), count, &allowed)?;
        }
        if let Some(online) = &self.online {
            let allowed = "`[[population]] online`: give `offline` too, and not `night`";
            lines.allow(self.offline.is_some() && self.night.is_none(), online, allowed)?;
        }
        if let (Some(offline), None) = (&self.offline, &self.online) {
            return Err(lines.not_allowed(offline, "`[[population]] offline`: give `online` too"));
        }
        if let Some(night) = &self.night {
            let sane = night.get_ref().asleep.ms() < 22.0 / 24.0 * DAY_MS && !night.get_ref().zones.is_empty();
            lines.allow(sane, night, "`[[population]] night`: less than 22 h asleep, in one zone or more")?;
            let sane = night.get_ref().zones.iter().all(|zone| (-12..=14).contains(zone));
            lines.allow(sane, night, "`[[population]] zones`: -12 to 14 hours from UTC are allowed")?;
        }
        Ok(())
    }
}

fn parse_coding(text: &Spanned<String>, nodes: u32, lines: &Lines<'_>) -> Result<Coding, ScenarioError> {
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
