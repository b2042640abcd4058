//! What the law of audits says of one cheat: what it holds, what of that is missing, and when somebody notices.

use std::{fmt, time::Duration};

use commonhold_cheats::{Kind, is_deleted};
use commonhold_policy::{
    audit::{
        detection::{DetectionParams, contained_ms, silent_ms},
        schedule::{Rate, shard_groups},
    },
    detection_delay,
    stewards::STEWARDS,
};
use commonhold_protocol::{ClaimLeaf, NodeId, ask::HealthReport, shard_stream::GROUP_BYTES};
use rand::{SeedableRng, rngs::StdRng};

use super::{Cheat, honest, segments};
use crate::harness::{Home, Network, Spy, hex_id};

/// Drawn from the law, for its quantiles.
const DRAWS: usize = 20_000;
/// The test fails once in a thousand runs for each cheat if the law is right, and nothing takes any time; much less
/// often with what is allowed beyond.
const QUANTILE: f64 = 0.999;
/// `[audit] prove`, as it is by itself.
const PROVE_MS: u64 = 60 * 60 * 1000;
/// No peer waits longer for an answer, whatever the deadline: `ASK_TIMEOUT` of the network.
const WAITED_MS_MAX: u64 = 60_000;

/// Who claims what, by the records of the first honest steward of each segment. Others may keep one too: a cheat, which
/// nobody tells anything any more, an old one, and who is no steward one of which a cheat has told him.
pub(super) fn claims(network: &Network, home: &Home, cheats: &[Cheat]) -> Vec<(NodeId, ClaimLeaf, u32)> {
    let spy = Spy::on(network);
    let segments = segments(home);
    let honest = honest(network, cheats).into_iter().map(|node| hex_id(&network.node_id(node)));
    let keeping: Vec<(NodeId, Vec<Option<HealthReport>>)> =
        honest.map(|node| (node, spy.health(node, &segments))).collect();
    let mut claimed = Vec::new();
    for (number, segment) in segments.into_iter().enumerate() {
        let mut stewards = keeping.iter().filter(|(_, keeps)| keeps[number].is_some());
        let kept = stewards.find_map(|(steward, _)| spy.record(*steward, segment));
        let record = kept.unwrap_or_else(|| panic!("no honest steward keeps the record of {segment}"));
        let groups = shard_groups(record.manifest.verify(&spy.network).unwrap().shard_length());
        let claims = record.claims.into_iter().map(|claim| claim.verify(&spy.network).unwrap());
        claimed.extend(claims.map(|claim| (claim.holder, claim.claim.leaf, groups)));
    }
    claimed
}

/// The shards that one node claims, each with its chunk groups.
pub(super) struct Held(Vec<(ClaimLeaf, u32)>);

impl Held {
    pub(super) fn by(network: &Network, home: &Home, cheats: &[Cheat], id: &str) -> Self {
        let claims = claims(network, home, cheats).into_iter().filter(|(holder, ..)| *holder == hex_id(id));
        Self(claims.map(|(_, leaf, groups)| (leaf, groups)).collect())
    }

    pub(super) fn shards(&self) -> usize {
        self.0.len()
    }

    /// The mean over its shards of the part, 0 to 1, that was deleted.
    fn deleted(&self) -> f64 {
        let part = |(leaf, groups): &(ClaimLeaf, u32)| {
            (0..*groups).filter(|group| is_deleted(leaf, *group)).count() as f64 / f64::from(*groups)
        };
        self.0.iter().map(part).sum::<f64>() / self.0.len().max(1) as f64
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} shards", self.0.len())
    }
}

/// When a cheat is found.
pub(super) struct Law {
    mean: Duration,
    latest: Duration,
}

impl Law {
    pub(super) fn of(kind: Kind, held: &Held, every_ms: u64) -> Self {
        let rate = Rate { every_ms };
        // One of the stewards of a shard may be the cheat, which has nothing to say against itself: as if it held so
        // much less.
        let others = |shards: usize| (shards * (STEWARDS - 1) / STEWARDS).max(1) as u64;
        let params = |shards, lost, contained_ms| DetectionParams {
            rate,
            stewards: STEWARDS,
            shards,
            auditors: STEWARDS as u64,
            groups_asked: 1,
            // Asked for one group, all that counts is the part that is lost.
            shard_groups: 1 << 20,
            lost,
            contained_ms,
        };
        let all = others(held.shards());
        let mut rng = StdRng::seed_from_u64(1);
        let draw =
            |rng: &mut StdRng, params: &DetectionParams| detection_delay(rng, params).expect("something is lost");
        let mut delays: Vec<Duration> = (0..DRAWS)
            .map(|_| match kind {
                Kind::Deletes => draw(&mut rng, &params(all, held.deleted(), 0)),
                Kind::HangsUp => draw(&mut rng, &params(all, held.deleted(), contained_ms(rate))),
                Kind::Silent => {
                    draw(&mut rng, &params(all, held.deleted(), silent_ms(rate, 0, GROUP_BYTES, WAITED_MS_MAX)))
                }
                Kind::Flips => draw(&mut rng, &params(all, 1.0, 0)),
                Kind::Refuses => draw(&mut rng, &params(all, 1.0, contained_ms(rate))),
                // A shard has to be audited for a second time; as if it had one.
                Kind::Stale => draw(&mut rng, &params(1, 1.0, 0)) + draw(&mut rng, &params(1, 1.0, 0)),
                Kind::Forgets | Kind::Invents => Duration::from_millis(rate.first_audit_ms(&mut rng, PROVE_MS)),
            })
            .collect();
        delays.sort_unstable();
        let mean = delays.iter().sum::<Duration>() / DRAWS as u32;
        Self { mean, latest: delays[(DRAWS as f64 * QUANTILE) as usize] }
    }

    /// The time that is met with [`QUANTILE`].
    pub(super) fn latest(&self) -> Duration {
        self.latest
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1?} on average, {:.1?} at the latest", self.mean, self.latest)
    }
}
