//! What a steward thinks of a holder after its audits: a beta score with forgetting, as Storj has it after its tuning
//! (satellite/reputation/calculations.go; λ = 0.999, disqualified below 0.96, vetted by 100 audits and 504 h).
//!
//! Being unreachable never touches it: volunteers sleep, and their links fail. That is [`crate::life`]'s matter.

use commonhold_protocol::Timestamp;

use crate::audit::Outcome;

/// How much of the past each audit leaves.
const FORGETTING: f64 = 0.999;
/// What a node is trusted with before its first audit, in audits passed. Storj starts with 1000, but there one party
/// makes all audits; a steward sees only its own share, and with 100 a newcomer that fails five of its first audits
/// is out, while one with a thousand behind it may fail 41 in a row.
const FIRST_ALPHA: f64 = 100.0;
/// Below this score a node gets nothing more, and what it has is moved: about 4% of what it claims is not there.
pub const DISQUALIFIED_BELOW: f64 = 0.96;
/// A node is vetted after so many audits, ...
pub const VETTING_AUDITS: u32 = 100;
/// ... and so long after it was first heard of.
pub const VETTING_MS: u64 = 504 * 60 * 60 * 1000;

/// What follows from a reputation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trust {
    /// Vetted.
    Trusted,
    /// Too new to say. It takes part, with less.
    Vetting,
    /// It gets no more shards; those that it has count as lost.
    Disqualified,
}

impl Trust {
    /// How likely a node is drawn for a shard, relative to a trusted one with the same space. A network that has just
    /// begun knows only nodes that are vetted still, and they are drawn alike.
    pub fn weight(self) -> f64 {
        match self {
            Self::Trusted => 1.0,
            Self::Vetting => 0.125,
            Self::Disqualified => 0.0,
        }
    }
}

/// The reputation of one node; plain values, to be written down and read back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reputation {
    /// Audits passed, the past fading.
    pub alpha: f64,
    /// Audits failed, the past fading.
    pub beta: f64,
    /// Audits counted.
    pub audits: u32,
    /// When the node was first heard of.
    pub known_since: Timestamp,
    /// Once so, always so: a key is cheap, and whoever mended its node starts with a new one.
    pub disqualified: bool,
}

impl Reputation {
    /// Of a node that was heard of just now.
    pub fn new(now: Timestamp) -> Self {
        Self { alpha: FIRST_ALPHA, beta: 0.0, audits: 0, known_since: now, disqualified: false }
    }

    /// The part of its audits, 0 to 1, that the node passes.
    pub fn score(&self) -> f64 {
        let all = self.alpha + self.beta;
        if all > 0.0 { self.alpha / all } else { 0.0 }
    }

    /// Counts an audit; true if the node is disqualified by it.
    pub fn count(&mut self, outcome: Outcome) -> bool {
        let (passed, failed) = match outcome {
            Outcome::Held => (1.0, 0.0),
            Outcome::Wrong | Outcome::Refused => (0.0, 1.0),
            Outcome::Contradicted | Outcome::Unreachable => return false,
        };
        self.alpha = FORGETTING * self.alpha + passed;
        self.beta = FORGETTING * self.beta + failed;
        self.audits = self.audits.saturating_add(1);
        let newly = !self.disqualified && self.score() < DISQUALIFIED_BELOW;
        self.disqualified |= newly;
        newly
    }

    /// What follows from it now.
    pub fn trust(&self, now: Timestamp) -> Trust {
        if self.disqualified {
            Trust::Disqualified
        } else if self.audits < VETTING_AUDITS || now.ms_since(self.known_since) < VETTING_MS {
            Trust::Vetting
        } else {
            Trust::Trusted
        }
    }
}
