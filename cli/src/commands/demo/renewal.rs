//! The second half of the tour: nodes that are gone for good. The others miss them, give them up and rebuild elsewhere
//! what they held, until none of the first nodes is left.
//!
//! All that is seen here is what the stewards tell anybody who asks; nobody helps them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use commonhold_client_sdk::{SegmentHealth, Vault};
use serde::Serialize;

use super::{DemoError, Story, open};
use crate::{
    exit::Failure,
    figures,
    local_network::{LocalNetwork, LocalNetworkError, LocalNode},
};

/// Every node's times, in seconds instead of days: what is laid over their configs.
pub(super) const TIMES: &str = "[audit]\nevery = \"10 s\"\ngrace = \"3 s\"\n\n[repair]\ntop-up = \"1 s\"\n";
/// So many die at a time while all nodes are replaced: no more than any of the codes that 12 nodes lead to survives.
const DIE_AT_ONCE: usize = 4;
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Without a shard more or less for so long, something is wrong.
const STALLED_AFTER: Duration = Duration::from_secs(90);
/// Large folders take their time: how far it is, now and then.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Nodes that died together, and what came of it; times since they did.
#[derive(Serialize)]
pub(super) struct Loss {
    nodes: Vec<String>,
    shards_lost: u64,
    /// The first of their shards was missed.
    missed_seconds: f64,
    /// The first of their shards counted as lost.
    given_up_seconds: f64,
    /// All shards were proven again.
    healthy_seconds: f64,
    shards_rebuilt: u64,
    sent_bytes: u64,
}

/// What the stewards say of all segments together.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Seen {
    shards: u64,
    healthy: u64,
    lost: u64,
}

impl Seen {
    fn of(segments: &[SegmentHealth]) -> Self {
        let sum = |of: fn(&SegmentHealth) -> u8| segments.iter().map(|segment| u64::from(of(segment))).sum();
        Self { shards: sum(|of| of.n), healthy: sum(|of| of.healthy), lost: sum(|of| of.lost) }
    }

    fn is_whole(self) -> bool {
        self.healthy == self.shards
    }
}

/// Who looks at the stewards, through one session of the owner's.
pub(super) struct Observer<'s> {
    story: &'s Story<'s>,
    vault: Vault,
    /// What had been done when it began.
    before: Work,
}

impl<'s> Observer<'s> {
    /// Begins to look, just after nodes were killed.
    pub(super) fn start(story: &'s Story<'s>, network: &mut LocalNetwork) -> Result<Self, Failure> {
        let before = Work::of(network);
        Ok(Self { story, vault: open(&network.client_home())?, before })
    }

    /// The nodes that were killed before do not come back, and others join.
    pub(super) fn refill(&self, network: &mut LocalNetwork, dead: u16) -> Result<f64, Failure> {
        let seen = self.wait(|seen| seen.lost > 0 || seen.is_whole())?;
        self.story.say(&format!(
            "7. For good: those nodes do not come back. The nodes that keep the records of the segments audit the\n   \
             holders, and give up who is silent for longer than 3 s (in real life: 12 hours). They see {} of {} shards\n   \
             healthy; nobody had to tell them. {} join, with nothing on them.",
            seen.healthy,
            seen.shards,
            figures::count(u64::from(dead), "fresh node", "fresh nodes"),
        ))?;
        let joined = Instant::now();
        network.grow(dead, self.story.stop)?;
        let seen = self.wait(Seen::is_whole)?;
        let seconds = joined.elapsed().as_secs_f64();
        let (rebuilt, sent) = Work::of(network).since(&self.before);
        self.story.say(&format!(
            "   After {}, all {} shards are healthy again, each proven by an audit: {rebuilt} of them ({}) were rebuilt\n   \
             from others of their segments, and without any key.\n",
            figures::span(seconds),
            seen.shards,
            figures::size(sent),
        ))?;
        Ok(seconds)
    }

    /// Of the `first` nodes some die and fresh ones join, until none of them is left.
    pub(super) fn replace_all(&self, network: &mut LocalNetwork, first: &[LocalNode]) -> Result<Vec<Loss>, Failure> {
        self.story.say(&format!(
            "8. Every node is replaced, {DIE_AT_ONCE} at a time, while the owner does nothing. Times are since their death."
        ))?;
        let mut losses = Vec::new();
        loop {
            let mut doomed = network.living();
            doomed.retain(|node| first.iter().any(|founder| founder.number == node.number));
            doomed.truncate(DIE_AT_ONCE);
            if doomed.is_empty() {
                break;
            }
            losses.push(self.lose(network, &doomed)?);
        }
        self.story.say(&format!("   Of the {} nodes that it was stored on, none is left.\n", first.len()))?;
        Ok(losses)
    }

    fn lose(&self, network: &mut LocalNetwork, doomed: &[LocalNode]) -> Result<Loss, Failure> {
        let ids: BTreeSet<String> = doomed.iter().filter_map(id).collect();
        let holders = self.vault.segments(None)?.into_iter().flat_map(|segment| segment.holders);
        let shards_lost = holders.flatten().filter(|holder| ids.contains(holder)).count() as u64;
        let died = Instant::now();
        for node in doomed {
            network.kill(node.number)?;
        }
        let before = Work::of(network);
        let since = || died.elapsed().as_secs_f64();
        let (mut missed_seconds, mut given_up_seconds) = (0.0, 0.0);
        if shards_lost > 0 {
            self.wait(|seen| !seen.is_whole())?;
            missed_seconds = since();
            self.wait(|seen| seen.lost > 0 || seen.is_whole())?;
            given_up_seconds = since();
        }
        network.grow(doomed.len() as u16, self.story.stop)?;
        let seen = self.wait(Seen::is_whole)?;
        let healthy_seconds = since();
        let (shards_rebuilt, sent_bytes) = Work::of(network).since(&before);
        let nodes: Vec<String> = doomed.iter().map(LocalNode::name).collect();
        self.story.say(&format!(
            "   {}: missed after {}, given up after {},\n      all {} shards healthy again after {} ({shards_rebuilt} \
             rebuilt, {})",
            nodes.join(", "),
            figures::span(missed_seconds),
            figures::span(given_up_seconds),
            seen.shards,
            figures::span(healthy_seconds),
            figures::size(sent_bytes),
        ))?;
        Ok(Loss { nodes, shards_lost, missed_seconds, given_up_seconds, healthy_seconds, shards_rebuilt, sent_bytes })
    }

    fn look(&self) -> Result<Seen, Failure> {
        Ok(Seen::of(&self.vault.segments(None)?))
    }

    /// Looks until it is so.
    fn wait(&self, mut is_so: impl FnMut(Seen) -> bool) -> Result<Seen, Failure> {
        let (mut last, mut changed, mut said) = (Seen::default(), Instant::now(), Instant::now());
        loop {
            let seen = self.look()?;
            if is_so(seen) {
                return Ok(seen);
            }
            if seen != last {
                (last, changed) = (seen, Instant::now());
            }
            if changed.elapsed() > STALLED_AFTER {
                return Err(DemoError::Stalled { healthy: seen.healthy, shards: seen.shards }.into());
            }
            if said.elapsed() > LINE_EVERY {
                said = Instant::now();
                self.story.say(&format!("   ({} of {} shards are healthy)", seen.healthy, seen.shards))?;
            }
            if self.story.stop.wait(LOOK_EVERY) {
                return Err(LocalNetworkError::Interrupted.into());
            }
        }
    }
}

fn id(node: &LocalNode) -> Option<String> {
    commonhold_node::status_of(&node.folder).ok().map(|status| status.node)
}

/// What each living node did as a steward: shards that it rebuilt, and bytes that it sent for that.
struct Work(BTreeMap<u16, (u64, u64)>);

impl Work {
    fn of(network: &mut LocalNetwork) -> Self {
        let done = |node: LocalNode| {
            // One that does not answer is left out.
            let audits = commonhold_node::status_of(&node.folder).ok()?.audits;
            Some((node.number, (audits.shards_rebuilt, audits.bytes_sent)))
        };
        Self(network.living().into_iter().filter_map(done).collect())
    }

    /// Shards and bytes since then.
    fn since(&self, before: &Self) -> (u64, u64) {
        let mut all = (0, 0);
        for (node, (shards, bytes)) in &self.0 {
            let was = before.0.get(node).copied().unwrap_or_default();
            all.0 += shards.saturating_sub(was.0);
            all.1 += bytes.saturating_sub(was.1);
        }
        all
    }
}
